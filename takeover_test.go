package xdswal_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/backends/backendtest"
	"github.com/xdswal/xdswal/internal/backendfault"
	"github.com/xdswal/xdswal/internal/catalog"
	"github.com/xdswal/xdswal/journal"
)

// fast returns options with the shortest intervals.
func fast(b backends.Backend) xdswal.Options {
	return xdswal.Options{Backend: b, ShipInterval: time.Millisecond, FollowInterval: time.Millisecond, BackendTimeout: timeout}
}

// in returns the options with a directory.
func in(dir string, opt xdswal.Options) xdswal.Options {
	opt.Dir = dir
	return opt
}

// write sets a cluster whose body contains the node and the number.
func write(t testing.TB, s *xdswal.Store, node string, number int) {
	t.Helper()
	set(t, snapshotCache(s), node, clusters(t, fmt.Sprint(number), clusterOf("c", fmt.Sprint(node, number))))
}

// requireShipped waits until all events are shipped.
func requireShipped(t testing.TB, s *xdswal.Store) {
	t.Helper()
	require.Eventually(t, func() bool { return s.Status().Shipper.Shipped == s.State().Sequence() }, timeout, time.Millisecond,
		"%+v", s.Status().Shipper)
}

func requireFenced(t testing.TB, s *xdswal.Store) {
	t.Helper()
	require.Eventually(t, func() bool { return s.Status().Shipper.Fenced != nil }, timeout, time.Millisecond)
	require.ErrorIs(t, s.Status().Degraded, xdswal.ErrFenced)
}

// restored restores a store from a backend alone and returns its digest.
func restored(t testing.TB, b backends.Backend) [32]byte {
	t.Helper()
	s := openStore(t, fast(b))
	defer closeStore(t, s)
	requireServed(t, s)
	return s.State().Digest()
}

// A machine is lost, and another one takes over from the backend alone.
func TestTakeoverBare(t *testing.T) {
	for _, row := range []struct {
		name    string
		compact []int // after which updates a snapshot is written
	}{
		{name: "batches only"},
		{name: "a snapshot and batches", compact: []int{7}},
		{name: "two snapshots and batches", compact: []int{5, 11}},
		{name: "a snapshot of all events", compact: []int{20}},
	} {
		t.Run(row.name, func(t *testing.T) {
			b := backendtest.NewMemory()
			lost := openStore(t, fast(b))
			for i := 1; i <= 20; i++ {
				write(t, lost, nodeName(i%3), i)
				for _, at := range row.compact {
					if at == i {
						_, err := lost.Compact(t.Context())
						require.NoError(t, err)
					}
				}
			}
			requireShipped(t, lost)

			s := openStore(t, fast(b))
			require.Equal(t, lost.State().Digest(), s.State().Digest())
			require.Equal(t, lost.Status().StoreID, s.Status().StoreID)
			require.EqualValues(t, 3, s.Status().Epoch, "epoch 2 fences the last writer")
			requireServed(t, s)
			write(t, s, "new", 1)
			requireShipped(t, s)

			// The first machine still runs. It is fenced when it ships.
			if err := snapshotCache(lost).SetSnapshot(t.Context(), "late", clusters(t, "1", cluster("late"))); err != nil {
				require.ErrorIs(t, err, xdswal.ErrFenced)
			}
			requireFenced(t, lost)
			err := snapshotCache(lost).SetSnapshot(t.Context(), "later", clusters(t, "1", cluster("later")))
			require.ErrorIs(t, err, xdswal.ErrFenced)
			require.ErrorContains(t, err, "epoch 2 was claimed")
			requireServed(t, lost)
			_, err = lost.Compact(t.Context())
			require.NoError(t, err)
			closeStore(t, lost)
			require.Equal(t, s.State().Digest(), restored(t, b))
			closeStore(t, s)
		})
	}
}

// A restart restores the local data, and reads no snapshot from the backend.
func TestTakeoverLocal(t *testing.T) {
	b := &backendfault.Backend{Backend: backendtest.NewMemory()}
	dir := t.TempDir()
	for opening := 1; opening <= 4; opening++ {
		b.Fault = func(op backendfault.Op, key string) backendfault.Fault {
			if op == backendfault.OpGet && strings.HasPrefix(key, "snapshots/") {
				return backendfault.FailAbsent
			}
			return backendfault.None
		}
		s := openStore(t, in(dir, fast(b)))
		require.EqualValues(t, opening, s.Status().Epoch)
		require.EqualValues(t, 3*(opening-1), s.State().Sequence())
		for i := range 3 {
			write(t, s, nodeName(i), opening)
		}
		requireServed(t, s)
		closeStore(t, s)
		requireRestores(t, b.Backend, s.State().Digest())
	}
}

// requireRestores checks the state in a backend without writing to it.
func requireRestores(t testing.TB, b backends.Backend, want [32]byte) {
	t.Helper()
	s, err := xdswal.Open(t.Context(), xdswal.Options{Follow: true, Backend: b})
	require.NoError(t, err)
	require.Equal(t, want, s.State().Digest())
	closeStore(t, s)
}

// After another machine has taken over, the data of the first one is stale. Open sets it
// aside.
func TestTakeoverStale(t *testing.T) {
	b := backendtest.NewMemory()
	dir := t.TempDir()
	a := openStore(t, in(dir, fast(b)))
	write(t, a, "a", 1)
	closeStore(t, a)

	other := openStore(t, fast(b))
	write(t, other, "b", 1)
	closeStore(t, other)

	// These updates are not part of the history.
	stale := openStore(t, xdswal.Options{Dir: dir})
	write(t, stale, "stale", 1)
	closeStore(t, stale)

	s := openStore(t, in(dir, fast(b)))
	require.Equal(t, other.State().Digest(), s.State().Digest())
	require.EqualValues(t, 5, s.Status().Epoch)
	aside, err := filepath.Glob(filepath.Join(dir, "superseded-*"))
	require.NoError(t, err)
	require.Len(t, aside, 1)
	closeStore(t, s)

	kept := openStore(t, xdswal.Options{Dir: aside[0]})
	require.Equal(t, stale.State().Digest(), kept.State().Digest())
	closeStore(t, kept)
}

// Two directories of different stores cannot share a backend.
func TestTakeoverForeign(t *testing.T) {
	b := backendtest.NewMemory()
	a := openStore(t, fast(b))
	write(t, a, "a", 1)
	closeStore(t, a)

	dir := t.TempDir()
	other := openStore(t, xdswal.Options{Dir: dir})
	write(t, other, "b", 1)
	closeStore(t, other)
	before := files(t, dir)
	_, err := xdswal.Open(t.Context(), in(dir, fast(b)))
	require.ErrorIs(t, err, xdswal.ErrForeign)
	require.ErrorContains(t, err, "give each store a backend prefix of its own")
	require.Equal(t, before, files(t, dir))
}

// outage is a backend whose calls fail while lasts is set.
type outage struct {
	*backendfault.Backend
	lasts atomic.Bool
}

func newOutage(b backends.Backend) *outage {
	o := &outage{Backend: &backendfault.Backend{Backend: b}}
	o.Fault = backendfault.While(&o.lasts)
	return o
}

// cutOff starts an outage, and waits until a follower has reported it.
func (o *outage) cutOff(t testing.TB, f *xdswal.Store) {
	t.Helper()
	o.lasts.Store(true)
	require.Eventually(t, func() bool { return f.Status().Follower.Err != nil }, timeout, time.Millisecond)
}

// Open serves the local data if the backend cannot be reached.
func TestTakeoverUnreachable(t *testing.T) {
	b := newOutage(backendtest.NewMemory())
	dir := t.TempDir()
	b.lasts.Store(true)
	_, err := xdswal.Open(t.Context(), in(dir, fast(b)))
	require.ErrorIs(t, err, backendfault.ErrInjected, "no local data")
	require.ErrorContains(t, err, "the newest configuration is not known without the backend")
	b.lasts.Store(false)

	s := openStore(t, in(dir, fast(b)))
	write(t, s, "a", 1)
	closeStore(t, s)

	b.lasts.Store(true)
	opt := in(dir, fast(b))
	opt.RequireBackend = true
	_, err = xdswal.Open(t.Context(), opt)
	require.ErrorIs(t, err, backendfault.ErrInjected)

	// Twice: the second store uses the epoch that the first could not claim.
	for i := range 2 {
		s = openStore(t, in(dir, fast(b)))
		require.EqualValues(t, 2, s.Status().Epoch)
		require.False(t, s.Status().Shipper.Claimed)
		write(t, s, "b", i)
		_, err = s.Compact(t.Context())
		require.NoError(t, err)
		if i == 0 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			require.Error(t, s.Close(ctx))
			cancel()
		}
	}
	require.Eventually(t, func() bool { return s.Status().Shipper.Err != nil }, timeout, time.Millisecond)
	b.lasts.Store(false)
	requireShipped(t, s)
	require.True(t, s.Status().Shipper.Claimed)
	require.NoError(t, s.Status().Shipper.Err)
	digest := s.State().Digest()
	closeStore(t, s)
	require.Equal(t, digest, restored(t, b))
}

// Another store takes over while this one cannot reach the backend.
func TestTakeoverUnreachableAndFenced(t *testing.T) {
	memory := backendtest.NewMemory()
	b := newOutage(memory)
	dir := t.TempDir()
	s := openStore(t, in(dir, fast(b)))
	write(t, s, "a", 1)
	closeStore(t, s)

	b.lasts.Store(true)
	s = openStore(t, in(dir, fast(b)))
	write(t, s, "here", 1)
	other := openStore(t, fast(memory))
	write(t, other, "there", 1)
	requireShipped(t, other)
	b.lasts.Store(false)
	requireFenced(t, s)
	require.ErrorIs(t, s.Promote(t.Context()), xdswal.ErrFenced)
	// Updates without a change are rejected too.
	held, err := snapshotCache(s).GetSnapshot("here")
	require.NoError(t, err)
	require.ErrorIs(t, snapshotCache(s).SetSnapshot(t.Context(), "here", held), xdswal.ErrFenced)
	require.ErrorIs(t, second(snapshotCache(s).Clear(t.Context(), "nobody")), xdswal.ErrFenced)
	closeStore(t, s)
	digest := other.State().Digest()
	closeStore(t, other)
	require.Equal(t, digest, restored(t, memory))
}

// Of many stores that are opened at the same time on one backend, exactly one is the
// writer at the end, and a restore returns its state.
func TestTakeoverRace(t *testing.T) {
	b := backendtest.NewMemory()
	first := openStore(t, fast(b))
	write(t, first, "a", 1)
	requireShipped(t, first)

	const racers = 16
	stores := make([]*xdswal.Store, racers)
	errs := make([]error, racers)
	dirs := make([]string, racers)
	for i := range racers {
		dirs[i] = t.TempDir()
	}
	var wg sync.WaitGroup
	for i := range racers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			stores[i], errs[i] = xdswal.Open(context.Background(), in(dirs[i], fast(b)))
		}()
	}
	wg.Wait()
	epochs := map[uint64]int{}
	var newest *xdswal.Store
	for i, s := range stores {
		if errs[i] != nil {
			require.ErrorIs(t, errs[i], xdswal.ErrFenced)
			continue
		}
		epochs[s.Status().Epoch]++
		if newest == nil || s.Status().Epoch > newest.Status().Epoch {
			newest = s
		}
	}
	require.NotNil(t, newest)
	for epoch, n := range epochs {
		require.Equal(t, 1, n, "epoch %d", epoch)
	}
	write(t, newest, "winner", 1)
	requireShipped(t, newest)
	for i, s := range stores {
		if s == nil || s == newest {
			continue
		}
		if err := snapshotCache(s).SetSnapshot(context.Background(), "loser", clusters(t, "1", cluster(fmt.Sprint(i)))); err != nil {
			require.ErrorIs(t, err, xdswal.ErrFenced)
		}
		requireFenced(t, s)
		closeStore(t, s)
	}
	digest := newest.State().Digest()
	closeStore(t, newest)
	require.Equal(t, digest, restored(t, b))
}

// between calls a function once, before the first Put of an epoch.
type between struct {
	backends.Backend
	fn func()
}

func (b *between) Put(ctx context.Context, key string, body io.ReadSeeker) error {
	if fn := b.fn; fn != nil && strings.HasPrefix(key, "epochs/") {
		b.fn = nil
		fn()
	}
	return b.Backend.Put(ctx, key, body)
}

// Events that the last writer has reported as shipped before the claim are not lost.
func TestTakeoverWhileShipping(t *testing.T) {
	for _, snapshots := range []bool{false, true} {
		t.Run(fmt.Sprint("snapshots ", snapshots), func(t *testing.T) {
			memory := backendtest.NewMemory()
			before := openStore(t, fast(memory))
			write(t, before, "a", 1)
			requireShipped(t, before)

			b := &between{Backend: memory}
			b.fn = func() {
				for i := range 3 {
					write(t, before, "in between", i)
				}
				if snapshots {
					_, err := before.Compact(t.Context())
					require.NoError(t, err)
				}
				requireShipped(t, before)
			}
			s := openStore(t, fast(b))
			require.Equal(t, before.State().Digest(), s.State().Digest())
			requireServed(t, s)
			write(t, s, "b", 1)
			requireShipped(t, s)
			digest := s.State().Digest()
			closeStore(t, s)
			require.Equal(t, digest, restored(t, memory))
			_ = snapshotCache(before).SetSnapshot(t.Context(), "late", clusters(t, "1", cluster("late")))
			requireFenced(t, before)
		})
	}
}

// A takeover fails at any call, before or after the call took effect, and is retried with
// the same directory or on another machine: no event is lost, including those that the
// last writer has shipped in between.
func TestTakeoverInterrupted(t *testing.T) {
	for _, same := range []bool{true, false} {
		for _, fault := range []backendfault.Fault{backendfault.FailAbsent, backendfault.FailPresent} {
			testInterrupted(t, same, fault)
		}
	}
}

func testInterrupted(t *testing.T, same bool, fault backendfault.Fault) {
	for call := 1; ; call++ {
		memory := backendtest.NewMemory()
		before := openStore(t, fast(memory))
		write(t, before, "a", 1)
		requireShipped(t, before)

		var calls atomic.Int64
		b := &backendfault.Backend{Backend: memory, Fault: func(backendfault.Op, string) backendfault.Fault {
			if calls.Add(1) == int64(call) {
				return fault
			}
			return backendfault.None
		}}
		dir := t.TempDir()
		opt := in(dir, fast(b))
		// All calls are part of the takeover.
		opt.ShipInterval, opt.DisableSnapshots = xdswal.Off, true
		s, err := xdswal.Open(t.Context(), opt)
		if err == nil {
			closeStore(t, s)
			if calls.Load() < int64(call) {
				closeStore(t, before)
				require.Greater(t, call, 5)
				break
			}
		}
		if before.Status().Shipper.Fenced == nil {
			// This update may be the one that fences it.
			_ = snapshotCache(before).SetSnapshot(t.Context(), "in between", clusters(t, "1", cluster("c")))
		}
		require.Eventually(t, func() bool {
			st := before.Status().Shipper
			return st.Fenced != nil || st.Shipped == before.State().Sequence()
		}, timeout, time.Millisecond)
		shipped := before.Status().Shipper.Shipped

		if !same {
			dir = t.TempDir()
		}
		s, err = xdswal.Open(t.Context(), in(dir, fast(memory)))
		require.NoError(t, err, "fault %d at call %d", fault, call)
		require.GreaterOrEqual(t, s.State().Sequence(), shipped, "fault %d at call %d", fault, call)
		write(t, s, "b", 1)
		digest := s.State().Digest()
		closeStore(t, s)
		closeStore(t, before)
		require.Equal(t, digest, restored(t, memory), "fault %d at call %d", fault, call)
	}
}

// Events that were journaled and not shipped are shipped by the next process.
func TestTakeoverShipsTheRest(t *testing.T) {
	b := newOutage(backendtest.NewMemory())
	dir := t.TempDir()
	s := openStore(t, in(dir, fast(b)))
	write(t, s, "a", 1)
	requireShipped(t, s)
	b.lasts.Store(true)
	for i := range 10 {
		write(t, s, "b", i)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	require.Error(t, s.Close(ctx))
	b.lasts.Store(false)

	opt := in(dir, fast(b))
	opt.DisableSnapshots = true
	s = openStore(t, opt)
	requireShipped(t, s)
	digest := s.State().Digest()
	closeStore(t, s)
	require.Equal(t, digest, restored(t, b))
}

// With FailOpen, a fenced store still accepts updates.
func TestFencedFailOpen(t *testing.T) {
	b := backendtest.NewMemory()
	opt := fast(b)
	opt.FailOpen = true
	s := openStore(t, opt)
	write(t, s, "a", 1)
	requireShipped(t, s)
	other := openStore(t, fast(b))
	write(t, s, "a", 2)
	requireFenced(t, s)
	write(t, s, "a", 3)
	require.EqualValues(t, 3, s.State().Sequence())
	digest := other.State().Digest()
	closeStore(t, s)
	closeStore(t, other)
	require.Equal(t, digest, restored(t, b))
}

// A store ships everything again to an emptied backend.
func TestBackendEmptied(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, in(dir, fast(backendtest.NewMemory())))
	write(t, s, "a", 1)
	closeStore(t, s)
	b := backendtest.NewMemory()
	s = openStore(t, in(dir, fast(b)))
	write(t, s, "a", 2)
	requireShipped(t, s)
	digest := s.State().Digest()
	closeStore(t, s)
	require.Equal(t, digest, restored(t, b))
}

// A directory without xdswal.json continues after the epoch of its snapshots.
func TestBackendForDirectoryWithoutIdentity(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, xdswal.Options{Dir: dir})
	write(t, s, "a", 1)
	closeStore(t, s)
	require.NoError(t, os.Remove(filepath.Join(dir, "xdswal.json")))
	b := backendtest.NewMemory()
	again := openStore(t, in(dir, fast(b)))
	require.Equal(t, s.State().Digest(), again.State().Digest())
	require.EqualValues(t, 2, again.Status().Epoch)
	write(t, again, "b", 1)
	closeStore(t, again)
	require.Equal(t, again.State().Digest(), restored(t, b))
}

// A store without snapshots that has taken a backend over opens without it.
func TestTakeoverWithoutSnapshots(t *testing.T) {
	for _, fresh := range []bool{true, false} {
		t.Run(fmt.Sprint("fresh ", fresh), func(t *testing.T) {
			b := newOutage(backendtest.NewMemory())
			opt := fast(b)
			opt.Dir, opt.DisableSnapshots = t.TempDir(), true
			if !fresh {
				s := openStore(t, opt)
				write(t, s, "own", 1)
				requireShipped(t, s)
				closeStore(t, s)
			}
			w := openStore(t, fast(b))
			write(t, w, "a", 1)
			requireShipped(t, w)
			closeStore(t, w)

			s := openStore(t, opt)
			write(t, s, "b", 1)
			want := s.State().Digest()
			closeStore(t, s)
			b.lasts.Store(true)
			s = openStore(t, opt)
			require.Equal(t, want, s.State().Digest())
			b.lasts.Store(false)
			closeStore(t, s)
		})
	}
}

// A backend is added to a store whose first segments were dropped, and the store is closed
// before anything was shipped: Close ships the snapshot and then the tail.
func TestBackendAddedLate(t *testing.T) {
	dir := t.TempDir()
	opt := xdswal.Options{Dir: dir, KeepSnapshots: 2, KeepFor: xdswal.Off}
	s := openStore(t, opt)
	for i := range 5 {
		set(t, snapshotCache(s), "n", bulk(i))
		_, err := s.Compact(t.Context())
		require.NoError(t, err)
	}
	require.Greater(t, s.Status().Journal.First, journal.Sequence(1))
	closeStore(t, s)

	b := newOutage(backendtest.NewMemory())
	b.lasts.Store(true)
	opt.Backend, opt.ShipInterval, opt.DisableSnapshots = b, time.Millisecond, false
	s = openStore(t, opt)
	write(t, s, "a", 1)
	b.lasts.Store(false)
	closeStore(t, s)
	require.Equal(t, s.State().Digest(), restored(t, b))
}

// A directory without its files is restored from the backend.
func TestTakeoverLocalDamaged(t *testing.T) {
	b := backendtest.NewMemory()
	dir := t.TempDir()
	s := openStore(t, in(dir, fast(b)))
	for i := range 10 {
		write(t, s, nodeName(i), i)
	}
	closeStore(t, s)
	require.NoError(t, os.RemoveAll(filepath.Join(dir, "journal")))
	require.NoError(t, os.RemoveAll(filepath.Join(dir, "snapshots")))
	again := openStore(t, in(dir, fast(b)))
	require.Equal(t, s.State().Digest(), again.State().Digest())
	write(t, again, "more", 1)
	requireShipped(t, again)
	closeStore(t, again)
	require.Equal(t, again.State().Digest(), restored(t, b))
}

// The newest epoch describes the writer for operators.
func TestEpochRecord(t *testing.T) {
	b := backendtest.NewMemory()
	s := openStore(t, fast(b))
	write(t, s, "a", 1)
	closeStore(t, s)
	r, err := catalog.List(t.Context(), b)
	require.NoError(t, err)
	e, ok := r.Newest()
	require.True(t, ok)
	host, err := os.Hostname()
	require.NoError(t, err)
	require.Equal(t, host, e.Host)
	require.Equal(t, s.Status().StoreID, e.StoreID)
	require.WithinDuration(t, time.Now(), e.Claimed, time.Minute)
	require.Equal(t, journal.Sequence(0), e.Sequence)
}

// A machine crashes right after it has fenced a writer: the next one restores all events
// that this writer has shipped.
func TestTakeoverDiesAfterFence(t *testing.T) {
	memory := backendtest.NewMemory()
	before := openStore(t, fast(memory))
	write(t, before, "a", 1)
	requireShipped(t, before)
	var dead atomic.Bool
	b := &between{Backend: &backendfault.Backend{Backend: memory, Fault: func(op backendfault.Op, key string) backendfault.Fault {
		if key == catalog.EpochKey(2) && op == backendfault.OpPut {
			dead.Store(true)
			return backendfault.None
		}
		if dead.Load() {
			return backendfault.FailAbsent
		}
		return backendfault.None
	}}, fn: func() {
		write(t, before, "in between", 1)
		requireShipped(t, before)
	}}
	_, err := xdswal.Open(t.Context(), in(t.TempDir(), fast(b)))
	require.ErrorIs(t, err, backendfault.ErrInjected)
	s := openStore(t, fast(memory))
	require.Equal(t, before.State().Digest(), s.State().Digest())
	require.EqualValues(t, 4, s.Status().Epoch)
	closeStore(t, s)
}

// gate returns a backend that rejects batches until open is set.
func gate(b backends.Backend) (*backendfault.Backend, *atomic.Bool) {
	open := new(atomic.Bool)
	return &backendfault.Backend{Backend: b, Fault: func(op backendfault.Op, key string) backendfault.Fault {
		if op == backendfault.OpPut && strings.HasPrefix(key, "events/") && !open.Load() {
			return backendfault.FailAbsent
		}
		return backendfault.None
	}}, open
}

// overtaken returns a store with 8 events, whose snapshot of event 5 was shipped before
// the batch that starts at event 1.
func overtaken(t testing.TB, b backends.Backend) *xdswal.Store {
	t.Helper()
	s := openStore(t, fast(b))
	for i := range 5 {
		write(t, s, "a", i)
	}
	_, err := s.Compact(t.Context())
	require.NoError(t, err)
	require.Eventually(t, func() bool { return s.Status().Shipper.Snapshot == 5 }, timeout, time.Millisecond)
	for i := range 3 {
		write(t, s, "b", i)
	}
	return s
}

// A batch that is shipped between the survey and the claim may start before the restored
// state, if the snapshot was shipped before the batch.
func TestTakeoverBatchOverlapsSnapshot(t *testing.T) {
	memory := backendtest.NewMemory()
	held, open := gate(memory)
	before := overtaken(t, held)
	b := &between{Backend: memory, fn: func() {
		open.Store(true)
		requireShipped(t, before)
	}}
	s := openStore(t, fast(b))
	require.Equal(t, before.State().Digest(), s.State().Digest())
	closeStore(t, s)
	require.Equal(t, s.State().Digest(), restored(t, memory))
}

// The same with a batch of the next epoch of a writer, which could not read the newest
// batch and ships it again.
func TestTakeoverBatchShippedAgain(t *testing.T) {
	memory := backendtest.NewMemory()
	dir := t.TempDir()
	held, open := gate(memory)
	s := openStore(t, in(dir, fast(held)))
	for i := range 5 {
		write(t, s, "a", i)
	}
	open.Store(true)
	requireShipped(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.Error(t, s.Close(ctx), "no snapshot is shipped")

	open.Store(false)
	away := newOutage(held)
	away.lasts.Store(true)
	before := openStore(t, in(dir, fast(away)))
	for i := range 3 {
		write(t, before, "b", i)
	}
	away.lasts.Store(false)
	require.Eventually(t, func() bool { return before.Status().Shipper.Claimed }, timeout, time.Millisecond)

	b := &between{Backend: memory, fn: func() {
		open.Store(true)
		requireShipped(t, before)
	}}
	next := openStore(t, fast(b))
	require.Equal(t, before.State().Digest(), next.State().Digest())
	closeStore(t, next)
	require.Equal(t, next.State().Digest(), restored(t, memory))
}

// BehindSince is zero once the store has found that the backend has all events.
func TestBehindSince(t *testing.T) {
	b := newOutage(backendtest.NewMemory())
	dir := t.TempDir()
	s := openStore(t, in(dir, fast(b)))
	write(t, s, "a", 1)
	closeStore(t, s)
	b.lasts.Store(true)
	s = openStore(t, in(dir, fast(b)))
	require.False(t, s.Status().Shipper.BehindSince.IsZero(), "unknown without the backend")
	b.lasts.Store(false)
	require.Eventually(t, func() bool { return s.Status().Shipper.BehindSince.IsZero() }, timeout, time.Millisecond)
	closeStore(t, s)
}

// A bare machine must read the newest batch, even if its name starts before the restored
// state: after the claim, the other events in it would be superseded.
func TestTakeoverReadsNewestBatch(t *testing.T) {
	memory := backendtest.NewMemory()
	held, open := gate(memory)
	before := overtaken(t, held)
	open.Store(true)
	require.Eventually(t, func() bool {
		batches, err := memory.List(t.Context(), catalog.BatchPrefix)
		return err == nil && len(batches) > 0 && before.Status().Shipper.BehindSince.IsZero()
	}, timeout, time.Millisecond)
	denied := &backendfault.Backend{Backend: memory, Fault: func(op backendfault.Op, key string) backendfault.Fault {
		if op == backendfault.OpGet && strings.HasPrefix(key, catalog.BatchPrefix) {
			return backendfault.FailAbsent
		}
		return backendfault.None
	}}
	_, err := xdswal.Open(t.Context(), in(t.TempDir(), fast(denied)))
	require.ErrorContains(t, err, catalog.BatchPrefix)
	s := openStore(t, fast(memory))
	require.Equal(t, before.State().Digest(), s.State().Digest())
}

// A backend has lost epochs that a directory has recorded, and another writer has taken it
// over since. A takeover with the directory fences that writer.
func TestTakeoverOfRolledBackBackend(t *testing.T) {
	memory, old := backendtest.NewMemory(), backendtest.NewMemory()
	dir := t.TempDir()
	a := openStore(t, in(dir, fast(memory)))
	write(t, a, "a", 0)
	closeStore(t, a)
	copyObjects(t, memory, old)
	for i := range 4 {
		a = openStore(t, in(dir, fast(memory)))
		write(t, a, "a", i+1)
		closeStore(t, a)
	}
	b := openStore(t, fast(old))
	write(t, b, "b", 1)
	requireShipped(t, b)
	a = openStore(t, in(dir, fast(old)))
	write(t, a, "a", 5)
	requireShipped(t, a)
	write(t, b, "b", 2) // it checks for a newer writer after it has shipped
	require.Eventually(t, func() bool { return b.Status().Shipper.Fenced != nil }, timeout, time.Millisecond)
	closeStore(t, a)
	require.Equal(t, a.State().Digest(), restored(t, old))
}

func copyObjects(t testing.TB, from, to backends.Backend) {
	t.Helper()
	objects, err := from.List(t.Context(), "")
	require.NoError(t, err)
	for _, o := range objects {
		r, err := from.Get(t.Context(), o.Key, 0, -1)
		require.NoError(t, err)
		data, err := io.ReadAll(r)
		require.NoError(t, err)
		require.NoError(t, to.Put(t.Context(), o.Key, bytes.NewReader(data)))
	}
}
