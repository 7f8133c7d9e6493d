package ship_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/compactor"
	"github.com/xdswal/xdswal/internal/backendfault"
	"github.com/xdswal/xdswal/internal/catalog"
	"github.com/xdswal/xdswal/internal/durable"
	"github.com/xdswal/xdswal/internal/format/snapshot"
	"github.com/xdswal/xdswal/internal/logtest"
	"github.com/xdswal/xdswal/internal/restore"
	"github.com/xdswal/xdswal/internal/ship"
	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/internal/wal"
	"github.com/xdswal/xdswal/journal"
)

const (
	clusterURL = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	storeID    = "5707e1d0"
	patience   = 60 * time.Second
	tick       = 2 * time.Millisecond
)

// store is a journal and a directory of snapshots with a shipper beside them, as
// the facade has them.
type store struct {
	t       testing.TB
	dir     string
	backend *backendfault.Backend // counts what the shipper asks for
	raw     backends.Backend      // to look at
	epoch   catalog.Epoch
	opt     ship.Options

	journal *wal.Journal
	ship    *ship.Shipper
	log     logtest.Buffer
	seen    seen

	mu     sync.Mutex
	states []*state.State // states[n] is the fold of events 1 to n
}

// seen is what the hooks reported.
type seen struct {
	mu         sync.Mutex
	batches    []compactor.Batch    // shipped
	starts     []time.Time          // of batches
	snapshots  []compactor.Snapshot // shipped
	exceptions []error
	deleted    []string
	claimed    []uint64
	fenced     []error
	open       int // starts without an end
}

func (s *seen) hooks() compactor.Hooks {
	locked := s.locked
	return compactor.Hooks{
		BatchWriteBegin: func(compactor.Batch) { locked(func() { s.open++; s.starts = append(s.starts, time.Now()) }) },
		BatchWriteEnd: func(i compactor.Batch) {
			locked(func() {
				s.open--
				if i.Err != nil {
					s.exceptions = append(s.exceptions, i.Err)
				} else {
					s.batches = append(s.batches, i)
				}
			})
		},
		BatchDeleted:       func(i compactor.Batch) { locked(func() { s.deleted = append(s.deleted, i.Name) }) },
		SnapshotWriteBegin: func(compactor.Snapshot) { locked(func() { s.open++ }) },
		SnapshotWriteEnd: func(i compactor.Snapshot) {
			locked(func() {
				s.open--
				if i.Err != nil {
					s.exceptions = append(s.exceptions, i.Err)
				} else {
					s.snapshots = append(s.snapshots, i)
				}
			})
		},
		SnapshotDeleted: func(i compactor.Snapshot) { locked(func() { s.deleted = append(s.deleted, i.Name) }) },
		Claimed:         func(e uint64) { locked(func() { s.claimed = append(s.claimed, e) }) },
		Fenced:          func(err error) { locked(func() { s.fenced = append(s.fenced, err) }) },
	}
}

// locked calls fn while nothing is added.
func (s *seen) locked(fn func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fn()
}

// fast ships as soon as it can, keeps the three newest snapshots, and looks for
// nobody while it is idle.
func fast(opt *ship.Options) {
	opt.Interval, opt.FenceInterval = time.Millisecond, -1
	opt.KeepSnapshots, opt.KeepFor = 3, -1
}

// late leaves the claim to the shipper.
func late(opt *ship.Options) { opt.Remote = nil }

// newStore opens a store in a new directory, which has claimed the backend. The
// shipper is not started.
func newStore(t testing.TB, b backends.Backend, changes ...func(*ship.Options)) *store {
	t.Helper()
	s := &store{t: t, dir: t.TempDir(), raw: b, backend: &backendfault.Backend{Backend: b}, states: []*state.State{{}}}
	s.openJournal()
	s.open(changes...)
	t.Cleanup(s.check)
	return s
}

func (s *store) snapshotDir() string { return filepath.Join(s.dir, "snapshots") }

func (s *store) openJournal() {
	s.t.Helper()
	require.NoError(s.t, durable.MkdirAll(s.snapshotDir()))
	var err error
	s.journal, err = wal.Open(filepath.Join(s.dir, "journal"), wal.Options{
		SegmentBytes: 64 << 10,
		Receiver:     s,
		Hooks: journal.Hooks{Commit: func(i journal.Commit) {
			if s.ship != nil {
				s.ship.Committed(i.Last)
			}
		}},
	})
	require.NoError(s.t, err)
}

// open makes a shipper in the next epoch, as an opening of the directory does.
func (s *store) open(changes ...func(*ship.Options)) {
	s.t.Helper()
	ctx := context.Background()
	remote, err := catalog.List(ctx, s.raw)
	require.NoError(s.t, err)
	parent := s.epoch
	s.epoch = catalog.Epoch{
		Number: parent.Number + 1, Parent: parent.Number, ParentToken: parent.Token, Sequence: s.last(),
		StoreID: storeID, Token: fmt.Sprint("token-", rand.Uint64()), Host: "edge-1", Claimed: time.Now(),
	}
	s.opt = ship.Options{
		Backend: s.backend, Epoch: s.epoch, Remote: remote,
		Journal:   bounded{s.journal},
		Snapshots: func() ([]catalog.Entry, error) { return catalog.Local(s.snapshotDir()) },
		Hooks:     s.seen.hooks(),
		Logger:    slog.New(slog.NewTextHandler(&s.log, nil)),
	}
	for _, change := range append([]func(*ship.Options){fast}, changes...) {
		change(&s.opt)
	}
	if s.opt.Remote != nil {
		require.NoError(s.t, remote.Claim(ctx, s.raw, s.epoch))
	}
	s.ship, err = ship.New(s.opt)
	require.NoError(s.t, err)
}

// reopen ends the shipper as a crash does, and continues in the next epoch.
func (s *store) reopen(changes ...func(*ship.Options)) {
	s.t.Helper()
	s.ship.Stop()
	s.open(changes...)
}

// Committed and Failed make the store the journal's receiver.
func (s *store) Failed(_ []*journal.Event, cause error) error { return cause }

func (s *store) Committed(events []*journal.Event, _ int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ev := range events {
		st, err := s.states[len(s.states)-1].Apply(ev)
		if err != nil {
			panic(err)
		}
		s.states = append(s.states, st)
	}
}

// state returns the fold of events 1 to seq.
func (s *store) state(seq journal.Sequence) *state.State {
	s.mu.Lock()
	defer s.mu.Unlock()
	require.Less(s.t, int(seq), len(s.states), "there is no such event")
	return s.states[seq]
}

func (s *store) last() journal.Sequence {
	s.mu.Lock()
	defer s.mu.Unlock()
	return journal.Sequence(len(s.states) - 1)
}

// append makes n events durable, of some size each, and returns the newest.
func (s *store) append(n, payload int) journal.Sequence {
	s.t.Helper()
	for range n {
		require.NoError(s.t, s.appendOne(payload))
	}
	return s.last()
}

func (s *store) appendOne(payload int) error {
	value := make([]byte, payload)
	id := rand.Uint64()
	_, _ = rand.NewChaCha8([32]byte{byte(id), byte(id >> 8), byte(id >> 16)}).Read(value)
	_, err := s.journal.Append(context.Background(), &journal.Event{
		Kind: journal.Update, Cache: "snapshot/default", Node: fmt.Sprint("node-", id%5),
		Types: []journal.TypeChange{{TypeURL: clusterURL, Version: fmt.Sprint(id), Upserts: []*journal.Resource{{
			Name: fmt.Sprint("cluster-", id%7), TypeURL: clusterURL, Version: fmt.Sprint(id), Value: value,
		}}}},
	})
	return err
}

// snapshot writes a local snapshot of the present state.
func (s *store) snapshot() journal.Sequence {
	s.t.Helper()
	st := s.state(s.last())
	name := snapshot.Name{Epoch: s.epoch.Number, Sequence: st.Sequence()}
	require.NoError(s.t, durable.WriteFile(filepath.Join(s.snapshotDir(), name.String()), func(w io.Writer) error {
		_, err := snapshot.Encode(context.Background(), w, st, snapshot.Header{
			Sequence: st.Sequence(), Time: st.Time(), Epoch: s.epoch.Number, Created: time.Now().Round(0), StoreID: storeID,
		})
		return err
	}))
	s.ship.SnapshotWritten()
	return st.Sequence()
}

func eventually(t testing.TB, ok func() bool, what string) {
	t.Helper()
	require.Eventually(t, ok, patience, tick, what)
}

// waitShipped waits until the backend has all events.
func (s *store) waitShipped() {
	s.t.Helper()
	eventually(s.t, func() bool {
		st := s.ship.Status()
		return st.Shipped == s.last() && st.BehindSince.IsZero() && st.Err == nil
	}, "the tail to be shipped")
}

// waitSnapshot waits until the backend has a snapshot and was pruned after.
func (s *store) waitSnapshot(seq journal.Sequence) {
	s.t.Helper()
	eventually(s.t, func() bool { return s.ship.Status().Snapshot == seq }, "the snapshot to be shipped")
}

func (s *store) waitErr() error {
	s.t.Helper()
	eventually(s.t, func() bool { return s.ship.Status().Err != nil }, "the failure to be reported")
	return s.ship.Status().Err
}

func (s *store) waitFenced() {
	s.t.Helper()
	eventually(s.t, func() bool { return s.ship.Status().Fenced != nil }, "the shipper to be fenced")
	require.ErrorIs(s.t, s.ship.Status().Fenced, catalog.ErrFenced)
}

// remote lists the backend behind the shipper's back.
func (s *store) remote() *catalog.Remote {
	s.t.Helper()
	r, err := catalog.List(context.Background(), s.raw)
	require.NoError(s.t, err)
	return r
}

func (s *store) remoteSnapshots() []journal.Sequence {
	var out []journal.Sequence
	for _, e := range s.remote().Snapshots {
		out = append(out, e.Sequence)
	}
	return out
}

func (s *store) remoteBatches() []journal.Sequence {
	var out []journal.Sequence
	for _, b := range s.remote().Batches {
		out = append(out, b.First)
	}
	return out
}

// restored requires that the backend alone yields exactly the first events, at
// least as many as were reported as shipped, and returns how many.
func (s *store) restored() journal.Sequence {
	s.t.Helper()
	shipped := s.ship.Shipped()
	st, _, err := restore.Restore(context.Background(), restore.Options{Backend: s.raw})
	require.NoError(s.t, err)
	require.GreaterOrEqual(s.t, st.Sequence(), shipped)
	require.Equal(s.t, s.state(st.Sequence()).Digest(), st.Digest())
	return st.Sequence()
}

// requireBackend requires that the backend alone yields all events.
func (s *store) requireBackend() {
	s.t.Helper()
	require.Equal(s.t, s.last(), s.restored())
}

// requireFrom requires that the backend yields all events after a state.
func (s *store) requireFrom(seq journal.Sequence) {
	s.t.Helper()
	st, _, err := restore.Restore(context.Background(), restore.Options{Base: s.state(seq), Backend: s.raw, Remote: s.remote()})
	require.NoError(s.t, err)
	require.Equal(s.t, s.last(), st.Sequence())
	require.Equal(s.t, s.state(s.last()).Digest(), st.Digest())
}

// check ends the store. The invariant of every test: what was reported as shipped
// can be restored from the backend alone, and what is there is consistent.
func (s *store) check() {
	s.ship.Stop()
	_ = s.journal.Close()
	if s.t.Failed() {
		return
	}
	s.seen.locked(func() {
		require.Zero(s.t, s.seen.open, "starts without a stop or an exception")
		require.LessOrEqual(s.t, len(s.seen.fenced), 1)
	})
	if s.ship.Status().Fenced == nil {
		s.restored()
		_, err := restore.Verify(context.Background(), restore.Options{Backend: s.raw})
		require.NoError(s.t, err)
	}
}

// bounded gives a journal its bounds.
type bounded struct{ *wal.Journal }

func (b bounded) Bounds() (first, last journal.Sequence, err error) {
	st, err := b.Stats()
	return st.First, st.Last, err
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

// requireTarget requires that the state after an event can be restored from the
// backend alone.
func (s *store) requireTarget(seq journal.Sequence) {
	s.t.Helper()
	st, _, err := restore.Restore(context.Background(), restore.Options{Backend: s.raw, Target: restore.Target{Sequence: seq}})
	require.NoError(s.t, err)
	require.Equal(s.t, s.state(seq).Digest(), st.Digest())
}
