package xdscache_test

import (
	"testing"

	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/internal/state"
)

// stateOf returns the state of another log after fn has changed its caches.
func stateOf(t testing.TB, fn func(l *fakeLog)) *state.State {
	t.Helper()
	l := newLog(t)
	fn(l)
	return l.State()
}

// twoNodes has a snapshot cache with two nodes, and a linear cache.
func twoNodes(t testing.TB, version string) *state.State {
	t.Helper()
	return stateOf(t, func(l *fakeLog) {
		c := newCache(l)
		set(t, c, "a", clusters(t, version, clusterOf("a", version)))
		set(t, c, "b", clusters(t, "1", cluster("b")))
		require.NoError(t, newLinear(l).UpdateResources(resources{"a": clusterOf("a", version), "b": cluster("b")}, nil))
	})
}

// A state that did not come from the caches, as in a follower, is served.
func TestRefresh(t *testing.T) {
	l := newLog(t)
	c, linear := newCache(l), newLinear(l)
	l.follow(twoNodes(t, "1"))
	requireServed(t, l, c)
	requireLinear(t, l, linear)

	a, b := watch(t, c, "a", resourcev3.ClusterType, "1", "a"), watch(t, c, "b", resourcev3.ClusterType, "1", "b")
	known := receive(t, deltaWatch(t, linear, "", resourcev3.ClusterType, nil)).GetReturnedResources()
	changed := deltaWatch(t, linear, "", resourcev3.ClusterType, known)
	l.follow(twoNodes(t, "2"))
	require.Equal(t, "2", receive(t, a).GetResponseVersion())
	resp, err := receive(t, changed).GetDeltaDiscoveryResponse()
	require.NoError(t, err)
	require.Len(t, resp.GetResources(), 1, "b has not changed")
	requireOpen(t, b)
	requireServed(t, l, c)
	requireLinear(t, l, linear)

	l.follow(&state.State{})
	require.Nil(t, c.GetNode("a"))
	requireServed(t, l, c)
	requireLinear(t, l, linear)
}

// A state that arrives while a cache is created is served, whether the refresh sees the
// cache or not.
func TestRefreshWhileCreated(t *testing.T) {
	for _, row := range []struct {
		name string
		at   func(l *fakeLog, follow func())
	}{
		{"before it subscribes", func(l *fakeLog, follow func()) { l.beforeSubscribe = follow }},
		{"after it subscribed", func(l *fakeLog, follow func()) {
			l.afterSubscribe = func() {
				begun := make(chan struct{})
				l.beforeRefresh = func() { close(begun) }
				go follow()
				<-begun
			}
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			st := twoNodes(t, "1")
			for range 20 {
				l := newLog(t)
				done := make(chan struct{})
				row.at(l, func() { l.follow(st); close(done) })
				c := newCache(l)
				receive(t, done)
				requireServed(t, l, c)

				l, done = newLog(t), make(chan struct{})
				row.at(l, func() { l.follow(st); close(done) })
				linear := newLinear(l)
				receive(t, done)
				requireLinear(t, l, linear)
			}
		})
	}
}
