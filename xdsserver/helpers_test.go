package xdsserver_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	testresource "github.com/envoyproxy/go-control-plane/pkg/test/resource/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/xdscache"
	"github.com/xdswal/xdswal/xdsserver"
)

// timeout bounds waits that are short unless a test fails.
const timeout = 60 * time.Second

// world is a server in front of a store in memory, and connections to it.
type world struct {
	t      *testing.T
	store  *xdswal.Store
	cache  *xdscache.SnapshotCache
	server *xdsserver.Server
	conn   *grpc.ClientConn
}

func newWorld(t *testing.T, opts ...xdsserver.Options) *world {
	t.Helper()
	store, err := xdswal.Open(t.Context(), xdswal.Options{MemoryOnly: true})
	require.NoError(t, err)
	w := &world{t: t, store: store, cache: store.SnapshotCache(false, cachev3.IDHash{}, nil)}
	w.server = xdsserver.NewServer(t.Context(), w.cache, nil, opts...)
	w.conn = serve(t, w.server)
	return w
}

// serve serves on a connection in memory.
func serve(t *testing.T, s *xdsserver.Server) *grpc.ClientConn {
	t.Helper()
	l := bufconn.Listen(1 << 20)
	g := grpc.NewServer(xdsserver.GRPCOptions()...)
	s.Register(g)
	go func() { _ = g.Serve(l) }()
	t.Cleanup(g.Stop)
	conn, err := grpc.NewClient("passthrough:///xds",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(256<<20)))
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

func (w *world) set(node, version string, resources ...types.Resource) uint64 {
	w.t.Helper()
	byType := map[string][]types.Resource{}
	for _, r := range resources {
		url := typeURLOf(r)
		byType[url] = append(byType[url], r)
	}
	s, err := cachev3.NewSnapshot(version, byType)
	require.NoError(w.t, err)
	seq, err := w.cache.Set(w.t.Context(), node, s)
	require.NoError(w.t, err)
	return uint64(seq)
}

func typeURLOf(r types.Resource) string {
	return resourcev3.APITypePrefix + string(r.ProtoReflect().Descriptor().FullName())
}

func edsCluster(name, alt string) *clusterv3.Cluster {
	return &clusterv3.Cluster{
		Name: name, AltStatName: alt,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig:     &clusterv3.Cluster_EdsClusterConfig{EdsConfig: &corev3.ConfigSource{}},
	}
}

func assignment(name string, port uint32) *endpointv3.ClusterLoadAssignment {
	return testresource.MakeEndpoint(name, port)
}

// deltaClient is a delta ADS stream that is driven by hand.
type deltaClient struct {
	t      *testing.T
	stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
	got    chan *discoveryv3.DeltaDiscoveryResponse
	ended  chan error
}

func (w *world) delta() *deltaClient {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	w.t.Cleanup(cancel)
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(w.conn).DeltaAggregatedResources(ctx)
	require.NoError(w.t, err)
	c := &deltaClient{w.t, stream, make(chan *discoveryv3.DeltaDiscoveryResponse, 1000), make(chan error, 1)}
	go func() {
		for {
			resp, err := stream.Recv()
			if err != nil {
				c.ended <- err
				return
			}
			c.got <- resp
		}
	}()
	return c
}

func (c *deltaClient) send(req *discoveryv3.DeltaDiscoveryRequest) {
	c.t.Helper()
	if req.Node == nil {
		req.Node = &corev3.Node{Id: "n"}
	}
	require.NoError(c.t, c.stream.Send(req))
}

func (c *deltaClient) subscribe(url string, names ...string) {
	c.t.Helper()
	c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: url, ResourceNamesSubscribe: names})
}

func (c *deltaClient) ack(resp *discoveryv3.DeltaDiscoveryResponse) {
	c.t.Helper()
	c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: resp.GetTypeUrl(), ResponseNonce: resp.GetNonce()})
}

// receive returns the next response, described as "Cluster +a +b -c".
func (c *deltaClient) receive() (*discoveryv3.DeltaDiscoveryResponse, string) {
	c.t.Helper()
	select {
	case resp := <-c.got:
		out := []string{short(resp.GetTypeUrl())}
		for _, r := range resp.GetResources() {
			out = append(out, "+"+r.GetName())
		}
		for _, name := range resp.GetRemovedResources() {
			out = append(out, "-"+name)
		}
		return resp, strings.Join(out, " ")
	case err := <-c.ended:
		require.FailNow(c.t, "the stream has ended", "%v", err)
	case <-time.After(timeout):
		require.FailNow(c.t, "nothing came")
	}
	panic("unreachable")
}

// expect receives a response and acknowledges it.
func (c *deltaClient) expect(want string) {
	c.t.Helper()
	resp, got := c.receive()
	require.Equal(c.t, want, got)
	c.ack(resp)
}

func short(url string) string {
	for i := len(url) - 1; i >= 0; i-- {
		if url[i] == '.' {
			return url[i+1:]
		}
	}
	return url
}

func numbered(prefix string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("%s%d", prefix, i)
	}
	return out
}

func doneContext() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

func secret(name string) types.Resource {
	return testresource.MakeSecrets(name, "root")[0]
}
