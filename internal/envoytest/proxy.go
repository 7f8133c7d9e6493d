package envoytest

import (
	"context"
	"io"
	"net"
	"sync"
	"time"
)

// Proxy forwards TCP connections to one address, and can cut them.
type Proxy struct {
	// Addr is where it listens.
	Addr string

	to       string
	listener net.Listener
	done     sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]struct{} // of both sides; nil after Close
}

// NewProxy starts a proxy for the server at an address.
func NewProxy(ctx context.Context, to string) (*Proxy, error) {
	l, err := listen(ctx, "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{Addr: l.Addr().String(), to: to, listener: l, conns: map[net.Conn]struct{}{}}
	p.done.Add(1)
	go func() {
		defer p.done.Done()
		p.accept(context.WithoutCancel(ctx))
	}()
	return p, nil
}

func (p *Proxy) accept(ctx context.Context) {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return // closed
		}
		dialer := net.Dialer{Timeout: time.Second}
		server, err := dialer.DialContext(ctx, "tcp", p.to)
		if err != nil {
			client.Close()
			continue
		}
		if !p.add(client, server) {
			return
		}
		for _, pair := range [][2]net.Conn{{client, server}, {server, client}} {
			p.done.Add(1)
			go func() {
				defer p.done.Done()
				_, _ = io.Copy(pair[0], pair[1])
				p.remove(client, server)
			}()
		}
	}
}

// add registers connections. It closes them if the proxy is closed.
func (p *Proxy) add(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		if p.conns == nil {
			c.Close()
			continue
		}
		p.conns[c] = struct{}{}
	}
	return p.conns != nil
}

func (p *Proxy) remove(conns ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		c.Close()
		delete(p.conns, c)
	}
}

// Cut closes all connections. The next ones are forwarded.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.Close()
	}
}

// Close ends the proxy and its connections.
func (p *Proxy) Close() {
	p.listener.Close()
	p.mu.Lock()
	conns := p.conns
	p.conns = nil
	p.mu.Unlock()
	for c := range conns {
		c.Close()
	}
	p.done.Wait()
}
