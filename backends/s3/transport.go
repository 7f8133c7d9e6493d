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
	// poolTimeout closes unused connections. It is at most half of the idle
	// timeout, which would fail them.
	poolTimeout = 30 * time.Second
)

// newHTTPClient returns the client for all requests of the SDK, including those for
// credentials. Dialing, the TLS handshake and a silent peer have timeouts.
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
		// On an HTTP/2 connection, bytes of one stream would extend the deadline
		// of the others.
		tr.ForceAttemptHTTP2 = false
		tr.Protocols = new(http.Protocols)
		tr.Protocols.SetHTTP1(true)
	})
}

// storeClient returns the client for requests to the store. It follows no redirect,
// which would need another signature.
func storeClient(sdk aws.HTTPClient, wrap func(http.RoundTripper) http.RoundTripper) (*http.Client, error) {
	var tr http.RoundTripper
	if c, ok := sdk.(*awshttp.BuildableClient); ok {
		tr = c.GetTransport() // with the authorities of AWS_CA_BUNDLE
	}
	if wrap != nil {
		if tr = wrap(tr); tr == nil {
			return nil, invalid("WrapTransport", "returned nil")
		}
	}
	return &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}, nil
}

// idleConn is a connection on which a Read or Write fails after no byte has moved in
// either direction for the duration idle. Both extend one deadline, because the
// client waits for the answer while it is still sending the request.
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
