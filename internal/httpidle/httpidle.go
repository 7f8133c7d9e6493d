// Package httpidle bounds the waits of an HTTP transport, above all for a silent peer.
package httpidle

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"
)

const (
	dialTimeout = 10 * time.Second
	// poolTimeout closes unused connections. It is at most half of the idle
	// timeout, which would fail them.
	poolTimeout = 30 * time.Second
)

// Bound bounds the dialing of tr, and the time without a byte sent or received, by
// idle. It turns HTTP/2 off: on such a connection, bytes of one stream would extend the
// deadline of the others.
func Bound(tr *http.Transport, idle time.Duration) {
	dialer := net.Dialer{Timeout: dialTimeout, KeepAlive: dialTimeout}
	tr.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dialer.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &idleConn{Conn: conn, idle: idle}, nil
	}
	tr.IdleConnTimeout = min(poolTimeout, idle/2)
	tr.ForceAttemptHTTP2 = false
	tr.Protocols = new(http.Protocols)
	tr.Protocols.SetHTTP1(true)
	if tr.TLSClientConfig != nil {
		// A transport that was copied while it was set for HTTP/2 still offers it to the
		// server in the TLS handshake.
		tr.TLSClientConfig.NextProtos = nil
	}
}

// idleConn is a connection on which a Read or Write fails after no byte has moved in
// either direction for the duration idle. Both extend one deadline, because the
// client waits for the answer while it is still sending the request.
type idleConn struct {
	net.Conn
	idle   time.Duration
	silent atomic.Bool // a Read has failed for it
}

func (c *idleConn) Read(p []byte) (int, error) {
	if err := c.extend(); err != nil {
		return 0, err
	}
	n, err := c.Conn.Read(p)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.silent.Store(true)
	}
	return n, err
}

func (c *idleConn) Write(p []byte) (int, error) {
	if err := c.extend(); err != nil {
		return 0, err
	}
	n, err := c.Conn.Write(p)
	if errors.Is(err, net.ErrClosed) && c.silent.Load() {
		err = os.ErrDeadlineExceeded // The client closed the connection for that.
	}
	return n, err
}

func (c *idleConn) extend() error { return c.SetDeadline(time.Now().Add(c.idle)) }
