package xdscache_test

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/xdswal/xdswal/xdscache"
)

func snapshotOfNode(t testing.TB, c *xdscache.SnapshotCache, node string) cachev3.ResourceSnapshot {
	t.Helper()
	s, err := c.GetSnapshot(node)
	require.NoError(t, err)
	return s
}

// clusterIn returns a cluster of a node's snapshot.
func clusterIn(t testing.TB, c *xdscache.SnapshotCache, node, name string) *clusterv3.Cluster {
	t.Helper()
	return snapshotOfNode(t, c, node).GetResourcesAndTTL(resourcev3.ClusterType)[name].Resource.(*clusterv3.Cluster)
}

func manyClusters(t testing.TB, version string, n int) *cachev3.Snapshot {
	t.Helper()
	resources := make([]types.Resource, n)
	for i := range resources {
		resources[i] = withMaps(fmt.Sprint("service", i))
	}
	return clusters(t, version, resources...)
}

// requireNoDecode checks that GetSnapshot decodes nothing after a garbage collection.
func requireNoDecode(t testing.TB, c *xdscache.SnapshotCache, node string) {
	t.Helper()
	runtime.GC()
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	s, err := c.GetSnapshot(node)
	runtime.ReadMemStats(&after)
	require.NoError(t, err)
	require.NotNil(t, s)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(20_000))
}

// A caller that reads a node on each tick does not decode it again after a garbage
// collection, whether it has been restored or set here.
func TestGetSnapshotAfterGC(t *testing.T) {
	l := newLog(t)
	first := newCache(l)
	set(t, first, "n", manyClusters(t, "1", 200))
	for name, c := range map[string]*xdscache.SnapshotCache{"set here": first, "restored": newCache(l)} {
		t.Run(name, func(t *testing.T) {
			snapshotOfNode(t, c, "n")
			requireNoDecode(t, c, "n")
			requireNoDecode(t, c, "n")
			require.Same(t, snapshotOfNode(t, c, "n"), snapshotOfNode(t, c, "n"))
		})
	}
	requireServed(t, l, first)
}

// A reader of a node gets its next snapshot without a decode too: the object that was set,
// or one with the messages that have not changed.
func TestGetSnapshotAfterUpdate(t *testing.T) {
	l := newLog(t)
	set(t, newCache(l), "n", manyClusters(t, "1", 50))
	c := newCache(l)
	before := clusterIn(t, c, "n", "service1")
	require.NoError(t, update(items(clusterOf("service0", "x")), nil)(c))
	require.Equal(t, "x", clusterIn(t, c, "n", "service0").GetAltStatName())
	require.Same(t, before, clusterIn(t, c, "n", "service1"))
	require.Equal(t, "2", snapshotOfNode(t, c, "n").GetVersion(resourcev3.ClusterType))

	set(t, c, "n", manyClusters(t, "3", 50)) // which the caller does not keep
	requireNoDecode(t, c, "n")
	requireServed(t, l, c)
}

// Decoded messages stay in memory for a time after their last use only, and not at all
// for a caller that never reads.
func TestSnapshotsAreForgotten(t *testing.T) {
	xdscache.SetHoldSnapshot(t, 20*time.Millisecond)
	l := newLog(t)
	set(t, newCache(l), "n", manyClusters(t, "1", 2000))
	c := newCache(l)
	grown := func(before uint64) int64 { return int64(heap()) - int64(before) }
	before := heap()
	snapshotOfNode(t, c, "n")
	require.Eventually(t, func() bool { return grown(before) < 1_000_000 }, timeout, 10*time.Millisecond)

	// Also if the node has changed since.
	snapshotOfNode(t, c, "n")
	require.NoError(t, update(items(cluster("new")), nil)(c))
	require.Eventually(t, func() bool { return grown(before) < 1_000_000 }, timeout, 10*time.Millisecond)

	require.Eventually(t, func() bool {
		set(t, c, "n", manyClusters(t, "2", 2000))
		return grown(before) < 1_500_000
	}, timeout, 10*time.Millisecond, "a caller that never reads pays nothing")
	requireServed(t, l, c)
}

// A node with a type that a cachev3.Snapshot cannot contain gives real messages too.
func TestGetSnapshotOfAnyType(t *testing.T) {
	l := newLog(t)
	set(t, newCache(l, xdscache.WithTypeURLs(durationURL)), "n", custom("1"))
	c := newCache(l)
	s := snapshotOfNode(t, c, "n")
	require.Same(t, s, snapshotOfNode(t, c, "n"))
	require.NoError(t, s.ConstructVersionMap())
	require.Equal(t, "1", s.GetVersion(durationURL))
	require.Equal(t, map[string]string{"one-second": "1"}, s.GetVersionMap(durationURL))
	require.IsType(t, &durationpb.Duration{}, s.GetResources(durationURL)["one-second"])
	require.IsType(t, &durationpb.Duration{}, s.GetResourcesAndTTL(durationURL)["one-second"].Resource)
	require.Nil(t, s.GetResources(resourcev3.ClusterType))
	require.Empty(t, l.appended(func() { set(t, c, "n", s) }))
	requireServed(t, l, c)
}

// A type that a client waits for is part of a custom snapshot that is set later.
func TestTypeThatAClientWaitsFor(t *testing.T) {
	l := newLog(t)
	c := newCache(l)
	w := watch(t, c, "n", durationURL, "")
	watch(t, c, "n", "garbage", "")
	require.Len(t, l.appended(func() { set(t, c, "n", custom("1")) }), 1)
	require.Equal(t, []string{"one-second"}, names(t, receive(t, w)))
	set(t, c, "n", custom("2"))
	require.Equal(t, "2", receive(t, watch(t, c, "n", durationURL, "1", "one-second")).GetResponseVersion())
	require.Len(t, c.GetStatusKeys(), 1)
	requireServed(t, l, c)
	requireServed(t, l, newCache(l))
}
