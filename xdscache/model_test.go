package xdscache_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/stream/v3"
	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/internal/cachelog"
	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/journal"
	"github.com/xdswal/xdswal/xdscache"
)

// modelClient is a client behind go-control-plane's server, for one type of a node: it
// does with requests, subscriptions and channels what that server does.
type modelClient struct {
	t     testing.TB
	cache cachev3.Cache
	delta bool
	sub   stream.Subscription
	names []string // nil for the wildcard
	// isExplicit means that the wildcard is requested by its name.
	isExplicit bool
	has        map[string]string
	// version and nonce are those of the last response.
	version string
	nonce   int
	cancel  func()
	sotw    chan cachev3.Response
	deltas  chan cachev3.DeltaResponse
	answers int
}

// connect opens a new stream. A delta client tells what it has.
func (c *modelClient) connect() {
	c.nonce, c.isExplicit = 0, false
	if c.delta {
		known := map[string]string{}
		for name, value := range c.has {
			known[name] = hashOf([]byte(value))
		}
		c.sub = stream.NewDeltaSubscription(c.names, nil, known, true)
		c.deltas = make(chan cachev3.DeltaResponse, 1)
		c.request(&cachev3.DeltaRequest{ResourceNamesSubscribe: c.names, InitialResourceVersions: known})
		return
	}
	c.sub = stream.NewSotwSubscription(c.names, true)
	c.request(nil)
}

func (c *modelClient) request(delta *cachev3.DeltaRequest) {
	nonce := ""
	if c.nonce > 0 {
		nonce = fmt.Sprint(c.nonce)
	}
	var err error
	if c.delta {
		delta.Node, delta.TypeUrl, delta.ResponseNonce = &corev3.Node{Id: "n"}, resourcev3.ClusterType, nonce
		c.cancel, err = c.cache.CreateDeltaWatch(delta, c.sub, c.deltas)
	} else {
		c.sotw = make(chan cachev3.Response, 1)
		names := c.names
		if c.isExplicit {
			names = []string{"*"}
		}
		c.cancel, err = c.cache.CreateWatch(&cachev3.Request{
			Node: &corev3.Node{Id: "n"}, TypeUrl: resourcev3.ClusterType, ResourceNames: names,
			VersionInfo: c.version, ResponseNonce: nonce,
		}, c.sub, c.sotw)
	}
	require.NoError(c.t, err)
}

func (c *modelClient) disconnect() {
	if c.cancel != nil {
		c.cancel()
	}
}

// read takes one response, if there is one, and acknowledges it.
func (c *modelClient) read() bool {
	if c.delta {
		select {
		case resp := <-c.deltas:
			wire, err := resp.GetDeltaDiscoveryResponse()
			require.NoError(c.t, err)
			for _, r := range wire.GetResources() {
				if c.names != nil && !slices.Contains(c.names, r.GetName()) {
					continue // it has unsubscribed since
				}
				require.Equal(c.t, hashOf(r.GetResource().GetValue()), r.GetVersion())
				c.has[r.GetName()] = string(r.GetResource().GetValue())
			}
			for _, name := range wire.GetRemovedResources() {
				delete(c.has, name)
			}
			c.sub.SetReturnedResources(resp.GetReturnedResources())
		default:
			return false
		}
	} else {
		select {
		case resp := <-c.sotw:
			wire, err := resp.GetDiscoveryResponse()
			require.NoError(c.t, err)
			clear(c.has)
			for _, packed := range wire.GetResources() {
				m, err := packed.UnmarshalNew()
				require.NoError(c.t, err)
				c.has[cachev3.GetResourceName(m)] = string(packed.GetValue())
			}
			c.version = wire.GetVersionInfo()
			c.sub.SetReturnedResources(resp.GetReturnedResources())
		default:
			return false
		}
	}
	c.answers++
	c.nonce++
	c.disconnect()
	c.request(&cachev3.DeltaRequest{})
	return true
}

// subscribe changes the names. It drops what is not requested any more.
func (c *modelClient) subscribe(names []string) {
	c.disconnect()
	if names != nil {
		maps.DeleteFunc(c.has, func(name, _ string) bool { return !slices.Contains(names, name) })
	}
	if !c.delta {
		c.isExplicit = names == nil && (c.names != nil || c.isExplicit)
		c.names = names
		if c.isExplicit {
			names = []string{"*"}
		}
		c.sub.SetResourceSubscription(names)
		c.request(nil)
		return
	}
	var added, removed []string
	switch {
	case names == nil && c.names != nil:
		added = append(added, "*")
	case names != nil && c.names == nil:
		removed = append(removed, "*")
	}
	for _, name := range names {
		if !slices.Contains(c.names, name) {
			added = append(added, name)
		}
	}
	for _, name := range c.names {
		if !slices.Contains(names, name) {
			removed = append(removed, name)
		}
	}
	c.names = names
	c.sub.UpdateResourceSubscriptions(added, removed)
	c.request(&cachev3.DeltaRequest{ResourceNamesSubscribe: added, ResourceNamesUnsubscribe: removed})
}

// want returns what the client must have at rest.
func (c *modelClient) want(all map[string]string) map[string]string {
	out := map[string]string{}
	for name, value := range all {
		if c.names == nil || slices.Contains(c.names, name) {
			out[name] = value
		}
	}
	return out
}

// Whatever happens to a node and to its clients, each client has at rest what the node
// holds. It is sent nothing that it has, except by a new SotW stream.
func TestModel(t *testing.T) {
	seeds := 1500
	if testing.Short() || raceEnabled() {
		seeds = 150
	}
	answers := 0
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { answers += runModel(t, rand.New(rand.NewPCG(uint64(seed), 1))) })
	}
	t.Logf("%d answers", answers)
}

// rebuilt returns an equal state that shares nothing with st, as after a new restore.
func rebuilt(t *testing.T, st *state.State) *state.State {
	b := state.NewBuilder(st.Sequence(), st.Time())
	for node := range st.All() {
		require.NoError(t, b.Node(node.Cache(), node.Name(), node.Sequence(), node.Time()))
		for i := range node.Types() {
			typ := &node.Types()[i]
			require.NoError(t, b.Type(typ.URL(), typ.Version()))
			var resources []*journal.Resource
			for res := range typ.All() {
				clone := *res
				resources = append(resources, &clone)
			}
			require.NoError(t, b.Resources(resources))
		}
	}
	return b.Build()
}

func runModel(t *testing.T, r *rand.Rand) (answers int) {
	l := newLog(t)
	l.forget()
	isLinear := r.IntN(3) == 0
	var snapshots *xdscache.SnapshotCache
	var linear *xdscache.LinearCache
	var cache cachev3.Cache
	cacheName := cachelog.SnapshotPrefix
	node := "n"
	if isLinear {
		linear = newLinear(l)
		cache, cacheName, node = linear, cachelog.LinearPrefix+linear.Name(), ""
	} else {
		snapshots = newCache(l)
		cache = snapshots
	}
	universe := []string{"a", "b", "c", "d", "e"}
	someNames := func() []string {
		out := slices.DeleteFunc(slices.Clone(universe), func(string) bool { return r.IntN(2) == 0 })
		if len(out) == 0 {
			out = []string{"a"}
		}
		return out
	}
	var clients []*modelClient
	for range 1 + r.IntN(4) {
		c := &modelClient{t: t, cache: cache, delta: r.IntN(2) == 0, has: map[string]string{}}
		if r.IntN(2) == 0 {
			c.names = someNames()
		}
		c.connect()
		clients = append(clients, c)
	}
	resource := func(name string) types.Resource { return clusterOf(name, fmt.Sprint(r.IntN(3))) }
	version := func() string { return fmt.Sprint(r.IntN(3)) } // often the same
	var kept *state.State
	for range 40 {
		switch r.IntN(8) {
		case 0, 1: // replace all
			all := map[string]types.Resource{}
			for _, name := range someNames() {
				all[name] = resource(name)
			}
			if r.IntN(10) == 0 {
				clear(all)
			}
			if isLinear {
				require.NoError(t, linear.SetResources(all))
			} else {
				set(t, snapshots, "n", clusters(t, version(), slices.Collect(maps.Values(all))...))
			}
		case 2: // change one
			name := universe[r.IntN(len(universe))]
			if isLinear {
				require.NoError(t, linear.UpdateResource(name, resource(name)))
			} else {
				_, err := snapshots.UpdateResources(context.Background(), "n", map[string][]types.ResourceWithTTL{resourcev3.ClusterType: items(resource(name))}, nil, version())
				require.NoError(t, err)
			}
		case 3: // remove
			if isLinear {
				require.NoError(t, linear.DeleteResource("a"))
			} else {
				snapshots.ClearSnapshot("n")
			}
		case 4: // a state that comes from elsewhere
			switch {
			case r.IntN(3) == 0:
				l.follow(rebuilt(t, l.State()))
			case kept == nil || isLinear:
				kept = l.State() // the versions of a linear cache do not go back
			default:
				l.follow(kept)
			}
		case 5:
			clients[r.IntN(len(clients))].read()
		case 6:
			names := someNames()
			if r.IntN(3) == 0 {
				names = nil
			}
			clients[r.IntN(len(clients))].subscribe(names)
		case 7:
			c := clients[r.IntN(len(clients))]
			c.disconnect()
			c.connect()
		}
	}
	for _, c := range clients {
		for c.read() {
		}
	}
	if n := l.State().Node(cacheName, node); n != nil {
		all := map[string]string{}
		if typ := n.Type(resourcev3.ClusterType); typ != nil {
			for res := range typ.All() {
				all[res.Name] = string(res.Value)
			}
		}
		for i, c := range clients {
			require.Equal(t, c.want(all), c.has, "client %d, delta %t, names %q, linear %t", i, c.delta, c.names, isLinear)
			answers += c.answers
		}
	}
	for _, c := range clients {
		c.disconnect()
	}
	if isLinear {
		require.Zero(t, linear.NumCacheWatches())
	} else if info := snapshots.GetStatusInfo("n"); info != nil {
		require.Zero(t, info.GetNumWatches()+info.GetNumDeltaWatches())
	}
	return answers
}
