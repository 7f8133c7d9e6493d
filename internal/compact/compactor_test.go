package compact_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/compactor"
	"github.com/xdswal/xdswal/internal/compact"
	"github.com/xdswal/xdswal/internal/format/snapshot"
	"github.com/xdswal/xdswal/internal/restore"
	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/journal"
)

// Where nothing changed nothing is written: at once, after a restart, and at
// the end.
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

// What starts a compaction is reported as its reason.
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

// While a snapshot is being written, updates go on, and the snapshot is of the
// moment when it began.
func TestWritersDoNotWait(t *testing.T) {
	begun, goOn := make(chan struct{}), make(chan struct{})
	s := newWatchedStore(t, never, func(compactor.Snapshot) {
		begun <- struct{}{}
		<-goOn
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

	// Who wants another one meanwhile waits as long as it likes.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.compactor.Compact(ctx)
	require.ErrorIs(t, err, context.Canceled)

	close(goOn)
	require.EqualValues(t, 5, <-done)
	f, err := os.Open(s.path(5))
	require.NoError(t, err)
	defer f.Close()
	st, _, err := restore.Decode(t.Context(), f, nil)
	require.NoError(t, err)
	require.Equal(t, want, st.Digest())
	go func() { <-begun }()
	require.EqualValues(t, 55, s.compact())
}

// Updates, compactions on demand, by tail and by interval, restores and looks
// at the status go on beside one another.
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

// At Close the journal may be closed already, and nobody is warned for nothing.
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

// A compaction that is given up leaves nothing, however large a node is.
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

// Encode heeds its context also within a node.
func TestEncodeCancelled(t *testing.T) {
	st := &state.State{}
	var err error
	for i := range 8 {
		value := make([]byte, 1<<20)
		st, err = st.Apply(&journal.Event{
			Sequence: journal.Sequence(i + 1), Kind: journal.Update, Cache: "linear/x",
			Types: []journal.TypeChange{{TypeURL: clusterURL, Version: "1", Upserts: []*journal.Resource{{Name: string(rune('a' + i)), TypeURL: clusterURL, Value: value}}}},
		})
		require.NoError(t, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var w bytes.Buffer
	n, err := compact.Encode(ctx, cancellingWriter{&w, cancel}, st, snapshot.Header{Sequence: 8})
	require.ErrorIs(t, err, context.Canceled)
	require.EqualValues(t, w.Len(), n)
	var whole bytes.Buffer
	n, err = compact.Encode(t.Context(), &whole, st, snapshot.Header{Sequence: 8})
	require.NoError(t, err)
	require.EqualValues(t, whole.Len(), n)
	require.Less(t, w.Len(), whole.Len())
}

// cancellingWriter gives its writer up at the first write.
type cancellingWriter struct {
	io.Writer
	cancel func()
}

func (w cancellingWriter) Write(p []byte) (int, error) {
	w.cancel()
	return w.Writer.Write(p)
}

// New clears away what a crash left half written, and takes up what is whole.
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
