package xdswal_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/backends/backendtest"
	"github.com/xdswal/xdswal/backends/file"
)

// followStore opens a follower.
func followStore(t testing.TB, b backends.Backend) *xdswal.Store {
	t.Helper()
	opt := fast(b)
	opt.Follow = true
	return openStore(t, opt)
}

// requireFollows waits until a follower serves what a writer does.
func requireFollows(t testing.TB, f, w *xdswal.Store) {
	t.Helper()
	require.Eventually(t, func() bool { return f.State().Sequence() == w.State().Sequence() }, timeout, time.Millisecond,
		"%+v", f.Status().Follower)
	require.Equal(t, w.State().Digest(), f.State().Digest())
	require.Eventually(t, func() bool {
		for n := range f.State().Cache("snapshot/") {
			if snapshotCache(f).GetNode(n.Name()) != n {
				return false
			}
		}
		return true
	}, timeout, time.Millisecond)
	requireServed(t, f)
}

func TestFollow(t *testing.T) {
	b := backendtest.NewMemory()
	w := openStore(t, fast(b))
	write(t, w, "a", 1)
	require.NoError(t, w.LinearCache(resourcev3.ClusterType).UpdateResource("l", cluster("l")))
	requireShipped(t, w)

	f := followStore(t, b)
	cache, linear := snapshotCache(f), f.LinearCache(resourcev3.ClusterType)
	requireFollows(t, f, w)
	require.Contains(t, linear.GetResources(), "l")

	// Clients are told, of the snapshot cache and of the linear one.
	version := cache.GetNode("a").Type(resourcev3.ClusterType).Version()
	answers, _ := watch(t, cache, "a", resourcev3.ClusterType, version)
	write(t, w, "a", 2)
	receive(t, answers)
	require.NoError(t, w.LinearCache(resourcev3.ClusterType).UpdateResource("m", cluster("m")))
	require.NoError(t, w.LinearCache(resourcev3.ClusterType).DeleteResource("l"))
	require.Eventually(t, func() bool {
		got := linear.GetResources()
		return got["m"] != nil && got["l"] == nil
	}, timeout, time.Millisecond)
	for i := range 50 {
		write(t, w, nodeName(i%5), i)
	}
	require.NoError(t, snapshotCache(w).Clear(t.Context(), nodeName(1)))
	requireFollows(t, f, w)
	_, err := cache.GetSnapshot(nodeName(1))
	require.Error(t, err)

	// It takes no updates.
	err = cache.SetSnapshot(t.Context(), "a", clusters(t, "9"))
	require.ErrorIs(t, err, xdswal.ErrFollower)
	require.ErrorIs(t, linear.UpdateResource("x", cluster("x")), xdswal.ErrFollower)
	_, err = f.Compact(t.Context())
	require.ErrorIs(t, err, xdswal.ErrDisabled)

	st := f.Status()
	require.EqualValues(t, 1, st.Follower.Epoch)
	require.EqualValues(t, 1, st.Epoch)
	require.Equal(t, w.Status().StoreID, st.StoreID)
	require.NoError(t, st.Follower.Err)
	require.Less(t, st.Follower.Lag(), timeout)
	require.Nil(t, st.Shipper)
	require.Nil(t, w.Status().Follower)
	closeStore(t, f)
	closeStore(t, w)
}

func TestFollowNothing(t *testing.T) {
	_, err := xdswal.Open(t.Context(), xdswal.Options{Follow: true, Backend: backendtest.NewMemory()})
	require.ErrorContains(t, err, "nothing was ever shipped there")
	_, err = xdswal.Open(t.Context(), xdswal.Options{Follow: true})
	require.ErrorContains(t, err, "Follow needs a Backend")
}

// A follower stays with the chain of writers that counts: it goes on with the
// next one, and goes back where it had followed a superseded one too far.
func TestFollowNextWriter(t *testing.T) {
	b := backendtest.NewMemory()
	dir := t.TempDir()
	w := openStore(t, in(dir, fast(b)))
	write(t, w, "a", 1)
	requireShipped(t, w)
	f := followStore(t, b)
	for opening := range 3 {
		closeStore(t, w)
		w = openStore(t, in(dir, fast(b)))
		write(t, w, "a", 10+opening)
		requireFollows(t, f, w)
	}
	// A bare machine takes over, while the writer before still publishes.
	zombie := w
	w = openStore(t, fast(b))
	_ = snapshotCache(zombie).SetSnapshot(t.Context(), "zombie", clusters(t, "1", cluster("z")))
	requireFenced(t, zombie)
	write(t, w, "b", 1)
	write(t, w, "b", 2)
	requireFollows(t, f, w)
	closeStore(t, f)
	closeStore(t, w)
}

// Where the tail is not shipped, a follower goes from snapshot to snapshot.
func TestFollowSnapshots(t *testing.T) {
	b, err := file.New(file.Config{Dir: t.TempDir()})
	require.NoError(t, err)
	w := openStore(t, xdswal.Options{Backend: b})
	write(t, w, "a", 1)
	compact := func() {
		_, err := w.Compact(context.Background())
		require.NoError(t, err)
		requireShipped(t, w)
	}
	compact()
	f := openStore(t, xdswal.Options{Backend: b, Follow: true, FollowInterval: time.Millisecond})
	for i := range 3 {
		write(t, w, "a", 2+i)
		compact()
		requireFollows(t, f, w)
	}
	closeStore(t, f)
	closeStore(t, w)
}

// A follower serves what it has while the backend is away, and catches up.
func TestFollowOutage(t *testing.T) {
	memory := backendtest.NewMemory()
	b := newOutage(memory)
	w := openStore(t, fast(memory))
	write(t, w, "a", 1)
	requireShipped(t, w)
	f := followStore(t, b)
	b.lasts.Store(true)
	require.Eventually(t, func() bool { return f.Status().Follower.Err != nil }, timeout, time.Millisecond)
	for i := range 20 {
		write(t, w, "a", i)
	}
	requireServed(t, f)
	require.EqualValues(t, 1, f.State().Sequence())
	b.lasts.Store(false)
	requireFollows(t, f, w)
	closeStore(t, f)
	closeStore(t, w)
}

func TestPromote(t *testing.T) {
	b := backendtest.NewMemory()
	w := openStore(t, fast(b))
	for i := range 10 {
		write(t, w, nodeName(i), i)
	}
	requireShipped(t, w)
	f := followStore(t, b)
	cache := snapshotCache(f)
	requireFollows(t, f, w)

	require.NoError(t, f.Promote(t.Context()))
	require.NoError(t, f.Promote(t.Context()), "it is the writer already")
	require.Equal(t, w.State().Digest(), f.State().Digest())
	require.EqualValues(t, 3, f.Status().Epoch)
	require.Nil(t, f.Status().Follower)

	// Updates go through the caches that were there, to clients that were.
	answers, _ := watch(t, cache, nodeName(1), resourcev3.ClusterType, "none such")
	receive(t, answers)
	write(t, f, nodeName(1), 100)
	requireShipped(t, f)
	_ = snapshotCache(w).SetSnapshot(t.Context(), "late", clusters(t, "1", cluster("late")))
	requireFenced(t, w)
	closeStore(t, w)

	// What was restored is local by now.
	require.Eventually(t, func() bool { return f.Status().Compactor.Sequence >= 10 }, timeout, time.Millisecond)
	dir := f.Status().Dir
	digest := f.State().Digest()
	closeStore(t, f)
	local := openStore(t, xdswal.Options{Dir: dir})
	require.Equal(t, digest, local.State().Digest())
	closeStore(t, local)
	require.Equal(t, digest, restored(t, b))
}

// A promotion that fails leaves a follower, which can be promoted later.
func TestPromoteFails(t *testing.T) {
	memory := backendtest.NewMemory()
	b := newOutage(memory)
	w := openStore(t, fast(memory))
	write(t, w, "a", 1)
	requireShipped(t, w)
	f := followStore(t, b)
	b.lasts.Store(true)
	require.ErrorIs(t, f.Promote(t.Context()), backendtest.ErrInjected)
	require.NotNil(t, f.Status().Follower)
	b.lasts.Store(false)
	write(t, w, "a", 2)
	requireFollows(t, f, w)
	require.NoError(t, f.Promote(t.Context()))
	write(t, f, "a", 3)
	digest := f.State().Digest()
	closeStore(t, f)
	closeStore(t, w)
	require.Equal(t, digest, restored(t, b))

	noDir, err := xdswal.Open(t.Context(), xdswal.Options{Follow: true, Backend: b})
	require.NoError(t, err)
	require.ErrorContains(t, noDir.Promote(t.Context()), "needs a data directory")
	closeStore(t, noDir)
}

// Updates, promotion and the backend's failures at once, for the race detector.
func TestPromoteUnderLoad(t *testing.T) {
	b := backendtest.NewMemory()
	w := openStore(t, fast(b))
	write(t, w, "a", 1)
	requireShipped(t, w)
	f := followStore(t, b)
	var stop atomic.Bool
	done := make(chan int)
	for g := range 4 {
		go func() {
			n := 0
			for !stop.Load() {
				if snapshotCache(f).SetSnapshot(context.Background(), nodeName(g), clusters(t, fmt.Sprint(n), cluster(fmt.Sprint(n)))) == nil {
					n++
				}
			}
			done <- n
		}()
	}
	require.NoError(t, f.Promote(t.Context()))
	require.Eventually(t, func() bool { return f.State().Sequence() > 40 }, timeout, time.Millisecond)
	stop.Store(true)
	for range 4 {
		require.Positive(t, <-done)
	}
	digest := f.State().Digest()
	closeStore(t, f)
	closeStore(t, w)
	require.Equal(t, digest, restored(t, b))
}

// A follower whose snapshot has overtaken the tail goes on with the batch that
// begins before its end.
func TestFollowBatchBehindSnapshot(t *testing.T) {
	memory := backendtest.NewMemory()
	held, open := gate(memory)
	w := overtaken(t, held)
	f := followStore(t, memory)
	require.EqualValues(t, 5, f.State().Sequence())
	open.Store(true)
	requireFollows(t, f, w)
	closeStore(t, f)
	closeStore(t, w)
}
