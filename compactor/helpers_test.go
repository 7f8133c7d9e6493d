package compactor_test

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
	"github.com/xdswal/xdswal/compactor/catalog"
	"github.com/xdswal/xdswal/compactor/snapshot"
	"github.com/xdswal/xdswal/internal/durable"
	"github.com/xdswal/xdswal/internal/logtest"
	"github.com/xdswal/xdswal/journal"
	"github.com/xdswal/xdswal/journal/event"
	"github.com/xdswal/xdswal/replay"
	"github.com/xdswal/xdswal/replay/state"
)

const (
	clusterURL = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	patience   = 20 * time.Second
	tick       = 2 * time.Millisecond
)

// never switches off what would compact by itself.
var never = compactor.Options{Interval: -1, TailBytes: -1, TailRecords: -1, KeepFor: -1}

// store is a journal with the fold and a compactor beside it, as the facade
// has them.
type store struct {
	t     testing.TB
	dir   string
	epoch uint64
	opt   compactor.Options

	journal   *journal.Journal
	state     atomic.Pointer[state.State]
	pressed   atomic.Bool
	compactor *compactor.Compactor
	restored  replay.Result
	seen      seen
	log       syncBuffer
	begun     func(snapshot.Info)
	// stopped is set by a test that has closed the store.
	stopped bool
}

// seen is what the hooks told.
type seen struct {
	mu          sync.Mutex
	compactions []compactor.CompactionInfo // ended
	failed      int
	writes      []snapshot.Info // ended well
	exceptions  []snapshot.Info
	deleted     []snapshot.Info
	open        int // starts without an end
}

func (s *seen) hooks() compactor.Hooks {
	locked := func(fn func()) {
		s.mu.Lock()
		defer s.mu.Unlock()
		fn()
	}
	return compactor.Hooks{
		CompactionStart: func(compactor.CompactionInfo) { locked(func() { s.open++ }) },
		CompactionStop: func(i compactor.CompactionInfo) {
			locked(func() { s.open--; s.compactions = append(s.compactions, i) })
		},
		CompactionException: func(compactor.CompactionInfo) { locked(func() { s.open--; s.failed++ }) },
		SnapshotWriteStart:  func(snapshot.Info) { locked(func() { s.open++ }) },
		SnapshotWriteStop:   func(i snapshot.Info) { locked(func() { s.open--; s.writes = append(s.writes, i) }) },
		SnapshotWriteException: func(i snapshot.Info) {
			locked(func() { s.open--; s.exceptions = append(s.exceptions, i) })
		},
		SnapshotDeleted: func(i snapshot.Info) { locked(func() { s.deleted = append(s.deleted, i) }) },
	}
}

// locked calls fn while nothing is added.
func (s *seen) locked(fn func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fn()
}

// newStore opens a store in a new directory.
func newStore(t testing.TB, opt compactor.Options) *store {
	return newWatchedStore(t, opt, nil)
}

// newWatchedStore is newStore with a function that is called, by who writes it,
// when a snapshot begins to be written.
func newWatchedStore(t testing.TB, opt compactor.Options, begun func(snapshot.Info)) *store {
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
	j, err := journal.Open(filepath.Join(s.dir, "journal"), journal.Options{
		SegmentBytes: 64 << 10,
		Committed:    s.committed,
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
		count := opt.Hooks.SnapshotWriteStart
		opt.Hooks.SnapshotWriteStart = func(i snapshot.Info) { count(i); s.begun(i) }
	}
	for _, skipped := range result.Skipped {
		opt.Damaged = append(opt.Damaged, skipped.Name)
	}
	s.compactor, err = compactor.New(s.state.Load, s, opt)
	require.NoError(s.t, err)
	s.stopped = false
}

// restore restores from the directory alone.
func (s *store) restore() (*state.State, replay.Result, error) {
	return replay.Restore(context.Background(), replay.Options{Dir: s.snapshots(), Journal: bounded{s.journal}})
}

func (s *store) committed(events []*event.Event) {
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
func (s *store) TruncateBefore(ctx context.Context, seq event.Sequence) error {
	return s.journal.TruncateBefore(ctx, seq)
}

func (s *store) Pressure() bool { return s.pressed.Load() }

// first is the oldest event that the journal holds.
func (s *store) first() event.Sequence {
	st, err := s.journal.Stats()
	require.NoError(s.t, err)
	return st.First
}

// append makes n events durable, of some size each.
func (s *store) append(n, payload int) event.Sequence {
	s.t.Helper()
	var last event.Sequence
	for range n {
		seq, err := s.journal.Append(context.Background(), s.event(payload))
		require.NoError(s.t, err)
		last = seq
	}
	return last
}

func (s *store) event(payload int) *event.Event {
	i := int(s.state.Load().Sequence())
	return &event.Event{
		Kind: event.Update, Cache: "snapshot/default", Node: fmt.Sprint("node-", i%3),
		Types: []event.TypeChange{{TypeURL: clusterURL, Version: fmt.Sprint(i), Upserts: []*event.Resource{{
			Name: fmt.Sprint("cluster-", i%4), TypeURL: clusterURL, Version: fmt.Sprint(i),
			Value: append(bytes.Repeat([]byte{byte(i)}, payload), fmt.Sprint(i)...),
		}}}},
	}
}

func (s *store) compact() event.Sequence {
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
func (s *store) local() []event.Sequence {
	s.t.Helper()
	entries, err := catalog.Local(s.snapshots())
	require.NoError(s.t, err)
	return sequences(entries)
}

func sequences(entries []catalog.Entry) []event.Sequence {
	out := []event.Sequence{}
	for _, e := range entries {
		out = append(out, e.Sequence)
	}
	return out
}

// path is the file of a local snapshot.
func (s *store) path(seq event.Sequence) string {
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
func (s *store) damage(seq event.Sequence) (mend func()) {
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
	s.journal, err = journal.Open(filepath.Join(s.dir, "journal"), journal.Options{})
	require.NoError(s.t, err)
	defer s.journal.Close()
	s.requireRestores()
	report, err := replay.Verify(context.Background(), replay.Options{Dir: s.snapshots(), Journal: bounded{s.journal}})
	require.NoError(s.t, err)
	require.Equal(s.t, s.state.Load().Sequence(), report.Sequence)
	s.seen.locked(func() { require.Zero(s.t, s.seen.open, "starts without a stop or an exception") })
	for _, name := range files(s.t, s.snapshots()) {
		_, ok := snapshot.ParseName(name)
		require.True(s.t, ok, "%s was left", name)
	}
}

// bounded gives a journal its bounds.
type bounded struct{ *journal.Journal }

func (b bounded) Bounds() (first, last event.Sequence, err error) {
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
