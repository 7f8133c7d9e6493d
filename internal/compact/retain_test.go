package compact_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/internal/restore"
	"github.com/xdswal/xdswal/journal"
)

// Snapshots are kept by count and by age.
func TestRetention(t *testing.T) {
	// Snapshots of events 1 to 6 and their ages when that of event 7 is
	// written.
	ages := []time.Duration{9 * time.Hour, 3 * time.Hour, 2 * time.Hour, 50 * time.Minute, 30 * time.Minute, 10 * time.Minute}
	for _, r := range []struct {
		name string
		keep int
		age  time.Duration
		want []journal.Sequence
	}{
		{"defaults", 0, 0, []journal.Sequence{7, 6, 5, 4}},
		{"count alone", 0, -1, []journal.Sequence{7, 6, 5}},
		{"count beats age", 6, time.Hour, []journal.Sequence{7, 6, 5, 4, 3, 2}},
		{"age beats count", 2, 150 * time.Minute, []journal.Sequence{7, 6, 5, 4, 3}},
		{"the least count", 2, -1, []journal.Sequence{7, 6}},
	} {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			opt := never
			opt.KeepFor = 24 * time.Hour
			s := newStore(t, opt)
			s.compactor.Start()
			for range ages {
				s.append(1, 10)
				s.compact()
			}
			s.crash()
			require.Len(t, s.local(), len(ages))
			for i, by := range ages {
				age(t, s.path(journal.Sequence(i+1)), by)
			}

			s.opt.KeepSnapshots, s.opt.KeepFor = r.keep, r.age
			s.open()
			s.compactor.Start()
			s.append(1, 10)
			s.compact()
			s.compactor.Stop()
			require.Equal(t, r.want, s.local())
			s.seen.locked(func() {
				require.Len(t, s.seen.deleted, 7-len(r.want))
				for _, d := range s.seen.deleted {
					require.Equal(t, s.snapshots(), d.Location)
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
		age(t, s.path(journal.Sequence(seq+1)), 2*time.Hour)
	}
	s.open()
	require.Len(t, s.local(), 5)
	s.compactor.Start()
	eventually(t, func() bool { return len(s.local()) == 3 }, "pruning")
	require.Equal(t, []journal.Sequence{5, 4, 3}, s.local())
}

// perSegment is more events of 20 KiB than a segment of the tests holds.
const perSegment = 8

// The journal is truncated as far as the oldest kept snapshot covers it, under pressure
// as far as the second newest does. What a backend does not have yet is kept, except
// under pressure.
func TestTruncation(t *testing.T) {
	const none, all, nothing = -1, 50, 0
	for _, r := range []struct {
		name    string
		shipped int // event up to which a backend has all; none: there is none
		pressed bool
		keepFor time.Duration
		covered journal.Sequence // event up to which the journal may go
	}{
		{"plain", none, false, -1, 30},
		{"plain, all are young", none, false, time.Hour, 10},
		{"plain, all are young, under pressure", none, true, time.Hour, 40},
		{"backend", all, false, -1, 30},
		{"backend under pressure", all, true, -1, 40},
		{"backend behind", 23, false, -1, 23},
		{"backend behind, under pressure", 23, true, -1, 40},
		{"backend down", nothing, false, -1, 0},
		{"backend down, under pressure", nothing, true, -1, 40},
	} {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			opt := never
			opt.KeepFor = r.keepFor
			if r.shipped != none {
				opt.Shipped = func() journal.Sequence { return journal.Sequence(r.shipped) }
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
			}
			s.compactor.Stop()
			require.LessOrEqual(t, s.first(), r.covered+1)
			require.Greater(t, s.first()+perSegment, r.covered+1)
		})
	}
}

// The journal that was kept for the backend is truncated with the next snapshot.
func TestTruncationAfterShipping(t *testing.T) {
	t.Parallel()
	var shipped atomic.Uint64
	opt := never
	opt.Shipped = func() journal.Sequence { return journal.Sequence(shipped.Load()) }
	s := newStore(t, opt)
	for range 4 {
		s.append(10, 20<<10)
		s.compact()
	}
	require.EqualValues(t, 1, s.first())
	shipped.Store(40)
	s.append(1, 10)
	s.compact()
	require.Greater(t, s.first()+perSegment, journal.Sequence(31))
	require.LessOrEqual(t, s.first(), journal.Sequence(31))
}

// Written is called after each snapshot, when it can be read, and at no other time.
func TestWritten(t *testing.T) {
	var calls atomic.Int32
	var s *store
	opt := never
	opt.Written = func() {
		calls.Add(1)
		entries, err := s.compactor.Snapshots()
		require.NoError(t, err)
		require.Equal(t, s.state.Load().Sequence(), entries[0].Sequence)
	}
	s = newStore(t, opt)
	s.compact()
	require.Zero(t, calls.Load(), "the empty state is no snapshot")
	for i := range 3 {
		s.append(2, 10)
		s.compact()
		s.compact()
		require.EqualValues(t, i+1, calls.Load())
	}
	away := s.dir + "-away"
	require.NoError(t, os.Rename(s.snapshots(), away))
	s.append(1, 10)
	_, err := s.compactor.Compact(t.Context())
	require.Error(t, err)
	require.EqualValues(t, 3, calls.Load())
	require.NoError(t, os.Rename(away, s.snapshots()))
	s.compactor.Stop()
	require.NoError(t, s.compactor.Close(t.Context()))
	require.EqualValues(t, 4, calls.Load())
}

// The guarantee of retention: if the newest snapshot turns out to be damaged, nothing
// is lost, whatever was truncated.
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
					require.ErrorIs(t, err, restore.ErrGap)
					require.ErrorIs(t, err, event.ErrCorrupt)
				} else {
					require.NoError(t, err)
				}
				mendSecond()
				mend()
			}
			require.Greater(t, s.first(), journal.Sequence(1))
		})
	}
}

// A snapshot that was found to be damaged at the start does not count: it is not the
// newest, it is not listed for the shipper, and it is deleted once there is a newer one.
func TestDamagedAtStart(t *testing.T) {
	for _, r := range []struct {
		name string
		tail int // events after the damaged snapshot
	}{{"with a tail", 3}, {"at the very state", 0}} {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			opt := never
			opt.KeepSnapshots = 2
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
			s.pressed.Store(true)
			good, err := s.compactor.Snapshots()
			require.NoError(t, err)
			require.Equal(t, []journal.Sequence{20}, sequences(good))
			require.Contains(t, files(t, s.snapshots()), damaged)
			require.LessOrEqual(t, s.first(), journal.Sequence(21))

			newest := journal.Sequence(30 + r.tail)
			require.Equal(t, newest, s.compact())
			require.NotContains(t, files(t, s.snapshots()), damaged)
			require.Equal(t, []journal.Sequence{newest, 20}, s.local())
			require.LessOrEqual(t, s.first(), journal.Sequence(21))
			mend := s.damage(newest)
			require.EqualValues(t, 20, s.requireRestores().SnapshotSequence)
			mend()
		})
	}
}

// What cannot be deleted is logged and retried.
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
	require.Contains(t, s.log.String(), "snapshots or the journal were not pruned")
	require.Contains(t, s.local(), journal.Sequence(1))
	require.EqualValues(t, 1, s.first(), "what is kept is covered")
	require.NoError(t, os.RemoveAll(stuck))
	require.NoError(t, os.WriteFile(stuck, good, 0o600))
	s.append(1, 10)
	s.compact()
	require.False(t, slices.Contains(s.local(), 1))
	require.Greater(t, s.first(), journal.Sequence(1))
}

// What could not be deleted or truncated is tried again where no other snapshot
// is written.
func TestPruneIsRetried(t *testing.T) {
	for name, r := range map[string]struct {
		fail func(*store) (mend func())
	}{
		"deletion": {func(s *store) func() {
			stuck := s.path(1)
			require.NoError(s.t, os.Remove(stuck))
			require.NoError(s.t, os.MkdirAll(filepath.Join(stuck, "x"), 0o700))
			return func() { require.NoError(s.t, os.Remove(filepath.Join(stuck, "x"))) }
		}},
		"truncation": {func(s *store) func() {
			s.truncateErr.Store(&errTruncate)
			return func() { s.truncateErr.Store(nil) }
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStore(t, never)
			s.compactor.Start()
			s.append(1, 10)
			s.compact()
			mend := r.fail(s)
			for range 3 {
				s.append(10, 20<<10)
				s.compact()
			}
			require.EqualValues(t, 1, s.first())
			require.Contains(t, s.log.String(), "not pruned")
			require.NoError(t, s.compactor.Status().Err)
			mend()
			eventually(t, func() bool { return s.first() > 1 }, "truncation")
			require.Equal(t, []journal.Sequence{31, 21, 11}, s.local())
		})
	}
}

// A pruning that its caller has canceled does not hide the failure of the next one.
func TestPruneFailsAfterCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancels := false
	opt := never
	opt.Written = func() {
		if cancels {
			cancel() // between the snapshot and the truncation
		}
	}
	s := newStore(t, opt)
	for range 2 {
		s.append(10, 20<<10)
		s.compact()
	}
	s.append(10, 20<<10)
	cancels = true
	_, err := s.compactor.Compact(ctx)
	require.NoError(t, err)
	require.NotContains(t, s.log.String(), "not pruned")
	s.truncateErr.Store(&errTruncate)
	s.append(1, 10)
	s.compact()
	require.Contains(t, s.log.String(), "not pruned")
}

// A snapshot that replaces a damaged one of its name counts. Without a backend a store
// keeps its epoch, so the names are equal.
func TestDamagedIsReplaced(t *testing.T) {
	s := newStore(t, never)
	for range 3 {
		s.append(10, 20<<10)
		s.compact()
	}
	s.crash()
	s.damage(30)
	s.epoch--
	s.open()
	require.EqualValues(t, 30, s.compact())
	good, err := s.compactor.Snapshots()
	require.NoError(t, err)
	require.Equal(t, []journal.Sequence{30, 20, 10}, sequences(good))
	s.append(10, 20<<10)
	s.compact()
	require.Equal(t, []journal.Sequence{40, 30, 20}, s.local())
}

var errTruncate = errors.New("the disk is gone")
