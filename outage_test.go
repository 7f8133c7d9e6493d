package xdswal_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/backends/backendtest"
	"github.com/xdswal/xdswal/internal/backendfault"
)

// hanging is a backend some of whose calls do not return until their context is
// done, or, without heed, until the test ends.
type hanging struct {
	backends.Backend
	hangs func(op backendfault.Op, key string) bool
	heed  bool
	ended chan struct{}
}

func newHanging(t testing.TB, b backends.Backend, heed bool, hangs func(backendfault.Op, string) bool) *hanging {
	h := &hanging{Backend: b, hangs: hangs, heed: heed, ended: make(chan struct{})}
	t.Cleanup(func() { close(h.ended) })
	return h
}

func (h *hanging) wait(ctx context.Context) error {
	if !h.heed {
		ctx = context.Background()
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-h.ended:
		return errors.New("the test has ended")
	}
}

func (h *hanging) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if h.hangs(backendfault.OpGet, key) {
		return nil, h.wait(ctx)
	}
	return h.Backend.Get(ctx, key, offset, length)
}

func (h *hanging) Put(ctx context.Context, key string, body io.ReadSeeker) error {
	if h.hangs(backendfault.OpPut, key) {
		return h.wait(ctx)
	}
	return h.Backend.Put(ctx, key, body)
}

// A backend that lists and then hangs does not keep what is local from being
// served, whether it heeds its context or not.
func TestOpenBesideHangingBackend(t *testing.T) {
	for name, hangs := range map[string]func(backendfault.Op, string) bool{
		"batches": func(op backendfault.Op, key string) bool {
			return op == backendfault.OpGet && strings.HasPrefix(key, "events/")
		},
		"claims": func(op backendfault.Op, _ string) bool { return op == backendfault.OpPut },
	} {
		for _, heed := range []bool{true, false} {
			t.Run(fmt.Sprint(name, ", heeding its context ", heed), func(t *testing.T) {
				memory := backendtest.NewMemory()
				dir := t.TempDir()
				s := openStore(t, in(dir, fast(memory)))
				write(t, s, "a", 1)
				closeStore(t, s)
				opt := in(dir, fast(newHanging(t, memory, heed, hangs)))
				opt.BackendTimeout, opt.RestoreTimeout = 50*time.Millisecond, timeout/2
				begun := time.Now()
				s = openStore(t, opt)
				require.Less(t, time.Since(begun), opt.RestoreTimeout)
				requireServed(t, s)
				ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
				defer cancel()
				_ = s.Close(ctx)
			})
		}
	}
}

// A follower of a backend that ignores its context can be closed.
func TestCloseFollowerOfHangingBackend(t *testing.T) {
	memory := backendtest.NewMemory()
	w := openStore(t, fast(memory))
	write(t, w, "a", 1)
	requireShipped(t, w)
	var hangs, hung atomic.Bool
	f := followStore(t, newHanging(t, memory, false, func(backendfault.Op, string) bool {
		hung.Store(hangs.Load())
		return hangs.Load()
	}))
	hangs.Store(true)
	require.Eventually(t, hung.Load, timeout, time.Millisecond)
	closed := make(chan error, 1)
	go func() { closed <- f.Close(context.Background()) }()
	require.NoError(t, receive(t, closed))
}

// The claim takes effect, its answer is lost, and the process goes on without the
// backend: it is not fenced by itself.
func TestClaimWithoutAnswer(t *testing.T) {
	var down, loses atomic.Bool
	b := &backendfault.Backend{Backend: backendtest.NewMemory(), Fault: func(op backendfault.Op, key string) backendfault.Fault {
		switch {
		case down.Load():
			return backendfault.FailAbsent
		case loses.Load() && op == backendfault.OpPut && strings.HasPrefix(key, "epochs/"):
			down.Store(true)
			return backendfault.FailPresent
		}
		return backendfault.None
	}}
	dir := t.TempDir()
	s := openStore(t, in(dir, fast(b)))
	write(t, s, "a", 1)
	closeStore(t, s)
	loses.Store(true)
	giveUp, cancel := context.WithCancel(t.Context())
	cancel()
	for i := range 2 {
		s = openStore(t, in(dir, fast(b)))
		write(t, s, "a", 2+i)
		if i == 0 {
			_ = s.Close(giveUp)
		}
	}
	loses.Store(false)
	down.Store(false)
	requireShipped(t, s)
	require.NoError(t, s.Status().Shipper.Fenced)
	closeStore(t, s)
	again := openStore(t, in(dir, fast(b)))
	require.Equal(t, s.State().Digest(), again.State().Digest())
	closeStore(t, again)
}

// A machine whose first opening failed has held nothing: it takes over what
// another one has begun since.
func TestFirstOpeningFails(t *testing.T) {
	memory := backendtest.NewMemory()
	var refuses atomic.Bool
	b := &backendfault.Backend{Backend: memory, Fault: func(op backendfault.Op, _ string) backendfault.Fault {
		if refuses.Load() && op == backendfault.OpPut {
			return backendfault.FailAbsent
		}
		return backendfault.None
	}}
	dir := t.TempDir()
	refuses.Store(true)
	_, err := xdswal.Open(t.Context(), in(dir, fast(b)))
	require.ErrorIs(t, err, backendfault.ErrInjected)
	refuses.Store(false)
	other := openStore(t, fast(memory))
	write(t, other, "a", 1)
	closeStore(t, other)
	s := openStore(t, in(dir, fast(b)))
	require.Equal(t, other.State().Digest(), s.State().Digest())
	closeStore(t, s)
}

// A store moves to a new bucket with a snapshot of an epoch that the bucket has
// never heard of.
func TestNewBucket(t *testing.T) {
	dir := t.TempDir()
	opt := in(dir, fast(backendtest.NewMemory()))
	opt.KeepSnapshots, opt.KeepFor = 2, -1
	s := openStore(t, opt)
	for i := range 8 {
		set(t, snapshotCache(s), "n", bulk(i))
		_, err := s.Compact(t.Context())
		require.NoError(t, err)
	}
	requireShipped(t, s)
	closeStore(t, s)
	for range 2 { // nothing changes, so the snapshot stays that of the first epoch
		s = openStore(t, opt)
		closeStore(t, s)
	}
	require.Greater(t, s.Status().Journal.First, s.State().Sequence()/2, "the journal alone does not suffice")
	bucket := backendtest.NewMemory()
	opt.Backend = bucket
	s = openStore(t, opt)
	requireShipped(t, s)
	requireRestores(t, bucket, s.State().Digest())
	closeStore(t, s)
	require.Equal(t, s.State().Digest(), restored(t, bucket))
}

// A bucket that has lost all but its epochs is no empty store.
func TestBucketExpired(t *testing.T) {
	b := backendtest.NewMemory()
	dir := t.TempDir()
	for i := range 2 {
		s := openStore(t, in(dir, fast(b)))
		write(t, s, "a", i)
		closeStore(t, s)
	}
	objects, err := b.List(t.Context(), "")
	require.NoError(t, err)
	for _, o := range objects {
		if !strings.HasPrefix(o.Key, "epochs/") {
			require.NoError(t, b.Delete(t.Context(), o.Key))
		}
	}
	_, err = xdswal.Open(t.Context(), in(t.TempDir(), fast(b)))
	require.ErrorIs(t, err, xdswal.ErrGap)
	require.ErrorContains(t, err, "they were deleted, or never shipped")
	// Where the data is, it is made good.
	s := openStore(t, in(dir, fast(b)))
	requireShipped(t, s)
	closeStore(t, s)
	require.Equal(t, s.State().Digest(), restored(t, b))
}

// A hook may close the store that was fenced.
func TestFencedHookCloses(t *testing.T) {
	b := backendtest.NewMemory()
	var s *xdswal.Store
	closed := make(chan error, 1)
	opt := fast(b)
	opt.Hooks.Compactor.Fenced = func(error) { closed <- s.Close(context.Background()) }
	s = openStore(t, opt)
	write(t, s, "a", 1)
	requireShipped(t, s)
	other := openStore(t, fast(b))
	_ = snapshotCache(s).SetSnapshot(t.Context(), "late", clusters(t, "1", cluster("late")))
	require.NoError(t, receive(t, closed))
	closeStore(t, other)
}

// A segment that is damaged under a running store does not hold up the tail
// behind the snapshot that covers it.
func TestShipBehindDamagedSegment(t *testing.T) {
	held, open := gate(backendtest.NewMemory())
	opt := in(t.TempDir(), fast(held))
	s := openStore(t, opt)
	for i := range 60 {
		set(t, snapshotCache(s), "n", bulk(i))
	}
	segments, err := filepath.Glob(filepath.Join(opt.Dir, "journal", "*.journal"))
	require.NoError(t, err)
	require.Greater(t, len(segments), 2)
	info, err := os.Stat(segments[1])
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(segments[1], make([]byte, info.Size()), 0o600))
	_, err = s.Compact(t.Context())
	require.NoError(t, err)
	open.Store(true)
	set(t, snapshotCache(s), "n", bulk(1000))
	requireShipped(t, s)
	requireRestores(t, held, s.State().Digest())
}

// A follower goes on behind a hole in the batches, once a snapshot covers it.
func TestFollowBehindHole(t *testing.T) {
	memory := backendtest.NewMemory()
	var down, holds atomic.Bool
	b := &backendfault.Backend{Backend: memory, Fault: func(op backendfault.Op, key string) backendfault.Fault {
		if down.Load() || (holds.Load() && op == backendfault.OpPut && strings.HasPrefix(key, "snapshots/")) {
			return backendfault.FailAbsent
		}
		return backendfault.None
	}}
	dir := t.TempDir()
	w := openStore(t, in(dir, fast(b)))
	for i := range 5 {
		write(t, w, "a", i)
	}
	requireShipped(t, w)
	f := followStore(t, memory)
	requireFollows(t, f, w)
	down.Store(true)
	for i := range 5 {
		write(t, w, "b", i)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	_ = w.Close(ctx) // with a snapshot of event 10 that was not shipped
	cancel()
	// As pressure does: what the snapshot covers is gone.
	require.NoError(t, os.RemoveAll(filepath.Join(dir, "journal")))
	down.Store(false)
	holds.Store(true)
	w = openStore(t, in(dir, fast(b)))
	require.Eventually(t, func() bool { return f.Status().Follower.Epoch == 2 }, timeout, time.Millisecond)
	holds.Store(false)
	require.Eventually(t, func() bool { return w.Status().Shipper.Snapshot == 10 }, timeout, time.Millisecond)
	write(t, w, "c", 1)
	requireFollows(t, f, w)
	closeStore(t, f)
	closeStore(t, w)
}

// A follower that waits for batches does not say that it is current where the
// writer ships snapshots alone.
func TestFollowerLag(t *testing.T) {
	b := backendtest.NewMemory()
	opt := fast(b)
	opt.ShipInterval = -1
	w := openStore(t, opt)
	write(t, w, "a", 1)
	_, err := w.Compact(t.Context())
	require.NoError(t, err)
	requireShipped(t, w)
	counted := &backendfault.Backend{Backend: b}
	f := followStore(t, counted)
	current := f.Status().Follower.CurrentAt
	looks := counted.Calls(backendfault.OpGet)
	require.Eventually(t, func() bool { return counted.Calls(backendfault.OpGet) > looks+20 }, timeout, time.Millisecond)
	require.Equal(t, current, f.Status().Follower.CurrentAt, fmt.Sprint(f.Status().Follower.Lag()))
	closeStore(t, f)
	closeStore(t, w)
}

// stuck is a backend that cannot be listed at first, and whose puts of an epoch do not
// return until they are released, and succeed then.
type stuck struct {
	backends.Backend
	unlisted atomic.Bool
	waiting  chan struct{} // receives a value from each put that waits
	release  chan struct{}
	put      chan error // receives the outcome of each such put
}

func (s *stuck) List(ctx context.Context, prefix string) ([]backends.Object, error) {
	if s.unlisted.Load() {
		return nil, errors.New("no route to the backend")
	}
	return s.Backend.List(ctx, prefix)
}

func (s *stuck) Put(ctx context.Context, key string, body io.ReadSeeker) error {
	if !strings.HasPrefix(key, "epochs/") {
		return s.Backend.Put(ctx, key, body)
	}
	s.waiting <- struct{}{}
	<-s.release
	err := s.Backend.Put(context.WithoutCancel(ctx), key, body)
	s.put <- err
	return err
}

// A claim that was abandoned, since the backend did not return, succeeds after the store
// was closed. It must not write into the directory, which may be another process's.
func TestAbandonedClaim(t *testing.T) {
	b := &stuck{
		Backend: backendtest.NewMemory(),
		waiting: make(chan struct{}, 8), release: make(chan struct{}), put: make(chan error, 8),
	}
	opt := in(t.TempDir(), xdswal.Options{})
	s := openStore(t, opt)
	set(t, snapshotCache(s), "n", clusters(t, "1", cluster("a")))
	closeStore(t, s)

	b.unlisted.Store(true)
	opt.Backend = b
	s = openStore(t, opt)
	b.unlisted.Store(false)
	<-b.waiting
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	require.Error(t, s.Close(ctx), "it did not claim its epoch")

	// Another process has the directory now.
	path := filepath.Join(opt.Dir, "xdswal.json")
	opt.Backend = nil
	next := openStore(t, opt)
	before, err := os.ReadFile(path)
	require.NoError(t, err)
	close(b.release)
	require.NoError(t, <-b.put)
	require.Eventually(t, func() bool {
		stacks := make([]byte, 1<<20)
		return !strings.Contains(string(stacks[:runtime.Stack(stacks, true)]), "internal/ship.(*Shipper).claim")
	}, timeout, time.Millisecond, "the claim has returned")
	after, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(before), string(after))
	closeStore(t, next)
}
