package restore_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/internal/backendfault"
	"github.com/xdswal/xdswal/internal/catalog"
	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/internal/format/batch"
	"github.com/xdswal/xdswal/internal/restore"
	"github.com/xdswal/xdswal/journal"
	"github.com/xdswal/xdswal/replay"
)

// batch returns events first to last as they are shipped.
func (h *history) batch(t testing.TB, first, last int) []byte {
	t.Helper()
	w, err := batch.NewWriter()
	require.NoError(t, err)
	for i := first; i <= last; i++ {
		ev := h.events[i-1]
		record, err := event.Marshal(ev)
		require.NoError(t, err)
		event.Seal(record, ev.Sequence, ev.Time)
		require.NoError(t, w.Add(ev.Sequence, record))
	}
	return bytes.Clone(w.Bytes())
}

func batchName(epoch uint64, first int) batch.Name {
	return batch.Name{Epoch: epoch, First: journal.Sequence(first)}
}

func batchKey(epoch uint64, first int) string {
	return catalog.Batch{Name: batchName(epoch, first)}.Key()
}

// ship puts events first to last into the backend, as a batch of an epoch.
func (f *fixture) ship(epoch uint64, first, last int) {
	f.t.Helper()
	f.putObject(batchKey(epoch, first), f.h.batch(f.t, first, last))
}

func (f *fixture) putObject(key string, content []byte) {
	f.t.Helper()
	require.NoError(f.t, f.backend.Put(f.t.Context(), key, bytes.NewReader(content)))
}

// claim claims an epoch that continues from an event.
func (f *fixture) claim(number, parent uint64, seq int) {
	f.t.Helper()
	require.NoError(f.t, catalog.Claim(f.t.Context(), f.backend, catalog.Epoch{
		Number: number, Parent: parent, Sequence: journal.Sequence(seq), StoreID: storeID, Token: fmt.Sprint("token-", number),
	}))
}

func (f *fixture) list() *catalog.Remote {
	f.t.Helper()
	r, err := catalog.List(f.t.Context(), f.backend.Backend)
	require.NoError(f.t, err)
	return r
}

// Each row is what a backend holds, beside a directory perhaps, and what a
// restore makes of it.
func TestRestoreShipped(t *testing.T) {
	h := newHistory(t, 40, 0)
	type row struct {
		name      string
		setup     func(*fixture)
		known     bool // the listing is given
		base      int  // events that are there already
		seq       int
		snapshot  int
		shipped   int // events
		batches   int
		shippedTo int
		skipped   []string
		errs      []error
		says      []string
	}
	rows := []row{
		{name: "batches from the first event on", setup: func(f *fixture) {
			f.ship(1, 1, 10)
			f.ship(1, 11, 11)
			f.ship(1, 12, 40)
		}, seq: 40, shipped: 40, batches: 3, shippedTo: 40},
		{name: "snapshot and batches", setup: func(f *fixture) {
			f.remote(8, 20)
			f.ship(3, 9, 15)
			f.ship(3, 16, 25) // covers the snapshot
			f.ship(3, 26, 40)
		}, seq: 40, snapshot: 20, shipped: 20, batches: 2, shippedTo: 40},
		{name: "snapshot beyond the batches", setup: func(f *fixture) {
			f.remote(30)
			f.ship(3, 1, 20)
		}, seq: 30, snapshot: 30, shippedTo: 20},
		{name: "several epochs, and what was superseded", setup: func(f *fixture) {
			f.claim(1, 0, 0)
			f.claim(2, 1, 12)
			f.claim(3, 2, 20)
			f.ship(1, 1, 10)
			f.ship(1, 11, 14) // two of them count
			f.putObject(batchKey(1, 15), []byte("superseded"))
			f.ship(2, 13, 20)
			f.ship(3, 21, 30)
			f.putObject(batchKey(2, 21), []byte("superseded"))
			f.putObject(catalog.SnapshotPrefix+"snapshot-0000000002-00000000000000000039.zst", []byte("superseded"))
		}, seq: 30, shipped: 30, batches: 4, shippedTo: 30},
		{name: "batches that overlap", setup: func(f *fixture) {
			f.claim(1, 0, 0)
			f.claim(2, 1, 20)
			f.claim(3, 2, 30)
			f.ship(1, 1, 20)
			f.ship(2, 15, 30)
			f.ship(3, 25, 26)
			f.ship(3, 27, 35)
		}, seq: 35, shipped: 35, batches: 3, shippedTo: 35},
		{name: "damaged, and the next epoch has the same events", setup: func(f *fixture) {
			f.claim(1, 0, 0)
			f.claim(2, 1, 20)
			f.ship(1, 1, 10)
			f.putObject(batchKey(1, 11), damages["flipped"](h.batch(t, 11, 20)))
			f.ship(2, 11, 30)
		}, seq: 30, shipped: 30, batches: 2, shippedTo: 30, skipped: []string{batchName(1, 11).String()}},
		{name: "damaged in the middle", setup: func(f *fixture) {
			f.ship(1, 1, 10)
			f.putObject(batchKey(1, 11), damages["cut"](h.batch(t, 11, 20)))
			f.ship(1, 21, 30)
		}, seq: 10, skipped: []string{batchName(1, 11).String()}, errs: []error{restore.ErrGap, event.ErrCorrupt}, says: []string{"11 to 21", batchName(1, 11).String()}},
		{name: "the last one damaged", setup: func(f *fixture) {
			f.remote(10)
			f.putObject(batchKey(3, 11), damages["flipped"](h.batch(t, 11, 20)))
		}, seq: 10, snapshot: 10, skipped: []string{batchName(3, 11).String()}, errs: []error{restore.ErrGap, event.ErrCorrupt}, says: []string{"11 to 11"}},
		{name: "damaged, and a snapshot covers it", setup: func(f *fixture) {
			f.remote(20)
			f.putObject(batchKey(3, 11), damages["empty"](nil))
			f.ship(3, 21, 30)
		}, seq: 30, snapshot: 20, shipped: 10, batches: 1, shippedTo: 30},
		{name: "a snapshot damaged, and batches cover it", setup: func(f *fixture) {
			f.remote(8)
			f.putRemote(nameOf(20), damages["flipped"](h.snapshot(t, 20)))
			f.ship(3, 9, 20)
			f.ship(3, 21, 30)
		}, seq: 30, snapshot: 8, shipped: 22, batches: 2, shippedTo: 30, skipped: []string{nameOf(20)}},
		{name: "all snapshots damaged, and batches from the first event on", setup: func(f *fixture) {
			f.putRemote(nameOf(8), damages["cut"](h.snapshot(t, 8)))
			f.putRemote(nameOf(20), damages["flipped"](h.snapshot(t, 20)))
			f.ship(3, 1, 20)
			f.ship(3, 21, 30)
		}, seq: 30, shipped: 30, batches: 2, shippedTo: 30, skipped: []string{nameOf(20), nameOf(8)}},
		{name: "a gap that nothing covers", setup: func(f *fixture) {
			f.ship(1, 1, 10)
			f.ship(1, 12, 20)
		}, seq: 10, errs: []error{restore.ErrGap}, says: []string{"11 to 12"}},
		{name: "a gap that a snapshot covers", setup: func(f *fixture) {
			f.ship(3, 1, 10)
			f.remote(20)
			f.ship(3, 21, 30)
		}, seq: 30, snapshot: 20, shipped: 10, batches: 1, shippedTo: 30},
		{name: "that gap, from a state before it", setup: func(f *fixture) {
			f.ship(3, 1, 10)
			f.remote(20)
			f.ship(3, 21, 30)
		}, base: 5, known: true, seq: 30, snapshot: 20, shipped: 10, batches: 1, shippedTo: 30},
		{name: "local events, continued by the backend", setup: func(f *fixture) {
			f.remote(20)
			f.ship(3, 21, 30)
			f.ship(3, 31, 40)
		}, base: 25, known: true, seq: 40, shipped: 15, batches: 2, shippedTo: 40},
		{name: "all events are local, and how far was shipped is reported", setup: func(f *fixture) {
			f.remote(20)
			f.ship(3, 21, 30)
		}, base: 35, known: true, seq: 35, shippedTo: 30},
		{name: "too few local events for the batches, so a snapshot is used", setup: func(f *fixture) {
			f.remote(20)
			f.ship(3, 21, 30)
		}, base: 7, known: true, seq: 30, snapshot: 20, shipped: 10, batches: 1, shippedTo: 30},
		{name: "local data, and more in the backend", setup: func(f *fixture) {
			f.events(9, 15)
			f.local(8)
			f.ship(3, 1, 12)
			f.ship(3, 13, 30)
		}, known: true, seq: 30, snapshot: 8, shipped: 15, batches: 1, shippedTo: 30},
		{name: "local data beyond the backend", setup: func(f *fixture) {
			f.events(9, 35)
			f.local(8)
			f.ship(3, 1, 12)
			f.ship(3, 13, 30)
		}, known: true, seq: 35, snapshot: 8, shippedTo: 30},
		{name: "the journal continues where the batches end", setup: func(f *fixture) {
			f.events(25, 40)
			f.remote(8)
			f.ship(3, 9, 30)
		}, seq: 40, snapshot: 8, shipped: 22, batches: 1, shippedTo: 30},
		{name: "a newer format, and local data", setup: func(f *fixture) {
			f.events(1, 40)
			f.putObject(batchKey(3, 21), newerBatch(t, h))
		}, known: true, seq: 40, errs: []error{event.ErrVersion}, says: []string{"format 2"}},
		{name: "a newer format that is needed", setup: func(f *fixture) {
			f.ship(3, 1, 20)
			f.putObject(batchKey(3, 21), newerBatch(t, h))
		}, seq: 20, errs: []error{event.ErrVersion}, says: []string{"format 2"}},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, h)
			r.setup(f)
			opt := restore.Options{Backend: f.backend, Dir: f.dir}
			if _, err := os.Stat(f.journal); err == nil {
				opt = f.options()
			}
			if r.known {
				opt.Remote = f.list()
			}
			if r.base > 0 {
				opt.Base = h.states[r.base]
			}
			c := countHooks()
			opt.Hooks = c.hooks
			read := map[string]int64{}
			opt.Hooks.Progress = func(p replay.Progress) {
				require.Equal(t, f.backend.String(), p.Location)
				require.LessOrEqual(t, p.Read, p.Total)
				read[p.Name] = max(read[p.Name], p.Read)
			}
			st, result, err := restore.Restore(t.Context(), opt)
			c.requireBalanced(t)
			var skipped []string
			for _, s := range result.Skipped {
				require.ErrorIs(t, s.Reason, event.ErrCorrupt)
				require.Equal(t, f.backend.String(), s.Location)
				skipped = append(skipped, s.Name)
			}
			require.Equal(t, r.skipped, skipped)
			if r.errs != nil {
				for _, want := range r.errs {
					require.ErrorIs(t, err, want)
				}
				for _, want := range r.says {
					require.ErrorContains(t, err, want)
				}
				h.requireState(t, r.seq, st, result)
				return
			}
			require.NoError(t, err)
			h.requireState(t, r.seq, st, result)
			require.EqualValues(t, r.snapshot, result.SnapshotSequence)
			require.Equal(t, r.shipped, result.Shipped)
			require.Equal(t, r.batches, result.Batches)
			require.EqualValues(t, r.shippedTo, result.ShippedTo)
			require.Equal(t, r.seq-max(r.snapshot, r.base*b2i(r.snapshot == 0)), result.Events)
			if r.shipped > 0 {
				require.Positive(t, read[""])
			}
		})
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// newerBatch returns a batch from event 21 on that a later xdswal wrote.
func newerBatch(t testing.TB, h *history) []byte {
	t.Helper()
	w, err := batch.NewWriter()
	require.NoError(t, err)
	record, err := event.Marshal(h.events[20])
	require.NoError(t, err)
	record[11]++
	event.Seal(record, 21, h.events[20].Time)
	require.NoError(t, w.Add(21, record))
	return bytes.Clone(w.Bytes())
}

// Of every event and every time since the oldest snapshot, the backend alone
// yields the state.
func TestTargetsShipped(t *testing.T) {
	h := newHistory(t, 40, 0)
	for name, setup := range map[string]func(*fixture) (oldest int){
		"batches from the first event on": func(f *fixture) int {
			for i := 1; i <= 40; i += 3 {
				f.ship(1, i, min(i+2, 40))
			}
			return 0
		},
		"snapshots and batches": func(f *fixture) int {
			f.remote(8, 20, 33)
			for i := 9; i <= 40; i += 5 {
				f.ship(3, i, min(i+4, 40))
			}
			return 8
		},
		"several epochs": func(f *fixture) int {
			f.claim(1, 0, 0)
			f.claim(2, 1, 15)
			f.claim(3, 2, 30)
			f.remote(33)
			f.ship(1, 1, 12)
			f.ship(1, 13, 20)
			f.ship(2, 11, 30)
			f.ship(3, 31, 40)
			return 0
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, h)
			oldest := setup(f)
			for seq := 1; seq <= 41; seq++ {
				st, result, err := restored(t, t.Context(), restore.Options{Backend: f.backend, Target: restore.Target{Sequence: journal.Sequence(seq)}})
				switch {
				case seq > 40:
					require.ErrorIs(t, err, restore.ErrTarget)
				case seq < oldest:
					require.ErrorIs(t, err, restore.ErrTarget)
					require.ErrorIs(t, err, restore.ErrGap)
				default:
					require.NoError(t, err)
					h.requireState(t, seq, st, result)
				}
			}
			for seq := 1; seq <= 40; seq += groupSize {
				for at, want := range map[time.Time]int{
					h.time(seq).Add(-time.Nanosecond): seq - 1,
					h.time(seq):                       seq + groupSize - 1,
					h.time(seq).Add(groupStep / 2):    seq + groupSize - 1,
				} {
					st, result, err := restored(t, t.Context(), restore.Options{Backend: f.backend, Target: restore.Target{Time: at}})
					if want < oldest {
						require.ErrorIs(t, err, restore.ErrGap)
						continue
					}
					require.NoError(t, err)
					h.requireState(t, want, st, result)
				}
			}
		})
	}
}

// A read that fails midway is no damage: the restore fails, nothing is skipped, and
// another restore has everything.
func TestTransientIsNoDamage(t *testing.T) {
	h := newHistory(t, 40, 0)
	f := newFixture(t, h)
	f.remote(8, 20)
	f.ship(3, 9, 20)
	f.ship(3, 21, 30)
	f.ship(3, 31, 40)
	for _, key := range []string{catalog.SnapshotPrefix + nameOf(20), batchKey(3, 21), batchKey(3, 31)} {
		for _, fault := range []backendfault.Fault{backendfault.FailAbsent, backendfault.FailPresent} {
			// One for each try: what was fetched ahead may outlast it.
			faulty := &backendfault.Backend{Backend: f.backend, Fault: func(op backendfault.Op, k string) backendfault.Fault {
				if op == backendfault.OpGet && k == key {
					return fault
				}
				return backendfault.None
			}}
			_, result, err := restored(t, t.Context(), restore.Options{Backend: faulty})
			require.ErrorIs(t, err, backendfault.ErrInjected)
			require.NotErrorIs(t, err, event.ErrCorrupt)
			require.Empty(t, result.Skipped)
		}
	}
	st, result, err := restored(t, t.Context(), restore.Options{Backend: f.backend})
	require.NoError(t, err)
	h.requireState(t, 40, st, result)
}

// If a writer prunes the backend during a restore, the restore uses the newer objects.
func TestPrunedMeanwhile(t *testing.T) {
	h := newHistory(t, 40, 0)
	for _, at := range []string{catalog.SnapshotPrefix + nameOf(8), batchKey(3, 9), batchKey(3, 21)} {
		for _, given := range []bool{false, true} {
			t.Run(fmt.Sprint(at, ", listing given ", given), func(t *testing.T) {
				t.Parallel()
				f := newFixture(t, h)
				f.remote(8)
				f.ship(3, 9, 20)
				f.ship(3, 21, 30)
				opt := restore.Options{Backend: f.backend}
				if given {
					opt.Remote = f.list()
				}
				var once sync.Once
				f.backend.Fault = func(op backendfault.Op, key string) backendfault.Fault {
					if op != backendfault.OpGet || key != at {
						return backendfault.None
					}
					once.Do(func() {
						b := f.backend.Backend
						put := func(key string, content []byte) {
							require.NoError(t, b.Put(t.Context(), key, bytes.NewReader(content)))
						}
						put(batchKey(3, 31), h.batch(t, 31, 35))
						put(catalog.SnapshotPrefix+nameOf(35), h.snapshot(t, 35))
						put(batchKey(3, 36), h.batch(t, 36, 40))
						for _, key := range []string{catalog.SnapshotPrefix + nameOf(8), batchKey(3, 9), batchKey(3, 21), batchKey(3, 31)} {
							require.NoError(t, b.Delete(t.Context(), key))
						}
					})
					return backendfault.None
				}
				st, result, err := restore.Restore(t.Context(), opt)
				require.NoError(t, err)
				h.requireState(t, 40, st, result)
			})
		}
	}
	// The number of listings is bounded.
	f := newFixture(t, h)
	f.remote(8)
	opt := restore.Options{Backend: gone{f.backend}}
	_, _, err := restore.Restore(t.Context(), opt)
	require.ErrorIs(t, err, backends.ErrNotFound)
	require.ErrorIs(t, err, restore.ErrGap)
	require.LessOrEqual(t, f.backend.Calls(backendfault.OpList), 30)
}

// gone is a backend whose objects are deleted before they are read.
type gone struct{ *backendfault.Backend }

func (g gone) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if strings.HasPrefix(key, "epochs/") {
		return g.Backend.Get(ctx, key, offset, length)
	}
	return nil, &backends.Error{Op: "get", Backend: g.String(), Key: key, Err: backends.ErrNotFound}
}

// Relist keeps the bound of the listing: later events do not count for a writer that
// has continued from before them.
func TestRelistKeepsBound(t *testing.T) {
	h := newHistory(t, 40, 0)
	for name, r := range map[string]struct {
		claimed bool // by the next writer
		view    func(*catalog.Remote) *catalog.Remote
		seq     int
	}{
		"all":            {true, func(r *catalog.Remote) *catalog.Remote { return r }, 10},
		"until an event": {false, func(r *catalog.Remote) *catalog.Remote { return r.Until(25) }, 25},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, h)
			f.claim(1, 0, 0)
			if r.claimed {
				f.claim(2, 1, 10)
			}
			f.ship(1, 1, 10)
			f.ship(1, 11, 25)
			f.ship(1, 26, 30)
			opt := restore.Options{Backend: f.backend, Remote: r.view(f.list())}
			failed := false
			opt.Backend = once{f.backend, &failed}
			st, result, err := restore.Restore(t.Context(), opt)
			require.True(t, failed)
			require.NoError(t, err)
			h.requireState(t, r.seq, st, result)
		})
	}
}

// once is a backend whose first batch is not found once.
type once struct {
	*backendfault.Backend
	failed *bool
}

func (o once) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if key == batchKey(1, 1) && !*o.failed {
		*o.failed = true
		return nil, &backends.Error{Op: "get", Backend: o.String(), Key: key, Err: backends.ErrNotFound}
	}
	return o.Backend.Get(ctx, key, offset, length)
}

// If any byte of the newest batch changes, or the batch is cut anywhere, the restore is
// complete or an error.
func TestRestoreEveryByteOfBatch(t *testing.T) {
	h := newHistory(t, 12, 0)
	good := h.batch(t, 9, 12)
	for i := range good {
		for _, content := range [][]byte{good[:i], flip(good, i)} {
			f := newFixture(t, h)
			f.remote(8)
			f.putObject(batchKey(3, 9), content)
			st, result, err := restored(t, t.Context(), restore.Options{Backend: f.backend})
			if err == nil {
				h.requireState(t, 12, st, result)
				continue
			}
			require.ErrorIs(t, err, restore.ErrGap)
			require.ErrorIs(t, err, event.ErrCorrupt)
			require.Len(t, result.Skipped, 1)
		}
	}
}

func flip(b []byte, i int) []byte {
	b = bytes.Clone(b)
	b[i] ^= 1 << (i % 8)
	return b
}

// Verify proves the snapshots of a backend equal to what was shipped of the
// journal.
func TestVerifyShipped(t *testing.T) {
	h := newHistory(t, 40, 0)
	f := newFixture(t, h)
	f.events(1, 0)
	f.claim(2, 0, 0)
	f.claim(3, 2, 20)
	f.remote(10, 25, 40)
	f.ship(2, 1, 12)
	f.ship(2, 13, 22) // two of them superseded
	f.ship(3, 19, 40)
	f.putObject(batchKey(2, 23), []byte("superseded"))
	report, err := f.verify()
	require.NoError(t, err)
	require.Equal(t, 3, report.Batches)
	require.Equal(t, 12+8+22, report.ShippedEvents)
	require.Equal(t, 3, report.Folded)
	require.EqualValues(t, 40, report.Sequence)

	// Intact, but not the fold of the events.
	forged, err := h.states[29].Apply(&journal.Event{Sequence: 30, Time: h.time(30), Kind: journal.Clear, Cache: "snapshot/default", Node: "node-1"})
	require.NoError(t, err)
	require.NotEqual(t, h.states[30].Digest(), forged.Digest())
	f.putRemote(nameOf(30), encode(t, forged))
	report, err = f.verify()
	require.ErrorIs(t, err, event.ErrCorrupt)
	require.ErrorContains(t, err, nameOf(30))
	require.ErrorContains(t, err, "differs from the empty state with the events after it applied")
	require.Equal(t, 3, report.Folded)
	for _, s := range report.Snapshots {
		require.Equal(t, s.Sequence == 30, s.Err != nil)
	}
}

// What a writer prunes while it is verified is no problem. What is missing without having
// been pruned is one.
func TestVerifyPrunedMeanwhile(t *testing.T) {
	h := newHistory(t, 40, 0)
	old := []string{catalog.SnapshotPrefix + nameOf(8), batchKey(3, 9), batchKey(3, 21)}
	for _, at := range old {
		t.Run(at, func(t *testing.T) {
			f := newFixture(t, h)
			f.remote(8, 30)
			f.ship(3, 9, 20)
			f.ship(3, 21, 30)
			f.ship(3, 31, 40)
			var once sync.Once
			f.backend.Fault = func(op backendfault.Op, key string) backendfault.Fault {
				if op == backendfault.OpGet && key == at {
					once.Do(func() {
						for _, key := range old {
							require.NoError(t, f.backend.Backend.Delete(t.Context(), key))
						}
					})
				}
				return backendfault.None
			}
			report, err := restore.Verify(t.Context(), restore.Options{Backend: f.backend})
			require.NoError(t, err)
			require.EqualValues(t, 40, report.Sequence)
			require.Positive(t, report.Batches)
			require.LessOrEqual(t, f.backend.Calls(backendfault.OpList), 6, "it is listed once more")
		})
	}
	f := newFixture(t, h)
	f.remote(8)
	f.ship(3, 9, 40)
	_, err := restore.Verify(t.Context(), restore.Options{Backend: gone{f.backend}})
	require.ErrorIs(t, err, backends.ErrNotFound)

	// Nothing of the first listing is left.
	f = newFixture(t, h)
	f.remote(8)
	var once sync.Once
	f.backend.Fault = func(op backendfault.Op, key string) backendfault.Fault {
		if op == backendfault.OpGet && key == old[0] {
			once.Do(func() {
				b := f.backend.Backend
				require.NoError(t, b.Put(t.Context(), catalog.SnapshotPrefix+nameOf(35), bytes.NewReader(h.snapshot(t, 35))))
				require.NoError(t, b.Delete(t.Context(), old[0]))
			})
		}
		return backendfault.None
	}
	_, err = restore.Verify(t.Context(), restore.Options{Backend: f.backend})
	require.ErrorIs(t, err, backends.ErrNotFound)
	require.ErrorContains(t, err, "verify again")
}

// What is wrong with a batch is named.
func TestVerifyDamagedBatch(t *testing.T) {
	h := newHistory(t, 30, 0)
	for how, damage := range damages {
		t.Run(how, func(t *testing.T) {
			f := newFixture(t, h)
			f.events(1, 0)
			f.remote(10, 25)
			f.ship(3, 1, 10)
			f.putObject(batchKey(3, 11), damage(h.batch(t, 11, 20)))
			f.ship(3, 21, 30)
			report, err := f.verify()
			require.ErrorIs(t, err, event.ErrCorrupt)
			require.ErrorContains(t, err, batchName(3, 11).String())
			require.EqualValues(t, 30, report.Sequence, "a snapshot covers it")
			require.Equal(t, 20, report.ShippedEvents)
		})
	}
}
