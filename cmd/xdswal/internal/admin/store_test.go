package admin_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/backends/backendtest"
	"github.com/xdswal/xdswal/backends/file"
	"github.com/xdswal/xdswal/cmd/xdswal/internal/admin"
	"github.com/xdswal/xdswal/internal/backendfault"
)

const shipInterval = time.Millisecond

// writer starts a store that ships its events to b.
func writer(t *testing.T, b backends.Backend) *daemon {
	t.Helper()
	return start(t, xdswal.Options{Backend: b, ShipInterval: shipInterval})
}

func follower(t *testing.T, b backends.Backend, dir string) *daemon {
	t.Helper()
	return startIn(t, xdswal.Options{Dir: dir, Backend: b, Follow: true, FollowInterval: time.Millisecond, ShipInterval: shipInterval})
}

// waitShipped waits until everything was shipped.
func (d *daemon) waitShipped() {
	d.t.Helper()
	require.Eventually(d.t, func() bool { return uint64(d.store.Status().Shipper.Shipped) == d.sequence }, 10*time.Second, time.Millisecond)
}

// waitSequence waits until a follower serves a sequence.
func (d *daemon) waitSequence(sequence uint64) {
	d.t.Helper()
	require.Eventually(d.t, func() bool { return uint64(d.store.State().Sequence()) == sequence }, 10*time.Second, time.Millisecond)
	d.sequence = sequence
}

// waitFenced waits until a writer has learned that it was superseded.
func (d *daemon) waitFenced() {
	d.t.Helper()
	require.Eventually(d.t, func() bool { return d.store.Status().Shipper.Fenced != nil }, 10*time.Second, time.Millisecond)
}

func (d *daemon) status(part string) map[string]any {
	d.t.Helper()
	out, _ := d.ok("GET", "/v1/status", "")[part].(map[string]any)
	return out
}

func TestStatusOfABackend(t *testing.T) {
	b, err := file.New(file.Config{Dir: t.TempDir()})
	require.NoError(t, err)
	d := writer(t, b)
	d.set("PUT", "/v1/nodes/n/snapshot", body("1", "a"))
	d.waitShipped()
	require.Equal(t, map[string]any{
		"location": b.String(), "epoch": 1.0, "claimed": true, "shipped": 1.0, "snapshot": 0.0, "behind_seconds": 0.0,
	}, d.status("backend"))
	require.Nil(t, d.status("follower"))
	require.Nil(t, start(t, xdswal.Options{}).status("backend"))
}

func TestStatusOfABackendThatIsDown(t *testing.T) {
	b := &backendfault.Backend{Backend: backendtest.NewMemory(), Fault: func(op backendfault.Op, key string) backendfault.Fault {
		if op == backendfault.OpPut && strings.HasPrefix(key, "events/") {
			return backendfault.FailAbsent
		}
		return backendfault.None
	}}
	d := writer(t, b)
	d.set("PUT", "/v1/nodes/n/snapshot", body("1", "a"))
	require.Eventually(t, func() bool { return d.store.Status().Shipper.Err != nil }, 10*time.Second, time.Millisecond)
	got := d.status("backend")
	require.EqualValues(t, 0, got["shipped"])
	require.Positive(t, got["behind_seconds"])
	require.Contains(t, got["error"], "injected fault")
}

func TestAFollower(t *testing.T) {
	b := backendtest.NewMemory()
	w := writer(t, b)
	w.set("PUT", "/v1/nodes/n/snapshot", body("1", "a"))
	w.waitShipped()
	d := follower(t, b, "")
	d.waitSequence(1)
	require.Equal(t, "ok\n", d.do("GET", "/readyz", nil).body)
	require.Equal(t, http.StatusOK, d.do("GET", "/v1/nodes/n/snapshot", nil).status)
	got := d.status("follower")
	require.Equal(t, "memory:", got["location"])
	require.EqualValues(t, 1, got["epoch"])
	require.Less(t, got["lag_seconds"], 30.)
	require.NotEmpty(t, got["current_at"])
	require.Nil(t, d.status("backend"), "it ships nothing")

	for _, call := range []string{"PUT /v1/nodes/n/snapshot", "DELETE /v1/nodes/n/snapshot"} {
		method, path, _ := strings.Cut(call, " ")
		d.refused(d.do(method, path, strings.NewReader(body("2", "b"))), http.StatusConflict, "follower", "POST /v1/promote")
	}
	d.refused(d.do("GET", "/v1/events", nil), http.StatusConflict, "disabled", "--follow")
	d.refused(d.do("POST", "/v1/compact", nil), http.StatusConflict, "disabled", "--follow")
	d.refused(d.do("POST", "/v1/promote", nil), http.StatusConflict, "no_directory", "start the daemon with --dir and --follow")
	require.Empty(t, d.logs.String())
}

func TestPromote(t *testing.T) {
	b := backendtest.NewMemory()
	w := writer(t, b)
	w.set("PUT", "/v1/nodes/n/snapshot", body("1", "a"))
	w.waitShipped()
	d := follower(t, b, t.TempDir())
	d.waitSequence(1)

	promoted := d.ok("POST", "/v1/promote", "")
	require.EqualValues(t, 3, promoted["epoch"])
	require.EqualValues(t, 1, promoted["seq"])
	require.NotContains(t, promoted, "follower")
	require.Equal(t, true, promoted["backend"].(map[string]any)["claimed"])
	d.set("PUT", "/v1/nodes/n/snapshot", body("2", "b"))
	// To promote a writer is to have it promoted.
	require.EqualValues(t, 3, d.ok("POST", "/v1/promote", "")["epoch"])

	// The previous writer accepts updates until it is fenced, and still serves.
	w.set("PUT", "/v1/nodes/n/snapshot", body("3", "c"))
	w.waitFenced()
	w.refused(w.do("PUT", "/v1/nodes/n/snapshot", strings.NewReader(body("4", "d"))), http.StatusConflict, "fenced", "send updates to the writer that took over")
	w.refused(w.do("PUT", "/v1/nodes/n/snapshot", strings.NewReader(body("3", "c"))), http.StatusConflict, "fenced", "send updates to the writer that took over")
	w.refused(w.do("POST", "/v1/promote", nil), http.StatusConflict, "fenced", "a restart makes this daemon take the backend over")
	require.Equal(t, "ok\n", w.do("GET", "/readyz", nil).body)
	require.Contains(t, w.do("GET", "/v1/nodes/n/snapshot", nil).body, `"3"`)
	require.Contains(t, w.status("backend")["fenced"], "epoch 2 was claimed")
	require.Contains(t, w.ok("GET", "/v1/status", "")["degraded"], "superseded by another writer")
	require.Empty(t, w.logs.String(), "it is the client's matter")
}

func TestPromoteFails(t *testing.T) {
	var down backendfault.Fault
	b := &backendfault.Backend{Backend: backendtest.NewMemory(), Fault: func(op backendfault.Op, key string) backendfault.Fault {
		if op == backendfault.OpPut && strings.HasPrefix(key, "epochs/") {
			return down
		}
		return backendfault.None
	}}
	w := writer(t, b)
	w.set("PUT", "/v1/nodes/n/snapshot", body("1", "a"))
	w.waitShipped()
	down = backendfault.FailAbsent
	d := follower(t, b, t.TempDir())
	d.waitSequence(1)
	d.refused(d.do("POST", "/v1/promote", nil), http.StatusServiceUnavailable, "promote_failed", "; the daemon remains a follower")
	w.set("PUT", "/v1/nodes/n/snapshot", body("2", "a"))
	d.waitSequence(2)

	d = follower(t, b, start(t, xdswal.Options{}).store.Status().Dir)
	d.waitSequence(2)
	d.refused(d.do("POST", "/v1/promote", nil), http.StatusConflict, "locked", "; the daemon remains a follower")

	m := start(t, xdswal.Options{MemoryOnly: true})
	m.refused(m.do("POST", "/v1/promote", nil), http.StatusConflict, "disabled", "--memory-only")
}

// A promotion ends with the daemon, and not with who asked for it.
func TestPromoteAtShutdown(t *testing.T) {
	b := backendtest.NewMemory()
	w := writer(t, b)
	w.set("PUT", "/v1/nodes/n/snapshot", body("1", "a"))
	w.waitShipped()
	d := follower(t, b, t.TempDir())
	d.waitSequence(1)
	ended, cancel := context.WithCancel(context.Background())
	h := admin.New(maxBody, http.NotFoundHandler(), true, slog.New(slog.DiscardHandler))
	call := func(request context.Context) answer {
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, httptest.NewRequestWithContext(request, "POST", "http://localhost/v1/promote", nil))
		return answer{rec.Code, rec.Header(), rec.Body.String()}
	}
	cancel()
	h.Ready(admin.Service{Store: d.store, Cache: d.cache, Context: ended})
	d.refused(call(t.Context()), http.StatusServiceUnavailable, "closed", "shutting down")
	h.Ready(admin.Service{Store: d.store, Cache: d.cache, Context: context.Background()})
	require.Equal(t, http.StatusOK, call(ended).status)
	require.Nil(t, d.store.Status().Follower)
}

func TestABackendOfAnotherStore(t *testing.T) {
	shared := backendtest.NewMemory()
	w := writer(t, shared)
	w.set("PUT", "/v1/nodes/n/snapshot", body("1", "a"))
	w.waitShipped()

	// It could not be reached at first, so nobody knew.
	dir := t.TempDir()
	before := startIn(t, xdswal.Options{Dir: dir})
	before.set("PUT", "/v1/nodes/n/snapshot", body("1", "a"))
	require.NoError(t, before.store.Close(t.Context()))
	reachable := make(chan struct{})
	b := &backendfault.Backend{Backend: shared, Fault: func(backendfault.Op, string) backendfault.Fault {
		select {
		case <-reachable:
			return backendfault.None
		default:
			return backendfault.FailAbsent
		}
	}}
	d := startIn(t, xdswal.Options{Dir: dir, Backend: b, ShipInterval: shipInterval})
	d.sequence = 1
	d.set("PUT", "/v1/nodes/n/snapshot", body("2", "a"))
	require.Equal(t, false, d.status("backend")["claimed"])
	close(reachable)
	d.waitFenced()
	d.refused(d.do("PUT", "/v1/nodes/n/snapshot", strings.NewReader(body("3", "a"))), http.StatusConflict, "foreign", "give each store a backend prefix of its own")
}
