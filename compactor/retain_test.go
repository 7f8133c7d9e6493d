package compactor_test

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/backends/backendtest"
	"github.com/xdswal/xdswal/backends/file"
	"github.com/xdswal/xdswal/compactor/catalog"
	"github.com/xdswal/xdswal/journal/event"
	"github.com/xdswal/xdswal/replay"
)

// Snapshots are kept by count and by age, in the directory and in the backend.
func TestRetention(t *testing.T) {
	// Snapshots of events 1 to 6 and their ages when that of event 7 is
	// written.
	ages := []time.Duration{9 * time.Hour, 3 * time.Hour, 2 * time.Hour, 50 * time.Minute, 30 * time.Minute, 10 * time.Minute}
	for _, r := range []struct {
		name string
		keep int
		age  time.Duration
		want []event.Sequence
	}{
		{"defaults", 0, 0, []event.Sequence{7, 6, 5, 4}},
		{"count alone", 0, -1, []event.Sequence{7, 6, 5}},
		{"count beats age", 6, time.Hour, []event.Sequence{7, 6, 5, 4, 3, 2}},
		{"age beats count", 2, 150 * time.Minute, []event.Sequence{7, 6, 5, 4, 3}},
		{"one is too few", 1, -1, []event.Sequence{7, 6}},
	} {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			b, err := file.New(file.Config{Dir: root})
			require.NoError(t, err)
			opt := never
			opt.KeepFor, opt.Backend = 24*time.Hour, b
			s := newStore(t, opt)
			s.compactor.Start()
			for range ages {
				s.append(1, 10)
				s.ship()
			}
			s.crash()
			require.Len(t, s.local(), len(ages))
			for i, by := range ages {
				path := s.path(event.Sequence(i + 1))
				age(t, path, by)
				age(t, filepath.Join(root, catalog.KeyPrefix, filepath.Base(path)), by)
			}

			s.opt.KeepSnapshots, s.opt.KeepFor = r.keep, r.age
			s.open()
			s.compactor.Start()
			s.append(1, 10)
			s.ship()
			eventually(t, func() bool { return len(s.remote()) == len(r.want) }, "pruning")
			s.compactor.Stop()
			require.Equal(t, r.want, s.local())
			require.Equal(t, r.want, s.remote())
			s.seen.locked(func() {
				require.Len(t, s.seen.deleted, 2*(7-len(r.want)))
				for _, d := range s.seen.deleted {
					require.Contains(t, []string{s.snapshots(), b.String()}, d.Location)
					require.NotContains(t, r.want, d.Sequence)
				}
			})
		})
	}
}

// What the last process left to prune is pruned at the start.
func TestPruneAtStart(t *testing.T) {
	opt := never
	opt.KeepFor = time.Hour
	s := newStore(t, opt)
	for range 5 {
		s.append(1, 10)
		s.compact()
	}
	s.crash()
	for seq := range 5 {
		age(t, s.path(event.Sequence(seq+1)), 2*time.Hour)
	}
	s.open()
	require.Len(t, s.local(), 5)
	s.compactor.Start()
	eventually(t, func() bool { return len(s.local()) == 3 }, "pruning")
	require.Equal(t, []event.Sequence{5, 4, 3}, s.local())
}

// perSegment is more events of 20 KiB than a segment of the tests holds.
const perSegment = 8

// The journal goes as far as the oldest snapshot kept covers it, under pressure
// as far as the second newest does; and not before a backend has what it is to
// have, except under pressure.
func TestTruncation(t *testing.T) {
	const none, reachable, down = 0, 1, 2
	for _, r := range []struct {
		name    string
		backend int
		pressed bool
		keepFor time.Duration
		covered int // index of the snapshot kept up to which the journal goes; -1: nothing goes
	}{
		{"plain", none, false, -1, 2},
		{"plain, all are young", none, false, time.Hour, 4},
		{"plain, all are young, under pressure", none, true, time.Hour, 1},
		{"backend", reachable, false, -1, 2},
		{"backend under pressure", reachable, true, -1, 1},
		{"backend down", down, false, -1, -1},
		{"backend down, under pressure", down, true, -1, 1},
	} {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			opt := never
			opt.KeepFor = r.keepFor
			faulty := &backendtest.Faulty{Backend: backendtest.NewMemory()}
			if r.backend == down {
				faulty.Fault = func(backendtest.Op, string) backendtest.Fault { return backendtest.FailAbsent }
			}
			if r.backend != none {
				opt.Backend = faulty
			}
			s := newStore(t, opt)
			s.pressed.Store(r.pressed)
			s.compactor.Start()
			for i := range 5 {
				s.append(10, 20<<10)
				s.compact()
				if i == 0 {
					require.EqualValues(t, 1, s.first(), "one snapshot alone is not relied on")
				}
				if r.backend == reachable {
					s.waitShipped(s.state.Load().Sequence())
				}
			}
			if r.covered < 0 {
				s.compactor.Stop()
				require.EqualValues(t, 1, s.first())
				return
			}
			covered := s.local()[r.covered]
			eventually(t, func() bool { return s.first()+perSegment > covered+1 }, "truncation")
			s.compactor.Stop()
			require.LessOrEqual(t, s.first(), covered+1)
		})
	}
}

// When the backend is back, the journal that waited for it goes.
func TestTruncationAfterShipping(t *testing.T) {
	t.Parallel()
	faulty := &backendtest.Faulty{Backend: backendtest.NewMemory()}
	faulty.Fault = func(op backendtest.Op, _ string) backendtest.Fault {
		if op == backendtest.OpPut && faulty.Calls(op) <= 2 {
			return backendtest.FailAbsent
		}
		return backendtest.None
	}
	opt := never
	opt.Backend = faulty
	s := newStore(t, opt)
	for range 4 {
		s.append(10, 20<<10)
		s.compact()
	}
	require.EqualValues(t, 1, s.first())
	s.compactor.Start()
	s.waitShipped(40)
	eventually(t, func() bool { return s.first() > 20-perSegment }, "truncation")
	require.LessOrEqual(t, s.first(), event.Sequence(21))
}

// The guarantee of retention: whatever was truncated, under whatever pressure,
// if the newest snapshot turns out damaged nothing is lost.
func TestNewestMayBeDamaged(t *testing.T) {
	for _, pressed := range []bool{false, true} {
		t.Run(map[bool]string{false: "plain", true: "pressed"}[pressed], func(t *testing.T) {
			t.Parallel()
			opt := never
			opt.KeepSnapshots = 2
			s := newStore(t, opt)
			s.pressed.Store(pressed)
			rng := rand.New(rand.NewPCG(7, 7))
			for round := range 12 {
				s.append(1+rng.IntN(9), 20<<10)
				s.compact()
				s.append(rng.IntN(4), 20<<10) // a tail
				kept := s.local()
				mend := s.damage(kept[0])
				result := s.requireRestores()
				require.Len(t, result.Skipped, 1)
				require.ErrorIs(t, result.Skipped[0].Reason, event.ErrCorrupt)
				if round == 0 {
					require.Zero(t, result.SnapshotSequence)
					mend()
					continue
				}
				require.Equal(t, kept[1], result.SnapshotSequence)
				// Both damaged: lost where the journal was truncated, and said
				// so.
				mendSecond := s.damage(kept[1])
				_, _, err := s.restore()
				if s.first() > 1 {
					require.ErrorIs(t, err, replay.ErrGap)
					require.ErrorIs(t, err, event.ErrCorrupt)
				} else {
					require.NoError(t, err)
				}
				mendSecond()
				mend()
			}
			require.Greater(t, s.first(), event.Sequence(1))
		})
	}
}

// A snapshot that was found damaged at the start is relied on by nobody: it is
// not the newest, it is not shipped, it does not count, and it goes once there
// is a newer one.
func TestDamagedAtStart(t *testing.T) {
	for _, r := range []struct {
		name string
		tail int // events after the damaged snapshot
	}{{"with a tail", 3}, {"at the very state", 0}} {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			opt := never
			opt.KeepSnapshots, opt.Backend = 2, backends.Backend(backendtest.NewMemory())
			s := newStore(t, opt)
			for range 3 {
				s.append(10, 20<<10)
				s.compact()
			}
			s.append(r.tail, 20<<10)
			s.crash()
			damaged := filepath.Base(s.path(30))
			s.damage(30)

			s.open()
			require.Len(t, s.restored.Skipped, 1)
			require.EqualValues(t, 20, s.compactor.Status().Sequence)
			s.compactor.Start()
			s.waitShipped(20)
			s.pressed.Store(true)
			require.Equal(t, []event.Sequence{20}, s.remote())
			require.Contains(t, files(t, s.snapshots()), damaged)
			require.LessOrEqual(t, s.first(), event.Sequence(21))

			newest := event.Sequence(30 + r.tail)
			require.Equal(t, newest, s.ship())
			require.NotContains(t, files(t, s.snapshots()), damaged)
			require.Equal(t, []event.Sequence{newest, 20}, s.local())
			require.Equal(t, []event.Sequence{newest, 20}, s.remote())
			require.LessOrEqual(t, s.first(), event.Sequence(21))
			mend := s.damage(newest)
			require.EqualValues(t, 20, s.requireRestores().SnapshotSequence)
			mend()
			s.requireBackend()
		})
	}
}

// What cannot be deleted is warned of, and tried again.
func TestPruneFails(t *testing.T) {
	s := newStore(t, never)
	s.append(1, 10)
	s.compact()
	// A directory that is not empty cannot be removed like a file.
	stuck := s.path(1)
	good, err := os.ReadFile(stuck)
	require.NoError(t, err)
	require.NoError(t, os.Remove(stuck))
	require.NoError(t, os.Mkdir(stuck, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(stuck, "x"), nil, 0o600))
	for range 3 {
		s.append(10, 20<<10)
		s.compact()
	}
	require.Contains(t, s.log.String(), "snapshot was not pruned")
	require.Contains(t, s.local(), event.Sequence(1))
	require.EqualValues(t, 1, s.first(), "what is kept is covered")
	require.NoError(t, os.RemoveAll(stuck))
	require.NoError(t, os.WriteFile(stuck, good, 0o600))
	s.append(1, 10)
	s.compact()
	require.False(t, slices.Contains(s.local(), 1))
	require.Greater(t, s.first(), event.Sequence(1))
}
