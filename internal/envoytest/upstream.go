package envoytest

import (
	"context"
	"net/http"
	"sync/atomic"
	"time"
)

// upstreamHeader is the header of a response with the name of the upstream.
const upstreamHeader = "Envoytest-Upstream"

// Upstream is an HTTP server that counts its requests.
type Upstream struct {
	// Name is in each response.
	Name string
	// Addr is its address.
	Addr string

	requests atomic.Int64
	server   *http.Server
}

// NewUpstream starts a server that answers each request after a delay, so that requests
// are in flight when the configuration changes.
func NewUpstream(ctx context.Context, name string, delay time.Duration) (*Upstream, error) {
	l, err := listen(ctx, "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	u := &Upstream{Name: name, Addr: l.Addr().String()}
	u.server = &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(delay)
		u.requests.Add(1)
		w.Header().Set(upstreamHeader, name)
	})}
	go func() { _ = u.server.Serve(l) }() // until Close
	return u, nil
}

// Requests returns the number of answered requests.
func (u *Upstream) Requests() int64 { return u.requests.Load() }

// Close ends the server and its connections.
func (u *Upstream) Close() { _ = u.server.Close() }
