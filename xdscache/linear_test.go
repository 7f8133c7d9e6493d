package xdscache_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/stream/v3"
	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/internal/cachelog"
	"github.com/xdswal/xdswal/xdscache"
)

func newLinear(l cachelog.Log, opts ...xdscache.LinearOption) *xdscache.LinearCache {
	return newLinearWith(l, cachelog.Config{}, opts...)
}

func newLinearWith(l cachelog.Log, cfg cachelog.Config, opts ...xdscache.LinearOption) *xdscache.LinearCache {
	return xdscache.NewLinearCache(l, cfg, resourcev3.ClusterType, opts...)
}

type resources = map[string]types.Resource

// requireLinear checks that a linear cache contains and serves the log's state.
func requireLinear(t testing.TB, l *fakeLog, c *xdscache.LinearCache) {
	t.Helper()
	want := resources{}
	if n := l.State().Node(cachelog.LinearPrefix+c.Name(), ""); n != nil {
		if typ := n.Type(resourcev3.ClusterType); typ != nil {
			for r := range typ.All() {
				m, err := (*xdscache.Resource)(r).Decoded()
				require.NoError(t, err)
				want[r.Name] = m
			}
		}
	}
	requireProtoDeepEqual(t, want, c.GetResources())
	require.Equal(t, len(want), c.NumResources())
	resp := receive(t, linearWatch(t, c, ""))
	require.Len(t, resp.GetReturnedResources(), len(want))
}

func linearWatch(t testing.TB, c *xdscache.LinearCache, version string, known ...string) chan cachev3.Response {
	t.Helper()
	return watch(t, c, "", resourcev3.ClusterType, version, known...)
}

func TestLinearMutators(t *testing.T) {
	a, b := clusterOf("a", "1"), clusterOf("b", "1")
	for _, row := range []struct {
		name string
		do   func(c *xdscache.LinearCache) error
		want string // the event, empty if there is none
	}{
		{"update a new one", func(c *xdscache.LinearCache) error { return c.UpdateResource("c", cluster("c")) }, "+c"},
		{"update one", func(c *xdscache.LinearCache) error { return c.UpdateResource("a", clusterOf("a", "2")) }, "+a"},
		{"update by the same message", func(c *xdscache.LinearCache) error { return c.UpdateResource("a", a) }, ""},
		{"update by an equal message", func(c *xdscache.LinearCache) error { return c.UpdateResource("a", clusterOf("a", "1")) }, ""},
		{"under another name than its own", func(c *xdscache.LinearCache) error { return c.UpdateResource("alias", a) }, "+alias"},
		{"delete", func(c *xdscache.LinearCache) error { return c.DeleteResource("a") }, "-a"},
		{"delete what is not there", func(c *xdscache.LinearCache) error { return c.DeleteResource("nobody") }, ""},
		{"update some", func(c *xdscache.LinearCache) error {
			return c.UpdateResources(resources{"a": a, "b": clusterOf("b", "2"), "c": cluster("c")}, []string{"a", "a", "nobody"})
		}, "+b +c -a"},
		{"both set and deleted", func(c *xdscache.LinearCache) error {
			return c.UpdateResources(resources{"a": clusterOf("a", "2"), "new": cluster("new")}, []string{"a", "new"})
		}, "-a"},
		{"nothing", func(c *xdscache.LinearCache) error { return c.UpdateResources(nil, nil) }, ""},
		{"set", func(c *xdscache.LinearCache) error {
			return c.SetResources(resources{"b": clusterOf("b", "1"), "c": cluster("c")})
		}, "+c -a"},
		{"set the same", func(c *xdscache.LinearCache) error {
			return c.SetResources(resources{"a": a, "b": b})
		}, ""},
		{"set none", func(c *xdscache.LinearCache) error { return c.SetResources(nil) }, "-a -b"},
	} {
		t.Run(row.name, func(t *testing.T) {
			l := newLog(t)
			c := newLinear(l)
			require.NoError(t, c.UpdateResources(resources{"a": a, "b": b}, nil))
			version := receive(t, linearWatch(t, c, "")).GetResponseVersion()
			w := linearWatch(t, c, version, "a", "b")
			require.Equal(t, 1, c.NumCacheWatches())
			require.Equal(t, 1, c.NumWildcardWatches())
			require.Equal(t, 1, c.NumWatches("a"))
			events := l.appended(func() { require.NoError(t, row.do(c)) })
			if row.want == "" {
				require.Empty(t, events)
				requireOpen(t, w)
			} else {
				require.Len(t, events, 1)
				require.Equal(t, "update "+clusterName+"@ "+row.want, describe(events[0]))
				require.NotEqual(t, version, receive(t, w).GetResponseVersion())
			}
			requireLinear(t, l, c)
			requireLinear(t, l, newLinear(l))
		})
	}
}

func TestLinearRefuses(t *testing.T) {
	l := newLog(t)
	var reported []error
	c := newLinearWith(l, cachelog.Config{OnError: func(cache, node string, err error) {
		require.Equal(t, "linear/x", cache)
		require.Empty(t, node)
		reported = append(reported, err)
	}}, xdscache.WithName("x"))
	require.EqualError(t, c.UpdateResource("a", nil), "nil resource")
	require.EqualError(t, c.UpdateResource("a", (*counted)(nil)), "nil resource")
	require.ErrorContains(t, c.UpdateResources(resources{"a": nil, "b": cluster("b")}, nil), `update resources of linear cache "x": resource "a" of type`)
	require.ErrorContains(t, c.UpdateResource("a", broken("a")), `marshal resource "a"`)
	err := c.SetResources(resources{"a": broken("a")})
	require.Equal(t, []error{err}, reported)
	require.ErrorContains(t, reported[0], `set resources of linear cache "x": marshal resource "a"`)
	_, err = c.CreateWatch(request("", resourcev3.EndpointType), wildcard(), nil)
	require.ErrorContains(t, err, "does not match")
	_, err = c.Fetch(context.Background(), request("", resourcev3.ClusterType))
	require.ErrorContains(t, err, "not implemented")
	require.Empty(t, l.committed())
	requireLinear(t, l, c)
}

func TestLinearFailedCommit(t *testing.T) {
	l := newLog(t)
	var reported error
	c := newLinearWith(l, cachelog.Config{OnError: func(_, _ string, err error) { reported = err }})
	require.NoError(t, c.UpdateResource("a", cluster("a")))
	w := linearWatch(t, c, "1", "a")
	l.hold()
	l.drain()
	updated := background(func() error { return c.UpdateResource("a", clusterOf("a", "x")) })
	l.awaitQueued(1)
	set := background(func() error { return c.SetResources(nil) })
	l.awaitQueued(1)
	requireOpen(t, w)
	l.fail(errDisk)
	require.ErrorIs(t, receive(t, updated), errDisk)
	require.ErrorIs(t, receive(t, set), errDisk)
	require.ErrorIs(t, reported, errDisk)
	requireOpen(t, w)
	l.release()
	requireProtoDeepEqual(t, resources{"a": cluster("a")}, c.GetResources())
	require.Empty(t, l.appended(func() { require.NoError(t, c.UpdateResource("a", cluster("a"))) }))
	require.NoError(t, c.UpdateResource("b", cluster("b")))
	require.Equal(t, []string{"a", "b"}, names(t, receive(t, w)))
	requireLinear(t, l, c)
}

// Updates that are committed together are served together.
func TestLinearUpdatesShareACommit(t *testing.T) {
	l := newLog(t)
	c := newLinear(l)
	require.NoError(t, c.UpdateResource("gone", cluster("gone")))
	w := linearWatch(t, c, "1", "gone")
	l.hold()
	l.drain()
	var waiting []<-chan error
	for i := range 10 {
		waiting = append(waiting, background(func() error { return c.UpdateResource(fmt.Sprint(i), cluster(fmt.Sprint(i))) }))
		l.awaitQueued(1)
	}
	waiting = append(waiting, background(func() error { return c.DeleteResource("gone") }))
	l.awaitQueued(1)
	l.release()
	for _, done := range waiting {
		require.NoError(t, receive(t, done))
	}
	resp := receive(t, w)
	require.Equal(t, "12", resp.GetResponseVersion())
	require.Len(t, resp.GetReturnedResources(), 10)
	require.Len(t, l.committed(), 12)
	requireLinear(t, l, c)
}

// A restart changes the versions of a linear cache, but not the versions of its resources
// in the delta protocol.
func TestLinearRestart(t *testing.T) {
	l := newLog(t)
	c := newLinearWith(l, cachelog.Config{VersionPrefix: "1."})
	require.NoError(t, c.UpdateResources(resources{"a": cluster("a"), "b": cluster("b")}, nil))
	resp := receive(t, linearWatch(t, c, ""))
	require.Equal(t, "1.1", resp.GetResponseVersion())
	delta := receive(t, deltaWatch(t, c, "", resourcev3.ClusterType, nil))
	known := delta.GetReturnedResources()
	require.Len(t, known, 2)

	restarted := newLinearWith(l, cachelog.Config{VersionPrefix: "2."})
	require.Equal(t, "2.1", receive(t, linearWatch(t, restarted, "1.1", "a", "b")).GetResponseVersion())
	w := deltaWatch(t, restarted, "", resourcev3.ClusterType, known)
	requireOpen(t, w)
	require.NoError(t, restarted.DeleteResource("a"))
	got, err := receive(t, w).GetDeltaDiscoveryResponse()
	require.NoError(t, err)
	require.Empty(t, got.GetResources())
	require.Equal(t, []string{"a"}, got.GetRemovedResources())
	requireLinear(t, l, restarted)
}

// The caller may change the result of GetResources.
func TestLinearGetResources(t *testing.T) {
	l := newLog(t)
	c := newLinear(l)
	require.NoError(t, c.UpdateResource("a", cluster("a")))
	got := c.GetResources()
	got["a"].(interface{ Reset() }).Reset()
	delete(got, "a")
	requireProtoDeepEqual(t, resources{"a": cluster("a")}, c.GetResources())
	requireLinear(t, l, c)
}

// A MuxCache can serve from both kinds of caches.
func TestMuxCache(t *testing.T) {
	l := newLog(t)
	snapshots := newCache(l)
	linear := xdscache.NewLinearCache(l, cachelog.Config{}, resourcev3.EndpointType)
	mux := &cachev3.MuxCache{
		Classify:      func(r *cachev3.Request) string { return r.GetTypeUrl() },
		ClassifyDelta: func(r *cachev3.DeltaRequest) string { return r.GetTypeUrl() },
		Caches:        map[string]cachev3.Cache{resourcev3.ClusterType: snapshots, resourcev3.EndpointType: linear},
	}
	set(t, snapshots, "n", clusters(t, "1", cluster("a")))
	require.NoError(t, linear.UpdateResource("a", endpoint("a")))
	for _, url := range []string{resourcev3.ClusterType, resourcev3.EndpointType} {
		require.Equal(t, []string{"a"}, names(t, receive(t, watch(t, mux, "n", url, ""))))
		w := make(chan cachev3.DeltaResponse, 1)
		_, err := mux.CreateDeltaWatch(&cachev3.DeltaRequest{Node: request("n", url).GetNode(), TypeUrl: url}, stream.NewDeltaSubscription([]string{"a"}, nil, nil, true), w)
		require.NoError(t, err)
		resp, err := receive(t, w).GetDeltaDiscoveryResponse()
		require.NoError(t, err)
		require.Len(t, resp.GetResources(), 1)
		require.Equal(t, "a", resp.GetResources()[0].GetName())
	}
	requireServed(t, l, snapshots)
}
