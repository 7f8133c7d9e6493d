package xdsserver_test

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/stretchr/testify/require"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/xdscache"
)

const (
	ruleCDS  = resourcev3.ClusterType
	ruleEDS  = resourcev3.EndpointType
	ruleLDS  = resourcev3.ListenerType
	ruleRDS  = resourcev3.RouteType
	ruleSDS  = resourcev3.SecretType
	ruleVHDS = resourcev3.VirtualHostType

	// ruleGrace is more than the time after which a client is told that a name does not
	// exist, and less than the bound of an ACK.
	ruleGrace = modelBound - time.Second

	// ruleAsk is how long a removal waits for a client to ask for the routes of listeners.
	ruleAsk = 500 * time.Millisecond
)

// ruleServer is a server over gRPC, in a bubble of virtual time.
type ruleServer struct {
	t     *testing.T
	ctx   context.Context
	cache *xdscache.SnapshotCache
	dial  func(context.Context, string) (net.Conn, error)
	conns []*grpc.ClientConn
}

// ruleTest runs a test in SotW and in delta.
func ruleTest(t *testing.T, test func(t *testing.T, f *ruleServer, delta bool)) {
	t.Helper()
	t.Run("SotW", func(t *testing.T) { ruleBubble(t, func(t *testing.T, f *ruleServer) { test(t, f, false) }) })
	t.Run("delta", func(t *testing.T) { ruleBubble(t, func(t *testing.T, f *ruleServer) { test(t, f, true) }) })
}

func ruleBubble(t *testing.T, test func(t *testing.T, f *ruleServer), opts ...xdscache.SnapshotOption) {
	// While the server is busy, virtual time stands still.
	watchdog := time.AfterFunc(30*time.Second, func() { panic(t.Name() + ": the server is busy for 30 seconds") })
	defer watchdog.Stop()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(context.Background(), 24*time.Hour)
		defer cancel()
		store, err := xdswal.Open(ctx, xdswal.Options{MemoryOnly: true})
		require.NoError(t, err)
		defer func() { require.NoError(t, store.Close(context.Background())) }()
		// With the setting that withholds types in go-control-plane's server.
		f := &ruleServer{t: t, ctx: ctx, cache: store.SnapshotCache(true, cachev3.IDHash{}, nil, opts...)}
		g := grpc.NewServer()
		discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, newModelServer(ctx, f.cache))
		lis := bufconn.Listen(1 << 16)
		go g.Serve(lis)
		defer g.Stop()
		defer func() {
			for _, conn := range f.conns {
				conn.Close()
			}
		}()
		f.dial = func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }
		test(t, f)
	})
}

// set sets all resources of a node. Each text is a type's short name and its resources
// with their variants, as "CDS c0=1 c1=2".
func (f *ruleServer) set(node, version string, texts ...string) {
	f.t.Helper()
	resources := map[string][]types.Resource{}
	for _, text := range texts {
		typeURL, items := ruleParse(f.t, text)
		for _, it := range items {
			resources[typeURL] = append(resources[typeURL], it.message)
		}
	}
	f.setMessages(node, version, resources)
}

func (f *ruleServer) setMessages(node, version string, resources map[string][]types.Resource) {
	f.t.Helper()
	snapshot, err := cachev3.NewSnapshot(version, resources)
	require.NoError(f.t, err)
	ctx, cancel := context.WithTimeout(f.ctx, time.Second)
	defer cancel()
	_, err = f.cache.Set(ctx, node, snapshot)
	require.NoError(f.t, err)
}

// update changes some resources of a node; a variant of "-" removes one.
func (f *ruleServer) update(node string, texts ...string) {
	f.t.Helper()
	upserts := map[string][]types.ResourceWithTTL{}
	var deletes []xdscache.ResourceName
	for _, text := range texts {
		typeURL, items := ruleParse(f.t, text)
		for _, it := range items {
			if it.message == nil {
				deletes = append(deletes, xdscache.ResourceName{TypeURL: typeURL, Name: it.name})
			} else {
				upserts[typeURL] = append(upserts[typeURL], types.ResourceWithTTL{Resource: it.message})
			}
		}
	}
	ctx, cancel := context.WithTimeout(f.ctx, time.Second)
	defer cancel()
	_, err := f.cache.UpdateResources(ctx, node, upserts, deletes, fmt.Sprint(time.Now().UnixNano()))
	require.NoError(f.t, err)
}

func (f *ruleServer) clear(node string) {
	f.t.Helper()
	_, err := f.cache.Clear(f.ctx, node)
	require.NoError(f.t, err)
}

func ruleParse(t *testing.T, text string) (string, []*modelItem) {
	words := strings.Fields(text)
	var typeURL string
	for url, short := range modelShort {
		if short == words[0] {
			typeURL = url
		}
	}
	require.NotEmpty(t, typeURL, text)
	var items []*modelItem
	for _, word := range words[1:] {
		name, variant, _ := strings.Cut(word, "=")
		if variant == "-" {
			items = append(items, &modelItem{name: name})
			continue
		}
		var n int
		_, err := fmt.Sscan(variant, &n)
		require.NoError(t, err, text)
		items = append(items, newModelItem(typeURL, name, n))
	}
	return typeURL, items
}

// ruleResponse is a response in either protocol.
type ruleResponse struct {
	typeURL, nonce, version string
	resources               []*discoveryv3.Resource
	removed                 []string
}

// String returns the response in the form that set takes, in delta with "c0=-" for what
// is removed. An empty assignment is "c0=empty".
func (r *ruleResponse) String() string {
	short := modelShort[r.typeURL]
	if short == "" {
		short = r.typeURL
	}
	var words []string
	for _, res := range r.resources {
		words = append(words, res.GetName()+"="+contentName(r.typeURL, modelResource{name: res.GetName(), content: string(res.GetResource().GetValue())}))
	}
	for _, name := range r.removed {
		words = append(words, name+"=-")
	}
	slices.Sort(words)
	return strings.Join(append([]string{short}, words...), " ")
}

// ruleClient is a client with one ADS stream.
type ruleClient struct {
	f     *ruleServer
	node  string
	delta bool
	conn  *grpc.ClientConn
	sotw  discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesClient
	incr  discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
	// Of SotW, by type: the subscription, and the last response that the client replied to.
	names   map[string][]string
	replied map[string]*ruleResponse

	mu       sync.Mutex
	received []*ruleResponse
	err      error
}

func (f *ruleServer) connect(node string, delta bool) *ruleClient {
	c := f.connectStuck(node, delta)
	go c.read()
	return c
}

// connectStuck returns a client that never reads.
func (f *ruleServer) connectStuck(node string, delta bool) *ruleClient {
	conn, err := grpc.NewClient("passthrough:rules", grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(f.dial))
	require.NoError(f.t, err)
	f.conns = append(f.conns, conn)
	c := &ruleClient{f: f, node: node, delta: delta, conn: conn, names: map[string][]string{}, replied: map[string]*ruleResponse{}}
	ads := discoveryv3.NewAggregatedDiscoveryServiceClient(conn)
	if delta {
		c.incr, err = ads.DeltaAggregatedResources(f.ctx)
	} else {
		c.sotw, err = ads.StreamAggregatedResources(f.ctx)
	}
	require.NoError(f.t, err)
	return c
}

func (c *ruleClient) close() {
	c.f.t.Helper()
	require.NoError(c.f.t, c.conn.Close())
	synctest.Wait()
}

func (c *ruleClient) read() {
	for {
		r, err := c.recv()
		c.mu.Lock()
		if err != nil {
			c.err = err
			c.mu.Unlock()
			return
		}
		c.received = append(c.received, r)
		c.mu.Unlock()
	}
}

func (c *ruleClient) recv() (*ruleResponse, error) {
	if c.delta {
		m, err := c.incr.Recv()
		return &ruleResponse{m.GetTypeUrl(), m.GetNonce(), m.GetSystemVersionInfo(), m.GetResources(), m.GetRemovedResources()}, err
	}
	m, err := c.sotw.Recv()
	r := &ruleResponse{typeURL: m.GetTypeUrl(), nonce: m.GetNonce(), version: m.GetVersionInfo()}
	for _, res := range m.GetResources() {
		if wrapped := (&discoveryv3.Resource{}); res.MessageIs(wrapped) && res.UnmarshalTo(wrapped) == nil {
			r.resources = append(r.resources, wrapped)
			continue
		}
		body, err := res.UnmarshalNew()
		if err != nil {
			return nil, err
		}
		r.resources = append(r.resources, &discoveryv3.Resource{Name: cachev3.GetResourceName(body), Resource: res})
	}
	return r, err
}

// subscribe adds names to the subscription of a type; none means all resources.
func (c *ruleClient) subscribe(typeURL string, names ...string) {
	c.f.t.Helper()
	c.resume(typeURL, nil, names...)
}

// resume is subscribe with versions that the client has (delta).
func (c *ruleClient) resume(typeURL string, versions map[string]string, names ...string) {
	c.f.t.Helper()
	c.names[typeURL] = append(c.names[typeURL], names...)
	if c.delta {
		c.sendDelta(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: typeURL, ResourceNamesSubscribe: names, InitialResourceVersions: versions})
	} else {
		r := &discoveryv3.DiscoveryRequest{TypeUrl: typeURL, ResourceNames: c.names[typeURL]}
		if last := c.replied[typeURL]; last != nil {
			r.VersionInfo, r.ResponseNonce = last.version, last.nonce
		}
		c.sendSotw(r)
	}
}

func (c *ruleClient) sendDelta(r *discoveryv3.DeltaDiscoveryRequest) {
	c.f.t.Helper()
	r.Node = &corev3.Node{Id: c.node}
	require.NoError(c.f.t, c.incr.Send(r))
}

func (c *ruleClient) sendSotw(r *discoveryv3.DiscoveryRequest) {
	c.f.t.Helper()
	r.Node = &corev3.Node{Id: c.node}
	require.NoError(c.f.t, c.sotw.Send(r))
}

func (c *ruleClient) ack(r *ruleResponse) { c.reply(r, r.version, nil) }

func (c *ruleClient) nack(r *ruleResponse, version string) {
	c.reply(r, version, &rpcstatus.Status{Code: 3, Message: "rejected by the test"})
}

func (c *ruleClient) reply(r *ruleResponse, version string, detail *rpcstatus.Status) {
	c.f.t.Helper()
	c.replied[r.typeURL] = r
	if c.delta {
		c.sendDelta(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.typeURL, ResponseNonce: r.nonce, ErrorDetail: detail})
	} else {
		c.sendSotw(&discoveryv3.DiscoveryRequest{TypeUrl: r.typeURL, ResourceNames: c.names[r.typeURL], VersionInfo: version, ResponseNonce: r.nonce, ErrorDetail: detail})
	}
}

// responses returns what the client has received since the last call, once the server
// has nothing to do.
func (c *ruleClient) responses() []*ruleResponse {
	c.f.t.Helper()
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	require.NoError(c.f.t, c.err, "the stream has ended")
	out := c.received
	c.received = nil
	return out
}

func ruleTexts(responses []*ruleResponse) []string {
	texts := []string{}
	for _, r := range responses {
		texts = append(texts, r.String())
	}
	return texts
}

// got returns the texts of what the client has received, and acknowledges nothing.
func (c *ruleClient) got() []string {
	c.f.t.Helper()
	return ruleTexts(c.responses())
}

// all reads and acknowledges until nothing more comes, and returns the texts.
func (c *ruleClient) all() []string {
	c.f.t.Helper()
	return ruleTexts(c.allResponses())
}

func (c *ruleClient) allResponses() []*ruleResponse {
	c.f.t.Helper()
	var all []*ruleResponse
	for {
		responses := c.responses()
		if len(responses) == 0 {
			return all
		}
		for _, r := range responses {
			c.ack(r)
		}
		all = append(all, responses...)
		require.Less(c.f.t, len(all), 100, "the server does not stop sending")
	}
}

// versionsOf returns the versions of the resources in responses.
func versionsOf(responses []*ruleResponse, typeURL string) map[string]string {
	versions := map[string]string{}
	for _, r := range responses {
		if r.typeURL == typeURL {
			for _, res := range r.resources {
				versions[res.GetName()] = res.GetVersion()
			}
		}
	}
	return versions
}

// The assignment of a cluster follows each change of the cluster, although it is
// unchanged: Envoy warms the cluster anew, does not ask for the assignment in delta, and
// withholds the ACK of the cluster until it has it.
func TestR1AssignmentFollowsCluster(t *testing.T) {
	ruleTest(t, func(t *testing.T, f *ruleServer, delta bool) {
		f.set("n", "1", "CDS c1=0", "EDS s1=0")
		c := f.connect("n", delta)
		c.subscribe(ruleCDS)
		c.all()
		c.subscribe(ruleEDS, "s1")
		require.Equal(t, []string{"EDS s1=0"}, c.all())
		for variant := 1; variant < 4; variant++ {
			f.update("n", fmt.Sprintf("CDS c1=%d", variant))
			got := c.responses()
			require.Equal(t, []string{fmt.Sprintf("CDS c1=%d", variant), "EDS s1=0"}, ruleTexts(got))
			c.ack(got[1]) // Envoy acknowledges the assignment first
			c.ack(got[0])
			require.Empty(t, c.all())
		}
	})
}

// The assignment also follows if the client subscribes to it after the cluster, with the
// version that it has.
func TestR1AssignmentFollowsClusterAfterReconnect(t *testing.T) {
	ruleBubble(t, func(t *testing.T, f *ruleServer) {
		f.set("n", "1", "CDS c1=0 c5=0", "EDS s1=0 c5=0")
		c := f.connect("n", true)
		c.subscribe(ruleCDS)
		c.subscribe(ruleEDS, "s1", "c5")
		first := c.allResponses()
		c.close()

		f.update("n", "CDS c1=1")
		c = f.connect("n", true)
		c.resume(ruleCDS, versionsOf(first, ruleCDS))
		require.Equal(t, []string{"CDS c1=1"}, c.got())
		c.resume(ruleEDS, versionsOf(first, ruleEDS), "s1", "c5")
		require.Equal(t, []string{"EDS s1=0"}, c.got())
	})
}

// A cluster that changes while its assignment is removed is followed by the removal, which
// is not held until the routes are acknowledged: the cluster warms.
func TestR1RemovedAssignmentFollowsCluster(t *testing.T) {
	ruleBubble(t, func(t *testing.T, f *ruleServer) {
		f.set("n", "1", "CDS c0=0", "EDS c0=0", "RDS r0=0")
		c := f.connect("n", true)
		c.subscribe(ruleCDS)
		c.subscribe(ruleEDS, "c0")
		c.subscribe(ruleRDS, "r0")
		c.all()
		f.update("n", "CDS c0=1", "EDS c0=-", "RDS r0=1")
		require.Equal(t, []string{"CDS c0=1", "EDS c0=-"}, c.got())
	})
}

// A client that asks for assignments first is an Envoy that is warming its clusters: it
// gets all assignments that it names, and their clusters.
func TestR2AssignmentsFirst(t *testing.T) {
	ruleBubble(t, func(t *testing.T, f *ruleServer) {
		f.set("n", "1", "CDS c1=0 c5=0", "EDS s1=0 c5=0")
		c := f.connect("n", true)
		c.subscribe(ruleCDS)
		c.subscribe(ruleEDS, "s1", "c5")
		first := c.allResponses()
		c.close()

		c = f.connect("n", true)
		c.resume(ruleEDS, versionsOf(first, ruleEDS), "s1")
		require.Equal(t, []string{"EDS s1=0"}, c.got())
		c.resume(ruleCDS, versionsOf(first, ruleCDS))
		got := c.got()
		require.NotEmpty(t, got)
		require.Contains(t, got[0], "CDS c1=0")
	})
}

// A client that asks for clusters first is trusted: a reconnect without a change costs
// nothing.
func TestR2ClustersFirst(t *testing.T) {
	ruleBubble(t, func(t *testing.T, f *ruleServer) {
		f.set("n", "1", "CDS c1=0 c5=0", "EDS s1=0 c5=0", "LDS l0=0", "RDS r0=0")
		c := f.connect("n", true)
		c.subscribe(ruleCDS)
		c.subscribe(ruleEDS, "s1", "c5")
		c.subscribe(ruleLDS)
		c.subscribe(ruleRDS, "r0")
		first := c.allResponses()
		c.close()

		c = f.connect("n", true)
		c.resume(ruleCDS, versionsOf(first, ruleCDS))
		c.resume(ruleEDS, versionsOf(first, ruleEDS), "s1", "c5")
		c.resume(ruleLDS, versionsOf(first, ruleLDS))
		c.resume(ruleRDS, versionsOf(first, ruleRDS), "r0")
		for _, r := range c.allResponses() {
			require.Empty(t, r.resources, r.String())
			require.Empty(t, r.removed, r.String())
		}
	})
}

// A name that is subscribed to again is sent again: Envoy removed a cluster and added it
// again, and dropped its assignment in between.
func TestR3SubscribedAgain(t *testing.T) {
	ruleTest(t, func(t *testing.T, f *ruleServer, delta bool) {
		f.set("n", "1", "CDS c0=0", "EDS c0=0")
		c := f.connect("n", delta)
		c.subscribe(ruleCDS)
		c.subscribe(ruleEDS, "c0")
		responses := c.allResponses()
		require.Empty(t, c.got())
		if delta {
			c.subscribe(ruleEDS, "c0")
		} else {
			c.ack(responses[len(responses)-1]) // the same request again, with a nonce that was acknowledged
		}
		got := c.responses()
		require.Equal(t, []string{"EDS c0=0"}, ruleTexts(got))
		c.ack(got[0])
		require.Empty(t, c.got())
	})
}

// A SotW client dropped a name and took it up again while a response was on its way to it.
// The request in between has an old nonce, and still says that the client dropped it.
func TestR3DroppedWhileResponseIsOnItsWay(t *testing.T) {
	ruleBubble(t, func(t *testing.T, f *ruleServer) {
		f.set("n", "1", "CDS c0=0 c5=0", "EDS c0=0 c5=0")
		c := f.connect("n", false)
		c.subscribe(ruleEDS, "c0", "c5")
		first := c.responses()
		require.Equal(t, []string{"EDS c0=0 c5=0"}, ruleTexts(first))
		c.ack(first[0])
		f.update("n", "EDS c5=1")
		second := c.responses()
		require.Equal(t, []string{"EDS c5=1"}, ruleTexts(second))
		c.names[ruleEDS] = []string{"c5"}
		c.ack(first[0])
		require.Empty(t, c.got())
		c.names[ruleEDS] = []string{"c0", "c5"}
		c.ack(second[0])
		got := c.responses()
		require.Equal(t, []string{"EDS c0=0"}, ruleTexts(got))
		c.ack(got[0])
		require.Empty(t, c.got())
	})
}

// A SotW client that needs no resource of a type any more may forget the type with its nonce
// (grpc/grpc-node#2875, grpc/grpc-java#11796), and subscribe again on the same stream as if
// the type were new to it. It may have said that it needs none, and ignore what it is sent.
func TestR3WithoutNonce(t *testing.T) {
	ruleBubble(t, func(t *testing.T, f *ruleServer) {
		f.set("n", "1", "EDS c0=0 c5=0")
		c := f.connect("n", false)
		c.subscribe(ruleEDS, "c0")
		require.Equal(t, []string{"EDS c0=0"}, c.all())
		subscribeAnew := func(name, want string) {
			delete(c.names, ruleEDS)
			delete(c.replied, ruleEDS)
			c.subscribe(ruleEDS, name)
			require.Equal(t, []string{want}, c.all())
		}
		subscribeAnew("c0", "EDS c0=0")
		subscribeAnew("c5", "EDS c5=0")
		c.names[ruleEDS] = nil
		c.ack(c.replied[ruleEDS])
		require.Empty(t, c.got())
		subscribeAnew("c5", "EDS c5=0")
		f.update("n", "EDS c5=1")
		require.Equal(t, []string{"EDS c5=1"}, c.got())
		subscribeAnew("c5", "EDS c5=1")
	})
}

// A client subscribes to a name that exists, and that is removed before the client is
// answered. It is told so at once, and is sent the resource when it exists again.
func TestR3SubscribedToWhatIsRemoved(t *testing.T) {
	ruleTest(t, func(t *testing.T, f *ruleServer, delta bool) {
		f.set("n", "1", "CDS c0=0 c5=0", "LDS l0=0", "RDS r0=0 r1=0", "SDS k0=0 k1=0")
		c := f.connect("n", delta)
		c.subscribe(ruleCDS, "c0")
		c.subscribe(ruleLDS)
		c.subscribe(ruleRDS, "r0")
		c.subscribe(ruleSDS, "k0")
		c.all()
		f.clear("n")
		c.subscribe(ruleCDS, "c5")
		c.subscribe(ruleSDS, "k1")
		require.Empty(t, c.got())
		f.set("n", "2", "CDS c0=0", "LDS l0=1", "RDS r0=0 r1=0", "SDS k0=0")
		// Nothing is acknowledged. In SotW, c5 is not sent, which the client never had.
		require.Equal(t, ruleOf(delta, []string{"CDS c5=-", "LDS l0=1", "SDS k1=-"}, []string{"CDS c0=0"}), c.got())
		f.set("n", "3", "CDS c0=0 c5=0", "LDS l0=1", "RDS r0=0 r1=0", "SDS k0=0 k1=0")
		require.Equal(t, ruleOf(delta, []string{"CDS c5=0", "SDS k1=0"}, []string{"CDS c0=0 c5=0", "SDS k1=0"}), c.got())
	})
}

func ruleOf[T any](delta bool, inDelta, inSotw T) T {
	if delta {
		return inDelta
	}
	return inSotw
}

// One update is sent in the order CDS, EDS, LDS, RDS, and then the rest, except that
// nothing else waits with listeners and routes for an ACK.
func TestR4Order(t *testing.T) {
	ruleTest(t, func(t *testing.T, f *ruleServer, delta bool) {
		f.set("n", "1", "CDS c0=0", "EDS c0=0", "LDS l0=0", "RDS r0=0", "SDS k0=0")
		c := f.connect("n", delta)
		// Asked for in another order than the one of the rule.
		c.subscribe(ruleCDS)
		c.subscribe(ruleSDS, "k0")
		c.subscribe(ruleRDS, "r0")
		c.subscribe(ruleLDS)
		c.subscribe(ruleEDS, "c0")
		require.Len(t, c.all(), 5)
		for variant := 1; variant < 4; variant++ {
			f.set("n", fmt.Sprint(variant+1), ruleVariants(variant)...)
			got := c.all()
			require.ElementsMatch(t, ruleVariants(variant), got)
			got = slices.DeleteFunc(got, func(text string) bool { return strings.HasPrefix(text, "SDS") })
			require.Equal(t, ruleVariants(variant)[:4], got)
		}
	})
}

func ruleVariants(variant int) []string {
	var texts []string
	for _, text := range []string{"CDS c0", "EDS c0", "LDS l0", "RDS r0", "SDS k0"} {
		texts = append(texts, fmt.Sprintf("%s=%d", text, variant))
	}
	return texts
}

// An update does not wait for the ACK of another one: Envoy withholds the ACK of
// clusters while it warms them.
func TestR4NoWaitForAnotherUpdate(t *testing.T) {
	ruleTest(t, func(t *testing.T, f *ruleServer, delta bool) {
		f.set("n", "1", "CDS c0=0", "EDS c0=0", "LDS l0=0", "RDS r0=0", "SDS k0=0")
		c := f.connect("n", delta)
		c.subscribe(ruleCDS)
		c.subscribe(ruleEDS, "c0")
		c.subscribe(ruleSDS, "k0")
		c.all()
		for variant := 1; variant < 4; variant++ {
			f.update("n", fmt.Sprintf("CDS c0=%d", variant))
			require.Equal(t, []string{fmt.Sprintf("CDS c0=%d", variant), "EDS c0=0"}, c.got())
			f.update("n", "EDS c0=1", "SDS k0=1")
			require.Equal(t, []string{"EDS c0=1", "SDS k0=1"}, c.got())
			f.update("n", "EDS c0=0", "SDS k0=0")
			require.Equal(t, []string{"EDS c0=0", "SDS k0=0"}, c.got())
		}
	})
}

// The order holds for what has waited for the ACK of clusters until the bound passed, also
// if a route has waited longer than a listener.
func TestR4OrderAfterBound(t *testing.T) {
	ruleTest(t, func(t *testing.T, f *ruleServer, delta bool) {
		f.set("n", "1", "CDS c0=0", "LDS l0=0", "RDS r0=0")
		c := f.connect("n", delta)
		c.subscribe(ruleCDS)
		c.subscribe(ruleLDS)
		c.subscribe(ruleRDS, "r0")
		c.all()
		f.update("n", "CDS c0=1", "RDS r0=1")
		require.Equal(t, []string{"CDS c0=1"}, c.got())
		time.Sleep(modelBound - time.Second)
		f.update("n", "LDS l0=2", "RDS r0=2")
		require.Empty(t, c.got())
		time.Sleep(2 * modelBound)
		require.Equal(t, []string{"LDS l0=2", "RDS r0=2"}, c.got())
	})
}

// Assignments and secrets that nothing refers to withhold nothing.
func TestR5Orphans(t *testing.T) {
	ruleTest(t, func(t *testing.T, f *ruleServer, delta bool) {
		f.set("n", "1", "CDS c0=0", "EDS c0=0 orphan=0", "SDS k0=0 k1=0")
		c := f.connect("n", delta)
		c.subscribe(ruleCDS)
		c.subscribe(ruleEDS, "c0")
		c.subscribe(ruleSDS, "k0")
		require.Equal(t, []string{"CDS c0=0", "EDS c0=0", "SDS k0=0"}, c.all())
		f.set("n", "2", "CDS c0=0", "EDS c0=1 orphan=1", "SDS k0=1 k1=1")
		require.Equal(t, []string{"EDS c0=1", "SDS k0=1"}, c.all())
	})
}

// A name that does not exist is reported after a short grace, also beside a wildcard,
// and is sent when it exists.
func TestR5MissingName(t *testing.T) {
	ruleBubble(t, func(t *testing.T, f *ruleServer) {
		f.set("n", "1", "CDS c0=0", "EDS c0=0", "RDS r0=0")
		c := f.connect("n", true)
		c.subscribe(ruleCDS, "*", "c1")
		c.subscribe(ruleEDS, "s1")
		c.subscribe(ruleVHDS, "r0/example.com")
		time.Sleep(ruleGrace)
		got := c.all()
		require.Subset(t, got, []string{"EDS s1=-", ruleVHDS + " r0/example.com=-"})
		require.Contains(t, strings.Join(got, "\n"), "c1=-")
		time.Sleep(time.Hour)
		require.Empty(t, c.all())
		f.update("n", "CDS c1=1", "EDS s1=1")
		require.Equal(t, []string{"CDS c1=1", "EDS s1=1"}, c.all())
		f.update("n", "EDS s1=-")
		time.Sleep(ruleGrace)
		require.Equal(t, []string{"EDS s1=-"}, c.all())
	})
}

// In SotW a client cannot be told that an assignment does not exist: it gets an empty one.
func TestR5MissingAssignment(t *testing.T) {
	ruleBubble(t, func(t *testing.T, f *ruleServer) {
		f.set("n", "1", "CDS c0=0 c1=0", "EDS c0=0")
		c := f.connect("n", false)
		c.subscribe(ruleCDS)
		c.subscribe(ruleEDS, "c0", "s1")
		time.Sleep(ruleGrace)
		require.Contains(t, strings.Join(c.all(), "\n"), "s1=empty")
		time.Sleep(time.Hour)
		require.Empty(t, c.all())
		f.update("n", "EDS s1=1")
		require.Contains(t, strings.Join(c.all(), "\n"), "s1=1")
	})
}

// A swap of a cluster and of the route to it: the new cluster, then the route, then the
// removal of the old cluster, each when the one before is acknowledged.
func TestR6MakeBeforeBreak(t *testing.T) {
	ruleTest(t, func(t *testing.T, f *ruleServer, delta bool) {
		c := ruleSwap(f, delta)
		added := c.responses()
		require.NotEmpty(t, added)
		require.Equal(t, ruleAdded(delta), ruleTexts(added))
		time.Sleep(ruleGrace)
		require.Empty(t, c.got(), "the route waits for the cluster's ACK")
		c.ack(added[0])
		moved := c.responses()
		require.Equal(t, []string{"LDS l0=1", "RDS r0=1"}, ruleTexts(moved))
		c.ack(moved[0])
		time.Sleep(ruleGrace)
		require.Empty(t, c.got(), "the removal waits for the route's ACK")
		c.ack(moved[1])
		require.Equal(t, ruleRemoved(delta), c.all())
	})
}

// A client asks for the routes that a listener names after it has acknowledged the listener,
// which had its routes inline before. Until it has them, it uses the old cluster.
func TestR6RoutesOfNewListener(t *testing.T) {
	ruleTest(t, func(t *testing.T, f *ruleServer, delta bool) {
		f.set("n", "1", "CDS c0=0 c5=0", "LDS l0=0")
		c := f.connect("n", delta)
		c.subscribe(ruleCDS)
		c.subscribe(ruleLDS)
		c.all()
		f.set("n", "2", "CDS c5=0", "LDS l0=1", "RDS r0=1")
		require.Equal(t, []string{"LDS l0=1"}, c.all())
		time.Sleep(ruleAsk - time.Millisecond)
		c.subscribe(ruleRDS, "r0")
		routes := c.responses()
		require.Equal(t, []string{"RDS r0=1"}, ruleTexts(routes))
		time.Sleep(ruleGrace)
		require.Empty(t, c.got(), "the removal waits for the route's ACK")
		c.ack(routes[0])
		require.Equal(t, ruleRemoved(delta), c.all())
	})
}

// A removal that waits is not forgotten when the client unsubscribes from the name beside
// its wildcard.
func TestR6RemovalOfUnsubscribedName(t *testing.T) {
	ruleTest(t, func(t *testing.T, f *ruleServer, delta bool) {
		f.set("n", "1", "CDS c0=0 c5=0", "RDS r0=0")
		c := f.connect("n", delta)
		c.subscribe(ruleCDS, "*", "c0")
		c.subscribe(ruleRDS, "r0")
		responses := c.allResponses()
		f.set("n", "2", "CDS c5=0", "RDS r0=1")
		require.Equal(t, []string{"RDS r0=1"}, c.got())
		if delta {
			c.sendDelta(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: ruleCDS, ResourceNamesUnsubscribe: []string{"c0"}})
		} else {
			c.names[ruleCDS] = []string{"*"}
			c.ack(responses[0])
		}
		time.Sleep(3 * modelBound)
		got := c.got()
		require.NotEmpty(t, got)
		require.Equal(t, ruleRemoved(delta), got[len(got)-1:])
	})
}

// A client that does not acknowledge gets the same, later.
func TestR6Bound(t *testing.T) {
	ruleTest(t, func(t *testing.T, f *ruleServer, delta bool) {
		c := ruleSwap(f, delta)
		require.Equal(t, ruleAdded(delta), c.got())
		time.Sleep(modelBound + time.Second)
		require.Equal(t, []string{"LDS l0=1", "RDS r0=1"}, c.got())
		time.Sleep(modelBound + time.Second)
		require.Equal(t, ruleRemoved(delta), c.got())
	})
}

// A removed cluster stays over a reconnect in SotW, but only for a client that still asks
// for it.
func TestR6RemovedClusterAfterReconnect(t *testing.T) {
	ruleBubble(t, func(t *testing.T, f *ruleServer) {
		f.set("n", "1", "CDS c0=0 c1=0 c5=0", "LDS l0=0")
		c := f.connect("n", false)
		c.subscribe(ruleCDS, "c0", "c1", "c5")
		c.all()
		last := c.replied[ruleCDS]
		c.close()
		f.set("n", "2", "CDS c0=0", "LDS l0=0")
		c = f.connect("n", false)
		c.sendSotw(&discoveryv3.DiscoveryRequest{TypeUrl: ruleCDS, ResourceNames: []string{"c0", "c1"}, VersionInfo: last.version})
		require.Equal(t, []string{"CDS c0=0 c1=0"}, c.got())
	})
}

// A client that rejects the cluster gets the route: it may be for another cluster.
func TestR6Rejected(t *testing.T) {
	ruleTest(t, func(t *testing.T, f *ruleServer, delta bool) {
		c := ruleSwap(f, delta)
		added := c.responses()
		require.Equal(t, ruleAdded(delta), ruleTexts(added))
		c.nack(added[0], "1")
		require.Equal(t, []string{"LDS l0=1", "RDS r0=1"}, c.got())
	})
}

// ruleSwap returns a client of a node whose traffic moves from cluster c0 to c5.
func ruleSwap(f *ruleServer, delta bool) *ruleClient {
	f.set("n", "1", "CDS c0=0", "EDS c0=0", "LDS l0=0", "RDS r0=0")
	c := f.connect("n", delta)
	c.subscribe(ruleCDS)
	c.subscribe(ruleEDS, "c0")
	c.subscribe(ruleLDS)
	c.subscribe(ruleRDS, "r0")
	require.Len(f.t, c.all(), 4)
	f.set("n", "2", "CDS c5=0", "EDS c0=0 c5=0", "LDS l0=1", "RDS r0=1")
	return c
}

func ruleAdded(delta bool) []string {
	return ruleOf(delta, []string{"CDS c5=0"}, []string{"CDS c0=0 c5=0"})
}

func ruleRemoved(delta bool) []string {
	return ruleOf(delta, []string{"CDS c0=-"}, []string{"CDS c5=0"})
}

// A change of a node that was cleared meanwhile waits for its own clusters, although an
// older change waited before the node was cleared.
func TestR6BoundBeginsAnewAfterClear(t *testing.T) {
	ruleTest(t, func(t *testing.T, f *ruleServer, delta bool) {
		c := ruleSwap(f, delta)
		require.Equal(t, ruleAdded(delta), c.got())
		f.clear("n")
		time.Sleep(2 * modelBound)
		require.Empty(t, c.got())
		f.set("n", "3", "CDS c0=1 c5=1", "EDS c0=0 c5=0", "LDS l0=2", "RDS r0=2")
		got := c.responses()
		require.Equal(t, "CDS c0=1 c5=1", got[0].String())
		for _, r := range got[1:] {
			require.Equal(t, ruleEDS, r.typeURL, r.String())
		}
		c.ack(got[0])
		require.Equal(t, []string{"LDS l0=2", "RDS r0=2"}, c.all())
	})
}

// A session does nothing while its node is cleared, whatever waited before: virtual time
// passes only while the server is idle.
func TestR6IdleWhileCleared(t *testing.T) {
	ruleTest(t, func(t *testing.T, f *ruleServer, delta bool) {
		c := ruleSwap(f, delta)
		require.Equal(t, ruleAdded(delta), c.got())
		f.clear("n")
		time.Sleep(time.Hour)
		require.Empty(t, c.got())
	})
}

// A session does nothing while a removal whose bound has passed waits with changes of its
// type for clusters.
func TestR6IdleWhileBlocked(t *testing.T) {
	ruleTest(t, func(t *testing.T, f *ruleServer, delta bool) {
		f.set("n", "1", "CDS c0=0", "EDS c0=0", "RDS r0=0 r1=0")
		c := f.connect("n", delta)
		c.subscribe(ruleCDS)
		c.subscribe(ruleEDS, "c0")
		c.subscribe(ruleRDS, "r0", "r1")
		c.all()
		f.update("n", "RDS r0=1 r1=-")
		require.Equal(t, []string{"RDS r0=1"}, c.got()) // is not acknowledged
		time.Sleep(2*modelBound - time.Second)
		f.update("n", "CDS c0=1", "RDS r0=2")
		require.Equal(t, []string{"CDS c0=1", "EDS c0=0"}, c.got())
		time.Sleep(time.Hour)
		got := strings.Join(c.got(), " ")
		require.Contains(t, got, "r0=2")
		require.Equal(t, delta, strings.Contains(got, "r1=-"))
	})
}

// What was rejected is not sent again until it changes.
func TestR7Rejected(t *testing.T) {
	ruleTest(t, func(t *testing.T, f *ruleServer, delta bool) {
		f.set("n", "1", "CDS c0=0", "SDS k0=0")
		c := f.connect("n", delta)
		c.subscribe(ruleCDS)
		c.subscribe(ruleSDS, "k0")
		c.all()
		f.update("n", "CDS c0=1")
		got := c.responses()
		require.Equal(t, []string{"CDS c0=1"}, ruleTexts(got))
		c.nack(got[0], "1")
		f.update("n", "SDS k0=1")
		require.Equal(t, []string{"SDS k0=1"}, c.all())
		time.Sleep(time.Hour)
		require.Empty(t, c.got())
		f.update("n", "CDS c0=2")
		require.Equal(t, []string{"CDS c0=2"}, c.got())
	})
}

// New content under the same version is sent.
func TestR8SameVersion(t *testing.T) {
	ruleTest(t, func(t *testing.T, f *ruleServer, delta bool) {
		f.set("n", "1", "CDS c0=0", "EDS c0=0", "LDS l0=0", "RDS r0=0", "SDS k0=0")
		c := f.connect("n", delta)
		c.subscribe(ruleCDS)
		c.subscribe(ruleEDS, "c0")
		c.subscribe(ruleLDS)
		c.subscribe(ruleRDS, "r0")
		c.subscribe(ruleSDS, "k0")
		require.Len(t, c.all(), 5)
		f.set("n", "1", ruleVariants(1)...)
		require.ElementsMatch(t, ruleVariants(1), c.all())
		// The same content under a new version is not news.
		f.set("n", "2", ruleVariants(1)...)
		require.Empty(t, c.all())
	})
}

// An assignment that goes stale is sent again on a reconnect, and before it goes stale.
func TestR8Stale(t *testing.T) {
	ruleTest(t, func(t *testing.T, f *ruleServer, delta bool) {
		const stale = 10 * time.Second
		cla := modelAssignment("c0", 0)
		cla.Policy = &endpointv3.ClusterLoadAssignment_Policy{EndpointStaleAfter: durationpb.New(stale)}
		f.setMessages("n", "1", map[string][]types.Resource{ruleEDS: {cla, modelAssignment("c5", 0)}})
		c := f.connect("n", delta)
		c.subscribe(ruleEDS, "c0", "c5")
		first := c.allResponses()
		require.NotEmpty(t, first)
		for range 5 {
			time.Sleep(stale)
			again := c.allResponses()
			require.NotEmpty(t, again)
			require.Less(t, len(again), 5)
			require.NotContains(t, again[0].String(), "c5=")
		}
		c.close()
		c = f.connect("n", delta)
		c.resume(ruleEDS, versionsOf(first, ruleEDS), "c0", "c5")
		got := c.all()
		require.Len(t, got, 1)
		require.Contains(t, got[0], "c0=")
	})
}

// A TTL is sent in both protocols, and nothing is sent without a body.
func TestR9TTL(t *testing.T) {
	ruleTest(t, func(t *testing.T, f *ruleServer, delta bool) {
		ttl := time.Minute
		_, err := f.cache.UpdateResources(f.ctx, "n", map[string][]types.ResourceWithTTL{
			ruleSDS: {{Resource: newModelItem(ruleSDS, "k0", 0).message, TTL: &ttl}},
			ruleCDS: {{Resource: newModelItem(ruleCDS, "c0", 0).message, TTL: &ttl}, {Resource: newModelItem(ruleCDS, "c1", 0).message}},
		}, nil, "1")
		require.NoError(t, err)
		c := f.connect("n", delta)
		c.subscribe(ruleCDS)
		c.subscribe(ruleSDS, "k0")
		for round := range 20 {
			responses := c.allResponses()
			if round == 0 {
				require.Len(t, responses, 2)
			}
			for _, r := range responses {
				require.Empty(t, r.removed)
				for _, res := range r.resources {
					require.NotEmpty(t, res.GetResource().GetValue(), "%s: %q has no body", r, res.GetName())
					if res.GetName() != "c1" {
						require.Equal(t, ttl, res.GetTtl().AsDuration(), res.GetName())
					}
				}
				if !delta && r.typeURL == ruleCDS {
					require.Len(t, r.resources, 2, "Envoy deletes clusters that are missing")
				}
			}
			time.Sleep(ttl / 4)
		}
	})
}

// A node that was cleared and is set again reaches the clients that were connected.
func TestR10ClearedAndSet(t *testing.T) {
	ruleTest(t, func(t *testing.T, f *ruleServer, delta bool) {
		f.set("n", "1", "CDS c0=0 c1=0", "EDS c0=0")
		c := f.connect("n", delta)
		c.subscribe(ruleCDS)
		c.subscribe(ruleEDS, "c0")
		c.all()
		for variant := 1; variant < 4; variant++ {
			f.clear("n")
			time.Sleep(time.Minute)
			require.Empty(t, c.all(), "a client keeps what it has")
			f.set("n", "1", fmt.Sprintf("CDS c0=%d", variant), fmt.Sprintf("EDS c0=%d", variant))
			want := []string{fmt.Sprintf("CDS c0=%d", variant), fmt.Sprintf("EDS c0=%d", variant)}
			got := c.all()
			if variant > 1 {
				require.Equal(t, want, got)
				continue
			}
			// c1 is removed too, with the change or after it.
			require.Equal(t, want, []string{strings.Replace(strings.Replace(got[0], " c1=-", "", 1), " c1=0", "", 1), got[1]})
			require.Equal(t, delta, strings.Contains(strings.Join(got, " "), "c1=-"), got)
		}
	})
}

// Versions of resources are short: Envoy uploads all of them when it reconnects.
func TestR10ShortVersions(t *testing.T) {
	ruleBubble(t, func(t *testing.T, f *ruleServer) {
		f.set("n", "1", ruleVariants(0)...)
		c := f.connect("n", true)
		c.subscribe(ruleCDS)
		for name, version := range versionsOf(c.allResponses(), ruleCDS) {
			require.NotEmpty(t, version, name)
			require.LessOrEqual(t, len(version), 16, name)
		}
	})
}

// A client whose node did not exist when it connected is answered when it is set.
func TestPromiseUnknownNode(t *testing.T) {
	ruleTest(t, func(t *testing.T, f *ruleServer, delta bool) {
		c := f.connect("n", delta)
		c.subscribe(ruleCDS)
		c.subscribe(ruleEDS, "c0")
		c.subscribe(ruleSDS, "k0")
		time.Sleep(time.Hour)
		for _, r := range c.allResponses() {
			require.Empty(t, r.resources, r.String())
		}
		f.set("n", "1", ruleVariants(1)...)
		require.Equal(t, []string{"CDS c0=1", "EDS c0=1", "SDS k0=1"}, c.all())
	})
}

// What a client rejected does not withhold what is set next, of any type.
func TestPromiseRejectedThenChanged(t *testing.T) {
	ruleTest(t, func(t *testing.T, f *ruleServer, delta bool) {
		f.set("n", "1", ruleVariants(0)...)
		c := f.connect("n", delta)
		for typeURL, name := range map[string]string{ruleCDS: "", ruleEDS: "c0", ruleLDS: "", ruleRDS: "r0", ruleSDS: "k0"} {
			if name == "" {
				c.subscribe(typeURL)
			} else {
				c.subscribe(typeURL, name)
			}
		}
		c.all()
		f.set("n", "2", ruleVariants(1)...)
		for responses := c.responses(); len(responses) > 0; responses = c.responses() {
			for _, r := range responses {
				c.nack(r, "1")
			}
		}
		f.set("n", "3", ruleVariants(2)...)
		require.ElementsMatch(t, ruleVariants(2), c.all())
		// And back to what the client had before.
		f.set("n", "4", ruleVariants(3)...)
		for responses := c.responses(); len(responses) > 0; responses = c.responses() {
			for _, r := range responses {
				c.nack(r, "3")
			}
		}
		f.set("n", "5", ruleVariants(2)...)
		held := maps.Collect(func(yield func(string, string) bool) {
			for _, text := range ruleVariants(2) {
				short, content, _ := strings.Cut(text, " ")
				if !yield(short, content) {
					return
				}
			}
		})
		for _, text := range c.all() {
			short, content, _ := strings.Cut(text, " ")
			held[short] = content
		}
		require.Equal(t, map[string]string{"CDS": "c0=2", "EDS": "c0=2", "LDS": "l0=2", "RDS": "r0=2", "SDS": "k0=2"}, held)
	})
}

// A client that names an unknown node, asks for all types and never reads stops neither
// updates nor other clients when its node is set.
func TestPromiseStuckClient(t *testing.T) {
	ruleTest(t, func(t *testing.T, f *ruleServer, delta bool) {
		body := strings.Repeat("x", 1<<20)
		big := func(n int) map[string][]types.Resource {
			var routes []types.Resource
			for i := range 4 {
				routes = append(routes, &routev3.RouteConfiguration{
					Name: fmt.Sprint("r", i), InternalOnlyHeaders: []string{fmt.Sprint(n), body},
				})
			}
			return map[string][]types.Resource{ruleRDS: routes, ruleCDS: {newModelItem(ruleCDS, "c0", n%modelVariants).message}}
		}
		for range 3 {
			stuck := f.connectStuck("n", delta)
			for _, typeURL := range append(slices.Clone(modelTypes), ruleVHDS, resourcev3.RuntimeType, resourcev3.ScopedRouteType, resourcev3.ExtensionConfigType) {
				for i := range 10 {
					stuck.subscribe(typeURL, fmt.Sprint("r", i))
				}
			}
		}
		reader := f.connect("n", delta)
		reader.subscribe(ruleCDS)
		other := f.connect("other", delta)
		other.subscribe(ruleCDS)
		synctest.Wait()
		for n := range 8 {
			started := time.Now()
			f.setMessages("n", fmt.Sprint(n), big(n))
			f.update("other", fmt.Sprintf("CDS c0=%d", n%modelVariants))
			require.Zero(t, time.Since(started), "an update waits for a client")
			require.Equal(t, []string{fmt.Sprintf("CDS c0=%d", n%modelVariants)}, reader.all())
			require.Equal(t, []string{fmt.Sprintf("CDS c0=%d", n%modelVariants)}, other.all())
		}
	})
}

// A client that reads late gets the newest state, and not each one in between.
func TestPromiseSlowClient(t *testing.T) {
	ruleTest(t, func(t *testing.T, f *ruleServer, delta bool) {
		body := strings.Repeat("x", 1<<20) // more than the flow control of a stream lets through
		set := func(n int) {
			f.setMessages("n", fmt.Sprint(n), map[string][]types.Resource{
				ruleRDS: {&routev3.RouteConfiguration{Name: "r0", InternalOnlyHeaders: []string{fmt.Sprint(n), body}}},
			})
		}
		set(0)
		c := f.connectStuck("n", delta)
		c.subscribe(ruleRDS, "r0")
		synctest.Wait()
		for n := 1; n <= 20; n++ {
			set(n)
			synctest.Wait()
		}
		go c.read()
		responses := c.allResponses()
		require.NotEmpty(t, responses)
		require.LessOrEqual(t, len(responses), 3)
		var newest routev3.RouteConfiguration
		require.NoError(t, proto.Unmarshal(responses[len(responses)-1].resources[0].GetResource().GetValue(), &newest))
		require.Equal(t, "20", newest.GetInternalOnlyHeaders()[0])
	})
}

// A client that reads more slowly than its node changes is always due an answer. What it
// asks for is answered nevertheless.
func TestPromiseRequestsOfSlowClient(t *testing.T) {
	ruleBubble(t, func(t *testing.T, f *ruleServer) {
		f.set("n", "1", "CDS c0=0", "SDS k0=0")
		wire := newModelWire(f.ctx, newModelNode("n"), 0)
		done := make(chan error, 1)
		go func() { done <- newModelServer(f.ctx, f.cache).DeltaStreamHandler(modelDeltaWire{wire}, "") }()
		wire.toServer <- modelMarshal(&discoveryv3.DeltaDiscoveryRequest{
			Node: &corev3.Node{Id: "n"}, TypeUrl: ruleSDS, ResourceNamesSubscribe: []string{"k0"},
		})
		synctest.Wait()
		wire.toServer <- modelMarshal(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: ruleCDS})
		var got []string
		for n := 1; n < 20 && !slices.Contains(got, ruleCDS); n++ {
			f.update("n", fmt.Sprintf("SDS k0=%d", n%modelVariants)) // while the server waits for the client
			synctest.Wait()
			var m discoveryv3.DeltaDiscoveryResponse
			require.NoError(t, modelUnmarshal((<-wire.toClient).data, &m))
			got = append(got, m.GetTypeUrl())
			synctest.Wait()
		}
		require.Contains(t, got, ruleCDS)
		wire.cancel()
		<-done
	})
}
