package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/internal/envoytest"
)

// defaultSwaps is the number of swaps of TestEnvoySwap.
const defaultSwaps = 10

// TestEnvoySwap replaces a cluster and the route to it by one update, under traffic. A
// request fails if the route names a cluster that Envoy does not have yet, or no longer.
func TestEnvoySwap(t *testing.T) {
	swaps := envInt(t, "XDSWAL_E2E_ENVOY_SWAPS", defaultSwaps)
	envoyBinary(t)
	d := newDaemon(t, "--log-level", "warn")
	d.start()
	for _, protocol := range []envoytest.Protocol{{Delta: true}, {}} {
		t.Run(protocol.String(), func(t *testing.T) {
			x := newEnvoyNode(t, d, protocol, 3*time.Second)
			x.serve()
			client := envoytest.NewClient(context.Background(), x.addr, 4, time.Millisecond)
			defer client.Stop()
			upstreams := []*envoytest.Upstream{x.a, x.b}
			var slowest time.Duration
			for i := range swaps {
				x.set(x.basic(fmt.Sprint("swap-", i), upstreams[i%2])...)
				slowest = max(slowest, x.await())
				before := client.Counts().Requests
				require.Eventually(t, func() bool { return client.Counts().Requests > before+10 }, envoyTimeout, time.Millisecond)
			}
			counts := client.Stop()
			t.Logf("%d swaps, the slowest in %s; %s", swaps, slowest.Round(time.Millisecond), counts)
			require.Zero(t, counts.Failed)
			require.Zero(t, x.fetchTimeouts())
		})
	}
}
