package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/internal/envoytest"
)

// upstreamUpdates is the number of updates of each run of go-control-plane's suite.
const upstreamUpdates = 3

// upstreamDriver makes go-control-plane's test driver, pkg/test/main, use our caches and our
// server. Each expression must match.
var upstreamDriver = [][2]string{
	{`cache\.NewSnapshotCache\(`, `newSnapshotCache(`},
	{`cache\.NewLinearCache\(`, `newLinearCache(`},
	{`server\.NewServer\(`, `newServer(`},
	{`\t"github\.com/envoyproxy/go-control-plane/pkg/server/v3"\n`, ``}, // not used any more
	// After each update it sends a fixed number of batches of requests, of which one has to
	// succeed. Here it sends five, and more only until one succeeds: a busy machine needs
	// longer, also for the answer to a request.
	{`(log\.Printf\("request batch .*\n)`, `${1}if pass && j >= 4 { break }` + "\n"},
	{`Timeout: 100 \* time\.Millisecond`, `Timeout: 2 * time.Second`},
	// It serves on, so that the test can wait until the Envoy has the last update.
	{`log\.Printf\("Test for %s passed!\\n", mode\)`, `$0; serveOn()`},
}

// upstreamBootstrap returns one of its bootstraps with other ports.
func upstreamBootstrap(t *testing.T, module, mode string, ports map[string]int) []byte {
	t.Helper()
	bootstrap, err := os.ReadFile(filepath.Join(module, "sample", "bootstrap-"+mode+".yaml"))
	require.NoError(t, err)
	return regexp.MustCompile(`port_value: \d+`).ReplaceAllFunc(bootstrap, func(found []byte) []byte {
		key, old, _ := strings.Cut(string(found), " ")
		require.Contains(t, ports, old)
		return fmt.Append(nil, key, " ", ports[old])
	})
}

// go-control-plane's integration suite passes with our caches and our server. Its files are
// read from the module cache; each change has its reason in upstreamDriver.
func TestEnvoyUpstreamSuite(t *testing.T) {
	binary := envoyBinary(t)
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/envoyproxy/go-control-plane").Output()
	require.NoError(t, err)
	module := strings.TrimSpace(string(out))
	driver := buildUpstreamDriver(t, module)

	for _, tc := range []struct {
		name, mode string
		flags      []string
	}{
		// The targets of its Makefile.
		{name: "xds", mode: "xds"},
		{name: "ads", mode: "ads", flags: []string{"-runtimes=2"}},
		{name: "rest", mode: "rest"},
		{name: "xds-mux", mode: "xds", flags: []string{"-mux"}},
		{name: "delta", mode: "delta"},
		{name: "delta-ads", mode: "delta-ads"},
		// Its flag for TLS, with secrets over SDS.
		{name: "xds with TLS", mode: "xds", flags: []string{"-tls"}},
		{name: "ads with TLS", mode: "ads", flags: []string{"-tls", "-runtimes=2"}},
		{name: "delta with TLS", mode: "delta", flags: []string{"-tls"}},
		{name: "delta-ads with TLS", mode: "delta-ads", flags: []string{"-tls"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			const message = "Hi, there!\n"
			upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				_, _ = io.WriteString(w, message)
			}))
			t.Cleanup(upstream.Close)
			port := freePorts(t, 3+8) // the suite has at most 8 listeners
			xds, gateway, als, listeners := port, port+1, port+2, port+3
			p := &upstreamProcess{exited: make(chan struct{})}
			p.cmd = exec.Command(driver, append([]string{
				"-xds=" + tc.mode, "-message=" + message, "-upstream=" + upstream.URL[strings.LastIndex(upstream.URL, ":")+1:],
				"-port=" + strconv.Itoa(xds), "-gateway=" + strconv.Itoa(gateway), "-als=" + strconv.Itoa(als), "-base=" + strconv.Itoa(listeners),
				"-u=" + strconv.Itoa(upstreamUpdates), "-r=200", "-delay=150ms",
			}, tc.flags...)...)
			p.cmd.Env = append(os.Environ(), "GORACE=halt_on_error=1", "XDSWAL_E2E_STORE="+filepath.Join(t.TempDir(), "store"))
			p.start(t)
			p.await(t, "management server listening", "gateway listening", "access log server listening")

			envoy, err := envoytest.Start(context.Background(), envoytest.Options{
				Binary: binary, Dir: t.TempDir(),
				Bootstrap: upstreamBootstrap(t, module, tc.mode, map[string]int{
					"18000": xds, "18001": gateway, "18090": als, "19000": 0, // of the admin interface
				}),
			})
			require.NoError(t, err)
			t.Cleanup(func() {
				envoy.Stop()
				if t.Failed() {
					t.Logf("end of envoy's log:\n%s", envoy.Log())
				}
			})
			p.await(t, "passed!")

			// Beyond what the driver requires: the Envoy has exactly the last update, and has
			// rejected nothing.
			last := regexp.MustCompile(fmt.Sprintf(`^cluster-v%d-\d+$`, upstreamUpdates-1))
			require.EventuallyWithT(t, func(c *assert.CollectT) {
				assert.Empty(c, upstreamDiff(envoy, last))
			}, envoyTimeout, 100*time.Millisecond)
			rejected, err := envoy.Sum(context.Background(), `\.update_rejected$`)
			require.NoError(t, err)
			require.Zero(t, rejected)
			require.NoError(t, p.input.Close())
			p.end(t)
		})
	}
}

// upstreamDiff returns what an Envoy's clusters and listeners lack of the last update, or "".
func upstreamDiff(envoy *envoytest.Envoy, last *regexp.Regexp) string {
	config, err := envoy.Config(context.Background())
	switch {
	case err != nil:
		return err.Error()
	case len(config.Warming) > 0:
		return "warming: " + strings.Join(config.Warming, ", ")
	case len(config.Rejected) > 0:
		return fmt.Sprint("rejected: ", config.Rejected)
	case len(config.Clusters) != 4:
		return fmt.Sprintf("%d clusters, want 4", len(config.Clusters))
	}
	for name := range config.Clusters {
		if !last.MatchString(name) {
			return fmt.Sprintf("cluster %s is not of the last update", name)
		}
	}
	return ""
}

// buildUpstreamDriver builds go-control-plane's test driver from the module's source, and
// returns the path of the binary.
func buildUpstreamDriver(t *testing.T, module string) string {
	t.Helper()
	dir := t.TempDir()
	source, err := os.ReadFile(filepath.Join(module, "pkg", "test", "main", "main.go"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "main.go"), []byte(replaceAll(t, string(source), upstreamDriver)), 0o600))
	here, err := os.Getwd()
	require.NoError(t, err)
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{
		filepath.Join(here, "upstreamdriver", "main.go"): filepath.Join(dir, "main.go"),
		filepath.Join(here, "upstreamdriver", "shim.go"): filepath.Join(here, "testdata", "upstream", "shim.go"),
	}})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600))
	path := filepath.Join(dir, "driver")
	args := []string{"build", "-o", path, "-overlay", filepath.Join(dir, "overlay.json")}
	if raceEnabled {
		args = append(args, "-race")
	}
	out, err := exec.Command("go", append(args, "./upstreamdriver")...).CombinedOutput()
	require.NoError(t, err, "build go-control-plane's test driver: %s", out)
	return path
}

// replaceAll applies regular expressions and replacements, each of which must match.
func replaceAll(t *testing.T, source string, replace [][2]string) string {
	t.Helper()
	for _, r := range replace {
		expr := regexp.MustCompile(r[0])
		require.True(t, expr.MatchString(source), "%s is not in go-control-plane's file any more", r[0])
		source = expr.ReplaceAllString(source, r[1])
	}
	return source
}

// freePorts returns the first of n consecutive free ports, outside the range for outgoing
// connections.
func freePorts(t testing.TB, n int) int {
	t.Helper()
	for range 1000 {
		first, free := 12_000+rand.IntN(20_000), 0
		for ; free < n; free++ {
			addr := fmt.Sprintf("127.0.0.1:%d", first+free)
			if _, taken := reserved.LoadOrStore(addr, true); taken {
				break
			}
			l, err := net.Listen("tcp", addr)
			if err != nil {
				break
			}
			require.NoError(t, l.Close())
		}
		if free == n {
			return first
		}
	}
	require.Fail(t, "no free ports")
	return 0
}

// upstreamProcess is a running test driver.
type upstreamProcess struct {
	cmd    *exec.Cmd
	input  io.Closer
	exited chan struct{} // closed when the process has exited
	err    error         // of the process, after it has exited

	mu  sync.Mutex
	log bytes.Buffer
}

// Write appends to the log.
func (p *upstreamProcess) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.Write(b)
}

func (p *upstreamProcess) logged() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

func (p *upstreamProcess) start(t *testing.T) {
	t.Helper()
	p.cmd.Stdout, p.cmd.Stderr = p, p
	var err error
	p.input, err = p.cmd.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, p.cmd.Start())
	go func() {
		p.err = p.cmd.Wait()
		close(p.exited)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // fails only after its end
		<-p.exited
		if log := p.logged(); t.Failed() {
			t.Logf("end of the driver's log:\n%s", log[max(0, len(log)-16<<10):])
		}
	})
}

// await waits until the driver has logged all texts.
func (p *upstreamProcess) await(t *testing.T, texts ...string) {
	t.Helper()
	for _, text := range texts {
		require.Eventually(t, func() bool {
			select {
			case <-p.exited:
				return true
			default:
				return strings.Contains(p.logged(), text)
			}
		}, timeout, 5*time.Millisecond, "want %q in the driver's log", text)
		require.True(t, strings.Contains(p.logged(), text), "the driver has exited before it logged %q", text)
	}
}

// end waits for the end of the driver, which must succeed.
func (p *upstreamProcess) end(t *testing.T) {
	t.Helper()
	select {
	case <-p.exited:
		require.NoError(t, p.err)
	case <-time.After(timeout):
		require.Fail(t, "the driver has not ended")
	}
}
