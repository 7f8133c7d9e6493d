package s3

import (
	"context"
	"net"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
)

const (
	dialTimeout = 10 * time.Second
	// poolTimeout is how long an unused connection is kept, unless that is
	// more than half of the idle timeout, which would cut it.
	poolTimeout = 30 * time.Second
)

// newHTTPClient returns what the SDK makes requests with, for credentials too.
// Nothing in it waits for ever: not dialling, not the handshake of TLS, and not
// a peer from which nothing comes.
func newHTTPClient(idle time.Duration) *awshttp.BuildableClient {
	dialer := net.Dialer{Timeout: dialTimeout, KeepAlive: dialTimeout}
	return awshttp.NewBuildableClient().WithTransportOptions(func(tr *http.Transport) {
		tr.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return &idleConn{Conn: conn, idle: idle}, nil
		}
		tr.IdleConnTimeout = min(poolTimeout, idle/2)
		// Many streams on one connection of HTTP/2 would keep one another
		// from being idle.
		tr.ForceAttemptHTTP2 = false
		tr.Protocols = new(http.Protocols)
		tr.Protocols.SetHTTP1(true)
	})
}

// storeClient returns what requests to the store are sent by. It follows no
// redirect: that would need another signature.
func storeClient(sdk aws.HTTPClient, wrap func(http.RoundTripper) http.RoundTripper) *http.Client {
	var tr http.RoundTripper
	if c, ok := sdk.(*awshttp.BuildableClient); ok {
		tr = c.GetTransport() // with the authorities of AWS_CA_BUNDLE
	}
	if wrap != nil {
		tr = wrap(tr)
	}
	return &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
}

// idleConn is a connection on which each read or write fails once no byte has
// moved, in either direction, for the time idle: an answer is awaited while the
// request is still being written.
type idleConn struct {
	net.Conn
	idle time.Duration
}

func (c *idleConn) Read(p []byte) (int, error) {
	if err := c.extend(); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

func (c *idleConn) Write(p []byte) (int, error) {
	if err := c.extend(); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

func (c *idleConn) extend() error { return c.SetDeadline(time.Now().Add(c.idle)) }
