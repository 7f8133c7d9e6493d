package ship_test

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/backends/backendtest"
	"github.com/xdswal/xdswal/internal/catalog"
	"github.com/xdswal/xdswal/internal/ship"
)

// hanging is a backend whose Put below a prefix hangs until release is closed, or, if it
// observes its context, until that is done.
type hanging struct {
	backends.Backend
	prefix   string
	observes bool
	puts     atomic.Int32
	release  chan struct{}
}

func newHanging(prefix string, observes bool) *hanging {
	return &hanging{Backend: backendtest.NewMemory(), prefix: prefix, observes: observes, release: make(chan struct{})}
}

func (h *hanging) Put(ctx context.Context, key string, body io.ReadSeeker) error {
	if !strings.HasPrefix(key, h.prefix) {
		return h.Backend.Put(ctx, key, body)
	}
	h.puts.Add(1)
	done := ctx.Done()
	if !h.observes {
		done = nil
	}
	select {
	case <-h.release:
		return h.Backend.Put(ctx, key, body)
	case <-done:
		return ctx.Err()
	}
}

// A backend that hangs delays only its own uploads: no update, no Stop, and no Close
// after its context is done. At most one call hangs at a time.
func TestHangs(t *testing.T) {
	for _, prefix := range []string{"events/", catalog.SnapshotPrefix, "epochs/"} {
		for _, observes := range []bool{true, false} {
			t.Run(fmt.Sprint(prefix, ", observing its context ", observes), func(t *testing.T) {
				noLeak(t)
				b := newHanging(prefix, observes)
				s := newStore(t, b, late)
				s.append(3, 10)
				s.ship.Start()
				s.snapshot()
				eventually(t, func() bool { return b.puts.Load() == 1 }, "the upload")
				s.append(50, 10)
				s.snapshot()
				start := time.Now()
				s.ship.Stop()
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
				defer cancel()
				require.ErrorIs(t, s.ship.Close(ctx), context.DeadlineExceeded)
				require.Less(t, time.Since(start), patience)
				if !observes {
					require.EqualValues(t, 1, b.puts.Load())
				}
				close(b.release)
				require.NoError(t, s.ship.Close(t.Context()))
				s.requireBackend()
			})
		}
	}
}

// An upload of a snapshot that takes too long is canceled, reported, and retried.
func TestTimeout(t *testing.T) {
	for _, observes := range []bool{true, false} {
		t.Run(fmt.Sprint("observing its context ", observes), func(t *testing.T) {
			noLeak(t)
			b := newHanging(catalog.SnapshotPrefix, observes)
			s := newStore(t, b, func(o *ship.Options) { o.Timeout = 20 * time.Millisecond })
			s.ship.Start()
			s.append(5, 10)
			s.snapshot()
			require.ErrorIs(t, s.waitErr(), context.DeadlineExceeded)
			if !observes {
				require.ErrorContains(t, s.ship.Status().Err, "does not return")
				eventually(t, func() bool {
					err := s.ship.Status().Err
					return err != nil && strings.Contains(err.Error(), "has not returned from an earlier call")
				}, "the next attempt to wait for the first")
				require.EqualValues(t, 1, b.puts.Load())
			}
			s.append(5, 10)
			eventually(t, func() bool { return s.ship.Shipped() == 10 }, "batches")
			close(b.release)
			s.waitSnapshot(5)
			s.waitShipped()
			s.ship.Stop()
			s.requireBackend()
		})
	}
}
