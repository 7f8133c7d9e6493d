package s3test

import (
	"maps"
	"net/http"
	"sync"
)

// Counter counts the requests of a client by kind. The zero value is ready to use. A
// Counter may be used concurrently.
type Counter struct {
	mu     sync.Mutex
	counts map[string]int
}

// Wrap returns a transport that counts requests and passes them to next. It can be the
// WrapTransport of an s3.Config.
func (c *Counter) Wrap(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(req *http.Request) (*http.Response, error) {
		c.mu.Lock()
		if c.counts == nil {
			c.counts = map[string]int{}
		}
		c.counts[kind(req)]++
		c.mu.Unlock()
		return next.RoundTrip(req)
	})
}

// Requests returns the number of requests of each kind: PUT (of objects or parts), GET,
// HEAD, LIST (of objects or uploads), DELETE (of objects or uploads), and POST (to
// begin or complete an upload).
func (c *Counter) Requests() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.counts)
}

// Reset sets all counts to zero.
func (c *Counter) Reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts = nil
}

func kind(req *http.Request) string {
	query := req.URL.Query()
	if req.Method == http.MethodGet && (query.Has("list-type") || query.Has("uploads")) {
		return "LIST"
	}
	return req.Method
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }
