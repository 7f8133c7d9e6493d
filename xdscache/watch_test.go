package xdscache_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/log"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/stream/v3"
	"github.com/stretchr/testify/require"
	statusv3 "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/xdswal/xdswal/internal/cachelog"
	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/journal"
	"github.com/xdswal/xdswal/xdscache"
)

// sotwStream is a SotW stream for one type of a node.
type sotwStream struct {
	t      testing.TB
	stream discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesClient
	url    string
	last   *discoveryv3.DiscoveryResponse
	// responses has what the server sends.
	responses chan *discoveryv3.DiscoveryResponse
}

func newSotwStream(t testing.TB, c cachev3.Cache, node, url string, names ...string) *sotwStream {
	t.Helper()
	s, err := serve(t, c).StreamAggregatedResources(streamContext(t))
	require.NoError(t, err)
	out := &sotwStream{t: t, stream: s, url: url, responses: make(chan *discoveryv3.DiscoveryResponse, 10_000)}
	require.NoError(t, s.Send(&discoveryv3.DiscoveryRequest{Node: &corev3.Node{Id: node}, TypeUrl: url, ResourceNames: names}))
	go func() {
		for {
			resp, err := s.Recv()
			if err != nil {
				return
			}
			out.responses <- resp
		}
	}()
	return out
}

func (s *sotwStream) receive() *discoveryv3.DiscoveryResponse {
	s.t.Helper()
	s.last = receive(s.t, s.responses)
	return s.last
}

// ack acknowledges the last response.
func (s *sotwStream) ack(names ...string) {
	s.t.Helper()
	require.NoError(s.t, s.stream.Send(&discoveryv3.DiscoveryRequest{
		TypeUrl: s.url, VersionInfo: s.last.GetVersionInfo(), ResponseNonce: s.last.GetNonce(), ResourceNames: names,
	}))
}

// nack rejects the last response; version is the last one that was acknowledged.
func (s *sotwStream) nack(version string) {
	s.t.Helper()
	require.NoError(s.t, s.stream.Send(&discoveryv3.DiscoveryRequest{
		TypeUrl: s.url, VersionInfo: version, ResponseNonce: s.last.GetNonce(),
		ErrorDetail: &statusv3.Status{Code: 3, Message: "no"},
	}))
}

// awaitWatches waits until a node has n open watches.
func awaitWatches(t testing.TB, c *xdscache.SnapshotCache, node string, n int) {
	t.Helper()
	require.Eventually(t, func() bool {
		info := c.GetStatusInfo(node)
		return info != nil && info.GetNumWatches()+info.GetNumDeltaWatches() == n
	}, timeout, time.Millisecond)
}

// versionsOf returns the versions of a node's clusters.
func versionsOf(c *xdscache.SnapshotCache, node string) map[string]string {
	out := map[string]string{}
	for r := range c.GetNode(node).Type(resourcev3.ClusterType).All() {
		out[r.Name] = r.Version
	}
	return out
}

// A client of a node that is cleared and set again is sent what differs, in both
// protocols, and by a follower too.
func TestClearedAndSetAgain(t *testing.T) {
	for _, row := range []struct {
		name       string
		clear, set func(t *testing.T, l *fakeLog, c *xdscache.SnapshotCache)
	}{
		{
			"by its caller",
			func(t *testing.T, _ *fakeLog, c *xdscache.SnapshotCache) { c.ClearSnapshot("n") },
			func(t *testing.T, _ *fakeLog, c *xdscache.SnapshotCache) {
				set(t, c, "n", clusters(t, "2", cluster("b"), cluster("kept")))
			},
		}, {
			"in a follower",
			func(t *testing.T, l *fakeLog, _ *xdscache.SnapshotCache) {
				l.follow(&state.State{})
			},
			func(t *testing.T, l *fakeLog, _ *xdscache.SnapshotCache) {
				l.follow(stateOf(t, func(l *fakeLog) {
					set(t, newCache(l), "n", clusters(t, "2", cluster("b"), cluster("kept")))
				}))
			},
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			l := newLog(t)
			c := newCache(l)
			set(t, c, "n", clusters(t, "1", cluster("a"), cluster("kept")))
			sotw := watch(t, c, "n", resourcev3.ClusterType, "1", "a", "kept")
			delta := deltaWatch(t, c, "n", resourcev3.ClusterType, versionsOf(c, "n"))
			row.clear(t, l, c)
			requireOpen(t, sotw)
			requireOpen(t, delta)
			row.set(t, l, c)
			require.Equal(t, []string{"b", "kept"}, names(t, receive(t, sotw)))
			resp, err := receive(t, delta).GetDeltaDiscoveryResponse()
			require.NoError(t, err)
			require.Equal(t, []string{"a"}, resp.GetRemovedResources())
			require.Len(t, resp.GetResources(), 1)
			require.Equal(t, "b", resp.GetResources()[0].GetName())
			requireServed(t, l, c)
		})
	}
}

// A node that is set again with what its client has sends nothing, and later changes are
// sent.
func TestClearedAndSetToTheSame(t *testing.T) {
	l := newLog(t)
	c := newCache(l)
	set(t, c, "n", clusters(t, "1", cluster("a")))
	s := newSotwStream(t, c, "n", resourcev3.ClusterType)
	s.receive()
	s.ack()
	awaitWatches(t, c, "n", 1)
	c.ClearSnapshot("n")
	set(t, c, "n", clusters(t, "1", cluster("a")))
	require.Equal(t, 1, c.GetStatusInfo("n").GetNumWatches())
	set(t, c, "n", clusters(t, "2", clusterOf("a", "x")))
	require.Equal(t, "2", s.receive().GetVersionInfo())
	requireServed(t, l, c)
}

// A client that names an unknown node, asks for very many types and does not read harms no
// one, and is sent everything when it reads.
func TestClientThatDoesNotRead(t *testing.T) {
	l := newLog(t)
	c := newCache(l)
	before := runtime.NumGoroutine()
	const types = 100
	// go-control-plane's server has one channel of this size for all types of a stream.
	stuck := make(chan cachev3.DeltaResponse, 20)
	cancels := make([]func(), types)
	for i := range cancels {
		req := &cachev3.DeltaRequest{Node: &corev3.Node{Id: "stuck"}, TypeUrl: fmt.Sprint("garbage", i)}
		var err error
		cancels[i], err = c.CreateDeltaWatch(req, stream.NewDeltaSubscription(nil, nil, nil, true), stuck)
		require.NoError(t, err)
	}
	other := watch(t, c, "other", resourcev3.ClusterType, "")
	done := background(func() error {
		for i := range 10 {
			set(t, c, "stuck", clusters(t, fmt.Sprint(i), clusterOf("a", fmt.Sprint(i))))
			set(t, c, fmt.Sprint("node", i), clusters(t, "1", cluster("a")))
		}
		set(t, c, "other", clusters(t, "1", cluster("a")))
		return nil
	})
	require.NoError(t, receive(t, done))
	require.Equal(t, "1", receive(t, other).GetResponseVersion())
	require.LessOrEqual(t, runtime.NumGoroutine(), before+types, "one pending answer for each watch")
	require.Equal(t, types-cap(stuck), c.GetStatusInfo("stuck").GetNumDeltaWatches())

	// A canceled watch sends nothing any more: the server closes the channel then.
	for range types / 2 {
		receive(t, stuck)
	}
	for _, cancel := range cancels {
		cancel()
		cancel()
	}
	close(stuck)
	for len(stuck) > 0 {
		receive(t, stuck)
	}
	require.Zero(t, c.GetStatusInfo("stuck").GetNumDeltaWatches())
	require.Eventually(t, func() bool { return runtime.NumGoroutine() <= before+1 }, timeout, time.Millisecond)
	requireServed(t, l, c)
}

// An answer that waits for its client is made from the newest state.
func TestPendingAnswerIsNewest(t *testing.T) {
	l := newLog(t)
	c := newCache(l)
	set(t, c, "n", clusters(t, "1", cluster("a"), cluster("b")))
	known := versionsOf(c, "n")
	sotw, delta := make(chan cachev3.Response), make(chan cachev3.DeltaResponse) // without room
	sub := stream.NewSotwSubscription(nil, true)
	sub.SetReturnedResources(known)
	_, err := c.CreateWatch(&cachev3.Request{Node: &corev3.Node{Id: "n"}, TypeUrl: resourcev3.ClusterType, VersionInfo: "1", ResponseNonce: "1"}, sub, sotw)
	require.NoError(t, err)
	_, err = c.CreateDeltaWatch(&cachev3.DeltaRequest{Node: &corev3.Node{Id: "n"}, TypeUrl: resourcev3.ClusterType, ResponseNonce: "1"},
		stream.NewDeltaSubscription(nil, nil, known, true), delta)
	require.NoError(t, err)
	set(t, c, "n", clusters(t, "2", clusterOf("a", "x"), cluster("b")))
	set(t, c, "n", clusters(t, "3", clusterOf("a", "y")))
	set(t, c, "n", clusters(t, "4", clusterOf("a", "z"), cluster("b"), cluster("c")))
	resp := receive(t, sotw)
	require.Equal(t, "4", resp.GetResponseVersion())
	require.Equal(t, []string{"a", "b", "c"}, names(t, resp))
	got := receive(t, delta)
	require.Equal(t, versionsOf(c, "n"), got.GetReturnedResources())
	wire, err := got.GetDeltaDiscoveryResponse()
	require.NoError(t, err)
	require.Len(t, wire.GetResources(), 2, "b is what the client has")
	require.Empty(t, wire.GetRemovedResources())
	requireServed(t, l, c)
}

// The response carries the context of the update.
func TestResponseContext(t *testing.T) {
	type key struct{}
	l := newLog(t)
	c := newCache(l)
	w, d := watch(t, c, "n", resourcev3.ClusterType, ""), deltaWatch(t, c, "n", resourcev3.ClusterType, nil)
	require.NoError(t, c.SetSnapshot(context.WithValue(t.Context(), key{}, "v"), "n", clusters(t, "1", cluster("a"))))
	require.Equal(t, "v", receive(t, w).GetContext().Value(key{}))
	require.Equal(t, "v", receive(t, d).GetContext().Value(key{}))
	require.NotNil(t, receive(t, watch(t, c, "n", resourcev3.ClusterType, "")).GetContext())
	requireServed(t, l, c)
}

// Node ids that clients claim do not stay in memory when the clients are gone.
func TestClaimedNodesAreForgotten(t *testing.T) {
	const clients, size = 200, 100_000
	l := newLog(t)
	c := newCache(l)
	set(t, c, "known", clusters(t, "1", cluster("a")))
	claim := func(node string) (cancel func()) {
		metadata, err := structpb.NewStruct(map[string]any{"x": strings.Repeat("x", size)})
		require.NoError(t, err)
		req := &cachev3.Request{Node: &corev3.Node{Id: node, Metadata: metadata}, TypeUrl: resourcev3.ClusterType}
		cancel, err = c.CreateWatch(req, wildcard(), make(chan cachev3.Response, 1))
		require.NoError(t, err)
		return cancel
	}
	before := heap()
	func() {
		for i := range clients {
			defer claim(fmt.Sprint("claimed", i))()
		}
		require.Len(t, c.GetStatusKeys(), clients)
	}()
	require.Less(t, int64(heap())-int64(before), int64(clients*size/10))
	require.Empty(t, c.GetStatusKeys())
	require.Nil(t, c.GetStatusInfo("claimed0"))

	// A node that exists keeps its status until it is cleared.
	claim("known")()
	require.Equal(t, []string{"known"}, c.GetStatusKeys())
	require.Equal(t, "known", c.GetStatusInfo("known").GetNode().GetId())
	require.WithinDuration(t, time.Now(), c.GetStatusInfo("known").GetLastWatchRequestTime(), time.Minute)
	require.Zero(t, c.GetStatusInfo("known").GetLastDeltaWatchRequestTime())
	c.ClearSnapshot("known")
	require.Empty(t, c.GetStatusKeys())
	requireServed(t, l, c)
}

// New contents under the same version are sent, both to an open watch and to a client that
// has not acknowledged its last response yet.
func TestSameVersionNewContent(t *testing.T) {
	l := newLog(t)
	c := newCache(l)
	set(t, c, "n", clusters(t, "1", clusterOf("a", "1")))
	s := newSotwStream(t, c, "n", resourcev3.ClusterType)
	s.receive()
	s.ack()
	awaitWatches(t, c, "n", 1)
	set(t, c, "n", clusters(t, "1", clusterOf("a", "2")))
	require.Equal(t, wire(t, []types.Resource{clusterOf("a", "2")})["a"], string(s.receive().GetResources()[0].GetValue()))
	// It is not acknowledged yet.
	set(t, c, "n", clusters(t, "1", clusterOf("a", "3"), cluster("b")))
	s.ack()
	require.Len(t, s.receive().GetResources(), 2)
	// A removal, and a TTL.
	set(t, c, "n", clusters(t, "1", cluster("b")))
	s.ack()
	require.Len(t, s.receive().GetResources(), 1)
	set(t, c, "n", snapshotWithTTL(t, "1", time.Hour, cluster("b")))
	s.ack()
	require.Equal(t, "type.googleapis.com/envoy.service.discovery.v3.Resource", s.receive().GetResources()[0].GetTypeUrl())
	s.ack()
	awaitWatches(t, c, "n", 1)
	requireServed(t, l, c)
}

// So are new contents of a resource under a version of the caller's own.
func TestSameOwnVersionNewContent(t *testing.T) {
	l := newLog(t)
	c := newCache(l)
	own := map[string]string{"a": "own", "b": "own"}
	set(t, c, "n", foreign("1", own, cluster("a"), cluster("b")))
	sotw := newSotwStream(t, c, "n", resourcev3.ClusterType)
	sotw.receive()
	delta, err := serve(t, c).DeltaAggregatedResources(streamContext(t))
	require.NoError(t, err)
	require.NoError(t, delta.Send(&discoveryv3.DeltaDiscoveryRequest{Node: &corev3.Node{Id: "n"}, TypeUrl: resourcev3.ClusterType}))
	resp, err := delta.Recv()
	require.NoError(t, err)
	require.Len(t, resp.GetResources(), 2)
	// Neither has acknowledged its response.
	set(t, c, "n", foreign("1", own, clusterOf("a", "x"), cluster("b")))
	sotw.ack()
	require.Len(t, sotw.receive().GetResources(), 2)
	require.NoError(t, delta.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: resourcev3.ClusterType, ResponseNonce: resp.GetNonce()}))
	resp, err = delta.Recv()
	require.NoError(t, err)
	require.Len(t, resp.GetResources(), 1)
	require.Equal(t, "a", resp.GetResources()[0].GetName())
	require.Equal(t, "own", resp.GetResources()[0].GetVersion())
	requireServed(t, l, c)
}

// Nothing is remembered of clients that are gone.
func TestClientsAreForgotten(t *testing.T) {
	l := newLog(t)
	c := newCache(l)
	set(t, c, "n", clusters(t, "1", cluster("a"), cluster("b")))
	const clients = 100
	func() {
		for range clients {
			known := receive(t, deltaWatch(t, c, "n", resourcev3.ClusterType, nil)).GetReturnedResources()
			w := deltaWatch(t, c, "n", resourcev3.ClusterType, known)
			defer func() { requireOpen(t, w) }()
		}
		require.Equal(t, clients, c.NumKnownStates())
	}()
	c.ClearSnapshot("n")
	set(t, c, "n", clusters(t, "1", cluster("c"))) // answers the watches, whose clients do not read
	require.Eventually(t, func() bool {
		runtime.GC()
		return c.NumKnownStates() == 0
	}, timeout, time.Millisecond)
	requireServed(t, l, c)
}

// What a client rejects is not sent again until it changes.
func TestRejectedIsNotSentAgain(t *testing.T) {
	for _, row := range []struct {
		name  string
		cache func(t *testing.T, l *fakeLog) (c cachev3.Cache, update func(alt string))
	}{
		{"snapshot", func(t *testing.T, l *fakeLog) (cachev3.Cache, func(string)) {
			c := newCache(l)
			return c, func(alt string) { set(t, c, "n", clusters(t, alt, clusterOf("a", alt))) }
		}},
		{"linear", func(t *testing.T, l *fakeLog) (cachev3.Cache, func(string)) {
			c := newLinearWith(l, cachelog.Config{VersionPrefix: "p."})
			return c, func(alt string) { require.NoError(t, c.UpdateResource("a", clusterOf("a", alt))) }
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			c, update := row.cache(t, newLog(t))
			update("bad")
			s := newSotwStream(t, c, "n", resourcev3.ClusterType)
			s.receive()
			for range 3 {
				s.nack("") // also one that is repeated
			}
			require.Never(t, func() bool { return len(s.responses) > 0 }, 100*time.Millisecond, 10*time.Millisecond)
			update("good")
			require.Contains(t, string(s.receive().GetResources()[0].GetValue()), "good")
			s.ack()
			update("bad")
			bad := s.receive()
			s.nack("1")
			require.Never(t, func() bool { return len(s.responses) > 0 }, 100*time.Millisecond, 10*time.Millisecond)
			update("better")
			require.NotEqual(t, bad.GetNonce(), s.receive().GetNonce())
		})
	}
}

// With ads, a response that is withheld is sent when the resources are those that the
// client requests.
func TestWithheldIsSentLater(t *testing.T) {
	l := newLog(t)
	var warned []string
	logger := log.LoggerFuncs{WarnFunc: func(format string, args ...any) { warned = append(warned, fmt.Sprintf(format, args...)) }}
	c := xdscache.NewSnapshotCache(l, cachelog.Config{}, true, cachev3.IDHash{}, logger)
	endpoints := func(version string, names ...string) *cachev3.Snapshot {
		s := &cachev3.Snapshot{}
		var resources []types.Resource
		for _, name := range names {
			resources = append(resources, endpoint(name))
		}
		s.Resources[types.Endpoint] = cachev3.NewResources(version, resources)
		return s
	}
	open := func(names ...string) chan cachev3.Response {
		w := make(chan cachev3.Response, 1)
		req := request("n", resourcev3.EndpointType)
		req.ResourceNames = names
		_, err := c.CreateWatch(req, stream.NewSotwSubscription(names, true), w)
		require.NoError(t, err)
		return w
	}
	early := open("a")
	set(t, c, "n", endpoints("1", "a", "orphan"))
	late := open("a")
	requireOpen(t, early)
	requireOpen(t, late)
	require.Equal(t, []string{"a", "orphan"}, names(t, receive(t, open("a", "orphan"))))
	require.Equal(t, []string{"a", "orphan"}, names(t, receive(t, open("*"))), "a wildcard requests all")
	set(t, c, "n", endpoints("2", "a"))
	require.Equal(t, []string{"a"}, names(t, receive(t, early)))
	require.Equal(t, []string{"a"}, names(t, receive(t, late)))
	require.Len(t, warned, 2)
	require.Contains(t, warned[0], `node "n"`)
	requireServed(t, l, c)
}

// The responses of an update have one order, with ads or without.
func TestOrderOfResponses(t *testing.T) {
	want := []string{
		resourcev3.ClusterType, resourcev3.EndpointType, resourcev3.ListenerType, resourcev3.ScopedRouteType,
		resourcev3.RouteType, resourcev3.VirtualHostType,
	}
	for _, ads := range []bool{false, true} {
		for range 10 {
			l := newLog(t)
			c := xdscache.NewSnapshotCache(l, cachelog.Config{}, ads, cachev3.IDHash{}, nil)
			sotw, delta := make(chan cachev3.Response, 20), make(chan cachev3.DeltaResponse, 20)
			for url := range allTypes() { // in random order
				_, err := c.CreateWatch(request("n", url), wildcard(), sotw)
				require.NoError(t, err)
				_, err = c.CreateDeltaWatch(&cachev3.DeltaRequest{Node: &corev3.Node{Id: "n"}, TypeUrl: url}, stream.NewDeltaSubscription(nil, nil, nil, true), delta)
				require.NoError(t, err)
			}
			snapshot, err := cachev3.NewSnapshot("1", allTypes())
			require.NoError(t, err)
			set(t, c, "n", snapshot)
			require.Len(t, sotw, len(allTypes()))
			for _, url := range want {
				require.Equal(t, url, receive(t, sotw).GetRequest().GetTypeUrl())
				require.Equal(t, url, receive(t, delta).GetDeltaRequest().GetTypeUrl())
			}
			requireServed(t, l, c)
		}
	}
}

// A delta client that subscribes to a name once more is answered.
func TestSubscribedAgain(t *testing.T) {
	l := newLog(t)
	c := newCache(l)
	set(t, c, "n", clusters(t, "1", cluster("a"), cluster("b")))
	s, err := serve(t, c).DeltaAggregatedResources(streamContext(t))
	require.NoError(t, err)
	exchange := func(req *discoveryv3.DeltaDiscoveryRequest) *discoveryv3.DeltaDiscoveryResponse {
		t.Helper()
		req.TypeUrl = resourcev3.ClusterType
		require.NoError(t, s.Send(req))
		resp, err := s.Recv()
		require.NoError(t, err)
		return resp
	}
	// A new stream is sent nothing that it has.
	known := versionsOf(c, "n")
	delete(known, "b")
	resp := exchange(&discoveryv3.DeltaDiscoveryRequest{
		Node: &corev3.Node{Id: "n"}, ResourceNamesSubscribe: []string{"a", "b"}, InitialResourceVersions: known,
	})
	require.Len(t, resp.GetResources(), 1)
	require.Equal(t, "b", resp.GetResources()[0].GetName())
	for range 2 {
		resp = exchange(&discoveryv3.DeltaDiscoveryRequest{ResourceNamesSubscribe: []string{"a"}})
		require.Len(t, resp.GetResources(), 1)
		require.Equal(t, "a", resp.GetResources()[0].GetName())
	}
	requireServed(t, l, c)
}

// So is a SotW client that repeats a request by which it has acknowledged the response.
// One that subscribes to fewer names is not.
func TestRepeatedRequest(t *testing.T) {
	for _, kind := range []string{"snapshot", "linear"} {
		t.Run(kind, func(t *testing.T) {
			l := newLog(t)
			var c cachev3.Cache
			if kind == "snapshot" {
				snapshots := newCache(l)
				s := &cachev3.Snapshot{}
				s.Resources[types.Endpoint] = cachev3.NewResources("1", []types.Resource{endpoint("a"), endpoint("b"), endpoint("c")})
				set(t, snapshots, "n", s)
				c = snapshots
			} else {
				linear := xdscache.NewLinearCache(l, cachelog.Config{}, resourcev3.EndpointType)
				require.NoError(t, linear.SetResources(resources{"a": endpoint("a"), "b": endpoint("b"), "c": endpoint("c")}))
				c = linear
			}
			s := newSotwStream(t, c, "n", resourcev3.EndpointType, "a", "b")
			require.Len(t, s.receive().GetResources(), 2)
			for range 3 {
				s.ack("a", "b")
				s.ack("b", "a")
				require.Len(t, s.receive().GetResources(), 2)
			}
			s.ack("a", "b")
			s.ack("a")
			require.Never(t, func() bool { return len(s.responses) > 0 }, 50*time.Millisecond, 10*time.Millisecond)
			s.ack("a", "c")
			require.Contains(t, fmt.Sprint(s.receive().GetResources()), "c")
		})
	}
}

// A type without a version is sent under one that is made for it, and is not sent again.
func TestNoVersion(t *testing.T) {
	l := newLog(t)
	c := newCacheWith(l, cachelog.Config{VersionPrefix: "p."})
	set(t, c, "n", clusters(t, "", cluster("a")))
	s := newSotwStream(t, c, "n", resourcev3.ClusterType)
	require.Equal(t, "p.1", s.receive().GetVersionInfo())
	s.ack()
	awaitWatches(t, c, "n", 1)
	withEndpoint := clusters(t, "", cluster("a"))
	withEndpoint.Resources[types.Endpoint] = cachev3.NewResources("1", []types.Resource{endpoint("a")})
	set(t, c, "n", withEndpoint)
	require.Equal(t, 1, c.GetStatusInfo("n").GetNumWatches(), "the clusters have not changed")
	// A type that is gone.
	set(t, c, "n", &cachev3.Snapshot{})
	require.Empty(t, s.receive().GetResources())
	s.ack()
	awaitWatches(t, c, "n", 1)

	// A fetch gets it, though the version of its request is empty too.
	set(t, c, "n", clusters(t, "", cluster("a")))
	resp, err := c.Fetch(t.Context(), request("n", resourcev3.ClusterType))
	require.NoError(t, err)
	again := request("n", resourcev3.ClusterType)
	again.VersionInfo = resp.GetResponseVersion()
	_, err = c.Fetch(t.Context(), again)
	require.ErrorIs(t, err, &types.SkipFetchError{})
	requireServed(t, l, c)
}

// A heartbeat does not make Envoy delete what has no TTL: where a SotW response stands for
// all resources of a type, it contains them all.
func TestHeartbeatsOfWholeTypes(t *testing.T) {
	ttl := time.Hour
	for _, url := range []string{resourcev3.ClusterType, resourcev3.ListenerType, resourcev3.ScopedRouteType, resourcev3.EndpointType} {
		t.Run(url, func(t *testing.T) {
			l := newLog(t)
			c := newCache(l, xdscache.WithHeartbeat(streamContext(t), 10*time.Millisecond))
			messages := allTypes()[url]
			if len(messages) == 1 {
				more := proto.Clone(messages[0])
				more.ProtoReflect().Set(more.ProtoReflect().Descriptor().Fields().ByName("name"), protoreflect.ValueOfString("more"))
				messages = append(messages, more)
			}
			snapshot, err := cachev3.NewSnapshotWithTTLs("1", map[string][]types.ResourceWithTTL{
				url: {{Resource: messages[0], TTL: &ttl}, {Resource: messages[1]}},
			})
			require.NoError(t, err)
			set(t, c, "n", snapshot)
			s := newSotwStream(t, c, "n", url)
			require.Len(t, s.receive().GetResources(), 2)
			s.ack()
			heartbeat := s.receive()
			if url == resourcev3.EndpointType {
				require.Len(t, heartbeat.GetResources(), 1)
				return
			}
			require.Len(t, heartbeat.GetResources(), 2)
			bodies := 0
			for _, packed := range heartbeat.GetResources() {
				var wrapped discoveryv3.Resource
				if packed.MessageIs(&wrapped) {
					require.NoError(t, anypb.UnmarshalTo(packed, &wrapped, proto.UnmarshalOptions{}))
					packed = wrapped.GetResource()
				}
				if len(packed.GetValue()) > 0 {
					bodies++
				}
			}
			require.Equal(t, 2, bodies)
		})
	}
}

// TTLs and heartbeats are sent in the delta protocol.
func TestDeltaTTL(t *testing.T) {
	l := newLog(t)
	c := newCache(l, xdscache.WithHeartbeat(streamContext(t), 10*time.Millisecond))
	set(t, c, "n", snapshotWithTTL(t, "1", time.Hour, cluster("a")))
	s, err := serve(t, c).DeltaAggregatedResources(streamContext(t))
	require.NoError(t, err)
	req := &discoveryv3.DeltaDiscoveryRequest{Node: &corev3.Node{Id: "n"}, TypeUrl: resourcev3.ClusterType}
	for _, isHeartbeat := range []bool{false, true, true} {
		require.NoError(t, s.Send(req))
		resp, err := s.Recv()
		require.NoError(t, err)
		require.Len(t, resp.GetResources(), 1)
		r := resp.GetResources()[0]
		require.Equal(t, "a", r.GetName())
		require.Equal(t, versionsOf(c, "n")["a"], r.GetVersion())
		require.Equal(t, time.Hour, r.GetTtl().AsDuration())
		require.Equal(t, isHeartbeat, r.GetResource() == nil)
		req = &discoveryv3.DeltaDiscoveryRequest{TypeUrl: resourcev3.ClusterType, ResponseNonce: resp.GetNonce()}
	}
	requireServed(t, l, c)
}

// The cost of an update with an open delta watch does not grow with the node: the
// response is made when the client reads it.
func TestUpdateCostWithWatch(t *testing.T) {
	cost := func(size int) uint64 {
		b := state.NewBuilder(1, time.Now())
		require.NoError(t, b.Node(cachelog.SnapshotPrefix, "n", 1, time.Now()))
		require.NoError(t, b.Type(resourcev3.ClusterType, "1"))
		resources := make([]*journal.Resource, size)
		for i := range resources {
			resources[i] = &journal.Resource{Name: fmt.Sprintf("service-%06d", i), TypeURL: resourcev3.ClusterType, Version: "1"}
		}
		require.NoError(t, b.Resources(resources))
		l := newLog(t)
		l.forget()
		l.state = b.Build()
		c := newCache(l)
		var before, after runtime.MemStats
		var sum uint64
		for i := range 20 {
			w := deltaWatch(t, c, "n", resourcev3.ClusterType, versionsOf(c, "n"))
			one := items(clusterOf(resources[size/2].Name, fmt.Sprint(i)))
			runtime.ReadMemStats(&before)
			_, err := c.UpdateResources(context.Background(), "n", map[string][]types.ResourceWithTTL{resourcev3.ClusterType: one}, nil, fmt.Sprint(i))
			runtime.ReadMemStats(&after)
			require.NoError(t, err)
			require.Len(t, receive(t, w).GetReturnedResources(), size)
			sum += after.TotalAlloc - before.TotalAlloc
		}
		return sum / 20
	}
	small, large := cost(100), cost(50_000)
	t.Logf("%d bytes allocated in a node of 100 resources, %d in one of 50,000", small, large)
	require.Less(t, large, small+20_000)
}
