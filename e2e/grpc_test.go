package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/stretchr/testify/require"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/xdswal/xdswal/internal/s3test"
)

const (
	grpcNode   = "go"
	grpcTarget = "xds:///greeter"
)

// TestGRPCGo calls a gRPC server through xds:/// continuously while the daemon is killed
// and restarted without its data source: no call fails, and new clients are served the
// restored resources.
func TestGRPCGo(t *testing.T) {
	runGRPC(t, 3, grpcGo, func(*daemon) {})
}

// TestGRPCGoMachineLost is TestGRPCGo with a deleted data directory at each restart: the
// daemon restores from S3 alone.
func TestGRPCGoMachineLost(t *testing.T) {
	server := s3test.Start(t)
	server.Setenv(t)
	runGRPC(t, 2, grpcGo, (*daemon).loseMachine, "--backend", server.URL("fleet"))
}

func grpcGo() *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), helperEnv+"="+grpcTarget)
	return cmd
}

// runGRPC restarts the daemon while the clients run, and calls down while it is down.
func runGRPC(t *testing.T, restarts int, client func() *exec.Cmd, down func(*daemon), flags ...string) {
	first, second := startBackend(t), startBackend(t)
	resources := resourceDir(t, first)
	d := newDaemon(t, append(flags, "--resources", resources)...)
	d.start()
	held := startGRPC(t, d, client())
	held.await("calls to the first server", func(s callStats) bool { return s.ByPeer[first] >= 20 })

	conn := dial(t, d)
	nodes := []string{grpcNode, "edge-1", "every-type"}
	before, seq := map[string]map[string]served{}, d.status().Seq
	for _, node := range nodes {
		before[node] = fetchAll(t, conn, node)
		require.NotZero(t, countServed(before[node]), node)
	}
	for i := range restarts {
		d.awaitShipped()
		d.kill()
		down(d)
		if i == 0 {
			require.NoError(t, os.RemoveAll(resources))
		}
		calls := held.stats().Calls
		held.await("calls while the daemon is down", func(s callStats) bool { return s.Calls >= calls+50 })
		d.start()
		s := d.status()
		require.Equal(t, seq, s.Seq)
		require.Equal(t, len(nodes), s.Restored.Nodes)
		for _, node := range nodes {
			requireSame(t, before[node], fetchAll(t, conn, node))
		}
		fresh := startGRPC(t, d, client())
		fresh.await("calls of a new client", func(s callStats) bool { return s.ByPeer[first] >= 20 })
		fresh.stop()
	}
	// The client of the first start has reconnected and receives changes.
	d.patch(grpcNode, "moved", []object{assignment(t, second)}, nil)
	held.await("calls to the second server", func(s callStats) bool { return s.ByPeer[second] >= 20 })
	held.stop()
}

// startBackend starts a gRPC server on loopback.
func startBackend(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := grpc.NewServer()
	healthv1.RegisterHealthServer(s, health.NewServer())
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	return l.Addr().String()
}

// resourceDir returns a directory with the resources of the gRPC client's node, of the
// quickstart, and of a node with resources of every type.
func resourceDir(t *testing.T, backend string) string {
	t.Helper()
	dir := t.TempDir()
	quickstart := os.DirFS(filepath.Join("..", "examples", "quickstart", "resources"))
	require.NoError(t, os.CopyFS(dir, quickstart))
	require.NoError(t, os.Remove(filepath.Join(dir, "grpc-client.yaml")))
	write := func(node string, resources []object) {
		// A resource file may be JSON or YAML.
		data, err := json.Marshal(object{"version": "1", "resources": resources})
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, node+".json"), data, 0o600))
	}
	write("every-type", everyType("content"))
	ads := object{"ads": object{}, "resource_api_version": "V3"}
	const hcm = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
	const router = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
	write(grpcNode, []object{
		{"@type": resourcev3.ListenerType, "name": "greeter", "api_listener": object{"api_listener": object{
			"@type": hcm, "stat_prefix": "greeter", "rds": object{"route_config_name": "greeter-route", "config_source": ads},
			"http_filters": []any{object{"name": "router", "typed_config": object{"@type": router}}},
		}}},
		{"@type": resourcev3.RouteType, "name": "greeter-route", "virtual_hosts": []any{object{
			"name": "greeter", "domains": []any{"*"},
			"routes": []any{object{"match": object{"prefix": ""}, "route": object{"cluster": "greeter-cluster"}}},
		}}},
		{
			"@type": resourcev3.ClusterType, "name": "greeter-cluster", "type": "EDS", "lb_policy": "ROUND_ROBIN",
			"eds_cluster_config": object{"eds_config": ads},
		},
		assignment(t, backend),
	})
	return dir
}

// assignment returns the endpoints of the cluster of the gRPC client: one address.
func assignment(t *testing.T, addr string) object {
	t.Helper()
	a, err := net.ResolveTCPAddr("tcp", addr)
	require.NoError(t, err)
	return object{"@type": resourcev3.EndpointType, "cluster_name": "greeter-cluster", "endpoints": []any{object{
		"locality": object{"region": "local", "zone": "a"}, "load_balancing_weight": 1,
		"lb_endpoints": []any{object{"load_balancing_weight": 1, "endpoint": object{
			"address": object{"socket_address": object{"address": a.IP.String(), "port_value": a.Port}},
		}}},
	}}}
}

// grpcClient is a client process that calls continuously.
type grpcClient struct {
	t     testing.TB
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines chan []byte // closed when the process has exited
}

// startGRPC starts a client with the daemon as its xDS server.
func startGRPC(t testing.TB, d *daemon, cmd *exec.Cmd) *grpcClient {
	t.Helper()
	bootstrap, err := json.Marshal(object{
		"xds_servers": []any{object{
			"server_uri": d.xds, "channel_creds": []any{object{"type": "insecure"}}, "server_features": []any{"xds_v3"},
		}},
		"node": object{"id": grpcNode, "locality": object{}},
	})
	require.NoError(t, err)
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	cmd.Env = append(cmd.Env, "GRPC_XDS_BOOTSTRAP_CONFIG="+string(bootstrap))
	c := &grpcClient{t: t, cmd: cmd, lines: make(chan []byte)}
	c.in, err = cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	log, err := os.Create(filepath.Join(t.TempDir(), "client.log"))
	require.NoError(t, err)
	cmd.Stderr = log
	require.NoError(t, cmd.Start())
	go func() {
		defer close(c.lines)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			c.lines <- append([]byte(nil), lines.Bytes()...)
		}
	}()
	t.Cleanup(func() {
		c.in.Close()
		_ = cmd.Process.Kill()
		for range c.lines {
		}
		_ = cmd.Wait()
		log.Close()
		if data, _ := os.ReadFile(log.Name()); t.Failed() && len(data) > 0 {
			t.Logf("log of a gRPC client:\n%s", data)
		}
	})
	return c
}

// stats returns the statistics of the client, and fails if a call has failed.
func (c *grpcClient) stats() callStats {
	c.t.Helper()
	_, err := fmt.Fprintln(c.in)
	require.NoError(c.t, err, "the client has exited")
	var s callStats
	select {
	case line, ok := <-c.lines:
		require.True(c.t, ok, "the client has exited")
		require.NoError(c.t, json.Unmarshal(line, &s))
	case <-time.After(timeout):
		require.FailNow(c.t, "the client does not answer")
	}
	require.Zero(c.t, s.Failed, "%d of %d calls failed, the first with: %s", s.Failed, s.Calls, s.FirstError)
	return s
}

// await waits until done returns true for the statistics of the client.
func (c *grpcClient) await(what string, done func(callStats) bool) {
	c.t.Helper()
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for deadline := time.Now().Add(timeout); ; <-poll.C {
		s := c.stats()
		if done(s) {
			return
		}
		require.True(c.t, time.Now().Before(deadline), "no %s: %+v", what, s)
	}
}

// stop ends the client, and fails if a call has failed.
func (c *grpcClient) stop() {
	c.t.Helper()
	s := c.stats()
	c.t.Logf("%d calls, none failed", s.Calls)
	require.NoError(c.t, c.in.Close())
}
