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
	"github.com/xdswal/xdswal/internal/catalog"
)

// hanging is a backend of which some calls hang until the test ends or, if cancelable,
// until their context is done.
type hanging struct {
	backends.Backend
	hangs      func(op backendfault.Op, key string) bool
	cancelable bool
	ended      chan struct{}
}

func newHanging(t testing.TB, b backends.Backend, cancelable bool, hangs func(backendfault.Op, string) bool) *hanging {
	h := &hanging{Backend: b, hangs: hangs, cancelable: cancelable, ended: make(chan struct{})}
	t.Cleanup(func() { close(h.ended) })
	return h
}

func (h *hanging) wait(ctx context.Context) error {
	if !h.cancelable {
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

// Open serves the local data while a backend hangs after its listing, even if the backend
// ignores its context.
func TestOpenBesideHangingBackend(t *testing.T) {
	for name, hangs := range map[string]func(backendfault.Op, string) bool{
		"batches": func(op backendfault.Op, key string) bool {
			return op == backendfault.OpGet && strings.HasPrefix(key, "events/")
		},
		"claims": func(op backendfault.Op, _ string) bool { return op == backendfault.OpPut },
	} {
		for _, cancelable := range []bool{true, false} {
			t.Run(fmt.Sprint(name, ", cancelable ", cancelable), func(t *testing.T) {
				memory := backendtest.NewMemory()
				dir := t.TempDir()
				s := openStore(t, in(dir, fast(memory)))
				write(t, s, "a", 1)
				closeStore(t, s)
				opt := in(dir, fast(newHanging(t, memory, cancelable, hangs)))
				opt.BackendTimeout, opt.RestoreTimeout = 50*time.Millisecond, timeout/2
				start := time.Now()
				s = openStore(t, opt)
				require.Less(t, time.Since(start), opt.RestoreTimeout)
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

// slow is a backend whose batches are read only when they are released, whatever the
// context of the call.
type slow struct {
	backends.Backend
	waits   atomic.Bool
	waiting chan struct{}
	release chan struct{}
}

func (s *slow) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if s.waits.Load() && strings.HasPrefix(key, catalog.BatchPrefix) {
		s.waiting <- struct{}{}
		<-s.release
	}
	return s.Backend.Get(context.WithoutCancel(ctx), key, offset, length)
}

// A poll that Close has abandoned serves nothing.
func TestAbandonedPoll(t *testing.T) {
	b := &slow{Backend: backendtest.NewMemory(), waiting: make(chan struct{}, 8), release: make(chan struct{})}
	w := openStore(t, fast(b.Backend))
	write(t, w, "a", 1)
	requireShipped(t, w)
	f := followStore(t, b)
	b.waits.Store(true)
	write(t, w, "b", 1)
	<-b.waiting
	before := f.State().Sequence()
	closeStore(t, f)
	close(b.release)
	require.Eventually(t, func() bool { return xdswal.StopFollowing(f) == nil }, timeout, time.Millisecond)
	require.Equal(t, before, f.State().Sequence())
}

// The claim takes effect, its answer is lost, and the process serves without the backend:
// its own claim does not fence it.
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

// A directory whose first Open failed has no data: it takes over what another machine has
// written since.
func TestFirstOpenFails(t *testing.T) {
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

// A store moves to a new bucket with a snapshot of an epoch that the bucket has not
// recorded.
func TestNewBucket(t *testing.T) {
	dir := t.TempDir()
	opt := in(dir, fast(backendtest.NewMemory()))
	opt.KeepSnapshots, opt.KeepFor = 2, xdswal.Off
	s := openStore(t, opt)
	for i := range 8 {
		set(t, snapshotCache(s), "n", bulk(i))
		_, err := s.Compact(t.Context())
		require.NoError(t, err)
	}
	requireShipped(t, s)
	closeStore(t, s)
	for range 2 { // without changes, the snapshot is still that of the first epoch
		s = openStore(t, opt)
		closeStore(t, s)
	}
	require.Greater(t, s.Status().Journal.First, s.State().Sequence()/2, "the journal alone is not enough")
	bucket := backendtest.NewMemory()
	opt.Backend = bucket
	s = openStore(t, opt)
	requireShipped(t, s)
	requireRestores(t, bucket, s.State().Digest())
	closeStore(t, s)
	require.Equal(t, s.State().Digest(), restored(t, bucket))
}

// A bucket that has lost everything except its epochs is not an empty store.
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
	// The directory with the data ships it again.
	s := openStore(t, in(dir, fast(b)))
	requireShipped(t, s)
	closeStore(t, s)
	require.Equal(t, s.State().Digest(), restored(t, b))
}

// The Fenced hook may close the store.
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

// It may do so too if it is called while Close ships the last events.
func TestFencedHookClosesInClose(t *testing.T) {
	b := backendtest.NewMemory()
	var s *xdswal.Store
	closed := make(chan error, 2)
	opt := fast(b)
	opt.ShipInterval = time.Hour
	opt.Hooks.Compactor.Fenced = func(error) { closed <- s.Close(context.Background()) }
	s = openStore(t, opt)
	write(t, s, "a", 1)
	other := openStore(t, fast(b))
	go func() { closed <- s.Close(context.Background()) }()
	for range cap(closed) {
		require.NoError(t, receive(t, closed))
	}
	closeStore(t, other)
}

// The tail after a snapshot is shipped although a segment that the snapshot covers is
// damaged.
func TestShipAfterDamagedSegment(t *testing.T) {
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

// A follower continues after missing batches when a snapshot covers them.
func TestFollowAfterMissingBatches(t *testing.T) {
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
	// Remove what the snapshot covers, as the bound of the journal does.
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

// A follower that expects batches does not report that it is current if the writer ships
// only snapshots.
func TestFollowerLag(t *testing.T) {
	b := backendtest.NewMemory()
	opt := fast(b)
	opt.ShipInterval = xdswal.Off
	w := openStore(t, opt)
	write(t, w, "a", 1)
	_, err := w.Compact(t.Context())
	require.NoError(t, err)
	requireShipped(t, w)
	counted := &backendfault.Backend{Backend: b}
	f := followStore(t, counted)
	current := f.Status().Follower.CurrentAt
	reads := counted.Calls(backendfault.OpGet)
	require.Eventually(t, func() bool { return counted.Calls(backendfault.OpGet) > reads+20 }, timeout, time.Millisecond)
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

// A claim that was abandoned because the backend did not return succeeds after the store
// was closed. It must not write to the directory, which another process may have open.
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

	// Another process opens the directory.
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
