package daemon_test

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/cmd/xdswal/internal/daemon"
	_ "github.com/xdswal/xdswal/cmd/xdswal/internal/envoytypes"
	"github.com/xdswal/xdswal/internal/logtest"
)

// logs is a log that is read while it is written.
type logs struct{ logtest.Buffer }

// find returns the first line with a message, nil if there is none yet.
func (l *logs) find(message string) map[string]any {
	lines := bufio.NewScanner(strings.NewReader(l.String()))
	for lines.Scan() {
		var line map[string]any
		if json.Unmarshal(lines.Bytes(), &line) == nil && line["msg"] == message {
			return line
		}
	}
	return nil
}

// config parses flags as the command does.
func config(t *testing.T, args ...string) daemon.Config {
	t.Helper()
	var c daemon.Config
	f := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	c.Flags(f)
	args = append([]string{"--xds-addr=127.0.0.1:0", "--admin-addr=127.0.0.1:0", "--log-format=json"}, args...)
	require.NoError(t, f.Parse(args))
	return c
}

// running is a daemon in this process.
type running struct {
	logs       *logs
	xds, admin string
	cancel     context.CancelFunc
	done       chan error
}

func start(t *testing.T, args ...string) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{logs: &logs{}, cancel: cancel, done: make(chan error, 1)}
	c := config(t, args...)
	go func() { r.done <- daemon.Run(ctx, c, r.logs) }()
	t.Cleanup(cancel)
	require.Eventually(t, func() bool { return r.logs.find("serving") != nil }, 30*time.Second, time.Millisecond, "%s", r.logs)
	line := r.logs.find("serving")
	r.xds, r.admin = line["xds"].(string), "http://"+line["admin"].(string)
	return r
}

// stop ends the daemon as SIGTERM does, and wants it to end well.
func (r *running) stop(t *testing.T) {
	t.Helper()
	r.cancel()
	select {
	case err := <-r.done:
		require.NoError(t, err)
	case <-time.After(30 * time.Second):
		t.Fatalf("the daemon does not end: %s", r.logs)
	}
}

func (r *running) request(t *testing.T, method, path, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, r.admin+path, strings.NewReader(body))
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(data)
}

const clusterA = `{"version":"1","resources":[{"@type":"` + resourcev3.ClusterType + `","name":"a"}]}`

// fetch asks for clusters as an Envoy does.
func (r *running) fetch(t *testing.T, node string) *discoveryv3.DiscoveryResponse {
	t.Helper()
	conn, err := grpc.NewClient(r.xds, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).StreamAggregatedResources(ctx)
	require.NoError(t, err)
	require.NoError(t, stream.Send(&discoveryv3.DiscoveryRequest{Node: &corev3.Node{Id: node}, TypeUrl: resourcev3.ClusterType}))
	resp, err := stream.Recv()
	require.NoError(t, err)
	return resp
}

func TestServesWhatItIsTold(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	r := start(t, "--dir", dir)
	for path, want := range map[string]string{"/healthz": "ok\n", "/readyz": "ok\n"} {
		status, body := r.request(t, "GET", path, "")
		require.Equal(t, http.StatusOK, status)
		require.Equal(t, want, body)
	}
	status, body := r.request(t, "GET", "/metrics", "")
	require.Equal(t, http.StatusOK, status)
	require.Contains(t, body, "go_goroutines")
	status, body = r.request(t, "PUT", "/v1/nodes/n/snapshot", clusterA)
	require.Equal(t, http.StatusOK, status, body)
	served := r.fetch(t, "n")
	require.Equal(t, "1", served.GetVersionInfo())
	r.stop(t)
	require.NotNil(t, r.logs.find("closed"))

	// The next one serves the same bytes, and reads no source.
	r = start(t, "--dir", dir)
	again := r.fetch(t, "n")
	require.Equal(t, served.GetVersionInfo(), again.GetVersionInfo())
	require.Equal(t, served.GetResources()[0].GetValue(), again.GetResources()[0].GetValue())
	var c clusterv3.Cluster
	require.NoError(t, proto.Unmarshal(again.GetResources()[0].GetValue(), &c))
	require.Equal(t, "a", c.GetName())
	r.stop(t)
}

// An open stream and an idle connection keep no daemon from ending.
func TestEndsBesideClients(t *testing.T) {
	r := start(t, "--dir", t.TempDir())
	_, _ = r.request(t, "PUT", "/v1/nodes/n/snapshot", clusterA)
	conn, err := grpc.NewClient(r.xds, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	defer conn.Close()
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).StreamAggregatedResources(t.Context())
	require.NoError(t, err)
	require.NoError(t, stream.Send(&discoveryv3.DiscoveryRequest{Node: &corev3.Node{Id: "n"}, TypeUrl: resourcev3.ClusterType}))
	_, err = stream.Recv()
	require.NoError(t, err)
	start := time.Now()
	r.stop(t)
	require.Less(t, time.Since(start), 10*time.Second)
	_, err = stream.Recv()
	require.Error(t, err)
}

func TestResourceFiles(t *testing.T) {
	resources := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(resources, "n.json"), []byte(clusterA), 0o600))
	r := start(t, "--dir", t.TempDir(), "--resources", resources)
	require.Equal(t, "1", r.fetch(t, "n").GetVersionInfo())
	r.stop(t)
}

func TestMemoryOnly(t *testing.T) {
	// What is about persistence is ignored.
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	r := start(t, "--memory-only", "--dir", file)
	status, _ := r.request(t, "PUT", "/v1/nodes/n/snapshot", clusterA)
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, "1", r.fetch(t, "n").GetVersionInfo())
	r.stop(t)
}

func TestShipsItsLastSnapshot(t *testing.T) {
	backend := filepath.Join(t.TempDir(), "backend")
	r := start(t, "--dir", t.TempDir(), "--backend", "file://"+backend)
	status, _ := r.request(t, "PUT", "/v1/nodes/n/snapshot", clusterA)
	require.Equal(t, http.StatusOK, status)
	r.stop(t)
	files, err := filepath.Glob(filepath.Join(backend, "snapshots", "*.zst"))
	require.NoError(t, err)
	require.Len(t, files, 1)

	r = start(t, "--dir", t.TempDir(), "--backend", "file://"+backend)
	require.Equal(t, "1", r.fetch(t, "n").GetVersionInfo())
	r.stop(t)
}

func TestRefusesToStart(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	tmp := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(tmp, name)
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		return path
	}
	const key = "c2VjcmV0LXByaXZhdGUta2V5"
	garbage := write("garbage.pem", "-----BEGIN PRIVATE KEY-----\n"+key+"\n-----END PRIVATE KEY-----\n")
	newer := filepath.Join(tmp, "newer")
	require.NoError(t, os.MkdirAll(newer, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(newer, "xdswal.json"), []byte(`{"format":2,"store_id":"x","epoch":1}`), 0o600))
	locked := t.TempDir()
	s, err := xdswal.Open(t.Context(), xdswal.Options{Dir: locked})
	require.NoError(t, err)
	defer s.Close(t.Context())

	for _, tc := range []struct {
		name string
		args []string
		want string
	}{
		{"no directory", nil, "--dir is missing: name a data directory, or use --memory-only"},
		{"xDS port taken", []string{"--dir", "D", "--xds-addr", taken.Addr().String()}, "listen for xDS: listen tcp " + taken.Addr().String() + ": bind: address already in use"},
		{"admin port taken", []string{"--dir", "D", "--admin-addr", taken.Addr().String()}, "listen for the admin interface: listen tcp " + taken.Addr().String()},
		{"address without a port", []string{"--dir", "D", "--xds-addr", "localhost"}, "missing port in address"},
		{"directory in use", []string{"--dir", locked}, "locked by another process"},
		{"directory of a newer format", []string{"--dir", newer}, "got format 2, want at most 1"},
		{"a file for a directory", []string{"--dir", garbage}, "not a directory"},
		{"certificate without a key", []string{"--dir", "D", "--xds-tls-cert", garbage}, "--xds-tls-cert and --xds-tls-key require each other"},
		{"client authorities without a certificate", []string{"--dir", "D", "--xds-tls-client-ca", garbage}, "needs --xds-tls-cert"},
		{"missing certificate", []string{"--dir", "D", "--xds-tls-cert", tmp + "/none", "--xds-tls-key", garbage}, "load the xDS server's certificate: open " + tmp + "/none"},
		{"garbage for a certificate", []string{"--dir", "D", "--xds-tls-cert", garbage, "--xds-tls-key", garbage}, "load the xDS server's certificate: "},
		{"unknown backend", []string{"--dir", "D", "--backend", "ftp://u:" + key + "@h/x"}, `--backend: open backend: unknown scheme "ftp"`},
		{"sync", []string{"--dir", "D", "--sync", "sometimes"}, `--sync: parse sync policy "sometimes"`},
		{"log level", []string{"--dir", "D", "--log-level", "loud"}, `--log-level is "loud"`},
		{"log format", []string{"--dir", "D", "--log-format", "xml"}, `--log-format is "xml"`},
		{"journal", []string{"--dir", "D", "--max-journal-bytes", "1"}, "--max-journal-bytes is 1: must be at least 67108864; 0 is the default of 4294967296"},
		{"heartbeat", []string{"--dir", "D", "--heartbeat-interval", "-1s"}, "--heartbeat-interval is -1s"},
		{"body", []string{"--dir", "D", "--max-body-bytes", "0"}, "--max-body-bytes is 0"},
		{"fail open without snapshots", []string{"--dir", "D", "--fail-open", "--no-snapshots"}, "--fail-open and --no-snapshots are mutually exclusive: "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for i, arg := range tc.args {
				if arg == "D" {
					tc.args[i] = filepath.Join(t.TempDir(), "data")
				}
			}
			l := &logs{}
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			err := daemon.Run(ctx, config(t, tc.args...), l)
			require.ErrorContains(t, err, tc.want)
			require.NotContains(t, err.Error()+l.String(), key)
			require.Nil(t, l.find("serving"))
		})
	}
}

// What is refused for its settings leaves nothing behind.
func TestBadSettingsMakeNoDirectory(t *testing.T) {
	for _, args := range [][]string{
		{"--xds-tls-cert", "/nonexistent", "--xds-tls-key", "/nonexistent"}, {"--sync", "sometimes"}, {"--backend", "ftp://x"}, {"--log-level", "loud"},
	} {
		dir := filepath.Join(t.TempDir(), "data")
		require.Error(t, daemon.Run(t.Context(), config(t, append(args, "--dir", dir)...), io.Discard))
		require.NoDirExists(t, dir, "%q", args)
	}
}
