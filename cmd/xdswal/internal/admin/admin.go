// Package admin is the daemon's HTTP interface. docs/admin-api.md describes
// it.
//
// It has no authentication and shows private keys to who asks for a node's
// resources: it belongs on a loopback address.
package admin

import (
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
	"github.com/xdswal/xdswal/internal/resourcefile"
	"github.com/xdswal/xdswal/xdscache"
)

// Bounds of requests.
const (
	DefaultMaxBody = 32 << 20
	maxNodeName    = 512
	readTimeout    = time.Minute
	promoteTimeout = 10 * time.Minute
)

// Service is what the handler serves: it is there once the store is open.
type Service struct {
	Store *xdswal.Store
	Cache *xdscache.SnapshotCache
	// Context ends when the daemon shuts down. What must not end with the
	// request that began it ends with this.
	Context context.Context
}

// Handler answers the HTTP interface. Until Ready is called it answers
// /healthz and /metrics alone.
type Handler struct {
	mux     *http.ServeMux
	maxBody int64
	logger  *slog.Logger
	service atomic.Pointer[Service]
	// loopback is set if only names of this machine are answered, so that no
	// web page can reach the interface by a name that resolves to it.
	loopback bool
}

// New returns a handler for requests of at most maxBody bytes. metrics answers
// /metrics. loopback says that it will be served on a loopback address.
func New(maxBody int64, metrics http.Handler, loopback bool, logger *slog.Logger) *Handler {
	h := &Handler{mux: http.NewServeMux(), maxBody: maxBody, logger: logger, loopback: loopback}
	h.mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok\n") })
	h.mux.HandleFunc("GET /readyz", h.readyz)
	h.mux.Handle("GET /metrics", metrics)
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

// Ready makes the handler answer for a store.
func (h *Handler) Ready(s Service) { h.service.Store(&s) }

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if h.loopback && !isLocalName(r.Host) {
		h.fail(w, &problem{http.StatusForbidden, "foreign_host", fmt.Sprintf("this interface answers for loopback addresses and localhost, not for %q", r.Host)})
		return
	}
	if _, pattern := h.mux.Handler(r); pattern == "" {
		h.unrouted(w, r)
		return
	}
	h.mux.ServeHTTP(w, r)
}

// unrouted answers what no pattern matches as the mux does, in our own form.
func (h *Handler) unrouted(w http.ResponseWriter, r *http.Request) {
	verdict := &headOnly{header: w.Header()}
	h.mux.ServeHTTP(verdict, r)
	if verdict.status == http.StatusMethodNotAllowed {
		h.fail(w, &problem{verdict.status, "bad_method", fmt.Sprintf("%s is not for this path; use %s", r.Method, w.Header().Get("Allow"))})
		return
	}
	h.fail(w, &problem{http.StatusNotFound, "unknown_path", "there is nothing at this path: see docs/admin-api.md; a slash in a node's name is written %2F"})
}

// headOnly takes an answer's status and headers.
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

// problem is an error with its HTTP status and a reason for programs.
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
			h.fail(w, notReady)
			return
		}
		if err := fn(*s, w, r); err != nil {
			h.fail(w, asProblem(err))
		}
	})
}

var notReady = &problem{http.StatusServiceUnavailable, reasonNotReady, "the store is being restored; /readyz tells when it is ready"}

func (h *Handler) readyz(w http.ResponseWriter, _ *http.Request) {
	if h.service.Load() == nil {
		h.fail(w, notReady)
		return
	}
	io.WriteString(w, "ok\n")
}

// asProblem gives an error its status and reason.
func asProblem(err error) *problem {
	var p *problem
	var refused *resourcefile.Error
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &p):
		return p
	case errors.As(err, &tooLarge):
		return &problem{
			http.StatusRequestEntityTooLarge, "too_large",
			fmt.Sprintf("the body is larger than %d bytes: split the update, or raise --max-body-bytes", tooLarge.Limit),
		}
	case errors.As(err, &refused):
		return &problem{http.StatusBadRequest, string(refused.Reason), refused.Message}
	case errors.Is(err, xdswal.ErrDisabled):
		return &problem{http.StatusConflict, "disabled", "the daemon was started without it: see --memory-only, --no-snapshots and --follow"}
	case errors.Is(err, xdswal.ErrFenced):
		return &problem{http.StatusConflict, reasonFenced, err.Error() + "; send updates to the writer that took over; this daemon takes the backend over from it when it is started again"}
	case errors.Is(err, xdswal.ErrForeign):
		return &problem{http.StatusConflict, "foreign", err.Error()}
	case errors.Is(err, xdswal.ErrFollower):
		return &problem{http.StatusConflict, "follower", "this daemon follows another one, and takes no updates: send them to that one, or make this one the writer with POST /v1/promote"}
	case errors.Is(err, xdswal.ErrJournalFull):
		return &problem{http.StatusInsufficientStorage, "journal_full", err.Error()}
	case errors.Is(err, xdswal.ErrJournalPoisoned):
		return &problem{http.StatusServiceUnavailable, "journal_failed", err.Error()}
	case errors.Is(err, xdswal.ErrClosed):
		return &problem{http.StatusServiceUnavailable, reasonClosed, "the daemon is shutting down"}
	case errors.Is(err, xdswal.ErrCommitTimeout):
		return &problem{http.StatusGatewayTimeout, "commit_timeout", err.Error()}
	case errors.Is(err, xdswal.ErrGap):
		return &problem{http.StatusGone, "gone", err.Error()}
	case errors.Is(err, context.Canceled):
		return &problem{http.StatusRequestTimeout, "cancelled", "the request ended before the update was applied everywhere; sending it again is safe"}
	default:
		return &problem{http.StatusInternalServerError, "internal", err.Error()}
	}
}

func (h *Handler) fail(w http.ResponseWriter, p *problem) {
	// Requests at start-up and shutdown are refused by design.
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

// node returns the node that a request is about.
func node(r *http.Request) (string, error) {
	name := r.PathValue("node")
	bad := func(r rune) bool { return unicode.IsControl(r) }
	if name == "" || len(name) > maxNodeName || !utf8.ValidString(name) || strings.ContainsFunc(name, bad) {
		return "", &problem{http.StatusBadRequest, "bad_node", fmt.Sprintf("the node's name must be 1 to %d bytes of UTF-8 without control characters", maxNodeName)}
	}
	return name, nil
}

// body reads a request's body, of bounded size and within a bounded time.
func (h *Handler) body(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if r.ContentLength > h.maxBody {
		// Not a byte of it is read.
		return nil, &http.MaxBytesError{Limit: h.maxBody}
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(readTimeout))
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, h.maxBody))
	var tooLarge *http.MaxBytesError
	if err != nil && !errors.As(err, &tooLarge) {
		return nil, &problem{http.StatusBadRequest, "cut", "the body ended early"}
	}
	return data, err
}

// nodeAndBody returns what an update of a node is made of.
func (h *Handler) nodeAndBody(w http.ResponseWriter, r *http.Request) (name string, data []byte, err error) {
	if name, err = node(r); err != nil {
		return "", nil, err
	}
	data, err = h.body(w, r)
	return name, data, err
}
