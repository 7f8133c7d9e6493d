package envoytest_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/internal/envoytest"
)

const timeout = 60 * time.Second

// A client counts what fails and why, and a proxy cuts connections and forwards the next.
func TestClientThroughProxy(t *testing.T) {
	u, err := envoytest.NewUpstream(context.Background(), "a", 0)
	require.NoError(t, err)
	defer u.Close()
	p, err := envoytest.NewProxy(context.Background(), u.Addr)
	require.NoError(t, err)
	defer p.Close()
	c := envoytest.NewClient(context.Background(), p.Addr, 2, time.Millisecond)
	defer c.Stop()
	answered := func(n int64) func() bool {
		n += u.Requests()
		return func() bool { return u.Requests() > n }
	}
	require.Eventually(t, answered(20), timeout, time.Millisecond)
	require.Zero(t, c.Counts().Failed)
	p.Cut()
	require.Eventually(t, answered(20), timeout, time.Millisecond)
	name, err := envoytest.Get(context.Background(), p.Addr)
	require.NoError(t, err)
	require.Equal(t, "a", name)

	u.Close()
	failed := c.Counts().Failed
	require.Eventually(t, func() bool { return c.Counts().Failed > failed+5 }, timeout, time.Millisecond)
	counts := c.Stop()
	require.NotEmpty(t, counts.Causes)
	require.Equal(t, counts, c.Counts(), "no request after Stop")
}

func TestDiff(t *testing.T) {
	b := envoytest.Builder{}
	cluster, endpoints := b.Cluster("a", "1"), b.Endpoints("a", "127.0.0.1:1", "127.0.0.1:2")
	listener, route := b.Listener("l", "1", "127.0.0.1:3", "r"), b.Route("r", "1", "a")
	want := []envoytest.Resource{cluster, endpoints, listener, route}
	for _, tc := range []struct {
		diff   string
		change func(*envoytest.Config)
	}{
		{"", func(*envoytest.Config) {}},
		{`Cluster "a" differs`, func(c *envoytest.Config) { c.Clusters["a"] = b.Cluster("a", "2") }},
		{`Cluster "a" is missing`, func(c *envoytest.Config) { delete(c.Clusters, "a") }},
		{`ClusterLoadAssignment "a" differs`, func(c *envoytest.Config) { c.Endpoints["a"] = b.Endpoints("a", "127.0.0.1:1") }},
		{"", func(c *envoytest.Config) { c.Endpoints["a"] = b.Endpoints("a", "127.0.0.1:2", "127.0.0.1:1") }},
		{`Listener "l" differs`, func(c *envoytest.Config) { c.Listeners["l"] = b.Listener("l", "1", "127.0.0.1:4", "r") }},
		{`RouteConfiguration "r" differs`, func(c *envoytest.Config) { c.Routes["r"] = b.Route("r", "1", "b") }},
		{"envoy has 2 of type.googleapis.com/envoy.config.cluster.v3.Cluster, its node 1", func(c *envoytest.Config) { c.Clusters["b"] = b.Cluster("b", "") }},
		{"warming: cluster a", func(c *envoytest.Config) { c.Warming = []string{"cluster a"} }},
	} {
		got := envoytest.Config{
			Clusters:  map[string]envoytest.Resource{"a": cluster},
			Endpoints: map[string]envoytest.Resource{"a": endpoints},
			Listeners: map[string]envoytest.Resource{"l": listener},
			Routes:    map[string]envoytest.Resource{"r": route},
		}
		tc.change(&got)
		diff, err := got.Diff(want)
		require.NoError(t, err)
		require.Equal(t, tc.diff, diff)
	}
}
