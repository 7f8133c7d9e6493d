package e2e

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/internal/envoytest"
)

// envoyTimeout is when an Envoy counts as stuck. It is longer than a fetch timeout in these
// tests.
const envoyTimeout = 60 * time.Second

// envoyNode is an Envoy, and the resources of its node.
type envoyNode struct {
	t    testing.TB
	d    *daemon
	opts envoytest.Options
	envoytest.Builder
	*envoytest.Envoy
	addr string // of the listener

	// a and b answer requests.
	a, b      *envoytest.Upstream
	version   int
	resources []object // set last
}

// newEnvoyNode starts an Envoy on a running daemon. Without an Envoy, the test skips.
func newEnvoyNode(t testing.TB, d *daemon, protocol envoytest.Protocol, fetchTimeout time.Duration) *envoyNode {
	t.Helper()
	x := &envoyNode{
		t: t, d: d, addr: freeAddr(t), a: newUpstream(t, "a"), b: newUpstream(t, "b"),
		Builder: envoytest.Builder{Protocol: protocol, FetchTimeout: fetchTimeout},
		opts:    envoytest.Options{Binary: envoyBinary(t), Node: t.Name(), Server: d.xds, Protocol: protocol},
	}
	x.opts.Dir = t.TempDir() // before stop, which reads the log in it
	t.Cleanup(x.stop)
	return x
}

func envoyBinary(t testing.TB) string {
	t.Helper()
	path, err := envoytest.Find()
	if err != nil {
		t.Skip(err)
	}
	return path
}

func newUpstream(t testing.TB, name string) *envoytest.Upstream {
	t.Helper()
	u, err := envoytest.NewUpstream(context.Background(), name, time.Millisecond)
	require.NoError(t, err)
	t.Cleanup(u.Close)
	return u
}

// start starts the Envoy.
func (x *envoyNode) start() {
	x.t.Helper()
	x.stop()
	var err error
	x.Envoy, err = envoytest.Start(context.Background(), x.opts)
	require.NoError(x.t, err)
}

func (x *envoyNode) stop() {
	if x.Envoy == nil {
		return
	}
	select {
	case <-x.Exited():
		x.t.Errorf("envoy has exited; its log:\n%s", x.Log())
	default:
	}
	x.Stop()
	if x.t.Failed() {
		x.t.Logf("end of envoy's log:\n%s", x.Log())
	}
	x.Envoy = nil
}

// basic returns resources that send all requests to one cluster.
func (x *envoyNode) basic(cluster string, upstreams ...*envoytest.Upstream) []object {
	return []object{
		x.Cluster(cluster, ""),
		x.Endpoints(cluster, addrs(upstreams)...),
		x.Listener("http", "", x.addr, "http"),
		x.Route("http", "", cluster),
	}
}

func addrs(upstreams []*envoytest.Upstream) []string {
	var addrs []string
	for _, u := range upstreams {
		addrs = append(addrs, u.Addr)
	}
	return addrs
}

// serve sets resources that send all requests to upstream a, starts the Envoy, and waits
// until it serves them.
func (x *envoyNode) serve() {
	x.t.Helper()
	x.set(x.basic("a", x.a)...)
	x.start()
	x.await()
	x.awaitAnswer("a")
}

// set replaces the node's resources.
func (x *envoyNode) set(resources ...object) {
	x.t.Helper()
	x.version++
	x.resources = resources
	x.d.put(x.opts.Node, strconv.Itoa(x.version), resources...)
}

// change sets the node's resources with one replaced, or added.
func (x *envoyNode) change(resource object) {
	x.t.Helper()
	x.set(replaced(x.resources, resource)...)
}

func replaced(resources []object, by object) []object {
	resources = slices.Clone(resources)
	i := slices.IndexFunc(resources, func(r object) bool {
		return r["@type"] == by["@type"] && nameOf(r) == nameOf(by)
	})
	if i < 0 {
		return append(resources, by)
	}
	resources[i] = by
	return resources
}

// await waits until the Envoy uses exactly what was set, and returns how long that took.
func (x *envoyNode) await() time.Duration {
	x.t.Helper()
	took, diff := x.converged(x.resources)
	require.Empty(x.t, diff, "after %s", took)
	return took
}

// converged waits until the Envoy uses exactly the resources, or is stuck. It returns how
// long that took, and the remaining difference.
func (x *envoyNode) converged(resources []object) (time.Duration, string) {
	x.t.Helper()
	took, diff, err := x.Await(context.Background(), resources, envoyTimeout)
	require.NoError(x.t, err)
	return took, diff
}

// awaitAnswer waits until a request is answered by one of the upstreams.
func (x *envoyNode) awaitAnswer(upstreams ...string) {
	x.t.Helper()
	var got string
	var err error
	require.Eventually(x.t, func() bool {
		got, err = envoytest.Get(context.Background(), x.addr)
		return err == nil && slices.Contains(upstreams, got)
	}, envoyTimeout, 5*time.Millisecond, "want an answer of %q", upstreams)
}

// stat returns the sum of the Envoy's stats whose name matches a regular expression.
func (x *envoyNode) stat(filter string) int64 {
	x.t.Helper()
	n, err := x.Sum(context.Background(), filter)
	require.NoError(x.t, err)
	return n
}

func (x *envoyNode) fetchTimeouts() int64 {
	x.t.Helper()
	n, err := x.FetchTimeouts(context.Background())
	require.NoError(x.t, err)
	return n
}

// envInt returns the value of an environment variable, or the default.
func envInt(t testing.TB, name string, byDefault int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return byDefault
	}
	n, err := strconv.Atoi(text)
	require.NoError(t, err, name)
	return n
}

func marker(n int) string { return fmt.Sprint("update ", n) }
