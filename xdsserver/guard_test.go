package xdsserver_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	clusterservice "github.com/envoyproxy/go-control-plane/envoy/service/cluster/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/xdswal/xdswal/internal/logtest"
	"github.com/xdswal/xdswal/journal"
	"github.com/xdswal/xdswal/xdsserver"
)

// refusals records the reasons for which streams were refused.
type refusals struct {
	mu      sync.Mutex
	reasons []string
}

func (r *refusals) hooks() xdsserver.Hooks {
	return xdsserver.Hooks{Refused: func(_, _, reason string) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.reasons = append(r.reasons, reason)
	}}
}

func (r *refusals) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.reasons...)
}

// A stream over a bound ends with a status that names the bound, and others go on.
func TestBounds(t *testing.T) {
	node := func(id string) *corev3.Node { return &corev3.Node{Id: id} }
	metadata, err := structpb.NewStruct(map[string]any{"x": strings.Repeat("x", 2000)})
	require.NoError(t, err)
	for _, test := range []struct {
		reason, message string
		code            codes.Code
		requests        []*discoveryv3.DeltaDiscoveryRequest
	}{
		{"unknown type", `type URL "type.googleapis.com/garbage" is unknown`, codes.InvalidArgument, []*discoveryv3.DeltaDiscoveryRequest{
			{Node: node("n"), TypeUrl: "type.googleapis.com/garbage"},
		}},
		{"node id", `changed from "n" to "m"`, codes.InvalidArgument, []*discoveryv3.DeltaDiscoveryRequest{
			{Node: node("n"), TypeUrl: resourcev3.ClusterType}, {Node: node("m"), TypeUrl: resourcev3.ClusterType},
		}},
		{"node size", "more than 1000", codes.ResourceExhausted, []*discoveryv3.DeltaDiscoveryRequest{
			{Node: &corev3.Node{Id: "n", Metadata: metadata}, TypeUrl: resourcev3.ClusterType},
		}},
		{"types", "more than 2 types", codes.ResourceExhausted, []*discoveryv3.DeltaDiscoveryRequest{
			{Node: node("n"), TypeUrl: resourcev3.ClusterType}, {TypeUrl: resourcev3.RouteType}, {TypeUrl: resourcev3.SecretType},
		}},
		{"names", "more than 10 names", codes.ResourceExhausted, []*discoveryv3.DeltaDiscoveryRequest{
			{Node: node("n"), TypeUrl: resourcev3.EndpointType, ResourceNamesSubscribe: numbered("e", 6)},
			{TypeUrl: resourcev3.RouteType, ResourceNamesSubscribe: numbered("r", 5)},
		}},
		{"on-demand names", "more than 3 names beside wildcards", codes.ResourceExhausted, []*discoveryv3.DeltaDiscoveryRequest{
			{Node: node("n"), TypeUrl: resourcev3.ClusterType, ResourceNamesSubscribe: []string{"*"}},
			{TypeUrl: resourcev3.ClusterType, ResourceNamesSubscribe: numbered("c", 4)},
		}},
		{"names", "the request has 11 names", codes.ResourceExhausted, []*discoveryv3.DeltaDiscoveryRequest{
			{Node: node("n"), TypeUrl: resourcev3.ClusterType, ResourceNamesUnsubscribe: numbered("c", 11)},
		}},
		{"names", "more than 10 names", codes.ResourceExhausted, []*discoveryv3.DeltaDiscoveryRequest{
			{Node: node("unknown"), TypeUrl: resourcev3.ClusterType, InitialResourceVersions: versions(numbered("c", 11))},
		}},
		{"names size", "more than 2000 bytes", codes.ResourceExhausted, []*discoveryv3.DeltaDiscoveryRequest{
			{Node: node("n"), TypeUrl: resourcev3.EndpointType, ResourceNamesSubscribe: []string{strings.Repeat("x", 1000)}},
			{TypeUrl: resourcev3.EndpointType, ResourceNamesSubscribe: []string{strings.Repeat("y", 1001)}},
		}},
		{"names size", "more than 2000 bytes", codes.ResourceExhausted, []*discoveryv3.DeltaDiscoveryRequest{
			{Node: node("unknown"), TypeUrl: resourcev3.ClusterType, InitialResourceVersions: versions([]string{strings.Repeat("x", 2000)})},
		}},
	} {
		t.Run(test.reason+": "+test.message, func(t *testing.T) {
			var refused refusals
			w := newWorld(t, xdsserver.Options{
				Hooks: refused.hooks(), MaxNodeBytes: 1000, MaxTypes: 2, MaxNames: 10, MaxNamesBytes: 2000, MaxOnDemandNames: 3,
			})
			w.set("n", "1", edsCluster("a", ""))
			other := w.delta()
			other.subscribe(resourcev3.ClusterType)
			other.expect("Cluster +a")
			bad := w.delta()
			for _, req := range test.requests {
				require.NoError(t, bad.stream.Send(req))
			}
			select {
			case err := <-bad.ended:
				require.Equal(t, test.code, status.Code(err))
				require.ErrorContains(t, err, test.message)
			case <-time.After(timeout):
				require.FailNow(t, "the stream was not ended")
			}
			require.Equal(t, []string{test.reason}, refused.all())
			w.set("n", "2", edsCluster("b", ""))
			other.expect("Cluster +b -a")
		})
	}
}

func versions(names []string) map[string]string {
	out := map[string]string{}
	for _, name := range names {
		out[name] = "1"
	}
	return out
}

// Each name is compared with all globs, so a client that subscribes to many could keep the
// server busy, and its session locked, for hours.
func TestManyGlobs(t *testing.T) {
	var refused refusals
	w := newWorld(t, xdsserver.Options{Hooks: refused.hooks()})
	c := w.delta()
	globs := numbered("xdstp://a/b/*?x=", 100)
	c.subscribe(resourcev3.ClusterType, globs...)
	c.subscribe(resourcev3.ClusterType, globs...)
	c.subscribe(resourcev3.EndpointType, globs...)
	require.Eventually(t, func() bool {
		clients := w.server.Clients()
		return len(clients) == 1 && len(clients[0].Types) == 2
	}, timeout, time.Millisecond)
	require.Empty(t, refused.all())
	c.subscribe(resourcev3.ClusterType, "xdstp://a/b/*?x=100")
	require.ErrorContains(t, <-c.ended, "more than 100 globs")
	require.Equal(t, []string{"globs"}, refused.all())
}

func TestStreamsOfAPeer(t *testing.T) {
	var refused refusals
	w := newWorld(t, xdsserver.Options{Hooks: refused.hooks(), MaxStreamsPerPeer: 2})
	w.set("n", "1", edsCluster("a", ""))
	for range 2 {
		c := w.delta()
		c.subscribe(resourcev3.ClusterType)
		c.expect("Cluster +a")
	}
	third := w.delta()
	require.ErrorContains(t, <-third.ended, "more than 2 streams")
	require.Equal(t, []string{"streams of a peer"}, refused.all())
}

// What is refused for its size is logged with its node, in the first request of a stream
// too, and beyond what gRPC receives if the node is known.
func TestRequestSize(t *testing.T) {
	for _, row := range []struct {
		name    string
		isFirst bool
		mib     int
	}{{"first", true, 65}, {"later", false, 65}, {"later, over gRPC's bound", false, 129}} {
		t.Run(row.name, func(t *testing.T) {
			logs := &logtest.Buffer{}
			w := newWorld(t, xdsserver.Options{Logger: slog.New(slog.NewTextHandler(logs, nil))})
			c := w.delta()
			large := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: resourcev3.EndpointType, ResourceNamesSubscribe: []string{strings.Repeat("x", row.mib<<20)}}
			if row.isFirst {
				large.Node = &corev3.Node{Id: "n"}
			} else {
				c.subscribe(resourcev3.ClusterType)
			}
			c.send(large)
			require.Equal(t, codes.ResourceExhausted, status.Code(<-c.ended))
			// gRPC may end the stream before the server has logged it.
			require.Eventually(t, func() bool { return strings.Contains(logs.String(), `reason="request size"`) }, timeout, time.Millisecond)
			require.Contains(t, logs.String(), "node=n")
		})
	}
}

// Clients that are refused again and again do not fill the log, and each of them is counted.
func TestLogOfRefusals(t *testing.T) {
	const streams = 300
	logs := &logtest.Buffer{}
	var refused refusals
	w := newWorld(t, xdsserver.Options{Logger: slog.New(slog.NewTextHandler(logs, nil)), Hooks: refused.hooks()})
	for range streams {
		c := w.delta()
		c.send(&discoveryv3.DeltaDiscoveryRequest{})
		require.Equal(t, codes.InvalidArgument, status.Code(<-c.ended))
	}
	require.Len(t, refused.all(), streams)
	require.Less(t, strings.Count(logs.String(), "xDS stream refused"), streams)
}

// A delta client with 100,000 resources reconnects: its request is 7 MB.
func TestLargeReconnect(t *testing.T) {
	w := newWorld(t)
	versions := map[string]string{}
	for _, name := range numbered("outbound|8080||service-with-a-long-name-", 100_000) {
		versions[name] = "0123456789abcdef"
	}
	w.set("n", "1", edsCluster("a", ""))
	c := w.delta()
	c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: resourcev3.ClusterType, InitialResourceVersions: versions})
	c.expect("Cluster +a")
	resp, _ := c.receive()
	require.Len(t, resp.GetRemovedResources(), 100_000)
}

func TestServiceOfOneType(t *testing.T) {
	var refused refusals
	w := newWorld(t, xdsserver.Options{Hooks: refused.hooks()})
	w.set("n", "1", edsCluster("a", ""))
	stream, err := clusterservice.NewClusterDiscoveryServiceClient(w.conn).StreamClusters(t.Context())
	require.NoError(t, err)
	require.NoError(t, stream.Send(&discoveryv3.DiscoveryRequest{Node: &corev3.Node{Id: "n"}}))
	resp, err := stream.Recv()
	require.NoError(t, err)
	require.Len(t, resp.GetResources(), 1)
	require.Equal(t, resourcev3.ClusterType, resp.GetTypeUrl())
	require.NoError(t, stream.Send(&discoveryv3.DiscoveryRequest{TypeUrl: resourcev3.RouteType}))
	_, err = stream.Recv()
	require.Equal(t, codes.InvalidArgument, status.Code(err))
	require.Equal(t, []string{"wrong type"}, refused.all())
}

func TestMux(t *testing.T) {
	w := newWorld(t)
	linear := w.store.LinearCache(resourcev3.EndpointType)
	mux := &cachev3.MuxCache{
		Classify:      func(r *cachev3.Request) string { return r.GetTypeUrl() },
		ClassifyDelta: func(r *cachev3.DeltaRequest) string { return r.GetTypeUrl() },
		Caches:        map[string]cachev3.Cache{resourcev3.ClusterType: w.cache, resourcev3.EndpointType: linear},
	}
	var refused refusals
	w.server = xdsserver.NewServer(t.Context(), mux, nil, xdsserver.Options{Hooks: refused.hooks()})
	w.conn = serve(t, w.server)
	w.set("n", "1", edsCluster("a", ""))
	require.NoError(t, linear.UpdateResource("a", assignment("a", 1)))
	c := w.delta()
	c.subscribe(resourcev3.ClusterType)
	c.expect("Cluster +a")
	c.subscribe(resourcev3.EndpointType, "a")
	c.expect("ClusterLoadAssignment +a")
	require.NoError(t, linear.UpdateResource("a", assignment("a", 2)))
	c.expect("ClusterLoadAssignment +a")
	c.subscribe(resourcev3.RouteType)
	require.Equal(t, codes.NotFound, status.Code(<-c.ended))
	require.Equal(t, []string{"no cache"}, refused.all())
}

func TestForeignCache(t *testing.T) {
	require.PanicsWithValue(t, "xdsserver: cannot serve a *cache.snapshotCache: use a cache of package xdscache, or go-control-plane's server", func() {
		xdsserver.NewServer(t.Context(), cachev3.NewSnapshotCache(false, cachev3.IDHash{}, nil), nil)
	})
	require.Panics(t, func() {
		xdsserver.NewServer(t.Context(), newWorld(t).cache, nil, xdsserver.Options{AckTimeout: -5})
	})
}

func TestClientsAndRejections(t *testing.T) {
	const body = "the body of a resource"
	logs := &logtest.Buffer{}
	rejections := make(chan xdsserver.Rejection, 10)
	w := newWorld(t, xdsserver.Options{
		Logger: slog.New(slog.NewTextHandler(logs, nil)),
		Hooks:  xdsserver.Hooks{Rejected: func(r xdsserver.Rejection) { rejections <- r }},
	})
	require.Empty(t, w.server.Clients())
	w.set("n", "1", edsCluster("a", ""), assignment("a", 1))
	c := w.delta()
	c.subscribe(resourcev3.ClusterType)
	clusters, _ := c.receive()
	c.subscribe(resourcev3.EndpointType, "a")
	c.expect("ClusterLoadAssignment +a")
	client := func() xdsserver.Client {
		clients := w.server.Clients()
		require.Len(t, clients, 1)
		return clients[0]
	}
	require.Eventually(t, func() bool { return client().Types[1].Acked.Sequence == 1 }, timeout, time.Millisecond)
	require.Equal(t, "n", client().Node)
	require.True(t, client().Delta)
	require.NotEmpty(t, client().Peer)
	require.True(t, client().Types[0].Wildcard)
	require.True(t, client().Types[0].Warming)
	require.Zero(t, client().Types[0].Acked)
	require.Equal(t, xdsserver.AnswerStatus{Sequence: 1, Version: "1"}, client().Types[0].Sent)
	require.Equal(t, []string{"a"}, client().Types[1].Names)
	require.Equal(t, 1, client().Types[1].NumNames)

	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err := w.server.WaitAcked(ctx, "n", 1)
	var notAcked *xdsserver.NotAckedError
	require.ErrorAs(t, err, &notAcked)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Len(t, notAcked.Clients, 1)
	require.Len(t, notAcked.Clients[0].Types, 1)
	require.Equal(t, resourcev3.ClusterType, notAcked.Clients[0].Types[0].TypeURL)

	c.send(&discoveryv3.DeltaDiscoveryRequest{
		TypeUrl: resourcev3.ClusterType, ResponseNonce: clusters.GetNonce(),
		ErrorDetail: status.New(codes.Internal, "no such filter\n"+body).Proto(),
	})
	require.Equal(t, "no such filter", (<-rejections).Error)
	require.Equal(t, xdsserver.AnswerStatus{Sequence: 1, Version: "1"}, client().Types[0].Rejected)
	require.ErrorContains(t, w.server.WaitAcked(doneContext(), "n", 1), "rejected: no such filter")
	require.Contains(t, logs.String(), "no such filter")
	require.NotContains(t, logs.String(), body)

	w.set("n", "2", edsCluster("a", "good"), assignment("a", 1))
	done := make(chan error, 1)
	go func() { done <- w.server.WaitAcked(t.Context(), "n", 2) }()
	c.expect("Cluster +a")
	c.expect("ClusterLoadAssignment +a")
	require.NoError(t, <-done)
	require.NoError(t, w.server.WaitAcked(t.Context(), "nobody", 2))

	require.NoError(t, c.stream.CloseSend())
	require.Error(t, <-c.ended)
	require.Eventually(t, func() bool { return len(w.server.Clients()) == 0 }, timeout, time.Millisecond)
	require.NoError(t, w.server.WaitAcked(t.Context(), "n", 1000))
}

// A sequence may be that of an event of another node, of which the clients of this node
// hear nothing.
func TestWaitAckedForAnotherNodesEvent(t *testing.T) {
	w := newWorld(t)
	w.set("n", "1", edsCluster("a", ""))
	c := w.delta()
	c.subscribe(resourcev3.ClusterType)
	c.expect("Cluster +a")
	require.NoError(t, w.server.WaitAcked(t.Context(), "n", 1))
	seq := w.set("m", "1", edsCluster("b", ""))
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	require.NoError(t, w.server.WaitAcked(ctx, "n", journal.Sequence(seq)))
}

// A client that never sends a node is one of the node with the empty id.
func TestWaitAckedWithoutANode(t *testing.T) {
	w := newWorld(t)
	w.set("", "1", edsCluster("a", ""))
	c := w.delta()
	require.NoError(t, c.stream.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: resourcev3.ClusterType}))
	c.receive()
	require.ErrorContains(t, w.server.WaitAcked(doneContext(), "", 1), "not acknowledged")
}

func TestErrorOfASecret(t *testing.T) {
	rejections := make(chan xdsserver.Rejection, 1)
	w := newWorld(t, xdsserver.Options{Hooks: xdsserver.Hooks{Rejected: func(r xdsserver.Rejection) { rejections <- r }}})
	w.set("n", "1", secret("key"))
	c := w.delta()
	c.subscribe(resourcev3.SecretType, "key")
	resp, _ := c.receive()
	c.send(&discoveryv3.DeltaDiscoveryRequest{
		TypeUrl: resourcev3.SecretType, ResponseNonce: resp.GetNonce(), ErrorDetail: status.New(codes.Internal, "bad key: SECRET").Proto(),
	})
	require.NotContains(t, (<-rejections).Error, "SECRET")
}

// Streams and connections that come and go leave nothing behind: no memory, goroutine or
// file descriptor.
func TestManyStreams(t *testing.T) {
	streams := 10_000
	if testing.Short() {
		streams = 1000
	}
	w := newWorld(t)
	w.set("n", "1", edsCluster("a", ""))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	g := grpc.NewServer(xdsserver.GRPCOptions()...)
	w.server.Register(g)
	go func() { _ = g.Serve(l) }()
	t.Cleanup(g.Stop)
	one := func(conn *grpc.ClientConn) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
		require.NoError(t, err)
		require.NoError(t, stream.Send(&discoveryv3.DeltaDiscoveryRequest{
			Node: &corev3.Node{Id: "n", UserAgentName: strings.Repeat("x", 10_000)}, TypeUrl: resourcev3.ClusterType,
		}))
		_, err = stream.Recv()
		require.NoError(t, err)
	}
	const perConnection = 10
	connection := func() {
		conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
		require.NoError(t, err)
		defer conn.Close()
		for range perConnection {
			one(conn)
		}
	}
	descriptors := func() int {
		open, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			return 0 // another system than Linux
		}
		return len(open)
	}
	measure := func() (heap uint64, goroutines int) {
		require.Eventually(t, func() bool { return len(w.server.Clients()) == 0 }, timeout, time.Millisecond)
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc, runtime.NumGoroutine()
	}
	before := descriptors()
	for range 10 {
		connection()
	}
	require.Eventually(t, func() bool { return descriptors() <= before }, timeout, time.Millisecond)
	heap, goroutines := measure()
	var wg sync.WaitGroup
	for range 10 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range streams / 10 / perConnection {
				connection()
			}
		}()
	}
	wg.Wait()
	require.Eventually(t, func() bool { return descriptors() <= before }, timeout, time.Millisecond, "descriptors are left open")
	after, goroutinesAfter := measure()
	t.Logf("after %d streams: heap %d -> %d bytes, goroutines %d -> %d", streams, heap, after, goroutines, goroutinesAfter)
	require.LessOrEqual(t, goroutinesAfter, goroutines+10)
	require.Less(t, after, heap+uint64(streams)*100, "less than 100 bytes a stream")
}

// Clients that do not read hold up nobody: neither updates nor other clients.
func TestClientsThatDoNotRead(t *testing.T) {
	nodes, stuck := 1000, 100
	if testing.Short() {
		nodes, stuck = 200, 20
	}
	w := newWorld(t)
	large := strings.Repeat("x", 1<<20)
	for range stuck {
		stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(w.conn).DeltaAggregatedResources(t.Context())
		require.NoError(t, err)
		for _, url := range []string{resourcev3.ClusterType, resourcev3.RouteType, resourcev3.ListenerType, resourcev3.SecretType} {
			require.NoError(t, stream.Send(&discoveryv3.DeltaDiscoveryRequest{Node: &corev3.Node{Id: "stuck"}, TypeUrl: url}))
		}
	}
	require.Eventually(t, func() bool { return len(w.server.Clients()) == stuck }, timeout, time.Millisecond)
	for i := range 5 {
		w.set("stuck", strings.Repeat("v", i+1), edsCluster("a", large[:len(large)-i]))
	}
	c := w.delta()
	c.send(&discoveryv3.DeltaDiscoveryRequest{Node: &corev3.Node{Id: "n0"}, TypeUrl: resourcev3.ClusterType})
	for _, node := range numbered("n", nodes) {
		w.set(node, "1", edsCluster("a", ""))
	}
	c.expect("Cluster +a")
	err := w.server.WaitAcked(doneContext(), "stuck", 1)
	var notAcked *xdsserver.NotAckedError
	require.True(t, errors.As(err, &notAcked))
	require.Len(t, notAcked.Clients, stuck)
}

// An own type that is registered is answered, also when a client requests it before it is
// set, and when it is set in a form that cannot list its types.
func TestOwnTypes(t *testing.T) {
	const own = "type.googleapis.com/google.protobuf.StringValue"
	w := newWorld(t, xdsserver.Options{Types: []string{own}})
	c := w.delta()
	c.subscribe(own, "a")
	require.Eventually(t, func() bool {
		clients := w.server.Clients()
		return len(clients) == 1 && len(clients[0].Types) == 1
	}, timeout, time.Millisecond)
	_, err := w.cache.Set(t.Context(), "n", ownSnapshot{own, wrapperspb.String("a")})
	require.NoError(t, err)
	c.expect("StringValue +a")
	_, err = w.cache.Set(t.Context(), "n", ownSnapshot{own, wrapperspb.String("b")})
	require.NoError(t, err)
	c.expect("StringValue +a")
}

// ownSnapshot has one resource, named a.
type ownSnapshot struct {
	typeURL  string
	resource types.Resource
}

func (s ownSnapshot) GetVersion(typeURL string) string {
	if typeURL == s.typeURL {
		return "1"
	}
	return ""
}

func (s ownSnapshot) GetResources(typeURL string) map[string]types.Resource {
	if typeURL == s.typeURL {
		return map[string]types.Resource{"a": s.resource}
	}
	return nil
}

func (s ownSnapshot) GetResourcesAndTTL(typeURL string) map[string]types.ResourceWithTTL {
	out := map[string]types.ResourceWithTTL{}
	for name, r := range s.GetResources(typeURL) {
		out[name] = types.ResourceWithTTL{Resource: r}
	}
	return out
}

func (ownSnapshot) ConstructVersionMap() error             { return nil }
func (ownSnapshot) GetVersionMap(string) map[string]string { return nil }
