package xdswal_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/internal/cachelog"
	"github.com/xdswal/xdswal/journal"
	"github.com/xdswal/xdswal/xdscache"
)

// Many goroutines update overlapping nodes: the versions that a client of a node receives
// are in the order of the journal and end with its last one.
func TestJournalAndCacheAgree(t *testing.T) {
	const workers, updates, nodes = 64, 25, 7
	for _, policy := range []journal.SyncPolicy{journal.SyncAlways, journal.SyncEvery(5 * time.Millisecond)} {
		t.Run(policy.String(), func(t *testing.T) {
			s := openStore(t, xdswal.Options{Sync: policy, CompactTailRecords: 300, SegmentBytes: 8 << 20})
			c := snapshotCache(s)
			var clients [nodes]*client
			for i := range clients {
				clients[i] = startClient(t, c, nodeName(i))
			}
			var wg sync.WaitGroup
			for w := range workers {
				wg.Add(1)
				go func() {
					defer wg.Done()
					r := rand.New(rand.NewPCG(uint64(w), 1))
					for i := range updates {
						change(t, c, nodeName(r.IntN(nodes)), fmt.Sprintf("%d.%d", w, i), r)
					}
				}()
			}
			wg.Wait()

			journaled := map[string][]string{}
			sequence := journal.Sequence(0)
			err := s.Events(context.Background(), max(1, s.Status().Journal.First), 0, func(ev *journal.Event) error {
				require.True(t, sequence == 0 || ev.Sequence == sequence+1)
				sequence = ev.Sequence
				for i := range ev.Types {
					journaled[ev.Node] = append(journaled[ev.Node], ev.Types[i].Version)
				}
				return nil
			})
			require.NoError(t, err)
			require.Equal(t, s.State().Sequence(), sequence)
			require.EqualValues(t, 1, s.Status().Journal.First, "the journal is whole")
			for i, f := range clients {
				last := ""
				if n := s.State().Node(cachelog.SnapshotPrefix, nodeName(i)); n != nil {
					last = n.Type(resourcev3.ClusterType).Version()
				}
				versions := f.end(last)
				out, ok := subsequence(versions, journaled[nodeName(i)])
				require.True(t, ok, "%s received %s out of order: received %q, journaled %q", nodeName(i), out, versions, journaled[nodeName(i)])
			}
			requireSound(t, s)
		})
	}
}

func nodeName(i int) string { return fmt.Sprint("node", i) }

// change updates or clears a node at random. The update sets a version.
func change(t *testing.T, c *xdscache.SnapshotCache, node, version string, r *rand.Rand) {
	ctx := context.Background()
	switch r.IntN(10) {
	case 0:
		c.ClearSnapshot(node)
	case 1, 2, 3:
		_, err := c.UpdateResources(ctx, node, map[string][]types.ResourceWithTTL{
			resourcev3.ClusterType: {{Resource: clusterOf(fmt.Sprint(r.IntN(20)), version)}},
		}, []xdscache.ResourceName{{TypeURL: resourcev3.ClusterType, Name: fmt.Sprint(20 + r.IntN(20))}}, version)
		require.NoError(t, err)
	default:
		var resources []types.Resource
		for i := range 40 {
			if r.IntN(2) == 0 {
				resources = append(resources, cluster(fmt.Sprint(i)))
			}
		}
		require.NoError(t, c.SetSnapshot(ctx, node, clusters(t, version, resources...)))
	}
}

// client requests versions that are newer than its last one.
type client struct {
	t        *testing.T
	mu       sync.Mutex
	versions []string
	stop     chan struct{}
	done     chan struct{}
}

func startClient(t *testing.T, c cachev3.Cache, node string) *client {
	f := &client{t: t, stop: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(f.done)
		version := ""
		for {
			w, cancel := watch(t, c, node, resourcev3.ClusterType, version)
			select {
			case resp := <-w:
				if version != resp.GetResponseVersion() {
					version = resp.GetResponseVersion()
					f.mu.Lock()
					f.versions = append(f.versions, version)
					f.mu.Unlock()
				}
			case <-time.After(20 * time.Millisecond):
				// go-control-plane drops the watches of a node that is
				// cleared: watch again.
			case <-f.stop:
				return
			}
			cancel()
		}
	}()
	return f
}

// end waits until the client has the last version, and returns all versions that it
// received.
func (f *client) end(last string) []string {
	f.t.Helper()
	if last != "" {
		require.Eventually(f.t, func() bool {
			f.mu.Lock()
			defer f.mu.Unlock()
			return len(f.versions) > 0 && f.versions[len(f.versions)-1] == last
		}, timeout, time.Millisecond)
	}
	close(f.stop)
	<-f.done
	return f.versions
}

// Snapshot caches, linear caches, compactions, reads and a close at the same time.
func TestEverythingAtOnce(t *testing.T) {
	s := openStore(t, xdswal.Options{CompactTailRecords: 50, KeepFor: xdswal.Off})
	ctx := context.Background()
	var wg sync.WaitGroup
	for w := range 16 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			r := rand.New(rand.NewPCG(uint64(w), 2))
			for i := range 30 {
				version := fmt.Sprintf("%d.%d", w, i)
				switch w % 4 {
				case 0:
					change(t, snapshotCache(s), nodeName(r.IntN(3)), version, r)
				case 1:
					change(t, namedCache(s, "other"), nodeName(r.IntN(3)), version, r)
				case 2:
					name := fmt.Sprint(r.IntN(5))
					require.NoError(t, linearCache(s).UpdateResource(name, clusterOf(name, version)))
				case 3:
					_ = s.Status()
					_, _ = snapshotCache(s).GetSnapshot(nodeName(r.IntN(3)))
					if i%10 == 0 {
						_, err := s.Compact(ctx)
						require.NoError(t, err)
					}
				}
			}
		}()
	}
	wg.Wait()
	require.Equal(t, []string{"linear/" + resourcev3.ClusterType, "snapshot/", "snapshot/other"}, s.Status().Caches)
	requireSound(t, s)
}

// Updates during a close are durable or fail with ErrClosed.
func TestCloseDuringUpdates(t *testing.T) {
	for range 5 {
		dir := t.TempDir()
		s := openStore(t, xdswal.Options{Dir: dir})
		c := snapshotCache(s)
		var returned [8]int
		var wg sync.WaitGroup
		started := make(chan struct{}, len(returned))
		for w := range returned {
			wg.Add(1)
			go func() {
				defer wg.Done()
				for i := 1; ; i++ {
					if err := c.SetSnapshot(context.Background(), nodeName(w), clusters(t, fmt.Sprint(i), clusterOf("a", fmt.Sprint(i)))); err != nil {
						require.ErrorIs(t, err, xdswal.ErrClosed)
						return
					}
					returned[w] = i
					if i == 3 {
						started <- struct{}{}
					}
				}
			}()
		}
		for range returned {
			receive(t, started)
		}
		closeStore(t, s)
		wg.Wait()
		s = openStore(t, xdswal.Options{Dir: dir})
		for w, want := range returned {
			got, err := snapshotCache(s).GetSnapshot(nodeName(w))
			require.NoError(t, err)
			require.Equal(t, fmt.Sprint(want), got.GetVersion(resourcev3.ClusterType))
		}
		requireSound(t, s)
	}
}
