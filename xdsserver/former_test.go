package xdsserver_test

import (
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	testresource "github.com/envoyproxy/go-control-plane/pkg/test/resource/v3"
	"github.com/stretchr/testify/require"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
)

// resumeSotW opens a SotW stream of a client that reconnects with versions, and requests
// all types at once, as Envoy does.
func (w *world) resumeSotW(clusters, routes string) discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesClient {
	w.t.Helper()
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(w.conn).StreamAggregatedResources(w.t.Context())
	require.NoError(w.t, err)
	for _, req := range []*discoveryv3.DiscoveryRequest{
		{Node: &corev3.Node{Id: "n"}, TypeUrl: resourcev3.ClusterType, VersionInfo: clusters},
		{TypeUrl: resourcev3.ListenerType, VersionInfo: clusters},
		{TypeUrl: resourcev3.RouteType, VersionInfo: routes, ResourceNames: []string{"r"}},
	} {
		require.NoError(w.t, stream.Send(req))
	}
	return stream
}

// receiveSotW receives until an answer about clusters or routes, and acknowledges it.
func receiveSotW(t *testing.T, stream discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesClient) (version, got string) {
	t.Helper()
	for {
		resp, err := stream.Recv()
		require.NoError(t, err)
		req := &discoveryv3.DiscoveryRequest{TypeUrl: resp.GetTypeUrl(), VersionInfo: resp.GetVersionInfo(), ResponseNonce: resp.GetNonce()}
		if resp.GetTypeUrl() == resourcev3.RouteType {
			req.ResourceNames = []string{"r"}
		}
		require.NoError(t, stream.Send(req))
		switch resp.GetTypeUrl() {
		case resourcev3.RouteType:
			return resp.GetVersionInfo(), "routes"
		case resourcev3.ClusterType:
			got = "clusters"
			for _, r := range resp.GetResources() {
				var c clusterv3.Cluster
				require.NoError(t, r.UnmarshalTo(&c))
				got += " " + c.GetName()
			}
			return resp.GetVersionInfo(), got
		}
	}
}

// A SotW client that reconnects after a swap, or in the middle of one, keeps the cluster
// that its route still names.
func TestSotWResumeSwap(t *testing.T) {
	for _, withVersions := range []bool{true, false} {
		w := newWorld(t)
		set := func(version, cluster string) {
			if !withVersions {
				version = ""
			}
			w.set("n", version, edsCluster(cluster, ""), assignment(cluster, 1), testresource.MakeRouteConfig("r", cluster))
		}
		set("1", "a")
		stream := w.resumeSotW("", "")
		before, got := receiveSotW(t, stream)
		require.Equal(t, "clusters a", got)
		_, got = receiveSotW(t, stream)
		require.Equal(t, "routes", got)
		require.NoError(t, stream.CloseSend())

		set("2", "b")
		set("3", "c")
		stream = w.resumeSotW(before, "")
		middle, got := receiveSotW(t, stream)
		require.Equal(t, "clusters a c", got)

		set("4", "d")
		stream = w.resumeSotW(middle, "") // without its routes
		_, got = receiveSotW(t, stream)
		require.Equal(t, "clusters a c d", got)
		_, got = receiveSotW(t, stream)
		require.Equal(t, "routes", got)
		after, got := receiveSotW(t, stream)
		require.Equal(t, "clusters d", got)

		for _, version := range []string{after, "unknown", ""} {
			_, got = receiveSotW(t, w.resumeSotW(version, ""))
			require.Equal(t, "clusters d", got, "a client with version %q", version)
		}
	}
}
