package xdscache_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/internal/cachelog"
	"github.com/xdswal/xdswal/journal"
	"github.com/xdswal/xdswal/xdscache"
)

// An update is not served before it is durable.
func TestUpdateWaitsForCommit(t *testing.T) {
	l := newLog(t)
	c := newCache(l)
	set(t, c, "n", clusters(t, "1", cluster("a")))
	sotw := watch(t, c, "n", resourcev3.ClusterType, "1", "a")
	delta := deltaWatch(t, c, "n", resourcev3.ClusterType, map[string]string{"a": c.GetNode("n").Type(resourcev3.ClusterType).Get("a").Version})
	l.hold()
	l.drain()
	second := clusters(t, "2", cluster("b"))
	done := background(func() error { return c.SetSnapshot(context.Background(), "n", second) })
	l.awaitQueued(1)
	requireOpen(t, sotw)
	requireOpen(t, delta)
	requireOpen(t, done)
	require.Equal(t, "1", receive(t, watch(t, c, "n", resourcev3.ClusterType, "")).GetResponseVersion())
	l.release()
	require.NoError(t, receive(t, done))
	require.Equal(t, "2", receive(t, sotw).GetResponseVersion())
	resp, err := receive(t, delta).GetDeltaDiscoveryResponse()
	require.NoError(t, err)
	require.Equal(t, []string{"a"}, resp.GetRemovedResources())
	requireServed(t, l, c)
}

// A failed commit changes nothing, and the next update is compared with the durable
// state.
func TestFailedCommit(t *testing.T) {
	ctx := context.Background()
	for _, row := range []struct {
		name string
		fail func(c *xdscache.SnapshotCache) error
	}{
		{"set", func(c *xdscache.SnapshotCache) error { return c.SetSnapshot(ctx, "n", clusters(t, "2", cluster("b"))) }},
		{"update", update(items(cluster("b")), []xdscache.ResourceName{{TypeURL: resourcev3.ClusterType, Name: "a"}})},
		{"clear", func(c *xdscache.SnapshotCache) error { return second(c.Clear(ctx, "n")) }},
	} {
		t.Run(row.name, func(t *testing.T) {
			l := newLog(t)
			c := newCache(l)
			first := clusters(t, "1", cluster("a"))
			set(t, c, "n", first)
			w := watch(t, c, "n", resourcev3.ClusterType, "1", "a")
			l.hold()
			l.drain()
			done := background(func() error { return row.fail(c) })
			l.awaitQueued(1)
			l.fail(errDisk)
			err := receive(t, done)
			require.ErrorIs(t, err, errDisk)
			require.ErrorContains(t, err, `node "n"`)
			requireOpen(t, w)
			got, err := c.GetSnapshot("n")
			require.NoError(t, err)
			require.Same(t, first, got)
			require.Equal(t, 1, c.GetStatusInfo("n").GetNumWatches())
			requireServed(t, l, c)

			l.release()
			// The durable state is unchanged, so nothing is journaled.
			require.Empty(t, l.appended(func() { set(t, c, "n", clusters(t, "1", cluster("a"))) }))
			events := l.appended(func() { set(t, c, "n", clusters(t, "3", cluster("b"))) })
			require.Len(t, events, 1)
			require.Equal(t, "update "+clusterName+"@3 +b -a", describe(events[0]))
			require.Equal(t, "3", receive(t, w).GetResponseVersion())
			requireServed(t, l, c)
		})
	}
}

// Updates that are queued after one that fails were computed from its result. They fail
// with it, and the next update is computed from the durable state.
func TestFailureOfQueuedUpdates(t *testing.T) {
	l := newLog(t)
	c := newCache(l)
	set(t, c, "n", clusters(t, "1", cluster("a")))
	l.hold()
	l.drain()
	var waiting []<-chan error
	for i := range 5 {
		waiting = append(waiting, background(func() error {
			return update(items(cluster(fmt.Sprint("queued", i))), nil)(c)
		}))
		l.awaitQueued(1)
	}
	// An update that changes nothing waits for the last queued one, and fails with it.
	waiting = append(waiting, background(func() error { return update(items(cluster("queued4")), nil)(c) }))
	l.fail(errDisk)
	for i, w := range waiting[:5] {
		require.ErrorIs(t, receive(t, w), errDisk, "update %d", i)
	}
	l.release()
	if err := receive(t, waiting[5]); err == nil {
		// It ran after the failure, and queued an event itself.
		require.Len(t, l.committed(), 2)
	} else {
		require.ErrorIs(t, err, errDisk)
		require.Len(t, l.committed(), 1)
	}
	set(t, c, "n", clusters(t, "3", cluster("a"), cluster("b")))
	require.Equal(t, 2, c.GetNode("n").NumResources())
	requireServed(t, l, c)
}

// A snapshot that is set during a failure is compared with the durable state, not with
// the failed event.
func TestUpdateRightAfterFailure(t *testing.T) {
	l := newLog(t)
	c := newCache(l)
	for i := range 300 {
		s := clusters(t, fmt.Sprint(i), clusterOf("a", fmt.Sprint(i)))
		l.hold()
		l.drain()
		failed := background(func() error { return c.SetSnapshot(context.Background(), "n", s) })
		l.awaitQueued(1)
		l.fail(errDisk)
		l.release()
		require.Len(t, l.appended(func() { set(t, c, "n", s) }), 1)
		require.ErrorIs(t, receive(t, failed), errDisk)
		requireServed(t, l, c)
	}
}

// staleOnce is a log in which an event fails after the next one is computed and before it
// is queued.
type staleOnce struct {
	*fakeLog
	before sync.Once
}

func (l *staleOnce) Queue(generation uint64, ev *journal.Event) (cachelog.Commit, error) {
	l.before.Do(func() { l.fail(errDisk) })
	return l.fakeLog.Queue(generation, ev)
}

func TestUpdateIsComputedAgain(t *testing.T) {
	l := newLog(t)
	c := newCache(&staleOnce{fakeLog: l})
	set(t, c, "n", clusters(t, "1", cluster("a")))
	require.Len(t, l.committed(), 1)
	requireServed(t, l, c)
}

// Updates of a node that are queued together are each computed from the one before. They
// are committed in order and published together.
func TestUpdatesShareACommit(t *testing.T) {
	l := newLog(t)
	c := newCache(l)
	set(t, c, "n", clusters(t, "0"))
	w := watch(t, c, "n", resourcev3.ClusterType, "0", "gone")
	l.hold()
	l.drain()
	var waiting []<-chan error
	for i := range 8 {
		waiting = append(waiting, background(func() error {
			var resources []types.Resource
			for k := range i + 1 {
				resources = append(resources, cluster(fmt.Sprint(k)))
			}
			return c.SetSnapshot(context.Background(), "n", clusters(t, fmt.Sprint(i+1), resources...))
		}))
		l.awaitQueued(1)
	}
	// A clear and another set in the same commit.
	waiting = append(waiting, background(func() error { return second(c.Clear(context.Background(), "n")) }))
	l.awaitQueued(1)
	waiting = append(waiting, background(func() error {
		return c.SetSnapshot(context.Background(), "n", clusters(t, "last", cluster("z")))
	}))
	l.awaitQueued(1)
	l.release()
	for _, done := range waiting {
		require.NoError(t, receive(t, done))
	}
	for i, ev := range l.committed()[1:9] {
		require.Equal(t, fmt.Sprintf("update %s@%d +%d", clusterName, i+1, i), describe(ev))
	}
	resp := receive(t, w)
	require.Equal(t, "last", resp.GetResponseVersion())
	require.Equal(t, []string{"z"}, names(t, resp))
	requireServed(t, l, c)
}

// An update whose change is already queued waits for that event. The change is published
// when it returns.
func TestUnchangedWaitsForQueued(t *testing.T) {
	l := newLog(t)
	c := newCache(l)
	linear := newLinear(l)
	l.hold()
	for i := range 20 {
		l.drain()
		var waiting []<-chan error
		for range 4 {
			waiting = append(waiting, background(func() error {
				s := clusters(t, fmt.Sprint(i), clusterOf("a", fmt.Sprint(i)))
				if err := c.SetSnapshot(context.Background(), "n", s); err != nil {
					return err
				}
				if c.GetNode("n").Type(resourcev3.ClusterType).Version() != fmt.Sprint(i) {
					return errors.New("not published")
				}
				return nil
			}), background(func() error {
				if err := linear.UpdateResource("a", clusterOf("a", fmt.Sprint(i))); err != nil {
					return err
				}
				got := linear.GetResources()["a"]
				if got == nil || got.(interface{ GetAltStatName() string }).GetAltStatName() != fmt.Sprint(i) {
					return errors.New("not published")
				}
				return nil
			}))
		}
		l.awaitQueued(2)
		l.release()
		for _, done := range waiting {
			require.NoError(t, receive(t, done))
		}
		l.hold()
	}
	require.Len(t, l.committed(), 40)
	requireServed(t, l, c)
}

// A commit that takes too long is an error. If it succeeds later, it is published then.
func TestCommitTimeout(t *testing.T) {
	l := newLog(t)
	cfg := cachelog.Config{CommitTimeout: time.Millisecond}
	c := newCacheWith(l, cfg)
	linear := newLinearWith(l, cfg)
	w := watch(t, c, "n", resourcev3.ClusterType, "")
	lw := make(chan cachev3.Response, 1)
	_, err := linear.CreateWatch(&cachev3.Request{TypeUrl: resourcev3.ClusterType, VersionInfo: "0"}, wildcard(), lw)
	require.NoError(t, err)
	l.hold()
	s := clusters(t, "1", cluster("a"))
	err = c.SetSnapshot(context.Background(), "n", s)
	require.ErrorIs(t, err, cachelog.ErrCommitTimeout)
	require.ErrorContains(t, err, "after 1ms")
	// The same update again waits for the same event.
	require.ErrorIs(t, c.SetSnapshot(context.Background(), "n", s), cachelog.ErrCommitTimeout)
	require.ErrorIs(t, linear.UpdateResource("a", cluster("a")), cachelog.ErrCommitTimeout)
	requireOpen(t, w)
	requireOpen(t, lw)
	_, err = c.GetSnapshot("n")
	require.Error(t, err)
	require.Empty(t, linear.GetResources())

	l.release()
	require.Equal(t, "1", receive(t, w).GetResponseVersion())
	require.Equal(t, []string{"a"}, names(t, receive(t, lw)))
	require.Len(t, l.committed(), 2)
	got, err := c.GetSnapshot("n")
	require.NoError(t, err)
	require.Same(t, s, got)
	requireServed(t, l, c)

	// A commit that fails after the timeout changes nothing.
	l.hold()
	require.ErrorIs(t, c.SetSnapshot(context.Background(), "n", clusters(t, "2")), cachelog.ErrCommitTimeout)
	l.fail(errDisk)
	l.release()
	require.Empty(t, l.appended(func() { set(t, c, "n", clusters(t, "1", cluster("a"))) }))
	requireServed(t, l, c)
}

func TestContext(t *testing.T) {
	t.Run("done at first", func(t *testing.T) {
		l := newLog(t)
		c := newCache(l)
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		require.EqualError(t, c.SetSnapshot(ctx, "n", clusters(t, "1")), "context canceled")
		_, err := c.UpdateResources(ctx, "n", nil, nil, "")
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, second(c.Clear(ctx, "n")), context.Canceled)
		require.Empty(t, l.committed())
		requireServed(t, l, c)
	})
	t.Run("done while it commits", func(t *testing.T) {
		// Repeated, because a channel with room and a done context are both ready.
		for range 20 {
			l := newLog(t)
			c := newCache(l)
			w := watch(t, c, "n", resourcev3.ClusterType, "")
			d := deltaWatch(t, c, "n", resourcev3.ClusterType, nil)
			l.hold()
			ctx, cancel := context.WithCancel(context.Background())
			done := background(func() error { return c.SetSnapshot(ctx, "n", clusters(t, "1", cluster("a"))) })
			l.awaitQueued(1)
			cancel()
			requireOpen(t, done)
			l.release()
			require.NoError(t, receive(t, done))
			require.Equal(t, "1", receive(t, w).GetResponseVersion())
			receive(t, d)
			requireServed(t, l, c)
		}
	})
}

func TestClear(t *testing.T) {
	l := newLog(t)
	c := newCache(l)
	set(t, c, "n", clusters(t, "1", cluster("a")))
	watch(t, c, "n", resourcev3.ClusterType, "1", "a")
	events := l.appended(func() { c.ClearSnapshot("n") })
	require.Len(t, events, 1)
	require.Equal(t, "clear", describe(events[0]))
	_, err := c.GetSnapshot("n")
	require.EqualError(t, err, "no snapshot found for node n")
	require.Nil(t, c.GetNode("n"))

	// The clear of a node that does not exist is not journaled.
	require.Empty(t, l.appended(func() {
		seq, err := c.Clear(context.Background(), "n")
		require.NoError(t, err)
		require.EqualValues(t, 2, seq)
	}))

	// A later update is compared with an empty node.
	events = l.appended(func() { set(t, c, "n", clusters(t, "1", cluster("a"))) })
	require.Equal(t, "update "+clusterName+"@1 +a", describe(events[0]))
	requireServed(t, l, c)
}

// ClearSnapshot cannot return its error, and passes it to OnError.
func TestClearSnapshotReports(t *testing.T) {
	l := newLog(t)
	type report struct {
		cache, node string
		err         error
	}
	var reports []report
	c := newCacheWith(l, cachelog.Config{OnError: func(cache, node string, err error) {
		reports = append(reports, report{cache, node, err})
	}}, xdscache.WithName("x"))
	set(t, c, "n", clusters(t, "1", cluster("a")))
	l.refuse = errDisk
	c.ClearSnapshot("n")
	require.Len(t, reports, 1)
	require.Equal(t, "snapshot/x", reports[0].cache)
	require.Equal(t, "n", reports[0].node)
	require.ErrorIs(t, reports[0].err, errDisk)
	require.ErrorIs(t, second(c.Clear(context.Background(), "n")), errDisk)
	newCache(l).ClearSnapshot("n") // without OnError
	requireServed(t, l, c)
}

// A watch that is opened after a node was cleared is not removed by an earlier update that
// is published late.
func TestWatchAfterClearStays(t *testing.T) {
	for range 200 {
		l := newLog(t)
		c := newCache(l)
		l.hold()
		sets := make([]<-chan error, 4)
		for i := range sets {
			sets[i] = background(func() error { return c.SetSnapshot(context.Background(), "n", clusters(t, fmt.Sprint(i))) })
			l.awaitQueued(1)
		}
		cleared := background(func() error { return second(c.Clear(context.Background(), "n")) })
		l.awaitQueued(1)
		l.release()
		require.NoError(t, receive(t, cleared))
		w := watch(t, c, "n", resourcev3.ClusterType, "")
		for _, done := range sets {
			require.NoError(t, receive(t, done))
		}
		set(t, c, "n", clusters(t, "after", cluster("a")))
		require.Equal(t, "after", receive(t, w).GetResponseVersion())
		requireServed(t, l, c)
	}
}

// After concurrent sets and clears of one node, the served state is the journaled one, and
// GetSnapshot returns the snapshot that is served.
func TestSetsAndClearsAtOnce(t *testing.T) {
	l := newLog(t)
	c := newCache(l)
	var snapshots [8]*cachev3.Snapshot
	for i := range snapshots {
		snapshots[i] = clusters(t, fmt.Sprint(i), clusterOf("a", fmt.Sprint(i)))
	}
	for range 100 {
		var wg sync.WaitGroup
		for i, s := range snapshots {
			wg.Add(1)
			go func() {
				defer wg.Done()
				if i == 0 {
					c.ClearSnapshot("n")
				}
				set(t, c, "n", s)
				if i == 1 {
					_, _ = c.GetSnapshot("n")
				}
			}()
		}
		wg.Wait()
		got, err := c.GetSnapshot("n")
		require.NoError(t, err)
		require.Equal(t, c.GetNode("n").Type(resourcev3.ClusterType).Version(), got.GetVersion(resourcev3.ClusterType))
		requireServed(t, l, c)
	}
}

// GetSnapshot returns the snapshot that was set, or an equal one when that is no longer in
// memory.
func TestGetSnapshot(t *testing.T) {
	l := newLog(t)
	c := newCache(l)
	ttl := time.Minute
	snapshot := func() *cachev3.Snapshot {
		s, err := cachev3.NewSnapshotWithTTLs("1", map[string][]types.ResourceWithTTL{
			resourcev3.ClusterType:  {{Resource: cluster("a"), TTL: &ttl}, {Resource: cluster("b")}},
			resourcev3.EndpointType: {},
		})
		require.NoError(t, err)
		s.Resources[types.Listener].Version = "7"
		s.Resources[types.Listener].Items = map[string]types.ResourceWithTTL{}
		return s
	}
	s := snapshot()
	set(t, c, "n", s)
	got, err := c.GetSnapshot("n")
	require.NoError(t, err)
	require.Same(t, s, got)
	// It returns an equal one after that is set.
	s = snapshot()
	set(t, c, "n", s)
	got, err = c.GetSnapshot("n")
	require.NoError(t, err)
	require.Same(t, s, got)

	restarted := newCache(l)
	got, err = restarted.GetSnapshot("n")
	require.NoError(t, err)
	decoded := got.(*cachev3.Snapshot)
	requireProtoDeepEqual(t, s, decoded)
	require.NoError(t, decoded.Consistent())
	// Setting it again changes nothing. After a change it journals that change.
	require.Empty(t, l.appended(func() { set(t, restarted, "n", decoded) }))
	decoded.Resources[types.Cluster].Version = "2"
	decoded.Resources[types.Cluster].Items["b"] = types.ResourceWithTTL{Resource: clusterOf("b", "x")}
	events := l.appended(func() { set(t, restarted, "n", decoded) })
	require.Len(t, events, 1)
	require.Equal(t, "update "+clusterName+"@2 +b", describe(events[0]))
	requireServed(t, l, restarted)
}

// After an update of some resources, GetSnapshot returns the others unchanged.
func TestGetSnapshotAfterUpdateResources(t *testing.T) {
	l := newLog(t)
	c := newCache(l)
	set(t, c, "n", clusters(t, "1", cluster("a"), cluster("b")))
	_, err := c.UpdateResources(context.Background(), "n", map[string][]types.ResourceWithTTL{resourcev3.ClusterType: items(clusterOf("b", "x"))}, nil, "2")
	require.NoError(t, err)
	got, err := c.GetSnapshot("n")
	require.NoError(t, err)
	requireProtoDeepEqual(t, clusters(t, "2", cluster("a"), clusterOf("b", "x")), got.(*cachev3.Snapshot))
	requireServed(t, l, c)
}

// The memory of a node is released when the node is cleared.
func TestClearedNodesAreForgotten(t *testing.T) {
	l := newLog(t)
	c := newCache(l)
	s := clusters(t, "1", cluster("a"))
	cycle := func(n int) {
		for i := range n {
			node := fmt.Sprint("node", i)
			set(t, c, node, s)
			c.ClearSnapshot(node)
			l.forget()
		}
	}
	cycle(100)
	before := heap()
	cycle(20_000)
	grown := int64(heap()) - int64(before)
	require.Less(t, grown, int64(500_000), "bytes are kept for 20,000 nodes that are gone")
	require.Zero(t, l.State().NumNodes())
	requireServed(t, l, c)
}
