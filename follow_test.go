package xdswal_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/backends/backendtest"
	"github.com/xdswal/xdswal/backends/file"
	"github.com/xdswal/xdswal/internal/backendfault"
	"github.com/xdswal/xdswal/internal/cachelog"
	"github.com/xdswal/xdswal/internal/s3test"
)

// followStore opens a follower.
func followStore(t testing.TB, b backends.Backend) *xdswal.Store {
	t.Helper()
	opt := fast(b)
	opt.Follow = true
	return openStore(t, opt)
}

// requireFollows waits until a follower serves the state of a writer.
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
	require.NoError(t, linearCache(w).UpdateResource("l", cluster("l")))
	requireShipped(t, w)

	f := followStore(t, b)
	cache, linear := snapshotCache(f), linearCache(f)
	requireFollows(t, f, w)
	require.Contains(t, linear.GetResources(), "l")

	// Watches of the snapshot cache and of the linear cache are answered.
	version := cache.GetNode("a").Type(resourcev3.ClusterType).Version()
	answers, _ := watch(t, cache, "a", resourcev3.ClusterType, version)
	write(t, w, "a", 2)
	receive(t, answers)
	require.NoError(t, linearCache(w).UpdateResource("m", cluster("m")))
	require.NoError(t, linearCache(w).DeleteResource("l"))
	require.Eventually(t, func() bool {
		got := linear.GetResources()
		return got["m"] != nil && got["l"] == nil
	}, timeout, time.Millisecond)
	for i := range 50 {
		write(t, w, nodeName(i%5), i)
	}
	require.NoError(t, second(snapshotCache(w).Clear(t.Context(), nodeName(1))))
	requireFollows(t, f, w)
	_, err := cache.GetSnapshot(nodeName(1))
	require.Error(t, err)

	// A follower rejects updates.
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
	require.ErrorContains(t, err, "backend is empty")
	_, err = xdswal.Open(t.Context(), xdswal.Options{Follow: true})
	require.ErrorContains(t, err, "Follow requires the backend")
}

// A follower follows the chain of valid epochs: it continues with the next writer, and
// drops events of a superseded writer.
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
	// A bare machine takes over while the last writer still ships.
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

// If the writer ships only snapshots, a follower restores each of them.
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

// A follower serves its state while the backend is unreachable, and catches up.
func TestFollowOutage(t *testing.T) {
	memory := backendtest.NewMemory()
	b := newOutage(memory)
	w := openStore(t, fast(memory))
	write(t, w, "a", 1)
	requireShipped(t, w)
	f := followStore(t, b)
	b.cutOff(t, f)
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

	// The existing caches accept updates, and answer existing watches.
	answers, _ := watch(t, cache, nodeName(1), resourcev3.ClusterType, "none such")
	receive(t, answers)
	write(t, f, nodeName(1), 100)
	requireShipped(t, f)
	_ = snapshotCache(w).SetSnapshot(t.Context(), "late", clusters(t, "1", cluster("late")))
	requireFenced(t, w)
	closeStore(t, w)

	// The restored state becomes local.
	require.Eventually(t, func() bool { return f.Status().Compactor.Sequence >= 10 }, timeout, time.Millisecond)
	dir := f.Status().Dir
	digest := f.State().Digest()
	closeStore(t, f)
	local := openStore(t, xdswal.Options{Dir: dir})
	require.Equal(t, digest, local.State().Digest())
	closeStore(t, local)
	require.Equal(t, digest, restored(t, b))
}

// After a failed promotion, the follower still follows and can be promoted later.
func TestPromoteFails(t *testing.T) {
	memory := backendtest.NewMemory()
	b := newOutage(memory)
	w := openStore(t, fast(memory))
	write(t, w, "a", 1)
	requireShipped(t, w)
	f := followStore(t, b)
	b.lasts.Store(true)
	require.ErrorIs(t, f.Promote(t.Context()), backendfault.ErrInjected)
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
	require.ErrorContains(t, noDir.Promote(t.Context()), "requires a data directory")
	closeStore(t, noDir)
}

// Updates run while a follower is promoted, for the race detector.
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

// A follower whose snapshot is newer than the start of the next batch continues with that
// batch.
func TestFollowBatchOverlapsSnapshot(t *testing.T) {
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

// removeObjects deletes the objects of a backend with the prefixes.
func removeObjects(t testing.TB, b backends.Backend, prefixes ...string) {
	t.Helper()
	for _, prefix := range prefixes {
		objects, err := b.List(t.Context(), prefix)
		require.NoError(t, err)
		for _, o := range objects {
			require.NoError(t, b.Delete(t.Context(), o.Key))
		}
	}
}

// A follower cannot be opened on a backend that has lost everything except its epochs; one
// that is open still serves its state.
func TestFollowOnlyEpochsLeft(t *testing.T) {
	xdswal.SetRelistInterval(t, 0)
	b := backendtest.NewMemory()
	dir := t.TempDir()
	for i := range 2 { // the second epoch records the events of the first
		w := openStore(t, in(dir, fast(b)))
		write(t, w, nodeName(i), i)
		requireShipped(t, w)
		closeStore(t, w)
	}
	counted := &backendfault.Backend{Backend: b}
	f := followStore(t, counted)
	removeObjects(t, b, "snapshots/", "events/")

	_, err := xdswal.Open(t.Context(), fast(b))
	require.Error(t, err)
	_, err = xdswal.Open(t.Context(), xdswal.Options{Follow: true, Backend: b})
	require.ErrorIs(t, err, xdswal.ErrGap)
	require.ErrorContains(t, err, "epoch 2 in memory: continues from event 1")

	lists := counted.Calls(backendfault.OpList)
	require.Eventually(t, func() bool { return counted.Calls(backendfault.OpList) > lists+6 }, timeout, time.Millisecond)
	require.EqualValues(t, 2, f.State().Sequence())
	requireServed(t, f)
	closeStore(t, f)
}

// A prefix is emptied, and another store starts there with the same epoch. A follower of
// the first store still serves its state, reports ErrForeign, and cannot be promoted.
func TestFollowAnotherStore(t *testing.T) {
	for _, row := range []struct {
		name string
		// writes are the numbers of updates of the other store, one for each opening.
		writes []int
	}{
		{"with batches after the state", []int{15}},
		{"with batches before the state", []int{3}},
		{"in a later epoch", []int{3, 12}},
		{"without events", []int{0}},
	} {
		t.Run(row.name, func(t *testing.T) {
			xdswal.SetRelistInterval(t, 0)
			memory := backendtest.NewMemory()
			first := openStore(t, fast(memory))
			for i := range 10 {
				write(t, first, nodeName(i), i)
			}
			requireShipped(t, first)
			b := newOutage(memory)
			f := followStore(t, b)
			requireFollows(t, f, first)
			closeStore(t, first)

			// The follower reads the backend only after all of this.
			b.cutOff(t, f)
			removeObjects(t, memory, "epochs/", "snapshots/", "events/")
			opt := in(t.TempDir(), fast(memory))
			for _, writes := range row.writes {
				s := openStore(t, opt)
				for i := range writes {
					write(t, s, "another", i)
					requireShipped(t, s)
				}
				closeStore(t, s)
			}
			b.lasts.Store(false)

			requireForeign := func() {
				t.Helper()
				require.ErrorIs(t, f.Status().Follower.Err, xdswal.ErrForeign)
				require.Equal(t, first.State().Digest(), f.State().Digest())
				require.Equal(t, first.Status().StoreID, f.Status().StoreID)
				requireServed(t, f)
			}
			require.Eventually(t, func() bool { return !errors.Is(f.Status().Follower.Err, backendfault.ErrInjected) }, timeout, time.Millisecond)
			requireForeign()
			lists := b.Calls(backendfault.OpList)
			require.Eventually(t, func() bool { return b.Calls(backendfault.OpList) > lists }, timeout, time.Millisecond)
			requireForeign()
			require.ErrorIs(t, f.Promote(t.Context()), xdswal.ErrForeign)
			requireForeign()
			closeStore(t, f)
		})
	}
}

// A store whose directory was replaced by an older copy, with an emptied prefix, is the
// same store with other events. A follower follows it.
func TestFollowStoreSetBack(t *testing.T) {
	xdswal.SetRelistInterval(t, 0)
	memory := backendtest.NewMemory()
	dir, older := t.TempDir(), filepath.Join(t.TempDir(), "older")
	w := openStore(t, in(dir, fast(memory)))
	for i := range 5 {
		write(t, w, "a", i)
	}
	closeStore(t, w)
	require.NoError(t, os.CopyFS(older, os.DirFS(dir)))
	w = openStore(t, in(dir, fast(memory)))
	for i := range 5 {
		write(t, w, "b", i)
	}
	requireShipped(t, w)
	b := newOutage(memory)
	f := followStore(t, b)
	requireFollows(t, f, w)
	closeStore(t, w)

	b.cutOff(t, f)
	removeObjects(t, memory, "epochs/", "snapshots/", "events/")
	w = openStore(t, in(older, fast(memory)))
	require.EqualValues(t, 2, w.Status().Epoch)
	_, err := w.Compact(t.Context())
	require.NoError(t, err)
	for i := range 10 {
		write(t, w, "c", i)
		requireShipped(t, w)
	}
	b.lasts.Store(false)
	requireFollows(t, f, w)
	require.NoError(t, f.Status().Follower.Err)
	closeStore(t, f)
	closeStore(t, w)
}

// While batches arrive, a follower reads the object of its epoch once a minute, not with
// each batch.
func TestFollowReadsItsEpoch(t *testing.T) {
	for _, row := range []struct {
		every time.Duration
		reads bool
	}{{time.Minute, false}, {0, true}} {
		xdswal.SetRelistInterval(t, row.every)
		memory := backendtest.NewMemory()
		w := openStore(t, fast(memory))
		write(t, w, "a", 0)
		requireShipped(t, w)
		var reads atomic.Int64
		f := followStore(t, &backendfault.Backend{Backend: memory, Fault: func(_ backendfault.Op, key string) backendfault.Fault {
			if key == "epochs/0000000001" {
				reads.Add(1)
			}
			return backendfault.None
		}})
		require.EqualValues(t, 1, reads.Load(), "by the listing")
		for i := range 20 {
			write(t, w, "a", 1+i)
			requireFollows(t, f, w)
		}
		closeStore(t, f)
		require.Equal(t, row.reads, reads.Load() > 1, "%d", reads.Load())
		closeStore(t, w)
	}
}

// ahead returns a follower that has applied event 6 of a fenced writer, which is not part
// of the history, and that cannot reach the backend until reconnect is called; and the
// writer that took over. The objects of earlier epochs are pruned, and the batches of the
// writer start with event 6: it could not read the newest one, and shipped it again.
func ahead(t *testing.T, b backends.Backend) (f, w *xdswal.Store, reconnect func()) {
	t.Helper()
	fenced := openStore(t, fast(b))
	for i := range 5 {
		write(t, fenced, "a", i)
	}
	requireShipped(t, fenced)
	var cut atomic.Bool
	f = followStore(t, &backendfault.Backend{Backend: b, Fault: func(_ backendfault.Op, key string) backendfault.Fault {
		if cut.Load() && key != "events/events-0000000001-00000000000000000006.zst" {
			return backendfault.FailAbsent
		}
		return backendfault.None
	}})
	requireFollows(t, f, fenced)
	cut.Store(true)

	held, open := gate(b)
	opt := in(t.TempDir(), fast(held))
	opt.KeepSnapshots, opt.KeepFor = 2, xdswal.Off
	w = openStore(t, opt)
	write(t, fenced, "superseded", 1)
	requireFenced(t, fenced)
	require.Eventually(t, func() bool { return f.State().Sequence() == 6 }, timeout, time.Millisecond)
	for i := range 10 {
		write(t, w, "b", i)
	}
	open.Store(true)
	requireShipped(t, w)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.Error(t, w.Close(ctx), "no snapshot is shipped")

	away := newOutage(b)
	away.lasts.Store(true)
	opt.Backend = away
	w = openStore(t, opt)
	write(t, w, "c", 1)
	_, err := w.Compact(t.Context())
	require.NoError(t, err)
	write(t, w, "c", 2) // keeps its batch from being pruned
	away.lasts.Store(false)
	requireShipped(t, w)
	require.Eventually(t, func() bool { return w.Status().Shipper.Snapshot == 16 }, timeout, time.Millisecond)
	write(t, w, "d", 1)
	_, err = w.Compact(t.Context())
	require.NoError(t, err)
	requireShipped(t, w)
	require.Eventually(t, func() bool {
		for _, prefix := range []string{"snapshots/", "events/"} {
			objects, err := b.List(t.Context(), prefix)
			require.NoError(t, err)
			for _, o := range objects {
				if !strings.Contains(o.Key, "-0000000004-") {
					return false
				}
			}
		}
		return true
	}, timeout, time.Millisecond)
	return f, w, func() { cut.Store(false) }
}

// A follower drops events of a fenced writer even if the objects of that epoch have been
// pruned.
func TestFollowSupersededAndPruned(t *testing.T) {
	b := backendtest.NewMemory()
	f, w, reconnect := ahead(t, b)
	reconnect()
	requireFollows(t, f, w)
	closeStore(t, w)
	closeStore(t, f)
}

// A promoted follower serves the valid history.
func TestPromoteSupersededAndPruned(t *testing.T) {
	b := backendtest.NewMemory()
	f, w, reconnect := ahead(t, b)
	reconnect()
	require.NoError(t, f.Promote(t.Context()))
	require.Equal(t, w.State().Digest(), f.State().Digest())
	requireServed(t, f)
	write(t, f, "c", 100)
	digest := f.State().Digest()
	closeStore(t, f)
	closeStore(t, w)
	require.Equal(t, digest, restored(t, b))
}

// A follower that is promoted on an emptied backend is the same store in a later epoch.
// Other followers follow it.
func TestPromoteEmptied(t *testing.T) {
	b := backendtest.NewMemory()
	w := openStore(t, fast(b))
	write(t, w, "a", 1)
	requireShipped(t, w)
	f, other := followStore(t, b), followStore(t, b)
	requireFollows(t, f, w)
	requireFollows(t, other, w)
	closeStore(t, w)
	removeObjects(t, b, "epochs/", "snapshots/", "events/")
	require.NoError(t, f.Promote(t.Context()))
	require.Equal(t, w.Status().StoreID, f.Status().StoreID)
	require.EqualValues(t, 2, f.Status().Epoch)
	write(t, f, "a", 2)
	requireFollows(t, other, f)
	closeStore(t, other)
	digest := f.State().Digest()
	closeStore(t, f)
	require.Equal(t, digest, restored(t, b))
}

// A follower with events of a fenced writer still serves its state if it cannot be
// replaced.
func TestFollowSupersededAndDeleted(t *testing.T) {
	b := backendtest.NewMemory()
	f, w, reconnect := ahead(t, b)
	closeStore(t, w)
	removeObjects(t, b, "snapshots/", "events/")
	reconnect()
	require.Eventually(t, func() bool { return errors.Is(f.Status().Follower.Err, xdswal.ErrGap) }, timeout, time.Millisecond,
		"%+v", f.Status().Follower)
	require.ErrorIs(t, f.Promote(t.Context()), xdswal.ErrGap)
	require.EqualValues(t, 6, f.State().Sequence())
	require.Contains(t, f.State().Caches(), cachelog.SnapshotPrefix)
	requireServed(t, f)
	closeStore(t, f)
}

// A follower continues after a batch that is damaged in S3 if a snapshot covers it.
func TestFollowAfterDamagedBatch(t *testing.T) {
	server := s3test.Start(t)
	server.Setenv(t)
	b := openS3(t, server, server.Endpoint, "fleet")
	w := openStore(t, fast(b))
	write(t, w, "a", 1)
	requireShipped(t, w)
	away := newOutage(b)
	f := followStore(t, away)
	requireFollows(t, f, w)
	away.cutOff(t, f)

	write(t, w, "a", 2)
	requireShipped(t, w)
	path := filepath.Join(server.Dir, "fleet", "events", "events-0000000001-00000000000000000002.zst")
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	file, err := os.OpenFile(path, os.O_WRONLY, 0) // in place, because the checksum is an attribute of the file
	require.NoError(t, err)
	_, err = file.WriteAt([]byte{data[len(data)/2] ^ 0x10}, int64(len(data)/2))
	require.NoError(t, err)
	require.NoError(t, file.Close())
	_, err = w.Compact(t.Context())
	require.NoError(t, err)
	require.Eventually(t, func() bool { return w.Status().Shipper.Snapshot == 2 }, timeout, time.Millisecond)
	write(t, w, "a", 3)
	requireShipped(t, w)

	away.lasts.Store(false)
	requireFollows(t, f, w)
	closeStore(t, f)
	closeStore(t, w)
}
