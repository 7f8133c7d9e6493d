package e2e

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/internal/envoytest"
)

// TestEnvoy changes the configuration of a real Envoy over each protocol. The fetch
// timeout is 0, so an Envoy that is not sent what it waits for waits for ever.
func TestEnvoy(t *testing.T) {
	envoyBinary(t)
	d, ads := newDaemon(t, "--log-level", "warn"), newDaemon(t, "--log-level", "warn", "--ads")
	d.start()
	ads.start()
	for _, protocol := range envoytest.Protocols() {
		for _, tc := range []struct {
			name string
			run  func(*testing.T, *envoyNode)
			d    *daemon
		}{
			{"endpoints are replaced", testEnvoyEndpoints, d},
			{"a cluster is updated alone", testEnvoyClusterAlone, d},
			{"new content has the same version", testEnvoySameVersion, d},
			{"an assignment has no cluster", testEnvoyOrphan, d},
			{"an assignment has no cluster with --ads", testEnvoyOrphan, ads},
			{"a cluster is removed and added again", testEnvoyReadded, d},
			{"the node is set after Envoy has connected", testEnvoySetLate, d},
			{"the node is cleared and set", testEnvoyCleared, d},
			{"a listener is rejected", testEnvoyRejected, d},
		} {
			t.Run(strings.ReplaceAll(fmt.Sprint(protocol, "/", tc.name), " ", "_"), func(t *testing.T) {
				tc.run(t, newEnvoyNode(t, tc.d, protocol, 0))
			})
		}
	}
}

func testEnvoyEndpoints(_ *testing.T, x *envoyNode) {
	x.serve()
	x.change(x.Endpoints("a", x.b.Addr))
	x.await()
	x.awaitAnswer("b")
}

// Envoy warms an updated cluster anew: it uses the update once it is sent the cluster's
// endpoints again, which it does not ask for over delta.
func testEnvoyClusterAlone(t *testing.T, x *envoyNode) {
	x.serve()
	for i := range 3 {
		x.change(x.Cluster("a", marker(i)))
		x.await()
	}
	require.Zero(t, x.fetchTimeouts())
	x.awaitAnswer("a")
}

func testEnvoySameVersion(_ *testing.T, x *envoyNode) {
	x.serve()
	x.version--
	x.change(x.Endpoints("a", x.b.Addr))
	x.await()
	x.awaitAnswer("b")
}

func testEnvoyOrphan(_ *testing.T, x *envoyNode) {
	x.set(append(x.basic("a", x.a), x.Endpoints("orphan", x.a.Addr))...)
	x.start()
	x.awaitAnswer("a")
	x.change(x.Endpoints("a", x.b.Addr))
	x.awaitAnswer("b")
}

func testEnvoyReadded(_ *testing.T, x *envoyNode) {
	x.serve()
	without := append(x.resources, x.Endpoints("b", x.b.Addr))
	with := append(without, x.Cluster("b", ""))
	for range 3 {
		x.set(with...)
		x.await()
		x.set(without...)
		x.awaitClusters(1)
	}
	x.set(replaced(with, x.Route("http", "", "b"))...)
	x.await()
	x.awaitAnswer("b")
}

// awaitClusters waits until the Envoy uses a number of clusters.
func (x *envoyNode) awaitClusters(n int) {
	x.t.Helper()
	require.Eventually(x.t, func() bool {
		config, err := x.Config(context.Background())
		require.NoError(x.t, err)
		return len(config.Clusters) == n
	}, envoyTimeout, time.Millisecond)
}

func testEnvoySetLate(t *testing.T, x *envoyNode) {
	x.start()
	require.Eventually(t, func() bool { return x.stat(`control_plane\.connected_state$`) > 0 }, envoyTimeout, 5*time.Millisecond)
	x.set(x.basic("a", x.a)...)
	x.awaitAnswer("a")
	x.await()
}

func testEnvoyCleared(_ *testing.T, x *envoyNode) {
	x.serve()
	x.d.must(http.MethodDelete, nodePath(x.opts.Node, "snapshot"), nil, nil)
	x.set(x.basic("b", x.b)...)
	x.await()
	x.awaitAnswer("b")
}

func testEnvoyRejected(t *testing.T, x *envoyNode) {
	const rejections = `^listener_manager\.lds\.update_rejected$`
	x.serve()
	other := freeAddr(t)
	x.change(x.BadListener("other", "", other, "http"))
	require.Eventually(t, func() bool { return x.stat(rejections) > 0 }, envoyTimeout, 5*time.Millisecond)
	// Other updates reach Envoy meanwhile, and the rejected listener is not sent again.
	for i := range 20 {
		x.change(x.Route("http", marker(i), "a"))
		x.awaitRoute()
	}
	sent := x.stat(rejections)
	x.change(x.Listener("other", "", other, "http"))
	x.await()
	got, err := envoytest.Get(context.Background(), other)
	require.NoError(t, err)
	require.Equal(t, "a", got)
	require.EqualValues(t, 1, sent, "responses with the rejected listener")
}

// awaitRoute waits until the Envoy uses the route that was set.
func (x *envoyNode) awaitRoute() {
	x.t.Helper()
	want := x.resources[len(x.basic("", x.a))-1]
	require.Eventually(x.t, func() bool {
		config, err := x.Config(context.Background())
		require.NoError(x.t, err)
		diff, err := config.Diff([]object{want})
		require.NoError(x.t, err)
		return !strings.HasPrefix(diff, "RouteConfiguration")
	}, envoyTimeout, 5*time.Millisecond)
}
