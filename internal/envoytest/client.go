package envoytest

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"sync"
	"time"
)

// requestTimeout bounds one request of a client.
const requestTimeout = 10 * time.Second

// Get sends one request, and returns the name of the upstream that answered it. The error
// says why an upstream did not.
func Get(ctx context.Context, addr string) (upstream string, err error) {
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	return get(ctx, c, addr)
}

func get(ctx context.Context, c *http.Client, addr string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr, nil)
	if err != nil {
		return "", err
	}
	resp, err := c.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	if err != nil {
		return "", fmt.Errorf("read the response: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("status %d: %s", resp.StatusCode, strings.TrimSpace(string(body)))
	}
	return resp.Header.Get(upstreamHeader), nil
}

// Counts are the numbers of a client's requests.
type Counts struct {
	Requests, Failed int
	// Causes counts the failures by their cause.
	Causes map[string]int
}

func (c Counts) String() string {
	text := fmt.Sprintf("%d requests, %d failed", c.Requests, c.Failed)
	for cause, n := range c.Causes {
		text += fmt.Sprintf("; %d × %s", n, cause)
	}
	return text
}

// Client sends requests at a bounded rate, and counts them.
type Client struct {
	cancel context.CancelFunc
	done   sync.WaitGroup
	http   *http.Client

	mu     sync.Mutex
	counts Counts
}

// NewClient starts a client with a number of connections. On each, the next request
// follows the response of the one before after the pause. It ends with Stop, or when ctx is
// done.
func NewClient(ctx context.Context, addr string, connections int, pause time.Duration) *Client {
	ctx, cancel := context.WithCancel(ctx)
	c := &Client{
		cancel: cancel, counts: Counts{Causes: map[string]int{}},
		http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: connections}},
	}
	for range connections {
		c.done.Add(1)
		go func() {
			defer c.done.Done()
			c.run(ctx, addr, pause)
		}()
	}
	return c
}

func (c *Client) run(ctx context.Context, addr string, pause time.Duration) {
	tick := time.NewTimer(0)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		_, err := get(context.WithoutCancel(ctx), c.http, addr)
		c.count(err)
		tick.Reset(pause)
	}
}

func (c *Client) count(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts.Requests++
	if err == nil {
		return
	}
	c.counts.Failed++
	if cause := err.Error(); c.counts.Causes[cause] > 0 || len(c.counts.Causes) < 10 {
		c.counts.Causes[cause]++
	}
}

// Counts returns the numbers until now.
func (c *Client) Counts() Counts {
	c.mu.Lock()
	defer c.mu.Unlock()
	counts := c.counts
	counts.Causes = maps.Clone(counts.Causes)
	return counts
}

// Stop waits for the requests that have begun, and returns the final numbers.
func (c *Client) Stop() Counts {
	c.cancel()
	c.done.Wait()
	c.http.CloseIdleConnections()
	return c.Counts()
}
