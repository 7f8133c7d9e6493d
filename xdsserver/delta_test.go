package xdsserver_test

import (
	"testing"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	testresource "github.com/envoyproxy/go-control-plane/pkg/test/resource/v3"
	"github.com/stretchr/testify/require"
)

func TestDeltaSwap(t *testing.T) {
	w := newWorld(t)
	w.set("n", "1", edsCluster("a", ""), assignment("a", 1), testresource.MakeRouteConfig("r", "a"))
	c := w.delta()
	c.subscribe(resourcev3.ClusterType)
	c.expect("Cluster +a")
	c.subscribe(resourcev3.EndpointType, "a")
	c.expect("ClusterLoadAssignment +a")
	c.subscribe(resourcev3.RouteType, "r")
	c.expect("RouteConfiguration +r")

	seq := w.set("n", "2", edsCluster("b", ""), assignment("b", 1), testresource.MakeRouteConfig("r", "b"))
	clusters, got := c.receive()
	require.Equal(t, "Cluster +b", got)
	c.subscribe(resourcev3.EndpointType, "b")
	c.expect("ClusterLoadAssignment +b")
	require.Error(t, w.server.WaitAcked(doneContext(), "n", 2))
	c.ack(clusters)
	c.expect("RouteConfiguration +r")
	c.expect("Cluster -a")
	c.expect("ClusterLoadAssignment -a")
	require.NoError(t, w.server.WaitAcked(t.Context(), "n", 2))
	require.EqualValues(t, 2, seq)
}

// A client that reconnects after a swap keeps the cluster that its route still names.
func TestDeltaResumeSwap(t *testing.T) {
	w := newWorld(t)
	w.set("n", "1", edsCluster("b", ""), assignment("b", 1), testresource.MakeRouteConfig("r", "b"))
	c := w.delta()
	had := func(url, name string, subscribe ...string) *discoveryv3.DeltaDiscoveryRequest {
		return &discoveryv3.DeltaDiscoveryRequest{
			TypeUrl: url, ResourceNamesSubscribe: subscribe, InitialResourceVersions: map[string]string{name: "old"},
		}
	}
	c.send(had(resourcev3.ClusterType, "a"))
	clusters, got := c.receive()
	require.Equal(t, "Cluster +b", got)
	c.send(had(resourcev3.EndpointType, "a", "a"))
	c.subscribe(resourcev3.ListenerType)
	c.send(had(resourcev3.RouteType, "r", "r")) // before any ACK
	c.expect("Listener")
	c.subscribe(resourcev3.EndpointType, "b")
	c.expect("ClusterLoadAssignment +b")
	c.ack(clusters)
	c.expect("RouteConfiguration +r")
	c.expect("Cluster -a")
	c.expect("ClusterLoadAssignment -a")

	// A client without listeners need not wait long.
	c = w.delta()
	c.send(had(resourcev3.ClusterType, "a"))
	c.expect("Cluster +b")
	c.expect("Cluster -a")
}

// A client that is warming asks for clusters last, and its routes wait for them.
func TestDeltaResumeWarming(t *testing.T) {
	w := newWorld(t)
	w.set("n", "1", edsCluster("a", ""), assignment("a", 1), edsCluster("b", ""), assignment("b", 1), testresource.MakeRouteConfig("r", "b"))
	c := w.delta()
	c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: resourcev3.EndpointType, ResourceNamesSubscribe: []string{"a"}})
	c.send(&discoveryv3.DeltaDiscoveryRequest{
		TypeUrl: resourcev3.RouteType, ResourceNamesSubscribe: []string{"r"}, InitialResourceVersions: map[string]string{"r": "old"},
	})
	c.expect("ClusterLoadAssignment +a")
	c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: resourcev3.ClusterType, InitialResourceVersions: map[string]string{"a": "old"}})
	clusters, got := c.receive()
	require.Equal(t, "Cluster +a +b", got)
	c.subscribe(resourcev3.EndpointType, "b")
	c.expect("ClusterLoadAssignment +a")
	c.expect("ClusterLoadAssignment +b")
	c.ack(clusters)
	c.expect("RouteConfiguration +r")
}
