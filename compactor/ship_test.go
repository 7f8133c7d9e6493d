package compactor_test

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/backends/backendtest"
	"github.com/xdswal/xdswal/compactor"
	"github.com/xdswal/xdswal/compactor/catalog"
	"github.com/xdswal/xdswal/compactor/snapshot"
	"github.com/xdswal/xdswal/journal/event"
)

// shipTo returns options that compact on demand alone, and ship.
func shipTo(b backends.Backend) compactor.Options {
	opt := never
	opt.Backend = b
	return opt
}

// failing is a backend that fails in one way until it is mended.
type failing struct {
	*backendtest.Faulty
	mended atomic.Bool
}

func newFailing(op backendtest.Op, fault backendtest.Fault) *failing {
	f := &failing{Faulty: &backendtest.Faulty{Backend: backendtest.NewMemory()}}
	f.Fault = func(o backendtest.Op, _ string) backendtest.Fault {
		if o != op || f.mended.Load() {
			return backendtest.None
		}
		return fault
	}
	return f
}

// An upload that fails is reported and tried again until it succeeds, whether
// it took effect or not.
func TestShipAgain(t *testing.T) {
	for _, r := range []struct {
		name  string
		fault backendtest.Fault
		puts  int // that fail
	}{
		{"absent", backendtest.FailAbsent, 2},
		{"present", backendtest.FailPresent, 1},
	} {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			b := newFailing(backendtest.OpPut, r.fault)
			fault := b.Fault
			b.Fault = func(op backendtest.Op, key string) backendtest.Fault {
				if b.Calls(backendtest.OpPut) > r.puts {
					b.mended.Store(true)
				}
				return fault(op, key)
			}
			s := newStore(t, shipTo(b))
			s.compactor.Start()
			s.append(5, 100)
			s.compact()
			eventually(t, func() bool { return s.compactor.Status().ShipErr != nil }, "the failure to be reported")
			require.ErrorIs(t, s.compactor.Status().ShipErr, backendtest.ErrInjected)
			require.NoError(t, s.compactor.Status().Err)
			require.Contains(t, s.log.String(), "snapshot was not shipped")
			s.append(5, 100) // updates go on
			s.waitShipped(5)
			s.compactor.Stop()
			require.Equal(t, r.puts, b.Injected(backendtest.OpPut))
			require.Equal(t, r.puts+1, b.Calls(backendtest.OpPut))
			s.seen.locked(func() {
				require.Len(t, s.seen.exceptions, r.puts)
				shipped := s.seen.writes[len(s.seen.writes)-1]
				require.Equal(t, b.String(), shipped.Location)
				require.EqualValues(t, 5, shipped.Sequence)
				require.Positive(t, shipped.Bytes)
			})
			require.NoError(t, s.compactor.Close(t.Context()))
			s.requireBackend()
		})
	}
}

// While a backend is down, updates and local snapshots go on, nothing piles up,
// and when it is back only the newest snapshot is shipped.
func TestBackendDown(t *testing.T) {
	noLeak(t)
	b := newFailing(backendtest.OpPut, backendtest.FailAbsent)
	s := newStore(t, shipTo(b))
	s.compactor.Start()
	s.append(1, 10)
	s.compact()
	eventually(t, func() bool { return s.compactor.Status().ShipErr != nil }, "the failure")
	goroutines := runtime.NumGoroutine()
	for range 40 {
		s.append(5, 5000)
		s.compact()
	}
	require.LessOrEqual(t, runtime.NumGoroutine(), goroutines+5)
	require.Less(t, b.Calls(backendtest.OpPut), 20, "it backs off")
	require.Equal(t, []event.Sequence{201, 196, 191}, s.local())
	require.Zero(t, s.compactor.Status().Shipped)
	require.EqualValues(t, 1, s.first(), "the journal waits for the backend")
	b.mended.Store(true)
	s.waitShipped(201)
	require.Equal(t, []event.Sequence{201}, s.remote())
	eventually(t, func() bool { return s.first() > 100 }, "truncation")
	s.compactor.Stop()
	s.requireBackend()
}

// What an earlier process did not ship is shipped at the start, and what it did
// ship is recognised.
func TestShipAtStart(t *testing.T) {
	b := &backendtest.Faulty{Backend: backendtest.NewMemory()}
	s := newStore(t, shipTo(b))
	s.append(5, 10)
	s.compact()
	s.crash()
	for range 2 {
		s.open()
		s.compactor.Start()
		s.waitShipped(5)
		s.crash()
	}
	require.Equal(t, 2, b.Calls(backendtest.OpPut))
	require.Equal(t, []event.Sequence{5}, s.remote())
	s.requireBackend()
}

// What is in the place of a snapshot and is not that snapshot is not taken for
// it, and not touched.
func TestForeign(t *testing.T) {
	for _, r := range []struct {
		name   string
		change func(*snapshot.Header) []byte // of what is there; returns it unless nil
		want   error
	}{
		{"another store", func(h *snapshot.Header) []byte { h.StoreID = "another"; return nil }, compactor.ErrForeign},
		{"the same store before it was set back", func(h *snapshot.Header) []byte {
			h.Created = h.Created.Add(-time.Hour)
			return nil
		}, compactor.ErrForeign},
		{"damaged", func(*snapshot.Header) []byte { return []byte("?") }, event.ErrCorrupt},
	} {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			b := backendtest.NewMemory()
			s := newStore(t, shipTo(b))
			s.append(5, 10)
			s.compact()
			f, err := os.Open(s.path(5))
			require.NoError(t, err)
			defer f.Close()
			h, err := snapshot.ReadHeader(f)
			require.NoError(t, err)
			theirs := r.change(&h)
			if theirs == nil {
				var buf bytes.Buffer
				_, err = compactor.Encode(t.Context(), &buf, s.state.Load(), h)
				require.NoError(t, err)
				theirs = buf.Bytes()
			}
			key := catalog.KeyPrefix + filepath.Base(s.path(5))
			require.NoError(t, b.Put(t.Context(), key, bytes.NewReader(theirs)))

			s.compactor.Start()
			eventually(t, func() bool { return s.compactor.Status().ShipErr != nil }, "the failure")
			s.compactor.Stop()
			require.ErrorIs(t, s.compactor.Status().ShipErr, r.want)
			require.Zero(t, s.compactor.Status().Shipped)
			body, err := b.Get(t.Context(), key, 0, -1)
			require.NoError(t, err)
			got, err := io.ReadAll(body)
			require.NoError(t, err)
			require.Equal(t, theirs, got)
			require.ErrorIs(t, s.compactor.Close(t.Context()), r.want)
		})
	}
}

// What cannot be pruned from the backend keeps nothing from being shipped.
func TestPruneBackendFails(t *testing.T) {
	for _, op := range []backendtest.Op{backendtest.OpList, backendtest.OpDelete} {
		t.Run(string(op), func(t *testing.T) {
			t.Parallel()
			b := newFailing(op, backendtest.FailAbsent)
			s := newStore(t, shipTo(b))
			s.compactor.Start()
			for range 5 {
				s.append(1, 10)
				s.ship()
			}
			eventually(t, func() bool { return b.Injected(op) > 0 }, "a failure")
			b.mended.Store(true)
			s.append(1, 10)
			s.ship()
			eventually(t, func() bool { return len(s.remote()) == 3 }, "pruning")
			s.compactor.Stop()
			require.Contains(t, s.log.String(), "pruned")
			require.Equal(t, []event.Sequence{6, 5, 4}, s.remote())
			s.requireBackend()
		})
	}
}

// Close writes and ships what there is, and says what it could not ship.
func TestCloseShips(t *testing.T) {
	b := newFailing(backendtest.OpPut, backendtest.FailAbsent)
	s := newStore(t, shipTo(b))
	s.compactor.Start()
	s.append(3, 10)
	s.compactor.Stop()
	err := s.compactor.Close(t.Context())
	require.ErrorIs(t, err, backendtest.ErrInjected)
	require.Equal(t, []event.Sequence{3}, s.local())
	b.mended.Store(true)
	require.NoError(t, s.compactor.Close(t.Context()))
	s.requireBackend()
}

// hanging is a backend whose Put hangs until it is let go, or until its context
// is done if it heeds that.
type hanging struct {
	*backendtest.Memory
	heeds bool
	puts  atomic.Int32
	goOn  chan struct{}
}

func (h *hanging) Put(ctx context.Context, key string, body io.ReadSeeker) error {
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

// A backend that hangs holds up nothing but its own uploads: no update, no
// snapshot, no Stop, and no Close beyond its context.
func TestBackendHangs(t *testing.T) {
	for _, heeds := range []bool{true, false} {
		t.Run(map[bool]string{true: "heeding its context", false: "for good"}[heeds], func(t *testing.T) {
			noLeak(t)
			b := &hanging{Memory: backendtest.NewMemory(), heeds: heeds, goOn: make(chan struct{})}
			s := newStore(t, shipTo(b))
			s.compactor.Start()
			for range 5 {
				s.append(5, 10)
				s.compact()
			}
			eventually(t, func() bool { return b.puts.Load() == 1 }, "the upload")
			start := time.Now()
			s.compactor.Stop()
			s.append(5, 10)
			require.EqualValues(t, 30, s.compact())
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			require.ErrorIs(t, s.compactor.Close(ctx), context.DeadlineExceeded)
			require.Less(t, time.Since(start), patience)
			close(b.goOn)
			require.NoError(t, s.compactor.Close(t.Context()))
			s.requireBackend()
		})
	}
}

// An attempt that takes too long is given up, reported, and followed by
// another; of those that do not return there is one at a time.
func TestShipTimeout(t *testing.T) {
	for _, heeds := range []bool{true, false} {
		t.Run(map[bool]string{true: "heeding its context", false: "for good"}[heeds], func(t *testing.T) {
			noLeak(t)
			b := &hanging{Memory: backendtest.NewMemory(), heeds: heeds, goOn: make(chan struct{})}
			opt := shipTo(b)
			opt.ShipTimeout = 20 * time.Millisecond
			s := newStore(t, opt)
			s.compactor.Start()
			s.append(5, 10)
			s.compact()
			eventually(t, func() bool { return s.compactor.Status().ShipErr != nil }, "the failure to be reported")
			require.ErrorIs(t, s.compactor.Status().ShipErr, context.DeadlineExceeded)
			if !heeds {
				require.ErrorContains(t, s.compactor.Status().ShipErr, "does not return")
				eventually(t, func() bool {
					return bytes.Contains([]byte(s.compactor.Status().ShipErr.Error()), []byte("has not returned from an earlier call"))
				}, "the next attempt to wait for the first")
				require.EqualValues(t, 1, b.puts.Load())
			}
			close(b.goOn)
			s.waitShipped(5)
			s.compactor.Stop()
			s.requireBackend()
		})
	}
}
