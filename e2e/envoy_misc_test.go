package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/internal/envoytest"
)

// TestEnvoyManyClusters restarts the daemon under an Envoy whose first delta request, with
// the names and versions of all its clusters, is larger than gRPC's default of 4 MiB.
func TestEnvoyManyClusters(t *testing.T) {
	const clusters, nameLength = 8_000, 560 // 15,000 shorter names take Envoy longer
	if testing.Short() {
		t.Skip("-short sets few clusters")
	}
	envoyBinary(t)
	d := newDaemon(t, "--log-level", "warn")
	d.start()
	x := newEnvoyNode(t, d, envoytest.Protocol{Delta: true}, 0)
	resources := x.basic("a", x.a)
	for i := range clusters {
		name := fmt.Sprintf("%0*d", nameLength, i)
		resources = append(resources, object{
			"@type": resources[0]["@type"], "name": name, "alt_stat_name": "many", "type": "STATIC", "connect_timeout": "1s",
			"load_assignment": object{"cluster_name": name},
		})
	}
	start := time.Now()
	x.set(resources...)
	set := time.Since(start)
	x.start()
	start = time.Now()
	x.awaitAnswer("a")
	first := time.Since(start)

	d.kill()
	d.start()
	start = time.Now()
	x.d.patch(x.opts.Node, "after the restart", []object{x.Endpoints("a", x.b.Addr)}, nil)
	x.awaitAnswer("b")
	t.Logf("%d clusters: set in %s, first configuration in %s, update after the reconnect in %s", clusters, set, first, time.Since(start))
}

// TestEnvoyKeepalive runs an Envoy that sends a ping each 5 s. gRPC's default ends the
// connection at the third one.
func TestEnvoyKeepalive(t *testing.T) {
	t.Parallel() // it waits most of the time
	const interval, pings = 5 * time.Second, 4
	envoyBinary(t)
	d := newDaemon(t, "--log-level", "warn")
	d.start()
	x := newEnvoyNode(t, d, envoytest.Protocol{Delta: true}, 0)
	x.opts.Keepalive = interval
	x.serve()
	const connections = `^cluster\.xds\.upstream_cx_total$`
	require.EqualValues(t, 1, x.stat(connections))
	<-time.After(pings*interval + time.Second)
	require.EqualValues(t, 1, x.stat(connections), "connections to the daemon")
	x.change(x.Endpoints("a", x.b.Addr))
	x.awaitAnswer("b")
}

// TestEnvoyHeartbeat serves clusters with a TTL. Envoy removes them when it passes, unless
// it receives a heartbeat, and a heartbeat without bodies removes them over SotW.
func TestEnvoyHeartbeat(t *testing.T) {
	const ttl, heartbeat = time.Second, 200 * time.Millisecond
	envoyBinary(t)
	d := newDaemon(t, "--log-level", "warn", "--heartbeat-interval", heartbeat.String())
	d.start()
	for _, protocol := range []envoytest.Protocol{{Delta: true}, {}} {
		t.Run(strings.ReplaceAll(protocol.String(), " ", "_"), func(t *testing.T) {
			x := newEnvoyNode(t, d, protocol, 0)
			resources := x.basic("a", x.a)
			resources[0] = withTTL(resources[0], "1s")
			x.set(resources...)
			x.start()
			x.awaitAnswer("a")
			client := envoytest.NewClient(context.Background(), x.addr, 1, 5*time.Millisecond)
			defer client.Stop()
			<-time.After(3 * ttl)
			counts := client.Stop()
			t.Log(counts)
			require.Zero(t, counts.Failed)
		})
	}
}
