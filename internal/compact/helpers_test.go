package compact_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/compactor"
	"github.com/xdswal/xdswal/internal/catalog"
	"github.com/xdswal/xdswal/internal/compact"
	"github.com/xdswal/xdswal/internal/durable"
	"github.com/xdswal/xdswal/internal/format/snapshot"
	"github.com/xdswal/xdswal/internal/logtest"
	"github.com/xdswal/xdswal/internal/restore"
	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/internal/wal"
	"github.com/xdswal/xdswal/journal"
	"github.com/xdswal/xdswal/replay"
)

const (
	clusterURL = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	patience   = 60 * time.Second
	tick       = 2 * time.Millisecond
)

// never disables all compactions that start by themselves.
var never = compact.Options{Interval: -1, TailBytes: -1, TailRecords: -1, KeepFor: -1}

// store is a journal with the fold and a compactor beside it, as the facade
// has them.
type store struct {
	t     testing.TB
	dir   string
	epoch uint64
	opt   compact.Options

	journal *wal.Journal
	state   atomic.Pointer[state.State]
	pressed atomic.Bool
	// truncateErr is the error of TruncateBefore, or nil.
	truncateErr atomic.Pointer[error]
	compactor   *compact.Compactor
	restored    replay.Result
	seen        seen
	log         syncBuffer
	begun       func(compactor.Snapshot)
	// stopped is set by a test that has closed the store.
	stopped bool
}

// seen is what the hooks reported.
type seen struct {
	mu          sync.Mutex
	compactions []compactor.Compaction // ended
	failed      int
	writes      []compactor.Snapshot // ended well
	exceptions  []compactor.Snapshot
	deleted     []compactor.Snapshot
	open        int // starts without an end
}

func (s *seen) hooks() compactor.Hooks {
	locked := func(fn func()) {
		s.mu.Lock()
		defer s.mu.Unlock()
		fn()
	}
	return compactor.Hooks{
		CompactionBegin: func(compactor.Compaction) { locked(func() { s.open++ }) },
		CompactionEnd: func(i compactor.Compaction) {
			locked(func() {
				s.open--
				if i.Err != nil {
					s.failed++
				} else {
					s.compactions = append(s.compactions, i)
				}
			})
		},
		SnapshotWriteBegin: func(compactor.Snapshot) { locked(func() { s.open++ }) },
		SnapshotWriteEnd: func(i compactor.Snapshot) {
			locked(func() {
				s.open--
				if i.Err != nil {
					s.exceptions = append(s.exceptions, i)
				} else {
					s.writes = append(s.writes, i)
				}
			})
		},
		SnapshotDeleted: func(i compactor.Snapshot) { locked(func() { s.deleted = append(s.deleted, i) }) },
	}
}

// locked calls fn while nothing is added.
func (s *seen) locked(fn func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fn()
}

// newStore opens a store in a new directory.
func newStore(t testing.TB, opt compact.Options) *store {
	return newWatchedStore(t, opt, nil)
}

// newWatchedStore is newStore with a function that is called before a snapshot is
// written, by the goroutine that writes it.
func newWatchedStore(t testing.TB, opt compact.Options, begun func(compactor.Snapshot)) *store {
	s := &store{t: t, dir: t.TempDir(), opt: opt, begun: begun}
	s.open()
	s.checkAtEnd()
	return s
}

func (s *store) checkAtEnd() {
	// The invariant of every test: what is in the directory is consistent and
	// all there is.
	s.t.Cleanup(s.check)
}

func (s *store) snapshots() string { return filepath.Join(s.dir, "snapshots") }

// open opens the store, or opens it again. It does not start the compactor.
func (s *store) open() {
	s.t.Helper()
	require.NoError(s.t, durable.MkdirAll(s.snapshots()))
	s.epoch++
	j, err := wal.Open(filepath.Join(s.dir, "journal"), wal.Options{
		SegmentBytes: 64 << 10,
		Receiver:     s,
	})
	require.NoError(s.t, err)
	s.journal = j
	st, result, err := s.restore()
	require.NoError(s.t, err)
	s.restored = result
	require.NoError(s.t, j.Advance(st.Sequence()+1, st.Time()))
	s.state.Store(st)
	opt := s.opt
	opt.Dir, opt.StoreID, opt.Epoch = s.snapshots(), "5707e1d0", s.epoch
	opt.Logger = slog.New(slog.NewTextHandler(&s.log, nil))
	opt.Hooks = s.seen.hooks()
	if s.begun != nil {
		count := opt.Hooks.SnapshotWriteBegin
		opt.Hooks.SnapshotWriteBegin = func(i compactor.Snapshot) { count(i); s.begun(i) }
	}
	for _, skipped := range result.Skipped {
		opt.Damaged = append(opt.Damaged, skipped.Name)
	}
	s.compactor, err = compact.New(s.state.Load, s, opt)
	require.NoError(s.t, err)
	s.stopped = false
}

// restore restores from the directory alone.
func (s *store) restore() (*state.State, replay.Result, error) {
	return restore.Restore(context.Background(), restore.Options{Dir: s.snapshots(), Journal: bounded{s.journal}})
}

// Committed and Failed make the store the journal's receiver.
func (s *store) Failed(_ []*journal.Event, cause error) error { return cause }

func (s *store) Committed(events []*journal.Event, _ int64) {
	st := s.state.Load()
	for _, ev := range events {
		var err error
		if st, err = st.Apply(ev); err != nil {
			panic(err)
		}
	}
	s.state.Store(st)
	if s.compactor != nil {
		var bytes int64
		for _, ev := range events {
			for i := range ev.Types {
				for _, r := range ev.Types[i].Upserts {
					bytes += r.Size()
				}
			}
		}
		s.compactor.Committed(len(events), bytes)
	}
}

// TruncateBefore and Pressure make the store the compactor's journal.
func (s *store) TruncateBefore(ctx context.Context, seq journal.Sequence) error {
	if err := s.truncateErr.Load(); err != nil {
		return *err
	}
	return s.journal.TruncateBefore(ctx, seq)
}

func (s *store) Pressure() bool { return s.pressed.Load() }

// first is the oldest event that the journal holds.
func (s *store) first() journal.Sequence {
	st, err := s.journal.Stats()
	require.NoError(s.t, err)
	return st.First
}

// append makes n events durable, of some size each.
func (s *store) append(n, payload int) journal.Sequence {
	s.t.Helper()
	var last journal.Sequence
	for range n {
		seq, err := s.journal.Append(context.Background(), s.event(payload))
		require.NoError(s.t, err)
		last = seq
	}
	return last
}

func (s *store) event(payload int) *journal.Event {
	i := int(s.state.Load().Sequence())
	return &journal.Event{
		Kind: journal.Update, Cache: "snapshot/default", Node: fmt.Sprint("node-", i%3),
		Types: []journal.TypeChange{{TypeURL: clusterURL, Version: fmt.Sprint(i), Upserts: []*journal.Resource{{
			Name: fmt.Sprint("cluster-", i%4), TypeURL: clusterURL, Version: fmt.Sprint(i),
			Value: append(bytes.Repeat([]byte{byte(i)}, payload), fmt.Sprint(i)...),
		}}}},
	}
}

func (s *store) compact() journal.Sequence {
	s.t.Helper()
	seq, err := s.compactor.Compact(context.Background())
	require.NoError(s.t, err)
	return seq
}

// crash ends the process without a last snapshot.
func (s *store) crash() {
	s.t.Helper()
	s.compactor.Stop()
	require.NoError(s.t, s.journal.Close())
	s.stopped = true
}

// local returns the sequences of the snapshots in the directory.
func (s *store) local() []journal.Sequence {
	s.t.Helper()
	entries, err := catalog.Local(s.snapshots())
	require.NoError(s.t, err)
	return sequences(entries)
}

func sequences(entries []catalog.Entry) []journal.Sequence {
	out := []journal.Sequence{}
	for _, e := range entries {
		out = append(out, e.Sequence)
	}
	return out
}

// path is the file of a local snapshot.
func (s *store) path(seq journal.Sequence) string {
	s.t.Helper()
	entries, err := catalog.Local(s.snapshots())
	require.NoError(s.t, err)
	for _, e := range entries {
		if e.Sequence == seq {
			return e.Path
		}
	}
	require.FailNow(s.t, "no such snapshot", "%d", seq)
	return ""
}

// damage flips a bit of a local snapshot, and returns what mends it.
func (s *store) damage(seq journal.Sequence) (mend func()) {
	s.t.Helper()
	path := s.path(seq)
	good, err := os.ReadFile(path)
	require.NoError(s.t, err)
	bad := bytes.Clone(good)
	bad[len(bad)/2] ^= 4
	require.NoError(s.t, os.WriteFile(path, bad, 0o600))
	return func() { require.NoError(s.t, os.WriteFile(path, good, 0o600)) }
}

// age makes a file older.
func age(t testing.TB, path string, by time.Duration) {
	t.Helper()
	at := time.Now().Add(-by)
	require.NoError(t, os.Chtimes(path, at, at))
}

// requireRestores requires that the directory yields the present state.
func (s *store) requireRestores() replay.Result {
	s.t.Helper()
	st, result, err := s.restore()
	require.NoError(s.t, err)
	require.Equal(s.t, s.state.Load().Digest(), st.Digest())
	return result
}

// check ends the store, if the test has not, and verifies all that is left.
func (s *store) check() {
	if s.t.Failed() {
		s.compactor.Stop()
		s.journal.Close()
		return
	}
	if !s.stopped {
		s.crash()
	}
	var err error
	s.journal, err = wal.Open(filepath.Join(s.dir, "journal"), wal.Options{})
	require.NoError(s.t, err)
	defer s.journal.Close()
	s.requireRestores()
	report, err := restore.Verify(context.Background(), restore.Options{Dir: s.snapshots(), Journal: bounded{s.journal}})
	require.NoError(s.t, err)
	require.Equal(s.t, s.state.Load().Sequence(), report.Sequence)
	s.seen.locked(func() { require.Zero(s.t, s.seen.open, "starts without a stop or an exception") })
	for _, name := range files(s.t, s.snapshots()) {
		_, ok := snapshot.ParseName(name)
		require.True(s.t, ok, "%s was left", name)
	}
}

// bounded gives a journal its bounds.
type bounded struct{ *wal.Journal }

func (b bounded) Bounds() (first, last journal.Sequence, err error) {
	s, err := b.Stats()
	return s.First, s.Last, err
}

func files(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func eventually(t testing.TB, ok func() bool, what string) {
	t.Helper()
	require.Eventually(t, ok, patience, tick, what)
}

// noLeak requires at the end that no goroutine was left. A test that uses it
// cannot be parallel.
func noLeak(t testing.TB) {
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		for deadline := time.Now().Add(patience); runtime.NumGoroutine() > before; time.Sleep(tick) {
			if time.Now().After(deadline) {
				stacks := make([]byte, 1<<20)
				require.FailNow(t, "goroutines were left", "%s", stacks[:runtime.Stack(stacks, true)])
			}
		}
	})
}

// syncBuffer is a log that may be read while it is written.
type syncBuffer = logtest.Buffer
