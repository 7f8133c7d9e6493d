package restore_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/internal/backendfault"
	"github.com/xdswal/xdswal/internal/catalog"
	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/internal/restore"
	"github.com/xdswal/xdswal/internal/wal"
	"github.com/xdswal/xdswal/journal"
	"github.com/xdswal/xdswal/replay"
)

const (
	none    = ""
	local   = "local"
	backend = "backend"
)

// Each row is the contents of a data directory and a backend, and what a restore
// returns: all that is known to have been durable, or an error.
func TestRestore(t *testing.T) {
	h := newHistory(t, 20, 0)
	type row struct {
		name  string
		setup func(*fixture)
		// What is restored.
		seq, snapshot int
		source        string
		skipped       []int
		asked         bool // the backend was
		// Or why not.
		errs []error
		says []string
	}
	rows := []row{
		{name: "empty", setup: func(f *fixture) { f.events(1, 0) }, asked: true},
		{name: "journal alone", setup: func(f *fixture) { f.events(1, 20) }, seq: 20},
		{name: "snapshot alone", setup: func(f *fixture) {
			f.events(1, 0)
			f.local(12)
		}, seq: 12, snapshot: 12, source: local},
		{name: "snapshots and tail", setup: func(f *fixture) {
			f.events(9, 20)
			f.local(8, 12)
		}, seq: 20, snapshot: 12, source: local},
		{name: "snapshot at the journal's end", setup: func(f *fixture) {
			f.events(9, 20)
			f.local(8, 20)
		}, seq: 20, snapshot: 20, source: local},
		{name: "snapshot, and an empty journal that begins after it", setup: func(f *fixture) {
			f.events(13, 12)
			f.local(12)
		}, seq: 12, snapshot: 12, source: local},
		{name: "journal that a crash of the machine left behind the snapshot", setup: func(f *fixture) {
			f.events(1, 10)
			f.local(12)
		}, seq: 12, snapshot: 12, source: local},
		{name: "misnamed, journal covers", setup: func(f *fixture) {
			f.events(9, 20)
			f.local(8)
			f.putLocal(nameOf(16), f.h.snapshot(f.t, 12))
		}, seq: 20, snapshot: 8, source: local, skipped: []int{16}},
		{name: "misnamed beyond the journal", setup: func(f *fixture) {
			f.events(9, 18)
			f.local(8)
			f.putLocal(nameOf(20), f.h.snapshot(f.t, 18))
		}, skipped: []int{20}, asked: true, errs: []error{restore.ErrGap, event.ErrCorrupt}, says: []string{"19 to 20", nameOf(20)}},
		{name: "journal truncated and no snapshot", setup: func(f *fixture) {
			f.events(9, 20)
		}, asked: true, errs: []error{restore.ErrGap}, says: []string{"restore the newest state: events 1 to 8 are missing: no snapshot can be used", "the journal holds events 9 to 20", "restore from a backend or a copy"}},
		{name: "empty journal that begins later, and no snapshot", setup: func(f *fixture) {
			f.events(13, 12)
		}, asked: true, errs: []error{restore.ErrGap}, says: []string{"1 to 12", "the journal holds no events"}},
		{name: "snapshot too old for the journal", setup: func(f *fixture) {
			f.events(9, 20)
			f.local(4)
		}, asked: true, errs: []error{restore.ErrGap}, says: []string{"5 to 8", "the newest usable snapshot is of event 4", "a snapshot of event 8 or later"}},
		{name: "newer format", setup: func(f *fixture) {
			f.events(1, 20)
			f.local(8)
			f.putLocal(nameOf(12), newerFormat(f.h.snapshot(f.t, 12)))
		}, errs: []error{event.ErrVersion}, says: []string{nameOf(12), "format 2"}},
		{name: "newer format in the backend", setup: func(f *fixture) {
			f.events(1, 0)
			f.remote(8)
			f.putRemote(nameOf(12), newerFormat(f.h.snapshot(f.t, 12)))
		}, asked: true, errs: []error{event.ErrVersion}, says: []string{nameOf(12), "format 2"}},
		{name: "snapshot directory that cannot be read", setup: func(f *fixture) {
			f.events(1, 12)
			require.NoError(f.t, os.Remove(f.dir))
			require.NoError(f.t, os.WriteFile(f.dir, nil, 0o600))
		}, errs: []error{syscall.ENOTDIR}, says: []string{"list snapshots"}},
		{name: "bare machine", setup: func(f *fixture) {
			f.events(1, 0)
			f.remote(8, 12)
		}, seq: 12, snapshot: 12, source: backend, asked: true},
		{name: "bare machine, newest in the backend damaged", setup: func(f *fixture) {
			f.events(1, 0)
			f.remote(8)
			f.putRemote(nameOf(12), damages["flipped"](f.h.snapshot(f.t, 12)))
		}, skipped: []int{12}, asked: true, errs: []error{restore.ErrGap, event.ErrCorrupt}, says: []string{"9 to 12", nameOf(12)}},
		{name: "local snapshot lost, newest in the backend damaged, journal covers", setup: func(f *fixture) {
			f.events(7, 20)
			f.remote(8)
			f.putRemote(nameOf(12), damages["cut"](f.h.snapshot(f.t, 12)))
		}, seq: 20, snapshot: 8, source: backend, skipped: []int{12}, asked: true},
		{name: "local damaged with a gap, the backend has the same", setup: func(f *fixture) {
			f.events(13, 20)
			f.putLocal(nameOf(12), damages["flipped"](f.h.snapshot(f.t, 12)))
			f.remote(12)
		}, seq: 20, snapshot: 12, source: backend, skipped: []int{12}, asked: true},
		{name: "local too old, the backend fills the gap", setup: func(f *fixture) {
			f.events(11, 20)
			f.local(4)
			f.remote(8, 12)
		}, seq: 20, snapshot: 12, source: backend, asked: true},
		{name: "local too old, the backend is ahead of the journal", setup: func(f *fixture) {
			f.events(11, 16)
			f.local(4)
			f.remote(20)
		}, seq: 20, snapshot: 20, source: backend, asked: true},
		{name: "backend unreachable, local suffices", setup: func(f *fixture) {
			f.events(9, 20)
			f.local(8)
			f.backend.Fault = always(backendfault.FailAbsent)
		}, seq: 20, snapshot: 8, source: local},
		{name: "backend unreachable, journal suffices", setup: func(f *fixture) {
			f.events(1, 20)
			f.backend.Fault = always(backendfault.FailAbsent)
		}, seq: 20},
		{name: "backend unreachable, bare machine", setup: func(f *fixture) {
			f.events(1, 0)
			f.remote(8)
			f.backend.Fault = always(backendfault.FailAbsent)
		}, asked: true, errs: []error{backendfault.ErrInjected}},
		{name: "backend unreachable, local too old", setup: func(f *fixture) {
			f.events(11, 20)
			f.local(4)
			f.backend.Fault = always(backendfault.FailAbsent)
		}, asked: true, errs: []error{restore.ErrGap, backendfault.ErrInjected}, says: []string{"5 to 10"}},
		{name: "backend breaks off within the newest, which may well be whole", setup: func(f *fixture) {
			f.events(1, 0)
			f.remote(8, 12)
			f.backend.Fault = func(op backendfault.Op, key string) backendfault.Fault {
				if op == backendfault.OpGet && key == catalog.SnapshotPrefix+nameOf(12) {
					return backendfault.FailPresent
				}
				return backendfault.None
			}
		}, asked: true, errs: []error{restore.ErrGap, backendfault.ErrInjected}, says: []string{"1 to 12"}},
	}
	for how, damage := range damages {
		rows = append(rows,
			row{name: "newest " + how + ", journal covers", setup: func(f *fixture) {
				f.events(9, 20)
				f.local(8)
				f.putLocal(nameOf(12), damage(f.h.snapshot(f.t, 12)))
			}, seq: 20, snapshot: 8, source: local, skipped: []int{12}},
			row{name: "newest " + how + ", journal has a gap", setup: func(f *fixture) {
				f.events(13, 20)
				f.local(8)
				f.putLocal(nameOf(12), damage(f.h.snapshot(f.t, 12)))
			}, skipped: []int{12}, asked: true, errs: []error{restore.ErrGap, event.ErrCorrupt}, says: []string{"9 to 12", "restore from a backend or a copy", nameOf(12)}},
			row{name: "newest " + how + ", beyond the journal", setup: func(f *fixture) {
				f.events(1, 18)
				f.local(8)
				f.putLocal(nameOf(20), damage(f.h.snapshot(f.t, 20)))
			}, skipped: []int{20}, asked: true, errs: []error{restore.ErrGap, event.ErrCorrupt}, says: []string{"19 to 20"}},
			row{name: "all " + how + ", journal from 1", setup: func(f *fixture) {
				f.events(1, 20)
				f.putLocal(nameOf(8), damage(f.h.snapshot(f.t, 8)))
				f.putLocal(nameOf(12), damage(f.h.snapshot(f.t, 12)))
			}, seq: 20, skipped: []int{12, 8}},
		)
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, h)
			r.setup(f)
			listed := f.backend.Calls(backendfault.OpList)
			st, result, err := restored(t, t.Context(), f.options())
			require.Equal(t, r.asked, f.backend.Calls(backendfault.OpList) > listed, "the backend was asked")
			if !r.asked {
				require.Zero(t, f.backend.Calls(backendfault.OpGet))
			}
			require.Equal(t, r.skipped, sequences(t, result.Skipped))
			if r.errs != nil {
				require.Error(t, err)
				for _, want := range r.errs {
					require.ErrorIs(t, err, want)
				}
				for _, want := range r.says {
					require.ErrorContains(t, err, want)
				}
				return
			}
			require.NoError(t, err)
			h.requireState(t, r.seq, st, result)
			require.EqualValues(t, r.snapshot, result.SnapshotSequence)
			require.Equal(t, map[string]string{none: "", local: f.dir, backend: f.backend.String()}[r.source], result.Source)
		})
	}
}

func always(f backendfault.Fault) func(backendfault.Op, string) backendfault.Fault {
	return func(backendfault.Op, string) backendfault.Fault { return f }
}

// sequences returns those of what was skipped; each must have a reason.
func sequences(t *testing.T, skipped []replay.Skipped) []int {
	t.Helper()
	var out []int
	for _, s := range skipped {
		require.Error(t, s.Reason)
		require.NotEmpty(t, s.Location)
		require.ErrorContains(t, s.Reason, s.Name)
		for seq := range 100 {
			if nameOf(seq) == s.Name {
				out = append(out, seq)
			}
		}
	}
	return out
}

// A segment that is missing from the middle of the journal is noticed, unless
// a snapshot lies behind it.
func TestRestoreMissingSegment(t *testing.T) {
	h := newHistory(t, 20, 20<<10)
	f := newFixture(t, h)
	f.events(1, 20)
	segments, err := filepath.Glob(filepath.Join(f.journal, "*.journal"))
	require.NoError(t, err)
	require.Greater(t, len(segments), 3)
	require.NoError(t, os.Remove(segments[1]))
	opt := f.options()

	_, _, err = restored(t, t.Context(), opt)
	require.ErrorIs(t, err, restore.ErrGap)

	f.local(16)
	st, result, err := restored(t, t.Context(), opt)
	require.NoError(t, err)
	h.requireState(t, 20, st, result)
}

// A canceled restore returns an error at any point.
func TestRestoreCancelled(t *testing.T) {
	h := newHistory(t, 20, 0)
	for name, setup := range map[string]func(*fixture){
		"empty":             func(f *fixture) { f.events(1, 0) },
		"journal":           func(f *fixture) { f.events(1, 20) },
		"snapshot and tail": func(f *fixture) { f.events(9, 20); f.local(8) },
		"backend":           func(f *fixture) { f.events(1, 0); f.remote(8) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, h)
			setup(f)
			cause := errors.New("no more time")
			ctx, cancel := context.WithCancelCause(t.Context())
			cancel(cause)
			_, _, err := restored(t, ctx, f.options())
			require.ErrorIs(t, err, cause)
		})
	}
	t.Run("within the backend", func(t *testing.T) {
		t.Parallel()
		f := newFixture(t, h)
		f.events(1, 0)
		f.remote(8)
		ctx, cancel := context.WithCancel(t.Context())
		f.backend.Fault = func(op backendfault.Op, _ string) backendfault.Fault {
			if op == backendfault.OpGet {
				cancel()
			}
			return backendfault.None
		}
		_, result, err := restored(t, ctx, f.options())
		require.ErrorIs(t, err, context.Canceled)
		require.Zero(t, result.Sequence)
		require.Empty(t, files(t, f.dir))
	})
	t.Run("within the tail", func(t *testing.T) {
		t.Parallel()
		f := newFixture(t, h)
		f.events(1, 20)
		ctx, cancel := context.WithCancel(t.Context())
		opt := f.options()
		opt.Journal = cancelling{opt.Journal, cancel}
		_, _, err := restored(t, ctx, opt)
		require.ErrorIs(t, err, context.Canceled)
	})
}

// cancelling is a journal that cancels the restore while it is read.
type cancelling struct {
	restore.Journal
	cancel func()
}

func (c cancelling) Range(ctx context.Context, from, to journal.Sequence, fn func(*journal.Event) error) error {
	return c.Journal.Range(ctx, from, to, func(ev *journal.Event) error {
		if ev.Sequence == 7 {
			c.cancel()
		}
		return fn(ev)
	})
}

// A journal that yields less than its bounds say is a gap.
func TestRestoreShortJournal(t *testing.T) {
	h := newHistory(t, 20, 0)
	f := newFixture(t, h)
	f.events(1, 20)
	opt := f.options()
	opt.Journal = short{opt.Journal}
	_, _, err := restored(t, t.Context(), opt)
	require.ErrorIs(t, err, restore.ErrGap)
	require.ErrorContains(t, err, "16 to 20")
}

type short struct{ restore.Journal }

func (s short) Range(ctx context.Context, from, _ journal.Sequence, fn func(*journal.Event) error) error {
	return s.Journal.Range(ctx, from, 15, fn)
}

// If any byte of the newest snapshot changes, or it is cut anywhere, the restore is
// complete, or an error if the journal does not cover it.
func TestRestoreEveryByte(t *testing.T) {
	h := newHistory(t, 20, 0)
	covered, gap := newFixture(t, h), newFixture(t, h)
	covered.events(5, 20)
	gap.events(13, 20)
	covered.local(4)
	gap.local(4)
	inCovered, inGap := covered.options(), gap.options()
	good := h.snapshot(t, 12)
	check := func(content []byte) {
		require.NoError(t, os.WriteFile(filepath.Join(covered.dir, nameOf(12)), content, 0o600))
		require.NoError(t, os.WriteFile(filepath.Join(gap.dir, nameOf(12)), content, 0o600))
		st, result, err := restored(t, t.Context(), inCovered)
		require.NoError(t, err)
		h.requireState(t, 20, st, result)
		require.Len(t, result.Skipped, 1)
		_, _, err = restored(t, t.Context(), inGap)
		require.ErrorIs(t, err, restore.ErrGap)
	}
	for i := range good {
		content := append([]byte(nil), good...)
		content[i] ^= 1 << (i % 8)
		check(content)
		check(good[:i])
	}
}

// From a random directory and backend, a restore returns the newest state that is known
// to have existed, if that can be rebuilt, and an error otherwise.
func TestRestoreRandom(t *testing.T) {
	const newest = 20
	h := newHistory(t, newest, 0)
	rng := rand.New(rand.NewPCG(1, 2))
	journals := map[[2]int]restore.Journal{}
	for _, bounds := range [][2]int{{1, 0}, {1, 9}, {1, 20}, {5, 12}, {7, 6}, {9, 20}, {13, 16}, {17, 20}, {21, 20}} {
		f := newFixture(t, h)
		f.events(bounds[0], bounds[1])
		journals[bounds] = f.openJournal(wal.Options{})
	}
	good := map[int][]byte{}
	for seq := 1; seq <= newest; seq++ {
		good[seq] = h.snapshot(t, seq)
	}
	failed, reached := 0, 0
	for bounds, j := range journals {
		for range 60 {
			f := newFixture(t, h)
			// In each place some snapshots, some of them damaged.
			fill := func(put func(string, []byte)) (base, known int) {
				for _, seq := range rng.Perm(newest)[:rng.IntN(4)] {
					seq++
					content := good[seq]
					if rng.IntN(2) == 0 {
						content = damages["flipped"](content)
					} else {
						base = max(base, seq)
					}
					put(nameOf(seq), content)
					known = max(known, seq)
				}
				return base, known
			}
			base, known := fill(f.putLocal)
			remoteBase, remoteKnown := fill(f.putRemote)
			reach := func() (int, bool) {
				goal := max(known, bounds[1], bounds[0]-1)
				return goal, base >= goal || (bounds[0] <= base+1 && bounds[1] >= goal)
			}
			want, ok := reach()
			if !ok || want == 0 {
				base, known = max(base, remoteBase), max(known, remoteKnown)
				want, ok = reach()
			}
			st, result, err := restored(t, t.Context(), restore.Options{Dir: f.dir, Journal: j, Backend: f.backend})
			if !ok {
				require.ErrorIs(t, err, restore.ErrGap)
				failed++
				continue
			}
			require.NoError(t, err)
			h.requireState(t, want, st, result)
			reached++
		}
	}
	t.Logf("%d reached, %d refused", reached, failed)
	require.Greater(t, reached, 50)
	require.Greater(t, failed, 50)
}

// Nothing to restore from is the empty state.
func TestRestoreFromNothing(t *testing.T) {
	st, result, err := restored(t, t.Context(), restore.Options{})
	require.NoError(t, err)
	require.Zero(t, st.Sequence())
	require.Empty(t, result.Source)
}

// A backend alone needs no directory, and nothing is written.
func TestRestoreFromBackendAlone(t *testing.T) {
	h := newHistory(t, 20, 0)
	f := newFixture(t, h)
	f.remote(8, 12)
	// What others keep below the prefix is not ours.
	require.NoError(t, f.backend.Put(t.Context(), catalog.SnapshotPrefix+"old/"+nameOf(16), strings.NewReader("")))
	st, result, err := restored(t, t.Context(), restore.Options{Backend: f.backend})
	require.NoError(t, err)
	h.requireState(t, 12, st, result)
	require.Equal(t, f.backend.String(), result.Source)
	require.Empty(t, files(t, f.dir))
}

// late is a journal of one event; the context ends when it has been read.
type late struct{ cancel context.CancelFunc }

func (late) Bounds() (first, last journal.Sequence, err error) { return 1, 1, nil }

func (l late) Range(_ context.Context, _, _ journal.Sequence, fn func(*journal.Event) error) error {
	defer l.cancel()
	return fn(&journal.Event{Sequence: 1, Kind: journal.Clear, Cache: "snapshot/", Node: "n"})
}

// A context that ends when everything was read does not hide a gap.
func TestRestoreGapAtDeadline(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	_, _, err := restore.Restore(ctx, restore.Options{Journal: late{cancel}, Known: 5})
	require.ErrorIs(t, err, context.Canceled)
}
