package ship_test

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/backends/backendtest"
	"github.com/xdswal/xdswal/internal/backendfault"
	"github.com/xdswal/xdswal/internal/catalog"
	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/internal/ship"
	"github.com/xdswal/xdswal/journal"
)

// The tail is shipped in order and without a gap, however many commit.
func TestTail(t *testing.T) {
	noLeak(t)
	s := newStore(t, backendtest.NewMemory())
	s.ship.Start()
	var wg sync.WaitGroup
	for range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range 100 {
				if err := s.appendOne(500); err != nil {
					t.Error(err)
				}
			}
		}()
	}
	wg.Wait()
	s.waitShipped()
	s.ship.Stop()
	var firsts []journal.Sequence
	s.seen.locked(func() {
		next := journal.Sequence(1)
		for _, b := range s.seen.batches {
			require.Equal(t, next, b.First)
			require.GreaterOrEqual(t, b.Last, b.First)
			require.Positive(t, b.Bytes)
			require.Positive(t, b.Duration)
			require.Equal(t, s.raw.String(), b.Location)
			firsts, next = append(firsts, b.First), b.Last+1
		}
		require.EqualValues(t, 401, next)
		require.Equal(t, []uint64{s.epoch.Number}, s.seen.claimed)
	})
	require.Equal(t, firsts, s.remoteBatches())
	s.requireBackend()
}

// Between two batches lies the interval, as long as each takes all there is.
func TestInterval(t *testing.T) {
	t.Parallel()
	const interval = 30 * time.Millisecond
	s := newStore(t, backendtest.NewMemory(), func(o *ship.Options) { o.Interval = interval })
	begin := time.Now()
	s.ship.Start()
	shipped := func() (n int) {
		s.seen.locked(func() { n = len(s.seen.batches) })
		return n
	}
	for shipped() < 8 {
		s.append(1, 10)
	}
	s.ship.Stop()
	s.seen.locked(func() {
		for i, at := range s.seen.starts {
			require.GreaterOrEqual(t, at.Sub(begin), time.Duration(i)*interval, "batch %d", i)
		}
	})
}

// A shipper makes one request for each object that it ships, and reads two epochs after
// it, the next one and its own, and once before the first; when idle, it reads them once
// in a while; and it lists nothing.
func TestRequests(t *testing.T) {
	t.Parallel()
	s := newStore(t, backendtest.NewMemory())
	s.ship.Start()
	const rounds, every = 250, 50
	snapshots := 0
	for i := range rounds {
		s.append(1, 10)
		s.waitShipped()
		if i%every == every-1 {
			s.waitSnapshot(s.snapshot())
			snapshots++
		}
	}
	// The newest three snapshots stay, and the batches after the oldest of them.
	// Stop may interrupt a deletion that the backend has counted already.
	const deletions = (rounds/every - 3) + (rounds - 2*every)
	eventually(t, func() bool {
		reported := 0
		s.seen.locked(func() { reported = len(s.seen.deleted) })
		return reported == deletions
	}, "pruning")
	s.ship.Stop()
	require.Equal(t, rounds+snapshots, s.backend.Calls(backendfault.OpPut))
	require.Equal(t, 2*(rounds+snapshots+1), s.backend.Calls(backendfault.OpGet))
	require.Zero(t, s.backend.Calls(backendfault.OpList))
	require.Len(t, s.remoteSnapshots(), 3)
	require.Equal(t, deletions, s.backend.Calls(backendfault.OpDelete))

	puts, gets := s.backend.Calls(backendfault.OpPut), s.backend.Calls(backendfault.OpGet)
	s.reopen(func(o *ship.Options) { o.FenceInterval = 5 * time.Millisecond; o.Shipped = s.last() })
	s.ship.Start()
	eventually(t, func() bool { return s.backend.Calls(backendfault.OpGet) >= gets+10 }, "looks for a newer writer")
	s.ship.Stop()
	require.Equal(t, puts, s.backend.Calls(backendfault.OpPut))
	require.Zero(t, s.backend.Calls(backendfault.OpList))
	s.requireBackend()
}

// While the backend is down, updates continue, memory does not grow, and the status
// reports it. When it is back, everything is shipped, in several objects.
func TestCatchUp(t *testing.T) {
	noLeak(t)
	s := newStore(t, backendtest.NewMemory())
	var down atomic.Bool
	var keys []string
	s.backend.Fault = func(op backendfault.Op, key string) backendfault.Fault {
		if down.Load() {
			return backendfault.FailAbsent
		}
		if op == backendfault.OpPut {
			keys = append(keys, key)
		}
		return backendfault.None
	}
	s.ship.Start()
	s.append(3, 10)
	s.waitShipped()
	down.Store(true)
	before := time.Now()
	s.append(1, 10)
	require.ErrorIs(t, s.waitErr(), backendfault.ErrInjected)
	require.ErrorContains(t, s.ship.Status().Err, "ship events 4 to 4")
	goroutines := runtime.NumGoroutine()
	var mem runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&mem)
	heap := mem.HeapAlloc
	for range 20 {
		s.append(1, 1<<20)
		s.append(50, 100)
	}
	s.mu.Lock()
	held := s.states[len(s.states)-1].Bytes() + 20<<20 // what the test itself keeps
	s.mu.Unlock()
	runtime.GC()
	runtime.ReadMemStats(&mem)
	require.Less(t, int64(mem.HeapAlloc)-int64(heap), held+12<<20, "no batches are retained")
	require.LessOrEqual(t, runtime.NumGoroutine(), goroutines+3)
	require.EqualValues(t, 3, s.ship.Shipped())
	since := s.ship.Status().BehindSince
	require.WithinRange(t, since, before, time.Now())
	require.Less(t, s.backend.Injected(backendfault.OpPut), 60, "it backs off")

	// As long as there is one of those events, it is since one of them.
	up := time.Now()
	progress := make(chan struct{})
	go func() {
		defer close(progress)
		for {
			st := s.ship.Status()
			if st.Shipped >= 1023 {
				return
			}
			if st.BehindSince.IsZero() || st.BehindSince.After(up) {
				t.Errorf("at event %d it is said to be behind since %s", st.Shipped, st.BehindSince)
				return
			}
		}
	}()
	down.Store(false)
	s.waitShipped()
	<-progress
	s.ship.Stop()
	require.Greater(t, len(s.remoteBatches()), 3)
	require.True(t, slices.IsSorted(keys))
	for _, b := range s.remote().Batches {
		require.Less(t, b.Size, int64(10<<20))
	}
	require.Equal(t, 1, strings.Count(s.log.String(), "events were not shipped"), "an outage is logged once")
	require.Equal(t, 1, strings.Count(s.log.String(), "events are shipped again"))
	s.requireBackend()
}

// Each write that fails, whether it took effect or not, is retried: the backend then
// contains exactly what it should.
func TestAmbiguousWrites(t *testing.T) {
	for what, prefix := range map[string]string{"claim": "epochs/", "batch": "events/", "snapshot": catalog.SnapshotPrefix} {
		for _, op := range []backendfault.Op{backendfault.OpPut, backendfault.OpGet} {
			for how, fault := range map[string]backendfault.Fault{"absent": backendfault.FailAbsent, "present": backendfault.FailPresent} {
				t.Run(fmt.Sprint(what, " ", op, " ", how), func(t *testing.T) {
					t.Parallel()
					s := newStore(t, backendtest.NewMemory(), late)
					var failed atomic.Bool
					s.backend.Fault = func(o backendfault.Op, key string) backendfault.Fault {
						if o == op && strings.HasPrefix(key, prefix) && failed.CompareAndSwap(false, true) {
							return fault
						}
						return backendfault.None
					}
					s.ship.Start()
					s.append(3, 100)
					s.waitShipped()
					s.append(3, 100)
					s.waitShipped()
					s.waitSnapshot(s.snapshot())
					s.append(3, 100)
					s.waitShipped()
					s.ship.Stop()
					if op == backendfault.OpPut {
						require.True(t, failed.Load())
					}
					require.Nil(t, s.ship.Status().Fenced)
					require.EqualValues(t, 9, s.ship.Status().Shipped)
					require.Equal(t, []journal.Sequence{6}, s.remoteSnapshots())
					s.requireBackend()
				})
			}
		}
	}
	t.Run("every write", func(t *testing.T) {
		t.Parallel()
		s := newStore(t, backendtest.NewMemory())
		var mu sync.Mutex
		tries := map[string]int{}
		s.backend.Fault = func(op backendfault.Op, key string) backendfault.Fault {
			mu.Lock()
			defer mu.Unlock()
			tries[string(op)+key]++
			if op == backendfault.OpGet {
				return backendfault.None
			}
			return []backendfault.Fault{backendfault.FailAbsent, backendfault.FailPresent, backendfault.None}[min(tries[string(op)+key]-1, 2)]
		}
		s.ship.Start()
		s.append(3, 100)
		s.waitShipped()
		s.waitSnapshot(s.snapshot())
		s.waitShipped()
		s.ship.Stop()
		s.requireBackend()
	})
}

// A deletion that fails, or whose answer is lost, is retried, and delays no shipping.
func TestAmbiguousDeletes(t *testing.T) {
	for how, fault := range map[string]backendfault.Fault{"absent": backendfault.FailAbsent, "present": backendfault.FailPresent} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			s := newStore(t, backendtest.NewMemory())
			var mended atomic.Bool
			s.backend.Fault = func(op backendfault.Op, _ string) backendfault.Fault {
				if op == backendfault.OpDelete && !mended.Load() {
					return fault
				}
				return backendfault.None
			}
			s.ship.Start()
			for range 5 {
				s.append(2, 10)
				s.waitShipped()
				s.waitSnapshot(s.snapshot())
			}
			eventually(t, func() bool { return s.backend.Injected(backendfault.OpDelete) > 0 }, "a failure")
			eventually(t, func() bool { return strings.Contains(s.log.String(), "the backend was not pruned") }, "it to be logged")
			require.NoError(t, s.ship.Status().Err)
			mended.Store(true)
			s.append(2, 10)
			s.waitShipped()
			s.waitSnapshot(s.snapshot())
			eventually(t, func() bool {
				return slices.Equal(s.remoteSnapshots(), []journal.Sequence{12, 10, 8}) && s.remoteBatches()[0] == 9
			}, "pruning")
			s.ship.Stop()
			s.requireBackend()
		})
	}
}

// If the journal does not contain the next events any more, batches continue after the
// next snapshot.
func TestGap(t *testing.T) {
	t.Parallel()
	s := newStore(t, backendtest.NewMemory())
	var down atomic.Bool
	s.backend.Fault = backendfault.While(&down)
	s.ship.Start()
	s.append(2, 10)
	s.waitShipped()
	s.waitSnapshot(s.snapshot())
	s.append(1, 10)
	s.waitShipped()
	down.Store(true)
	s.append(30, 10<<10)
	s.waitErr()
	s.ship.Stop() // it would have one batch in hand
	require.NoError(t, s.journal.TruncateBefore(t.Context(), 25))
	first, _, err := bounded{s.journal}.Bounds()
	require.NoError(t, err)
	require.Greater(t, first, journal.Sequence(10))
	down.Store(false)
	s.reopen(func(o *ship.Options) { o.Shipped = 3 })
	s.ship.Start()
	err = s.waitErr()
	require.ErrorIs(t, err, event.ErrGap)
	require.ErrorContains(t, err, "a snapshot has to be shipped first")
	require.EqualValues(t, 3, s.ship.Shipped())
	require.False(t, s.ship.Status().BehindSince.IsZero())
	s.append(5, 10)
	require.EqualValues(t, 3, s.restored())
	seq := s.snapshot()
	s.append(5, 10)
	s.waitShipped()
	s.append(1, 10)
	s.waitShipped()
	s.ship.Stop()
	require.Equal(t, []journal.Sequence{3, seq + 1, s.last()}, s.remoteBatches())
	s.requireBackend()
	// A state before the gap continues from the snapshot too.
	s.requireFrom(2)
	s.requireFrom(3)
}

// Without an interval snapshots alone are shipped.
func TestSnapshotsAlone(t *testing.T) {
	s := newStore(t, backendtest.NewMemory(), func(o *ship.Options) { o.Interval = -1 })
	s.ship.Start()
	s.append(5, 10)
	require.False(t, s.ship.Status().BehindSince.IsZero())
	s.waitSnapshot(s.snapshot())
	require.True(t, s.ship.Status().BehindSince.IsZero())
	s.append(2, 10)
	s.ship.Stop()
	require.NoError(t, s.ship.Close(t.Context()))
	require.Empty(t, s.remoteBatches())
	require.EqualValues(t, 5, s.restored())
	require.False(t, s.ship.Status().BehindSince.IsZero())
}

// What the last process shipped is not shipped again, if it was looked into; and
// what it may not have shipped is.
func TestNextProcess(t *testing.T) {
	for _, looked := range []bool{true, false} {
		t.Run(fmt.Sprint("looked into ", looked), func(t *testing.T) {
			s := newStore(t, backendtest.NewMemory())
			s.ship.Start()
			s.append(5, 10)
			s.waitShipped()
			s.append(5, 10)
			s.waitShipped()
			s.ship.Stop()
			puts := s.backend.Calls(backendfault.OpPut)
			newest := s.remoteBatches()[len(s.remoteBatches())-1]
			s.reopen(func(o *ship.Options) {
				if looked {
					o.Shipped = 10
				}
			})
			if looked {
				require.EqualValues(t, 10, s.ship.Shipped())
				require.True(t, s.ship.Status().BehindSince.IsZero())
			}
			s.ship.Start()
			s.append(1, 10)
			s.waitShipped()
			s.ship.Stop()
			batches := s.remoteBatches()
			if looked {
				require.Equal(t, puts+1, s.backend.Calls(backendfault.OpPut))
				require.EqualValues(t, 11, batches[len(batches)-1])
			} else {
				require.Contains(t, batches[len(batches)-2:], newest)
			}
			s.requireBackend()
		})
	}
}

// Close ships the tail and then the snapshot, from a journal that is closed
// already.
func TestClose(t *testing.T) {
	for _, started := range []bool{true, false} {
		t.Run(fmt.Sprint("started ", started), func(t *testing.T) {
			noLeak(t)
			s := newStore(t, backendtest.NewMemory(), func(o *ship.Options) { o.Interval = time.Hour })
			var keys []string
			s.backend.Fault = func(op backendfault.Op, key string) backendfault.Fault {
				if op == backendfault.OpPut {
					keys = append(keys, key)
				}
				return backendfault.None
			}
			s.append(1, 10)
			if started {
				s.ship.Start()
				s.waitShipped()
			}
			s.append(30, 5000)
			s.ship.Stop()
			s.snapshot()
			require.NoError(t, s.journal.Close())
			require.NoError(t, s.ship.Close(t.Context()))
			require.Equal(t, s.last(), s.ship.Status().Snapshot)
			require.True(t, s.ship.Status().BehindSince.IsZero())
			require.True(t, strings.HasPrefix(keys[len(keys)-1], catalog.SnapshotPrefix))
			require.True(t, strings.HasPrefix(keys[len(keys)-2], "events/"))
			s.requireBackend()
			n := len(keys)
			require.NoError(t, s.ship.Close(t.Context()), "again")
			require.Len(t, keys, n)
		})
	}
	t.Run("says what it could not ship", func(t *testing.T) {
		s := newStore(t, backendtest.NewMemory())
		s.backend.Fault = func(backendfault.Op, string) backendfault.Fault { return backendfault.FailAbsent }
		s.append(2, 10)
		s.snapshot()
		err := s.ship.Close(t.Context())
		require.ErrorIs(t, err, backendfault.ErrInjected)
		require.ErrorContains(t, err, "ship events 1 to 2")
		require.ErrorContains(t, err, "ship snapshot")
		s.backend.Fault = nil
		require.NoError(t, s.ship.Close(t.Context()))
		s.requireBackend()
	})
	t.Run("context is done", func(t *testing.T) {
		s := newStore(t, backendtest.NewMemory())
		s.append(2, 10)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		require.ErrorIs(t, s.ship.Close(ctx), context.Canceled)
	})
}

// An idle shipper that cannot look for a newer writer says so until it can.
func TestIdleOutage(t *testing.T) {
	t.Parallel()
	s := newStore(t, backendtest.NewMemory(), func(o *ship.Options) { o.FenceInterval = time.Millisecond })
	var down atomic.Bool
	s.backend.Fault = backendfault.While(&down)
	s.ship.Start()
	s.append(1, 10)
	s.waitShipped()
	down.Store(true)
	require.ErrorContains(t, s.waitErr(), "look for a newer writer")
	injected := s.backend.Injected(backendfault.OpGet)
	eventually(t, func() bool {
		require.Error(t, s.ship.Status().Err, "nothing says that it is back")
		return s.backend.Injected(backendfault.OpGet) >= injected+2
	}, "it to be tried again")
	require.True(t, s.ship.Status().BehindSince.IsZero())
	down.Store(false)
	eventually(t, func() bool { return s.ship.Status().Err == nil }, "recovery")
	require.Equal(t, 1, strings.Count(s.log.String(), "shipped again"))
}

// A batch that may have been put, and that a snapshot overtakes before that is
// known, is put again as it was: with more in it, it would look like another
// writer's.
func TestOvertakenBatchStaysAsItWas(t *testing.T) {
	noLeak(t)
	s := newStore(t, backendtest.NewMemory())
	var down atomic.Bool
	down.Store(true)
	s.backend.Fault = func(op backendfault.Op, key string) backendfault.Fault {
		switch {
		case !down.Load() || !strings.HasPrefix(key, catalog.BatchPrefix):
			return backendfault.None
		case op == backendfault.OpPut:
			return backendfault.FailPresent
		}
		return backendfault.FailAbsent
	}
	s.ship.Start()
	s.append(3, 100)
	s.waitErr()
	s.append(3, 100)
	s.waitSnapshot(s.snapshot())
	s.append(3, 100)
	down.Store(false)
	eventually(t, func() bool { return len(s.remoteBatches()) >= 2 || s.ship.Status().Fenced != nil }, "the batches")
	require.NoError(t, s.ship.Status().Fenced)
	s.waitShipped()
	s.ship.Stop()
	s.requireBackend()
}

// What a crash left to a snapshot alone is shipped by the next process, while
// the journal has it: each moment since the oldest snapshot can be restored.
func TestNoHoleAfterCrash(t *testing.T) {
	noLeak(t)
	s := newStore(t, backendtest.NewMemory())
	var held atomic.Bool // the time between two batches
	s.backend.Fault = func(op backendfault.Op, key string) backendfault.Fault {
		if held.Load() && op == backendfault.OpPut && strings.HasPrefix(key, catalog.BatchPrefix) {
			return backendfault.FailAbsent
		}
		return backendfault.None
	}
	s.ship.Start()
	s.append(4, 100)
	s.waitShipped()
	s.waitSnapshot(s.snapshot())
	s.append(2, 100)
	s.waitShipped()
	held.Store(true)
	s.append(4, 100)
	s.waitSnapshot(s.snapshot())
	s.ship.Stop()
	held.Store(false)
	s.reopen()
	require.EqualValues(t, 10, s.ship.Status().Shipped)
	s.ship.Start()
	s.append(2, 100)
	eventually(t, func() bool { batches := s.remoteBatches(); return batches[len(batches)-1] > 6 }, "the batches")
	s.waitShipped()
	s.ship.Stop()
	for seq := journal.Sequence(4); seq <= 12; seq++ {
		s.requireTarget(seq)
	}
}
