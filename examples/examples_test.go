// Package examples_test runs the examples.
package examples_test

import (
	"bytes"
	"context"
	"net"
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
)

// timeout bounds waits that are short unless the test fails.
const timeout = 30 * time.Second

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
