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

	"github.com/xdswal/xdswal/backends/backendtest"
	"github.com/xdswal/xdswal/internal/catalog"
	"github.com/xdswal/xdswal/internal/ship"
)

// hanging is a backend whose Put below a prefix hangs until it is let go, or
// until its context is done if it heeds that.
type hanging struct {
	*backendtest.Memory
	prefix string
	heeds  bool
	puts   atomic.Int32
	goOn   chan struct{}
}

func newHanging(prefix string, heeds bool) *hanging {
	return &hanging{Memory: backendtest.NewMemory(), prefix: prefix, heeds: heeds, goOn: make(chan struct{})}
}

func (h *hanging) Put(ctx context.Context, key string, body io.ReadSeeker) error {
	if !strings.HasPrefix(key, h.prefix) {
		return h.Memory.Put(ctx, key, body)
	}
	h.puts.Add(1)
	done := ctx.Done()
	if !h.heeds {
		done = nil
	}
	select {
	case <-h.goOn:
		return h.Memory.Put(ctx, key, body)
	case <-done:
		return ctx.Err()
	}
}

// A backend that hangs holds up nothing but its own uploads: no update, no Stop,
// and no Close beyond its context; of calls that do not return there is one at a
// time.
func TestHangs(t *testing.T) {
	for _, prefix := range []string{"events/", catalog.KeyPrefix, "epochs/"} {
		for _, heeds := range []bool{true, false} {
			t.Run(fmt.Sprint(prefix, ", heeding its context ", heeds), func(t *testing.T) {
				noLeak(t)
				b := newHanging(prefix, heeds)
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
				if !heeds {
					require.EqualValues(t, 1, b.puts.Load())
				}
				close(b.goOn)
				require.NoError(t, s.ship.Close(t.Context()))
				s.requireBackend()
			})
		}
	}
}

// An upload of a snapshot that takes too long is given up, reported, and followed
// by another.
func TestTimeout(t *testing.T) {
	for _, heeds := range []bool{true, false} {
		t.Run(fmt.Sprint("heeding its context ", heeds), func(t *testing.T) {
			noLeak(t)
			b := newHanging(catalog.KeyPrefix, heeds)
			s := newStore(t, b, func(o *ship.Options) { o.Timeout = 20 * time.Millisecond })
			s.ship.Start()
			s.append(5, 10)
			s.snapshot()
			require.ErrorIs(t, s.waitErr(), context.DeadlineExceeded)
			if !heeds {
				require.ErrorContains(t, s.ship.Status().Err, "does not return")
				eventually(t, func() bool {
					err := s.ship.Status().Err
					return err != nil && strings.Contains(err.Error(), "has not returned from an earlier call")
				}, "the next attempt to wait for the first")
				require.EqualValues(t, 1, b.puts.Load())
			}
			s.append(5, 10)
			eventually(t, func() bool { return s.ship.Shipped() == 10 }, "batches go on")
			close(b.goOn)
			s.waitSnapshot(5)
			s.waitShipped()
			s.ship.Stop()
			s.requireBackend()
		})
	}
}
