package xdscache_test

import (
	"context"
	"net"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/xdswal/xdswal/xdscache"
)

// serve runs go-control-plane's server on a cache and returns a client of it.
func serve(t testing.TB, c cachev3.Cache) discoveryv3.AggregatedDiscoveryServiceClient {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	s := grpc.NewServer()
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(s, server.NewServer(ctx, c, nil))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go func() { _ = s.Serve(listener) }()
	t.Cleanup(s.Stop)
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	return discoveryv3.NewAggregatedDiscoveryServiceClient(conn)
}

func streamContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	t.Cleanup(cancel)
	return ctx
}

// wire returns the bytes that each resource must have on the wire, by name.
func wire(t testing.TB, messages []types.Resource) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, m := range messages {
		value, err := cachev3.MarshalResource(m)
		require.NoError(t, err)
		out[cachev3.GetResourceName(m)] = string(value)
	}
	return out
}

// Resources of every type reach a client with the bytes of the message that was
// set, before and after a restart, in both protocols.
func TestWireBytes(t *testing.T) {
	l := newLog(t)
	first := newCache(l)
	snapshot, err := cachev3.NewSnapshot("1", allTypes())
	require.NoError(t, err)
	require.Len(t, allTypes(), int(types.UnknownType), "every type that go-control-plane knows")
	set(t, first, "n", snapshot)
	for _, row := range []struct {
		name  string
		cache *xdscache.SnapshotCache
	}{
		{"first", first},
		{"restarted", newCache(l)},
	} {
		t.Run(row.name+"/sotw", func(t *testing.T) {
			s, err := serve(t, row.cache).StreamAggregatedResources(streamContext(t))
			require.NoError(t, err)
			for url, messages := range allTypes() {
				require.NoError(t, s.Send(&discoveryv3.DiscoveryRequest{Node: &corev3.Node{Id: "n"}, TypeUrl: url}))
				resp, err := s.Recv()
				require.NoError(t, err)
				require.Equal(t, url, resp.GetTypeUrl())
				require.Equal(t, "1", resp.GetVersionInfo())
				got := map[string]string{}
				for _, packed := range resp.GetResources() {
					require.Equal(t, url, packed.GetTypeUrl())
					m, err := packed.UnmarshalNew()
					require.NoError(t, err)
					got[cachev3.GetResourceName(m)] = string(packed.GetValue())
				}
				require.Equal(t, wire(t, messages), got)
			}
		})
		t.Run(row.name+"/delta", func(t *testing.T) {
			s, err := serve(t, row.cache).DeltaAggregatedResources(streamContext(t))
			require.NoError(t, err)
			for url, messages := range allTypes() {
				require.NoError(t, s.Send(&discoveryv3.DeltaDiscoveryRequest{Node: &corev3.Node{Id: "n"}, TypeUrl: url}))
				resp, err := s.Recv()
				require.NoError(t, err)
				require.Equal(t, url, resp.GetTypeUrl())
				got := map[string]string{}
				for _, r := range resp.GetResources() {
					require.Equal(t, url, r.GetResource().GetTypeUrl())
					require.Equal(t, hashOf(r.GetResource().GetValue()), r.GetVersion())
					got[r.GetName()] = string(r.GetResource().GetValue())
				}
				require.Equal(t, wire(t, messages), got)
			}
		})
	}
	requireServed(t, l, first)
}

// After a restart, a delta client that reconnects receives only the changes, including
// removed resources.
func TestDeltaClientAfterRestart(t *testing.T) {
	l := newLog(t)
	c := newCache(l)
	set(t, c, "n", clusters(t, "1", withMaps("kept"), cluster("changed"), cluster("removed")))
	known := map[string]string{}
	for r := range c.GetNode("n").Type(resourcev3.ClusterType).All() {
		known[r.Name] = r.Version
	}
	ask := func(c *xdscache.SnapshotCache) (discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient, *discoveryv3.DeltaDiscoveryResponse) {
		s, err := serve(t, c).DeltaAggregatedResources(streamContext(t))
		require.NoError(t, err)
		require.NoError(t, s.Send(&discoveryv3.DeltaDiscoveryRequest{
			Node: &corev3.Node{Id: "n"}, TypeUrl: resourcev3.ClusterType, InitialResourceVersions: known,
		}))
		resp, err := s.Recv()
		require.NoError(t, err)
		return s, resp
	}
	// The first response of a stream is sent even if it is empty.
	_, resp := ask(newCache(l))
	require.Empty(t, resp.GetResources())
	require.Empty(t, resp.GetRemovedResources())

	restarted := newCache(l)
	set(t, restarted, "n", clusters(t, "2", withMaps("kept"), clusterOf("changed", "x")))
	s, resp := ask(restarted)
	require.Len(t, resp.GetResources(), 1)
	require.Equal(t, "changed", resp.GetResources()[0].GetName())
	require.Equal(t, []string{"removed"}, resp.GetRemovedResources())

	// Later responses follow on the same stream.
	require.NoError(t, s.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: resourcev3.ClusterType, ResponseNonce: resp.GetNonce()}))
	set(t, restarted, "n", clusters(t, "3", withMaps("kept")))
	resp, err := s.Recv()
	require.NoError(t, err)
	require.Equal(t, []string{"changed"}, resp.GetRemovedResources())
	requireServed(t, l, restarted)
}

// Resources with a TTL are served wrapped, and heartbeats without contents, by a restored
// cache too.
func TestHeartbeats(t *testing.T) {
	l := newLog(t)
	ttl := time.Hour
	snapshot, err := cachev3.NewSnapshotWithTTLs("1", map[string][]types.ResourceWithTTL{
		resourcev3.EndpointType: {{Resource: endpoint("a"), TTL: &ttl}},
	})
	require.NoError(t, err)
	set(t, newCache(l), "n", snapshot)
	c := newCache(l, xdscache.WithHeartbeat(streamContext(t), 10*time.Millisecond))
	s, err := serve(t, c).StreamAggregatedResources(streamContext(t))
	require.NoError(t, err)
	req := &discoveryv3.DiscoveryRequest{Node: &corev3.Node{Id: "n"}, TypeUrl: resourcev3.EndpointType}
	for _, heartbeat := range []bool{false, true, true} {
		require.NoError(t, s.Send(req))
		resp, err := s.Recv()
		require.NoError(t, err)
		require.Len(t, resp.GetResources(), 1)
		var wrapped discoveryv3.Resource
		require.NoError(t, anypb.UnmarshalTo(resp.GetResources()[0], &wrapped, proto.UnmarshalOptions{}))
		require.Equal(t, "a", wrapped.GetName())
		require.Equal(t, ttl, wrapped.GetTtl().AsDuration())
		require.Equal(t, heartbeat, wrapped.GetResource() == nil)
		req.VersionInfo, req.ResponseNonce = resp.GetVersionInfo(), resp.GetNonce()
	}
	requireServed(t, l, c)
}
