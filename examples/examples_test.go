// Package examples_test runs the examples.
package examples_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/xdswal/xdswal/internal/envoytest"
)

// timeout bounds waits that are short unless the test fails.
const timeout = 60 * time.Second

// TestEmbed starts the control plane of examples/embed, kills it, and checks that it
// serves the same configuration after a restart.
func TestEmbed(t *testing.T) {
	bin := build(t, "./embed")
	dir, addr := filepath.Join(t.TempDir(), "data"), freeAddr(t)

	first := start(t, bin, "-dir", dir, "-addr", addr)
	version := fetch(t, addr, "edge-1").GetVersionInfo()
	require.NotEmpty(t, version)
	first.kill(t)

	second := start(t, bin, "-dir", dir, "-addr", addr)
	response := fetch(t, addr, "edge-1")
	require.Len(t, response.GetResources(), 1)
	second.stop(t)
	require.Contains(t, second.output(), "restored 1 nodes at sequence 1")
}

// TestQuickstart serves the resources of the quickstart with the daemon, as make run
// does.
func TestQuickstart(t *testing.T) {
	bin := build(t, "../cmd/xdswal")
	dir, addr := t.TempDir(), freeAddr(t)
	daemon := start(t, bin, "serve",
		"--dir", filepath.Join(dir, "data"),
		"--backend", "file://"+filepath.Join(dir, "backend"),
		"--resources", "quickstart/resources",
		"--xds-addr", addr, "--admin-addr", freeAddr(t))
	require.Len(t, fetch(t, addr, "edge-1").GetResources(), 2, "clusters of edge-1")
	daemon.stop(t)
	shipped, err := filepath.Glob(filepath.Join(dir, "backend", "snapshots", "*.zst"))
	require.NoError(t, err)
	require.Len(t, shipped, 1, "SIGINT ships a last snapshot")
}

// TestQuickstartEnvoy sends requests through an Envoy on the quickstart's resources, as
// the README has it, with other ports.
func TestQuickstartEnvoy(t *testing.T) {
	envoy, err := envoytest.Find()
	if err != nil {
		t.Skip(err)
	}
	bin, dir := build(t, "../cmd/xdswal"), t.TempDir()
	ports, addrs := []string{}, map[string]string{}
	for _, port := range []string{"18000", "8080", "8443", "9001", "9002", "9003", "9443", "9901"} {
		addr, err := envoytest.FreeAddr(context.Background())
		require.NoError(t, err)
		addrs[port] = addr
		_, free, err := net.SplitHostPort(addr)
		require.NoError(t, err)
		ports = append(ports, "port_value: "+port+"}", "port_value: "+free+"}")
	}
	replace := func(from, to string) {
		data, err := os.ReadFile(from)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(to, []byte(strings.NewReplacer(ports...).Replace(string(data))), 0o600))
	}
	resources, config := filepath.Join(dir, "resources"), filepath.Join(dir, "envoy.yaml")
	require.NoError(t, os.Mkdir(resources, 0o700))
	replace("quickstart/resources/edge-1.yaml", filepath.Join(resources, "edge-1.yaml"))
	replace("quickstart/envoy.yaml", config)

	serve := []string{"serve", "--dir", filepath.Join(dir, "data"), "--xds-addr", addrs["18000"], "--admin-addr", freeAddr(t)}
	first := start(t, bin, append(serve, "--resources", resources)...)
	start(t, envoy, "--config-path", config, "--disable-hot-restart", "--log-level", "warning")
	get := func(url string) (body string) {
		client := &http.Client{Transport: &http.Transport{
			DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		}}
		require.Eventually(t, func() bool {
			resp, err := client.Get(url)
			if err != nil {
				return false
			}
			defer resp.Body.Close()
			data, err := io.ReadAll(resp.Body)
			body = string(data)
			return err == nil && resp.StatusCode == http.StatusOK
		}, timeout, 10*time.Millisecond, "no answer from %s", url)
		return body
	}
	require.Contains(t, get("http://"+addrs["8080"]), "hello from 127.0.0.1:")
	require.Contains(t, get("https://"+addrs["8443"]), "hello from 127.0.0.1:")
	first.kill(t)
	start(t, bin, serve...)
	require.Contains(t, get("http://"+addrs["8080"]), "hello from 127.0.0.1:")
}

func build(t *testing.T, pkg string) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "bin")
	out, err := exec.Command("go", "build", "-o", bin, pkg).CombinedOutput()
	require.NoError(t, err, string(out))
	return bin
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().String()
}

// process is a running example.
type process struct {
	cmd  *exec.Cmd
	done chan struct{}
	mu   sync.Mutex
	out  bytes.Buffer
}

func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.Write(b)
}

func (p *process) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.String()
}

func start(t *testing.T, bin string, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(bin, args...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = p, p
	require.NoError(t, p.cmd.Start())
	go func() {
		p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		<-p.done
		if t.Failed() {
			t.Logf("%s %s:\n%s", filepath.Base(bin), strings.Join(args, " "), p.output())
		}
	})
	return p
}

func (p *process) kill(t *testing.T) {
	t.Helper()
	require.NoError(t, p.cmd.Process.Kill())
	<-p.done
}

// stop sends SIGINT, and checks that the process exits with status 0.
func (p *process) stop(t *testing.T) {
	t.Helper()
	require.NoError(t, p.cmd.Process.Signal(os.Interrupt))
	select {
	case <-p.done:
	case <-time.After(timeout):
		require.Fail(t, "the process did not exit", p.output())
	}
	require.Zero(t, p.cmd.ProcessState.ExitCode(), p.output())
}

// fetch requests the clusters of a node, and waits for the answer.
func fetch(t *testing.T, addr, node string) *discoveryv3.DiscoveryResponse {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	require.NoError(t, err)
	defer conn.Close()
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).StreamAggregatedResources(ctx)
	require.NoError(t, err)
	require.NoError(t, stream.Send(&discoveryv3.DiscoveryRequest{
		Node:    &corev3.Node{Id: node},
		TypeUrl: resourcev3.ClusterType,
	}))
	response, err := stream.Recv()
	require.NoError(t, err)
	return response
}
