package daemon_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/cmd/xdswal/internal/daemon"
)

func clusterAt(version string) string {
	return strings.Replace(clusterA, `"version":"1"`, fmt.Sprintf(`"version":%q`, version), 1)
}

// put makes an update that must succeed.
func (r *running) put(t *testing.T, version string) {
	t.Helper()
	status, body := r.request(t, "PUT", "/v1/nodes/n/snapshot", clusterAt(version))
	require.Equal(t, http.StatusOK, status, "%s", body)
}

// waitServed waits until clients get a version.
func (r *running) waitServed(t *testing.T, version string) {
	t.Helper()
	require.Eventually(t, func() bool {
		var doc struct{ Version string }
		_, body := r.request(t, "GET", "/v1/nodes/n/snapshot", "")
		return json.Unmarshal([]byte(body), &doc) == nil && doc.Version == version
	}, 30*time.Second, 5*time.Millisecond, "%s", r.logs)
	require.Equal(t, version, r.fetch(t, "n").GetVersionInfo())
}

// status is the part of GET /v1/status that the tests use.
type status struct {
	Seq      int
	Epoch    int
	Degraded string
	Backend  *struct {
		Location string
		Claimed  bool
		Shipped  int
		Snapshot int
		Fenced   string
	}
	Follower *struct {
		Location   string
		Epoch      int
		LagSeconds float64 `json:"lag_seconds"`
		Error      string
	}
	Restored struct {
		Source  string
		Shipped int
	}
}

func (r *running) status(t *testing.T) status {
	t.Helper()
	code, body := r.request(t, "GET", "/v1/status", "")
	require.Equal(t, http.StatusOK, code)
	var s status
	require.NoError(t, json.Unmarshal([]byte(body), &s))
	return s
}

func (r *running) waitStatus(t *testing.T, is func(status) bool) {
	t.Helper()
	require.Eventually(t, func() bool { return is(r.status(t)) }, 30*time.Second, 5*time.Millisecond, "%s", r.logs)
}

// kill ends the daemon without time for a snapshot.
func (r *running) kill(t *testing.T) {
	t.Helper()
	r.cancel()
	<-r.done // it may complain that there was no time
}

func TestFollowAndPromote(t *testing.T) {
	url := "file://" + filepath.Join(t.TempDir(), "backend")
	writer := start(t, "--dir", t.TempDir(), "--backend", url, "--ship-interval", "50ms")
	writer.put(t, "1")
	writer.waitStatus(t, func(s status) bool { return s.Backend.Shipped == 1 })

	follower := start(t, "--follow", url, "--follow-interval", "10ms", "--ship-interval", "50ms", "--dir", filepath.Join(t.TempDir(), "data"))
	follower.waitServed(t, "1")
	writer.put(t, "2")
	follower.waitServed(t, "2")
	code, body := follower.request(t, "PUT", "/v1/nodes/n/snapshot", clusterAt("x"))
	require.Equal(t, http.StatusConflict, code)
	require.Contains(t, body, `"follower"`)
	code, _ = follower.request(t, "GET", "/readyz", "")
	require.Equal(t, http.StatusOK, code)
	s := follower.status(t)
	require.Equal(t, url, s.Follower.Location)
	require.Equal(t, 1, s.Follower.Epoch)
	require.Less(t, s.Follower.LagSeconds, 30.)
	require.Nil(t, s.Backend)
	_, body = follower.request(t, "GET", "/metrics", "")
	require.Contains(t, body, "xdswal_is_follower 1\n")
	require.Contains(t, body, "xdswal_follower_lag_seconds ")

	code, body = follower.request(t, "POST", "/v1/promote", "")
	require.Equal(t, http.StatusOK, code, "%s", body)
	s = follower.status(t)
	require.Nil(t, s.Follower)
	require.Equal(t, 3, s.Epoch)
	require.True(t, s.Backend.Claimed)
	follower.put(t, "3")
	require.Equal(t, "3", follower.fetch(t, "n").GetVersionInfo())

	// The writer learns it when it ships what is lost with that.
	writer.put(t, "lost")
	writer.waitStatus(t, func(s status) bool { return s.Backend.Fenced != "" })
	code, body = writer.request(t, "PUT", "/v1/nodes/n/snapshot", clusterAt("x"))
	require.Equal(t, http.StatusConflict, code)
	require.Contains(t, body, `"fenced"`)
	require.Contains(t, body, "send updates to the writer that took over")
	code, _ = writer.request(t, "GET", "/readyz", "")
	require.Equal(t, http.StatusOK, code)
	require.Equal(t, "lost", writer.fetch(t, "n").GetVersionInfo(), "clients are served what they have")
	writer.stop(t)

	follower.waitStatus(t, func(s status) bool { return s.Backend.Shipped == 3 })
	follower.stop(t)
	require.NotNil(t, follower.logs.find("promoted"))
}

// A daemon that loses its disk comes back with what was shipped.
func TestComesBackFromTheBackendAlone(t *testing.T) {
	url := "file://" + filepath.Join(t.TempDir(), "backend")
	r := start(t, "--dir", t.TempDir(), "--backend", url, "--ship-interval", "10ms", "--shutdown-timeout", "1ns")
	for i := range 5 {
		r.put(t, fmt.Sprint(i))
		r.waitStatus(t, func(s status) bool { return s.Backend.Shipped == i+1 })
	}
	r.kill(t)
	r = start(t, "--dir", t.TempDir(), "--backend", url, "--ship-interval", "10ms")
	require.Equal(t, "4", r.fetch(t, "n").GetVersionInfo())
	s := r.status(t)
	require.Equal(t, 5, s.Restored.Shipped)
	require.Equal(t, 3, s.Epoch)
	r.stop(t)
}

func TestFollowWithoutADirectory(t *testing.T) {
	url := "file://" + filepath.Join(t.TempDir(), "backend")
	writer := start(t, "--dir", t.TempDir(), "--backend", url)
	writer.put(t, "1")
	// A file backend gets snapshots alone by itself.
	code, _ := writer.request(t, "POST", "/v1/compact", "")
	require.Equal(t, http.StatusOK, code)
	writer.waitStatus(t, func(s status) bool { return s.Backend.Snapshot == 1 })
	follower := start(t, "--follow", url, "--follow-interval", "10ms")
	follower.waitServed(t, "1")
	code, body := follower.request(t, "POST", "/v1/promote", "")
	require.Equal(t, http.StatusConflict, code)
	require.Contains(t, body, `"no_directory"`)
	follower.stop(t)
	writer.stop(t)
}

func TestRequireBackend(t *testing.T) {
	dir, backend := t.TempDir(), filepath.Join(t.TempDir(), "backend")
	r := start(t, "--dir", dir, "--backend", "file://"+backend, "--require-backend")
	r.put(t, "1")
	r.stop(t)
	require.NoError(t, os.RemoveAll(backend))
	require.NoError(t, os.WriteFile(backend, nil, 0o600))
	err := daemon.Run(t.Context(), config(t, "--dir", dir, "--backend", "file://"+backend, "--require-backend"), io.Discard)
	require.ErrorContains(t, err, "--backend: open backend")
}

func TestBackendFlagsThatContradictEachOther(t *testing.T) {
	for _, tc := range []struct {
		name string
		args []string
		want string
	}{
		{"follow and backend", []string{"--follow", "file:///x", "--backend", "file:///y"}, "--follow and --backend are mutually exclusive: a follower ships nothing"},
		{"follow in memory", []string{"--follow", "file:///x", "--memory-only"}, "--follow and --memory-only are mutually exclusive"},
		{"follow and resources", []string{"--follow", "file:///x", "--resources", "/y"}, "--follow and --resources are mutually exclusive: a follower rejects updates"},
		{"backend in memory", []string{"--memory-only", "--backend", "file:///x"}, "--memory-only and --backend are mutually exclusive"},
		{"a required backend that is none", []string{"--dir", "/x", "--require-backend"}, "--require-backend needs --backend"},
		{"follow interval", []string{"--follow", "file:///x", "--follow-interval", "-1s"}, "--follow-interval is -1s: must be positive"},
		{"backend timeout", []string{"--dir", "/x", "--backend-timeout", "-1s"}, "--backend-timeout is -1s: must be positive"},
		{"nothing there to follow", []string{"--follow", "file://" + t.TempDir() + "/none"}, "--follow: open backend: "},
		{"nothing was shipped there", []string{"--follow", "file://" + t.TempDir()}, "backend is empty: start the writer first, or correct the URL"},
		{"unknown scheme", []string{"--follow", "ftp://x"}, `--follow: open backend: unknown scheme "ftp"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			l := &logs{}
			require.ErrorContains(t, daemon.Run(ctx, config(t, tc.args...), l), tc.want)
			require.Nil(t, l.find("serving"))
		})
	}
}
