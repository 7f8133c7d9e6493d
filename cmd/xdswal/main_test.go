//go:build unix

package main_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/cmd/xdswal/internal/resourcefile"
)

// binary is the program under test.
var binary string

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "xdswal-test")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	// Another user runs it too.
	if err := os.Chmod(dir, 0o755); err != nil {
		panic(err)
	}
	binary = filepath.Join(dir, "xdswal")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

const (
	clusterType = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	clusterA    = `{"version":"1","resources":[{"@type":"` + clusterType + `","name":"a"}]}`
)

// result is what a run of the binary left.
type result struct {
	code        int
	out, errors string
}

func xdswal(t *testing.T, args ...string) result {
	t.Helper()
	return finish(t, exec.CommandContext(t.Context(), binary, args...))
}

func finish(t *testing.T, cmd *exec.Cmd) result {
	t.Helper()
	var out, errors bytes.Buffer
	if cmd.Stdout == nil {
		cmd.Stdout = &out
	}
	cmd.Stderr = &errors
	if err := cmd.Run(); err != nil {
		require.IsType(t, (*exec.ExitError)(nil), err)
	}
	return result{cmd.ProcessState.ExitCode(), out.String(), errors.String()}
}

// daemon is a running xdswal serve.
type daemon struct {
	cmd   *exec.Cmd
	admin string
	mu    sync.Mutex
	logs  strings.Builder
	ended chan struct{}
}

func serve(t *testing.T, env []string, args ...string) *daemon {
	t.Helper()
	d := &daemon{ended: make(chan struct{})}
	args = append([]string{"serve", "--xds-addr=127.0.0.1:0", "--admin-addr=127.0.0.1:0", "--log-format=json"}, args...)
	d.cmd = exec.Command(binary, args...)
	d.cmd.Env = append(os.Environ(), env...)
	stderr, err := d.cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, d.cmd.Start())
	t.Cleanup(func() {
		_ = d.cmd.Process.Kill()
		<-d.ended
		_ = d.cmd.Wait()
	})
	serving := make(chan string, 1)
	go func() {
		defer close(d.ended)
		lines := bufio.NewScanner(stderr)
		for lines.Scan() {
			d.mu.Lock()
			d.logs.WriteString(lines.Text() + "\n")
			d.mu.Unlock()
			var line struct{ Msg, Admin string }
			if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == "serving" {
				serving <- line.Admin
			}
		}
	}()
	select {
	case addr := <-serving:
		d.admin = "http://" + addr
	case <-d.ended:
		t.Fatalf("the daemon ended: %s", d.log())
	case <-time.After(30 * time.Second):
		t.Fatalf("the daemon does not serve: %s", d.log())
	}
	return d
}

func (d *daemon) log() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.logs.String()
}

// stop sends a signal and returns the exit code.
func (d *daemon) stop(t *testing.T, sig syscall.Signal) int {
	t.Helper()
	require.NoError(t, d.cmd.Process.Signal(sig))
	select {
	case <-d.ended:
	case <-time.After(30 * time.Second):
		t.Fatalf("the daemon does not end: %s", d.log())
	}
	_ = d.cmd.Wait()
	return d.cmd.ProcessState.ExitCode()
}

func (d *daemon) request(t *testing.T, method, path, body string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, d.admin+path, strings.NewReader(body))
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, resp.StatusCode, "%s", data)
	return string(data)
}

func TestSignalsEndItGracefully(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			d := serve(t, nil, "--dir", dir)
			require.Equal(t, "ok\n", d.request(t, "GET", "/readyz", ""))
			d.request(t, "PUT", "/v1/nodes/n/snapshot", clusterA)
			require.Equal(t, 0, d.stop(t, sig))
			require.Contains(t, d.log(), `"msg":"shutting down"`)
			require.Contains(t, d.log(), `"msg":"closed","sequence":1`)

			r := xdswal(t, "status", "--dir", dir, "--json")
			require.Zero(t, r.code, r.errors)
			var s struct {
				Seq      int
				Open     bool
				Snapshot struct{ Seq int }
			}
			require.NoError(t, json.Unmarshal([]byte(r.out), &s))
			require.Equal(t, 1, s.Seq)
			require.Equal(t, 1, s.Snapshot.Seq, "a last snapshot was written")
			require.False(t, s.Open)
		})
	}
}

func TestCommandsBesideTheDaemon(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	d := serve(t, nil, "--dir", dir)
	d.request(t, "PUT", "/v1/nodes/a%2Fb/snapshot", clusterA)
	r := xdswal(t, "status", "--dir", dir)
	require.Zero(t, r.code)
	require.Contains(t, r.out, "yes, a daemon has it open")
	require.Contains(t, r.errors, "events from 1 on are not shown")
	require.Equal(t, 3, xdswal(t, "verify", "--dir", dir).code)
	require.Equal(t, 0, xdswal(t, "verify", "--dir", dir, "--allow-partial").code)
	r = xdswal(t, "export", "--dir", dir, "--node", "a/b")
	require.Equal(t, 3, r.code)
	require.Empty(t, r.out)

	require.JSONEq(t, `{"seq":1}`, d.request(t, "POST", "/v1/compact", ""))
	r = xdswal(t, "export", "--dir", dir, "--node", "a/b", "--at", "1")
	require.Zero(t, r.code, r.errors)
	doc, err := resourcefile.Parse([]byte(r.out))
	require.NoError(t, err)
	require.Equal(t, "a", doc.Resources[0].Name)

	// A copy serves beside the original.
	copied := filepath.Join(t.TempDir(), "copy")
	require.Zero(t, xdswal(t, "restore", "--dir", dir, "--at", "1", "--to", copied).code)
	c := serve(t, nil, "--dir", copied)
	require.Equal(t, d.request(t, "GET", "/v1/nodes/a%2Fb/snapshot", ""), c.request(t, "GET", "/v1/nodes/a%2Fb/snapshot", ""))
	require.JSONEq(t, `{"seq":2}`, c.request(t, "DELETE", "/v1/nodes/a%2Fb/snapshot", ""))

	// After a kill the journal can be read to its end.
	d.stop(t, syscall.SIGKILL)
	r = xdswal(t, "events", "--dir", dir, "--json")
	require.Zero(t, r.code)
	require.Empty(t, r.errors)
	require.Equal(t, 1, strings.Count(r.out, "\n"))
	require.Zero(t, xdswal(t, "verify", "--dir", dir).code)
}

func TestASecondDaemon(t *testing.T) {
	dir := t.TempDir()
	serve(t, nil, "--dir", dir)
	r := xdswal(t, "serve", "--dir", dir, "--xds-addr=127.0.0.1:0", "--admin-addr=127.0.0.1:0")
	require.Equal(t, 1, r.code)
	require.Contains(t, r.errors, "xdswal: open store in "+dir)
	require.Contains(t, r.errors, "locked by another process")
}

func TestSettingsFromFileAndEnvironment(t *testing.T) {
	tmp := t.TempDir()
	file := filepath.Join(tmp, "xdswal.yaml")
	require.NoError(t, os.WriteFile(file, []byte("dir: "+tmp+"/from-file\nkeep-snapshots: 5\n"), 0o600))
	d := serve(t, []string{"XDSWAL_CONFIG=" + file})
	require.Equal(t, 0, d.stop(t, syscall.SIGTERM))
	require.DirExists(t, tmp+"/from-file")
	d = serve(t, []string{"XDSWAL_CONFIG=" + file, "XDSWAL_DIR=" + tmp + "/from-env"})
	require.Equal(t, 0, d.stop(t, syscall.SIGTERM))
	require.DirExists(t, tmp+"/from-env")

	require.NoError(t, os.WriteFile(file, []byte("dir: "+tmp+"/x\nkeep-snapshot: 5\n"), 0o600))
	r := xdswal(t, "serve", "--config", file)
	require.Equal(t, 1, r.code)
	require.Equal(t, "xdswal: read configuration: "+file+":2: unknown key \"keep-snapshot\"; the keys are the names of the flags: see xdswal serve --help\n", r.errors)
	require.NoDirExists(t, tmp+"/x")
}

// An error about a setting names the place where the setting was made.
func TestBadSettingsAreNamedWhereTheyWereMade(t *testing.T) {
	tmp := t.TempDir()
	notADir := filepath.Join(tmp, "file")
	require.NoError(t, os.WriteFile(notADir, nil, 0o600))
	const key = "c2VjcmV0LXByaXZhdGUta2V5"
	for _, tc := range []struct{ flag, value, want string }{
		{"log-level", "loud", ` is "loud": want debug, info, warn or error`},
		{"log-format", "xml", ` is "xml": want text or json`},
		{"compact-interval", "-1s", " is -1s: must be positive, or Off; 0 is the default of 10m0s"},
		{"compact-interval", "-1ns", " is -2ns: must be positive, or Off; 0 is the default of 10m0s"},
		{"ship-interval", "-1s", " is -1s: must be positive, or Off; 0 is the default of 1s"},
		{"commit-timeout", "-1s", " is -1s: must be positive; 0 is the default of 10s"},
		{"follow-interval", "-1s", " is -1s: must be positive; 0 is the default of 1s"},
		{"shutdown-timeout", "0s", " is 0s: it must be positive"},
		{"backend-timeout", "-1s", " is -1s: must be positive; 0 is the default of 5s"},
		{"heartbeat-interval", "-1s", " is -1s: it must not be negative"},
		{"max-body-bytes", "0", " is 0: it must be positive"},
		{"keep-for", "-1s", " is -1s: must be positive, or Off; 0 is the default of 1h0m0s"},
		{"keep-snapshots", "1", " is 1: must be at least 2; 0 is the default of 3"},
		{"max-journal-bytes", "5", " is 5: must be at least 67108864; 0 is the default of 4294967296"},
		{"sync", "sometimes", `: parse sync policy "sometimes"`},
		{"backend", "ftp://u:" + key + "@h/x", `: open backend: unknown scheme "ftp"`},
		{"backend", "s3://bucket/%zz", ": open backend: not a backend URL"},
		{"follow", "/mnt/backup", ": open backend: not a backend URL: it has no scheme"},
		{"xds-addr", "localhost", ": listen for xDS: listen tcp: address localhost: missing port"},
		{"admin-addr", "127.0.0.1:http-or-so", ": listen for the admin interface: listen tcp: "},
		{"dir", notADir, ": " + notADir + " is not a directory"},
		{"xds-tls-cert", notADir, " and --xds-tls-key require each other"},
		{"xds-tls-client-ca", notADir, " needs --xds-tls-cert and --xds-tls-key"},
		{"require-backend", "true", " needs --backend"},
	} {
		t.Run(tc.flag+" "+tc.value, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "xdswal.yaml")
			require.NoError(t, os.WriteFile(file, fmt.Appendf(nil, "# settings\n\n%s: %q\n", tc.flag, tc.value), 0o600))
			variable := "XDSWAL_" + strings.ToUpper(strings.ReplaceAll(tc.flag, "-", "_"))
			for name, made := range map[string]struct {
				args, env []string
			}{
				fmt.Sprintf("%s:3: %q", file, tc.flag): {args: []string{"--config", file}},
				"environment variable " + variable:     {env: []string{variable + "=" + tc.value}},
				"--" + tc.flag:                         {args: []string{"--" + tc.flag + "=" + tc.value}},
			} {
				args := append([]string{"serve"}, made.args...)
				for flag, value := range map[string]string{"dir": filepath.Join(tmp, "data"), "xds-addr": "127.0.0.1:0", "admin-addr": "127.0.0.1:0"} {
					if flag != tc.flag {
						args = append(args, "--"+flag, value)
					}
				}
				cmd := exec.CommandContext(t.Context(), binary, args...)
				cmd.Env = append(os.Environ(), made.env...)
				r := finish(t, cmd)
				require.Equal(t, 1, r.code)
				require.Contains(t, r.errors, "xdswal: "+name+tc.want)
				require.NotContains(t, r.errors, key)
				require.NoDirExists(t, filepath.Join(tmp, "data"))
			}
		})
	}
}

// Of settings that do not fit each other, each is named where it was made.
func TestSettingsThatContradictEachOther(t *testing.T) {
	tmp := t.TempDir()
	file := filepath.Join(tmp, "xdswal.yaml")
	for _, tc := range []struct{ settings, want string }{
		{"fail-open: true\nno-snapshots: true\n", `FILE:1: "fail-open" and FILE:2: "no-snapshots" are mutually exclusive: `},
		{"xds-tls-cert: /nonexistent\nxds-tls-key: /nonexistent\n", `FILE:1: "xds-tls-cert" and FILE:2: "xds-tls-key": load the xDS server's certificate: `},
		{"follow: file:///x\nfollow-interval: -1s\nresources: /y\n", `FILE:1: "follow" and FILE:3: "resources" are mutually exclusive: `},
		{"follow: file:///x\nfollow-interval: -1s\nresources: /y\n", `FILE:2: "follow-interval" is -1s: must be positive`},
		{"follow: file://" + tmp + "\n", `FILE:1: "follow": follow file://`},
		{"backend: file:///x\n", `--follow and FILE:1: "backend" are mutually exclusive: `},
	} {
		require.NoError(t, os.WriteFile(file, []byte(tc.settings), 0o600))
		args := []string{"serve", "--config", file, "--dir", filepath.Join(tmp, "data"), "--xds-addr=127.0.0.1:0", "--admin-addr=127.0.0.1:0"}
		if strings.HasPrefix(tc.want, "--follow") {
			args = append(args, "--follow=file:///y")
		}
		r := xdswal(t, args...)
		require.Equal(t, 1, r.code)
		require.Contains(t, r.errors, strings.ReplaceAll(tc.want, "FILE", file))
	}
}

func TestUsage(t *testing.T) {
	r := xdswal(t, "--help")
	require.Zero(t, r.code)
	for _, command := range []string{"serve", "status", "snapshots", "events", "verify", "restore", "export"} {
		require.Contains(t, r.out, "\n  "+command+" ")
		help := xdswal(t, command, "--help")
		require.Zero(t, help.code)
		require.Contains(t, help.out, "Usage:\n  xdswal "+command)
	}
	for _, command := range []string{"verify", "restore", "export"} {
		require.Contains(t, strings.ToLower(strings.Join(strings.Fields(xdswal(t, command, "--help").out), " ")), "exit code", command)
	}
	r = xdswal(t, "serve")
	require.Equal(t, 1, r.code)
	require.Equal(t, "xdswal: --dir is missing: name a data directory, or use --memory-only\n", r.errors)
	r = xdswal(t, "sevre")
	require.Equal(t, 1, r.code)
	require.Contains(t, r.errors, `unknown command "sevre"`)
	require.Contains(t, xdswal(t, "--version").out, "xdswal version ")
}

// A disk without room is no success.
func TestOutputThatCannotBeWritten(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("there is no /dev/full")
	}
	defer full.Close()
	dir := filepath.Join(t.TempDir(), "data")
	d := serve(t, nil, "--dir", dir)
	d.request(t, "PUT", "/v1/nodes/n/snapshot", clusterA)
	require.Equal(t, 0, d.stop(t, syscall.SIGTERM))
	for _, args := range [][]string{
		{"status"}, {"status", "--json"}, {"snapshots"}, {"events"}, {"events", "--json"}, {"verify"}, {"restore"}, {"export", "--node", "n"},
	} {
		cmd := exec.Command(binary, append(args, "--dir", dir)...)
		cmd.Stdout = full
		r := finish(t, cmd)
		require.Equal(t, 1, r.code, "%q", args)
		require.Contains(t, r.errors, "no space left on device", "%q", args)
	}
}

// nobody returns a command that runs without the rights of root.
func nobody(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(binary, args...)
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	return cmd
}

// open makes the directories above a test's reachable for nobody.
func open(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o755))
	require.NoError(t, os.Chmod(filepath.Dir(dir), 0o755))
	return dir
}

func TestADirectoryThatIsNotWritable(t *testing.T) {
	tmp := open(t)
	require.NoError(t, os.Chmod(tmp, 0o555))
	t.Cleanup(func() { _ = os.Chmod(tmp, 0o755) })
	dir := filepath.Join(tmp, "data")
	r := finish(t, nobody(t, "serve", "--dir", dir, "--xds-addr=127.0.0.1:0", "--admin-addr=127.0.0.1:0"))
	require.Equal(t, 1, r.code)
	require.Contains(t, r.errors, "xdswal: open store in "+dir)
	require.Contains(t, r.errors, "permission denied")
	require.NoDirExists(t, dir)
}

func TestADirectoryThatIsNotReadable(t *testing.T) {
	dir := filepath.Join(open(t), "data")
	d := serve(t, nil, "--dir", dir)
	d.request(t, "PUT", "/v1/nodes/n/snapshot", clusterA)
	require.Equal(t, 0, d.stop(t, syscall.SIGTERM))
	commands := [][]string{{"status"}, {"snapshots"}, {"events"}, {"verify"}, {"restore"}, {"export", "--node", "n"}}
	refused := func(what string, args []string) {
		t.Helper()
		r := finish(t, nobody(t, append(args, "--dir", dir)...))
		require.Equal(t, 1, r.code, "%s: %q", what, args)
		require.Contains(t, r.errors+r.out, "permission denied", "%s: %q", what, args)
		require.Contains(t, r.errors+r.out, dir, "%s: %q", what, args)
	}
	require.NoError(t, os.Chmod(dir, 0))
	for _, args := range commands {
		refused("directory", args)
	}
	require.NoError(t, os.Chmod(dir, 0o755))
	for _, name := range []string{"xdswal.json", "journal", "snapshots"} {
		require.NoError(t, os.Chmod(filepath.Join(dir, name), 0))
	}
	for _, args := range commands {
		refused("metadata", args)
	}
	require.NoError(t, os.Chmod(filepath.Join(dir, "xdswal.json"), 0o644))
	for _, args := range commands {
		refused("journal", args)
	}
	require.NoError(t, os.Chmod(filepath.Join(dir, "journal"), 0o755))
	for _, args := range [][]string{{"status"}, {"events"}, {"verify"}, {"restore"}} {
		refused("segment", args)
	}
	segments, err := filepath.Glob(filepath.Join(dir, "journal", "*.journal"))
	require.NoError(t, err)
	for _, path := range segments {
		require.NoError(t, os.Chmod(path, 0o644))
	}
	for _, args := range [][]string{{"status"}, {"snapshots"}, {"verify"}, {"restore"}} {
		refused("snapshots", args)
	}
}
