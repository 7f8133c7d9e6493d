package compact_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/compactor"
	"github.com/xdswal/xdswal/internal/compact"
	"github.com/xdswal/xdswal/internal/format/snapshot"
	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/journal"
)

// If nothing changed, nothing is written: at once, after a restart, and at the end.
func TestUnchanged(t *testing.T) {
	s := newStore(t, never)
	require.Zero(t, s.compact(), "the empty state is no snapshot")
	require.Empty(t, files(t, s.snapshots()))

	s.append(5, 10)
	require.EqualValues(t, 5, s.compact())
	info, err := os.Stat(s.path(5))
	require.NoError(t, err)
	unchanged := func() {
		t.Helper()
		again, err := os.Stat(s.path(5))
		require.NoError(t, err)
		require.True(t, os.SameFile(info, again))
		require.Equal(t, info.ModTime(), again.ModTime())
		require.Len(t, files(t, s.snapshots()), 1)
	}
	require.EqualValues(t, 5, s.compact())
	unchanged()
	s.crash()
	s.open()
	s.compactor.Start()
	require.EqualValues(t, 5, s.compactor.Status().Sequence)
	require.WithinDuration(t, info.ModTime(), s.compactor.Status().Time, 0)
	require.EqualValues(t, 5, s.compact())
	s.compactor.Stop()
	require.NoError(t, s.compactor.Close(t.Context()))
	unchanged()
	s.seen.locked(func() {
		require.Len(t, s.seen.writes, 1)
		require.Len(t, s.seen.compactions, 5)
		for i, c := range s.seen.compactions {
			require.Equal(t, i != 1, c.Unchanged)
		}
	})
}

// The reason of a compaction is reported.
func TestReasons(t *testing.T) {
	with := func(change func(*compact.Options)) compact.Options {
		opt := never
		change(&opt)
		return opt
	}
	for _, r := range []struct {
		name string
		opt  compact.Options
		// prepare runs before the compactor starts, then what should start a
		// compaction.
		prepare, act func(*store)
		want         compactor.Reason
	}{
		{
			"interval", with(func(o *compact.Options) { o.Interval = 20 * time.Millisecond }),
			func(s *store) { s.append(3, 10) }, func(*store) {}, compactor.ReasonInterval,
		},
		{
			"interval that ended before the start", with(func(o *compact.Options) { o.Interval = time.Hour }),
			func(s *store) {
				s.append(3, 10)
				s.compact()
				s.append(1, 10)
				age(s.t, s.path(3), 2*time.Hour)
				s.crash()
				s.open()
			}, func(*store) {}, compactor.ReasonInterval,
		},
		{
			"records", with(func(o *compact.Options) { o.TailRecords = 7 }),
			func(*store) {}, func(s *store) { s.append(7, 10) }, compactor.ReasonTail,
		},
		{
			"records before the start", with(func(o *compact.Options) { o.TailRecords = 7 }),
			func(s *store) {
				s.append(4, 10)
				s.crash()
				s.open()
			}, func(s *store) { s.append(3, 10) }, compactor.ReasonTail,
		},
		{
			"all records before the start", with(func(o *compact.Options) { o.TailRecords = 7 }),
			func(s *store) {
				s.append(7, 10)
				s.crash()
				s.open()
			}, func(*store) {}, compactor.ReasonTail,
		},
		{
			"journal filled by the last process", never,
			func(s *store) {
				s.append(3, 10)
				s.crash()
				s.open()
				s.pressed.Store(true)
			}, func(*store) {}, compactor.ReasonTail,
		},
		{
			"bytes", with(func(o *compact.Options) { o.TailBytes = 4000 }),
			func(*store) {}, func(s *store) { s.append(4, 1000) }, compactor.ReasonTail,
		},
		{"demand", never, func(*store) {}, func(s *store) { s.append(1, 10); s.compact() }, compactor.ReasonDemand},
		{"close", never, func(*store) {}, func(s *store) {
			s.append(1, 10)
			s.compactor.Stop()
			require.NoError(s.t, s.compactor.Close(context.Background()))
		}, compactor.ReasonClose},
	} {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			s := newStore(t, r.opt)
			r.prepare(s)
			s.seen.locked(func() { s.seen.compactions = nil })
			s.compactor.Start()
			r.act(s)
			eventually(t, func() bool {
				st := s.compactor.Status()
				return st.Sequence > 0 && st.Sequence == s.state.Load().Sequence()
			}, "a snapshot")
			s.compactor.Stop()
			s.seen.locked(func() {
				require.NotEmpty(t, s.seen.compactions)
				c := s.seen.compactions[0]
				require.Equal(t, r.want, c.Reason)
				require.False(t, c.Unchanged)
				require.NoError(t, c.Err)
				require.Positive(t, c.Duration)
				w := s.seen.writes[len(s.seen.writes)-1]
				require.Equal(t, s.snapshots(), w.Location)
				require.Equal(t, c.Sequence, w.Sequence)
				require.Equal(t, s.state.Load().NumNodes(), w.Nodes)
				require.Equal(t, s.state.Load().NumResources(), w.Resources)
				require.Equal(t, s.state.Load().Bytes(), w.ResourceBytes)
				info, err := os.Stat(s.path(c.Sequence))
				require.NoError(t, err)
				require.Equal(t, info.Size(), w.Bytes)
			})
		})
	}
}

// Nothing is compacted without a reason.
func TestNoReason(t *testing.T) {
	s := newStore(t, compact.Options{})
	s.append(3, 10)
	s.compact()
	s.append(3, 10)
	s.crash()
	s.open()
	s.compactor.Start()
	s.append(3, 10)
	s.compactor.Stop()
	require.Equal(t, []journal.Sequence{3}, s.local())
}

// While a snapshot is being written, updates continue, and the snapshot has the state
// at its beginning.
func TestWritersDoNotWait(t *testing.T) {
	begun, release := make(chan struct{}), make(chan struct{})
	s := newWatchedStore(t, never, func(compactor.Snapshot) {
		begun <- struct{}{}
		<-release
	})
	s.append(5, 10)
	want := s.state.Load().Digest()
	done := make(chan journal.Sequence)
	go func() {
		seq, _ := s.compactor.Compact(context.Background())
		done <- seq
	}()
	<-begun
	require.EqualValues(t, 55, s.append(50, 10))
	require.EqualValues(t, 55, s.state.Load().Sequence())
	require.Zero(t, s.compactor.Status().Sequence)

	// A second call waits until its context is done.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.compactor.Compact(ctx)
	require.ErrorIs(t, err, context.Canceled)

	close(release)
	require.EqualValues(t, 5, <-done)
	f, err := os.Open(s.path(5))
	require.NoError(t, err)
	defer f.Close()
	st, _, err := snapshot.Decode(t.Context(), f, nil)
	require.NoError(t, err)
	require.Equal(t, want, st.Digest())
	go func() { <-begun }()
	require.EqualValues(t, 55, s.compact())
}

// Updates, compactions on demand, by tail and by interval, and reads of the status are
// concurrent.
func TestTogether(t *testing.T) {
	noLeak(t)
	opt := never
	opt.Interval, opt.TailRecords = 5*time.Millisecond, 20
	s := newStore(t, opt)
	s.compactor.Start()
	done := make(chan error)
	go func() {
		var errs []error
		for range 10 {
			_, err := s.compactor.Compact(context.Background())
			errs = append(errs, err, s.compactor.Status().Err)
		}
		done <- errors.Join(errs...)
	}()
	s.append(300, 2000)
	require.NoError(t, <-done)
	s.pressed.Store(true)
	s.append(50, 2000)
	s.compactor.Stop()
	require.NoError(t, s.compactor.Close(t.Context()))
	require.EqualValues(t, 350, s.local()[0])
	require.Greater(t, s.first(), journal.Sequence(1))
	require.Empty(t, s.log.String(), "to be stopped is no failure")
}

// At Close the journal may be closed already, which logs no warning.
func TestCloseAfterJournal(t *testing.T) {
	s := newStore(t, never)
	s.compactor.Start()
	for range 3 {
		s.append(2, 10)
		s.compact()
	}
	s.append(1, 10)
	s.compactor.Stop()
	require.NoError(t, s.journal.Close())
	s.stopped = true
	require.NoError(t, s.compactor.Close(t.Context()))
	require.EqualValues(t, 7, s.local()[0])
	require.Len(t, s.local(), compact.DefaultKeepSnapshots)
	require.Empty(t, s.log.String())
	_, err := s.compactor.Compact(t.Context())
	require.ErrorContains(t, err, "closed")
	s.compactor.Stop()
}

// A snapshot that cannot be written is reported, and the next attempt counts.
func TestWriteFails(t *testing.T) {
	s := newStore(t, never)
	s.append(3, 10)
	away := s.dir + "-away"
	require.NoError(t, os.Rename(s.snapshots(), away))
	_, err := s.compactor.Compact(t.Context())
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorContains(t, err, "write snapshot snapshot-")
	require.ErrorIs(t, s.compactor.Status().Err, os.ErrNotExist)
	require.Zero(t, s.compactor.Status().Sequence)
	require.Contains(t, s.log.String(), "snapshot was not written")
	s.seen.locked(func() {
		require.Equal(t, 1, s.seen.failed)
		require.Len(t, s.seen.exceptions, 1)
		require.ErrorIs(t, s.seen.exceptions[0].Err, os.ErrNotExist)
	})

	require.NoError(t, os.Rename(away, s.snapshots()))
	require.EqualValues(t, 3, s.compact())
	require.NoError(t, s.compactor.Status().Err)
}

// A compaction that failed is tried again by itself, without an interval and
// without further events, and however many events are committed meanwhile it is
// tried ever more rarely.
func TestRetry(t *testing.T) {
	for name, r := range map[string]struct {
		events int
		fail   func(*store)
	}{
		"tail":   {5, func(s *store) { s.append(5, 10) }},
		"demand": {1, func(s *store) { s.append(1, 10); _, _ = s.compactor.Compact(context.Background()) }},
		"many events": {205, func(s *store) {
			s.append(5, 10)
			eventually(s.t, func() bool { return s.compactor.Status().Err != nil }, "a failure")
			start := time.Now()
			s.append(200, 10)
			s.seen.locked(func() {
				require.LessOrEqual(s.t, s.seen.failed, 2+int(time.Since(start)/(500*time.Millisecond)))
			})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			opt := never
			opt.TailRecords = 5
			s := newStore(t, opt)
			s.compactor.Start()
			away := s.dir + "-away"
			require.NoError(t, os.Rename(s.snapshots(), away))
			r.fail(s)
			eventually(t, func() bool { return s.compactor.Status().Err != nil }, "a failure")
			require.NoError(t, os.Rename(away, s.snapshots()))
			eventually(t, func() bool { return s.compactor.Status().Sequence == journal.Sequence(r.events) }, "a snapshot")
			eventually(t, func() bool { return s.compactor.Status().Err == nil }, "recovery")
			s.compactor.Stop()
			require.Equal(t, []journal.Sequence{journal.Sequence(r.events)}, s.local())
		})
	}
}

// The events of a compaction's duration start another one only when they are a tail
// themselves, even if the journal stays under pressure.
func TestOneCompactionUnderPressure(t *testing.T) {
	opt := never
	opt.TailRecords = 5
	var s *store
	var once sync.Once
	s = newWatchedStore(t, opt, func(compactor.Snapshot) { once.Do(func() { s.append(1, 10) }) })
	s.pressed.Store(true)
	s.compactor.Start()
	s.append(5, 10)
	eventually(t, func() bool { return s.compactor.Status().Sequence >= 5 }, "a snapshot")
	s.append(4, 10)
	eventually(t, func() bool { return s.compactor.Status().Sequence >= 10 }, "the next one")
	require.Equal(t, []journal.Sequence{10, 5}, s.local())
}

// The events before a compaction that failed or was canceled still count.
func TestFailureKeepsTail(t *testing.T) {
	opt := never
	opt.TailRecords = 7
	s := newStore(t, opt)
	s.compactor.Start()
	s.append(5, 10)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.compactor.Compact(ctx)
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, s.compactor.Status().Err, "its caller canceled it")
	s.append(2, 10)
	eventually(t, func() bool { return s.compactor.Status().Sequence == 7 }, "a snapshot")
	s.compactor.Stop()
	s.seen.locked(func() { require.Equal(t, compactor.ReasonTail, s.seen.compactions[0].Reason) })
}

// A compaction that is canceled leaves nothing, however large a node is.
func TestCompactCancelled(t *testing.T) {
	s := newStore(t, never)
	s.append(3, 10)
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("no more time")
	cancel(cause)
	_, err := s.compactor.Compact(ctx)
	require.ErrorIs(t, err, cause)
	require.Empty(t, files(t, s.snapshots()))
}

// New removes a partly written file of a crash, and counts the complete ones.
func TestNewAfterCrash(t *testing.T) {
	s := newStore(t, never)
	s.append(3, 10)
	s.compact()
	s.append(1, 10)
	s.crash()
	require.NoError(t, os.WriteFile(filepath.Join(s.snapshots(), ".tmp-123"), []byte("half"), 0o600))
	s.open()
	require.Equal(t, []string{filepath.Base(s.path(3))}, files(t, s.snapshots()))
	require.EqualValues(t, 3, s.compactor.Status().Sequence)
	require.EqualValues(t, 4, s.compact())

	_, err := compact.New(s.state.Load, s, compact.Options{Dir: filepath.Join(s.dir, "missing")})
	require.ErrorIs(t, err, os.ErrNotExist)
}

// A compactor that was never started can be stopped and closed.
func TestNeverStarted(t *testing.T) {
	s := newStore(t, never)
	s.append(3, 10)
	s.compactor.Stop()
	require.NoError(t, s.compactor.Close(t.Context()))
	require.Equal(t, []journal.Sequence{3}, s.local())
}

// Each option has a default and a range: 0 is the default, a negative value is off
// where that has a meaning, and an error names any other.
func TestOptions(t *testing.T) {
	for _, r := range []struct {
		field  string
		change func(*compact.Options)
		want   string // the error, if any
	}{
		{"Dir", func(o *compact.Options) { o.Dir = "" }, "Dir is empty, want a directory"},
		{"Interval", func(o *compact.Options) { o.Interval = 0 }, ""},
		{"Interval", func(o *compact.Options) { o.Interval = -time.Hour }, ""},
		{"Interval", func(o *compact.Options) { o.Interval = 1 }, ""},
		{"TailBytes", func(o *compact.Options) { o.TailBytes = 0 }, ""},
		{"TailBytes", func(o *compact.Options) { o.TailBytes = -7 }, ""},
		{"TailBytes", func(o *compact.Options) { o.TailBytes = 1 }, ""},
		{"TailRecords", func(o *compact.Options) { o.TailRecords = 0 }, ""},
		{"TailRecords", func(o *compact.Options) { o.TailRecords = -7 }, ""},
		{"TailRecords", func(o *compact.Options) { o.TailRecords = 1 }, ""},
		{"KeepSnapshots", func(o *compact.Options) { o.KeepSnapshots = 0 }, ""},
		{"KeepSnapshots", func(o *compact.Options) { o.KeepSnapshots = 2 }, ""},
		{"KeepSnapshots", func(o *compact.Options) { o.KeepSnapshots = 1 }, "KeepSnapshots is 1, want at least 2"},
		{"KeepSnapshots", func(o *compact.Options) { o.KeepSnapshots = -1 }, "KeepSnapshots is -1, want at least 2"},
		{"KeepFor", func(o *compact.Options) { o.KeepFor = 0 }, ""},
		{"KeepFor", func(o *compact.Options) { o.KeepFor = -time.Hour }, ""},
		{"KeepFor", func(o *compact.Options) { o.KeepFor = 1 }, ""},
	} {
		opt := compact.Options{Dir: t.TempDir(), Logger: slog.New(slog.DiscardHandler)}
		r.change(&opt)
		_, err := compact.New(func() *state.State { return &state.State{} }, nil, opt)
		if r.want == "" {
			require.NoError(t, err, r.field)
		} else {
			require.ErrorContains(t, err, r.want)
		}
	}
}
