package xdsserver_test

import (
	"testing"

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
