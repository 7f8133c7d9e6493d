package xdswal_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/xdscache"
)

// bulk returns a snapshot with a resource of 8 KiB, whose version is i.
func bulk(i int) *cachev3.Snapshot {
	s := &cachev3.Snapshot{}
	version := fmt.Sprint(i)
	s.Resources[types.Cluster] = cachev3.NewResources(version, []types.Resource{clusterOf("a", version+strings.Repeat("x", 8<<10))})
	return s
}

// health counts the calls of the hooks Degraded and Recovered.
type health struct {
	degraded, recovered atomic.Int32
}

func (h *health) hooks() xdswal.Hooks {
	return xdswal.Hooks{
		Degraded:  func(error) { h.degraded.Add(1) },
		Recovered: func() { h.recovered.Add(1) },
	}
}

// requireRecovered waits until a store is not degraded and has called Recovered.
func (h *health) requireRecovered(t *testing.T, s *xdswal.Store) {
	t.Helper()
	require.Eventually(t, func() bool {
		return s.Status().Degraded == nil && h.degraded.Load() == h.recovered.Load()
	}, timeout, time.Millisecond)
}

// fillJournal updates a node until the journal is full. It returns the number of the
// last update that succeeded, and the error of the next one.
func fillJournal(t *testing.T, c *xdscache.SnapshotCache, from int) (int, error) {
	t.Helper()
	for i := from; i < from+10_000; i++ {
		if err := c.SetSnapshot(context.Background(), "n", bulk(i)); err != nil {
			return i - 1, err
		}
	}
	require.FailNow(t, "the journal does not fill")
	return 0, nil
}

// requireVersion checks the version that clients of the node receive.
func requireVersion(t *testing.T, c *xdscache.SnapshotCache, version int) {
	t.Helper()
	got, err := c.GetSnapshot("n")
	require.NoError(t, err)
	require.Equal(t, fmt.Sprint(version), got.GetVersion(resourcev3.ClusterType))
	w, cancel := watch(t, c, "n", resourcev3.ClusterType, "")
	defer cancel()
	require.Equal(t, fmt.Sprint(version), receive(t, w).GetResponseVersion())
}

// A full journal rejects updates, clients are still served, and a restart restores all
// updates that have returned.
func TestJournalFull(t *testing.T) {
	var h health
	opt := xdswal.Options{Dir: t.TempDir(), MaxJournalBytes: 4 * small, DisableSnapshots: true, Hooks: h.hooks()}
	s := openStore(t, opt)
	c := snapshotCache(s)
	last, err := fillJournal(t, c, 1)
	require.ErrorIs(t, err, xdswal.ErrJournalFull)
	require.ErrorContains(t, err, `set snapshot of node "n"`)
	requireVersion(t, c, last)
	require.ErrorIs(t, s.Status().Degraded, xdswal.ErrJournalFull)
	require.EqualValues(t, 1, h.degraded.Load())

	// After a smaller update that fits, the store is not degraded.
	_, err = c.UpdateResources(context.Background(), "n", nil, []xdscache.ResourceName{{TypeURL: resourcev3.ClusterType, Name: "a"}}, "small")
	if err == nil {
		require.NoError(t, s.Status().Degraded)
	}
	requireServed(t, s)
	seq := s.Status().Sequence
	closeStore(t, s)
	s = openStore(t, xdswal.Options{Dir: opt.Dir})
	require.Equal(t, seq, s.Status().Sequence)
	set(t, snapshotCache(s), "n", bulk(last+1)) // with the default bound
	requireSound(t, s)
}

// A full journal is freed by snapshots without a call, also before the first snapshot.
func TestJournalFullIsFreed(t *testing.T) {
	for _, snapshots := range []int{0, 1, 2} {
		t.Run(fmt.Sprint("after ", snapshots, " snapshots"), func(t *testing.T) {
			var h health
			s := openStore(t, xdswal.Options{MaxJournalBytes: 8 * small, KeepSnapshots: 2, KeepFor: xdswal.Off, Hooks: h.hooks()})
			c := snapshotCache(s)
			version := 0
			for range snapshots {
				version++
				set(t, c, "n", bulk(version))
				_, err := s.Compact(context.Background())
				require.NoError(t, err)
			}
			for range 5 {
				last, err := fillJournal(t, c, version+1)
				require.ErrorIs(t, err, xdswal.ErrJournalFull)
				version = last
				requireVersion(t, c, version)
				require.Eventually(t, func() bool {
					err := c.SetSnapshot(context.Background(), "n", bulk(version+1))
					if err != nil {
						require.ErrorIs(t, err, xdswal.ErrJournalFull)
					}
					return err == nil
				}, timeout, time.Millisecond)
				version++
				requireVersion(t, c, version)
			}
			h.requireRecovered(t, s)
			require.Positive(t, h.degraded.Load())
			requireSound(t, s)
		})
	}
}

// With FailOpen, updates succeed while the journal is full, and none is lost.
func TestJournalFullFailOpen(t *testing.T) {
	var h health
	opt := xdswal.Options{Dir: t.TempDir(), MaxJournalBytes: 4 * small, KeepSnapshots: 2, KeepFor: xdswal.Off, FailOpen: true, Hooks: h.hooks()}
	s := openStore(t, opt)
	c := snapshotCache(s)
	const updates = 300
	for i := 1; i <= updates; i++ {
		set(t, c, "n", bulk(i))
		requireVersion(t, c, i)
	}
	require.Positive(t, h.degraded.Load())
	h.requireRecovered(t, s)
	requireSound(t, s)
	s = openStore(t, opt)
	requireVersion(t, snapshotCache(s), updates)
	requireSound(t, s)
}

// The same with many writers: the store also recovers from failures during a recovery.
// The state of a store that is not degraded survives a crash.
func TestJournalFullFailOpenManyWriters(t *testing.T) {
	var h health
	s := openStore(t, xdswal.Options{MaxJournalBytes: 4 * small, KeepSnapshots: 2, KeepFor: xdswal.Off, FailOpen: true, Hooks: h.hooks()})
	c := snapshotCache(s)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range 60 {
				if err := c.SetSnapshot(context.Background(), nodeName(w), bulk(i)); err != nil {
					t.Error(err)
				}
			}
		}()
	}
	wg.Wait()
	h.requireRecovered(t, s)
	crashed := t.TempDir()
	require.NoError(t, os.CopyFS(crashed, os.DirFS(s.Status().Dir)))
	again := openStore(t, xdswal.Options{Dir: crashed})
	require.Equal(t, s.State().Digest(), again.State().Digest())
	requireSound(t, again)
	requireSound(t, s)
}

// All events of a full journal may be after the second newest snapshot, if the newest was
// only written when the journal was full. Then events up to the newest are dropped.
func TestJournalFullSinceSecondSnapshot(t *testing.T) {
	s := openStore(t, xdswal.Options{MaxJournalBytes: 8 * small, KeepSnapshots: 2, KeepFor: xdswal.Off, CompactTailBytes: xdswal.Off, CompactTailRecords: xdswal.Off})
	c := snapshotCache(s)
	for i := range 2 {
		set(t, c, "n", bulk(i))
		_, err := s.Compact(context.Background())
		require.NoError(t, err)
	}
	last, err := fillJournal(t, c, 2)
	require.ErrorIs(t, err, xdswal.ErrJournalFull)
	require.Eventually(t, func() bool { return c.SetSnapshot(context.Background(), "n", bulk(last+1)) == nil }, timeout, time.Millisecond)
	requireSound(t, s)
}
