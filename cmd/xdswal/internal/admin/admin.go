// Package admin implements the daemon's HTTP interface, which docs/admin-api.md
// describes.
//
// It has no authentication, and returns private keys with a node's resources.
// Serve it on a loopback address.
package admin

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/cmd/xdswal/internal/resourcefile"
	"github.com/xdswal/xdswal/xdscache"
)

// Bounds of requests.
const (
	DefaultMaxBody = 32 << 20
	maxNodeName    = 512
	readTimeout    = time.Minute
	promoteTimeout = 10 * time.Minute
)

// Service contains the open store.
type Service struct {
	Store *xdswal.Store
	Cache *xdscache.SnapshotCache
	// Context is done when the daemon shuts down. A promotion uses it instead of
	// the request's context.
	Context context.Context
}

// Handler serves the HTTP interface. Before Ready is called it serves only
// /healthz and /metrics.
type Handler struct {
	mux     *http.ServeMux
	maxBody int64
	logger  *slog.Logger
	service atomic.Pointer[Service]
	// loopback rejects requests for other hosts than this one, so that no web
	// page can reach the interface by a name that resolves to a loopback address.
	loopback bool
}

// New returns a handler for requests of at most maxBody bytes. metrics serves
// /metrics. loopback says that the handler is served on a loopback address.
func New(maxBody int64, metrics http.Handler, loopback bool, logger *slog.Logger) *Handler {
	h := &Handler{mux: http.NewServeMux(), maxBody: maxBody, logger: logger, loopback: loopback}
	ok := func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok\n") }
	h.mux.HandleFunc("GET /healthz", ok)
	h.mux.Handle("GET /metrics", metrics)
	h.handle("GET /readyz", func(_ Service, w http.ResponseWriter, r *http.Request) error { ok(w, r); return nil })
	h.handle("PUT /v1/nodes/{node}/snapshot", h.putSnapshot)
	h.handle("GET /v1/nodes/{node}/snapshot", h.getSnapshot)
	h.handle("DELETE /v1/nodes/{node}/snapshot", h.deleteSnapshot)
	h.handle("PATCH /v1/nodes/{node}/resources", h.patchResources)
	h.handle("GET /v1/nodes", h.getNodes)
	h.handle("GET /v1/status", h.getStatus)
	h.handle("GET /v1/events", h.getEvents)
	h.handle("POST /v1/compact", h.postCompact)
	h.handle("POST /v1/promote", h.postPromote)
	return h
}

// Ready makes the handler serve a store.
func (h *Handler) Ready(s Service) { h.service.Store(&s) }

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if h.loopback && !isLocalName(r.Host) {
		h.fail(w, &problem{http.StatusForbidden, "foreign_host", fmt.Sprintf("host is %q: want localhost or a loopback address", r.Host)})
		return
	}
	if _, pattern := h.mux.Handler(r); pattern == "" {
		h.unrouted(w, r)
		return
	}
	h.mux.ServeHTTP(w, r)
}

// unrouted responds to a request that matches no pattern, with the mux's status as
// a problem.
func (h *Handler) unrouted(w http.ResponseWriter, r *http.Request) {
	verdict := &headOnly{header: w.Header()}
	h.mux.ServeHTTP(verdict, r)
	if verdict.status == http.StatusMethodNotAllowed {
		h.fail(w, &problem{verdict.status, "bad_method", fmt.Sprintf("method %s is not allowed for this path; use %s", r.Method, w.Header().Get("Allow"))})
		return
	}
	h.fail(w, &problem{http.StatusNotFound, "unknown_path", "unknown path: see docs/admin-api.md; a slash in a node's name is encoded as %2F"})
}

// headOnly records the status and the headers of a response.
type headOnly struct {
	header http.Header
	status int
}

func (h *headOnly) Header() http.Header         { return h.header }
func (h *headOnly) Write(p []byte) (int, error) { return len(p), nil }
func (h *headOnly) WriteHeader(status int)      { h.status = status }

func isLocalName(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = hostport
	}
	if addr, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return addr.IsLoopback()
	}
	return host == "localhost"
}

// problem is an error with its HTTP status and a machine-readable reason.
type problem struct {
	status  int
	reason  string
	message string
}

func (p *problem) Error() string { return p.message }

const (
	reasonNotReady = "not_ready"
	reasonClosed   = "closed"
	reasonFenced   = "fenced"
)

// handle routes a pattern to a function that needs the store.
func (h *Handler) handle(pattern string, fn func(Service, http.ResponseWriter, *http.Request) error) {
	h.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		s := h.service.Load()
		if s == nil {
			h.fail(w, &problem{http.StatusServiceUnavailable, reasonNotReady, "the store is being restored; /readyz reports when it is ready"})
			return
		}
		if err := fn(*s, w, r); err != nil {
			h.fail(w, asProblem(err))
		}
	})
}

// asProblem returns an error with its status and reason.
func asProblem(err error) *problem {
	var p *problem
	var rejected *resourcefile.Error
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &p):
		return p
	case errors.As(err, &tooLarge):
		return &problem{
			http.StatusRequestEntityTooLarge, "too_large",
			fmt.Sprintf("the body is larger than %d bytes; split the update, or raise --max-body-bytes", tooLarge.Limit),
		}
	case errors.As(err, &rejected):
		return &problem{http.StatusBadRequest, string(rejected.Reason), rejected.Message}
	}
	for _, k := range knownErrors {
		if errors.Is(err, k.err) {
			return &problem{k.status, k.reason, cmp.Or(k.message, err.Error()) + k.advice}
		}
	}
	return &problem{http.StatusInternalServerError, "internal", err.Error()}
}

// knownErrors contains the problem of each error of a store. The default message is
// the error's text.
var knownErrors = []struct {
	err             error
	status          int
	reason          string
	message, advice string
}{
	{xdswal.ErrDisabled, http.StatusConflict, "disabled", "this request is disabled by --memory-only, --no-snapshots or --follow", ""},
	{xdswal.ErrFenced, http.StatusConflict, reasonFenced, "", "; send updates to the writer that took over; a restart makes this daemon take the backend over from it"},
	{xdswal.ErrForeign, http.StatusConflict, "foreign", "", ""},
	{xdswal.ErrFollower, http.StatusConflict, "follower", "this daemon is a follower and rejects updates: send them to the writer, or make this daemon the writer with POST /v1/promote", ""},
	{xdswal.ErrJournalFull, http.StatusInsufficientStorage, "journal_full", "", ""},
	{xdswal.ErrJournalPoisoned, http.StatusServiceUnavailable, "journal_failed", "", ""},
	{xdswal.ErrClosed, http.StatusServiceUnavailable, reasonClosed, "the daemon is shutting down", ""},
	{xdswal.ErrCommitTimeout, http.StatusGatewayTimeout, "commit_timeout", "", ""},
	{xdswal.ErrGap, http.StatusGone, "gone", "", ""},
	{context.Canceled, http.StatusRequestTimeout, "cancelled", "the request was canceled before the update completed; sending it again is safe", ""},
}

func (h *Handler) fail(w http.ResponseWriter, p *problem) {
	// Rejected requests during start and shutdown are no failures.
	if p.status >= http.StatusInternalServerError && p.reason != reasonNotReady && p.reason != reasonClosed {
		h.logger.Error("request failed", "status", p.status, "reason", p.reason, "error", p.message)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(p.status)
	json.NewEncoder(w).Encode(map[string]any{"error": map[string]string{"reason": p.reason, "message": p.message}})
}

func reply(w http.ResponseWriter, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(data, '\n'))
	return nil
}

// node returns the name of the node in a request's path.
func node(r *http.Request) (string, error) {
	name := r.PathValue("node")
	bad := func(r rune) bool { return unicode.IsControl(r) }
	if name == "" || len(name) > maxNodeName || !utf8.ValidString(name) || strings.ContainsFunc(name, bad) {
		return "", &problem{http.StatusBadRequest, "bad_node", fmt.Sprintf("the node's name must be 1 to %d bytes of UTF-8 without control characters", maxNodeName)}
	}
	return name, nil
}

// body reads a request's body. Its size and the time to read it are bounded.
func (h *Handler) body(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if r.ContentLength > h.maxBody {
		// Do not read any of it.
		return nil, &http.MaxBytesError{Limit: h.maxBody}
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(readTimeout))
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, h.maxBody))
	var tooLarge *http.MaxBytesError
	if err != nil && !errors.As(err, &tooLarge) {
		return nil, &problem{http.StatusBadRequest, "cut", "the body is incomplete"}
	}
	return data, err
}

// nodeAndBody returns the node and the body of an update.
func (h *Handler) nodeAndBody(w http.ResponseWriter, r *http.Request) (name string, data []byte, err error) {
	if name, err = node(r); err != nil {
		return "", nil, err
	}
	data, err = h.body(w, r)
	return name, data, err
}
