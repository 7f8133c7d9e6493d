package fleet

import (
	"bytes"
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protowire"
)

// Main runs the clients and does not return, if this process was started by [Start].
func Main() {
	if os.Getenv(processKey) == "" {
		return
	}
	debug.SetGCPercent(400) // the clients should take little time from the server
	p := process{out: gob.NewEncoder(os.Stdout), groups: map[int]*clients{}}
	if err := p.run(context.Background(), os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "fleet:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// process is the state of the clients' process.
type process struct {
	mu     sync.Mutex // guards out
	out    *gob.Encoder
	groups map[int]*clients
}

func (p *process) run(ctx context.Context, in io.Reader) error {
	dec := gob.NewDecoder(in)
	for {
		var c command
		if err := dec.Decode(&c); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return fmt.Errorf("read command: %w", err)
		}
		t, err := p.do(ctx, c)
		p.reply(t, err)
	}
}

func (p *process) do(ctx context.Context, c command) (Traffic, error) {
	switch g := p.groups[c.Group]; {
	case c.Connect != nil:
		g = newClients(*c.Connect, p.reply)
		p.groups[c.Group] = g
		return Traffic{}, g.connect(ctx)
	case g == nil:
		return Traffic{}, fmt.Errorf("no group %d", c.Group)
	case c.Close:
		delete(p.groups, c.Group)
		return g.close(), nil
	default:
		return Traffic{}, g.expect(c.Expect)
	}
}

func (p *process) reply(t Traffic, err error) {
	r := reply{Traffic: t}
	if err != nil {
		r.Err = err.Error()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.out.Encode(r) // without a parent, the input ends too
}

// clients are the clients of a group.
type clients struct {
	plan   Plan
	report func(Traffic, error)
	stop   context.CancelFunc
	all    []*client
	ended  sync.WaitGroup

	connected atomic.Bool
	failed    chan error // the first error of a client before it is connected
	bytes     atomic.Int64
	responses atomic.Int64

	mu       sync.Mutex
	expected [][]byte
	received []int // number of clients that have received each expected body
}

func newClients(plan Plan, report func(Traffic, error)) *clients {
	return &clients{plan: plan, report: report, failed: make(chan error, 1)}
}

// connect connects all clients at once.
func (g *clients) connect(ctx context.Context) error {
	ctx, g.stop = context.WithCancel(ctx)
	var complete sync.WaitGroup
	for range g.plan.Clients {
		c := &client{group: g, complete: complete.Done, missing: map[string]int{}}
		for _, r := range g.plan.Requests {
			if r.Resources > 0 {
				c.missing[r.TypeURL] = r.Resources
			}
		}
		complete.Add(1)
		g.all = append(g.all, c)
		g.ended.Add(1)
		go func() {
			defer g.ended.Done()
			if err := c.run(ctx); err != nil && ctx.Err() == nil {
				g.fail(err)
			}
		}()
	}
	done := make(chan struct{})
	go func() {
		complete.Wait()
		close(done)
	}()
	select {
	case <-done:
		g.connected.Store(true)
		return nil
	case err := <-g.failed:
		return err
	}
}

// fail reports that a client has lost its stream. The parent is waiting for a delivery,
// or finds the error instead of the next one.
func (g *clients) fail(err error) {
	if g.connected.Load() {
		g.report(Traffic{}, err)
		return
	}
	select {
	case g.failed <- err:
	default:
	}
}

func (g *clients) close() Traffic {
	g.stop()
	g.ended.Wait()
	return Traffic{Bytes: g.bytes.Load(), Responses: g.responses.Load()}
}

func (g *clients) expect(bodies [][]byte) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, n := range g.received {
		if n != len(g.all) {
			return fmt.Errorf("resource %d of %d reached %d of %d clients", i, len(g.received), n, len(g.all))
		}
	}
	g.expected, g.received = bodies, make([]int, len(bodies))
	for _, c := range g.all {
		c.next = 0
	}
	return nil
}

// match reports the expected bodies that a response to a client contains.
func (g *clients) match(c *client, response []byte) {
	g.mu.Lock()
	var delivered int
	for c.next < len(g.expected) && bytes.Contains(response, g.expected[c.next]) {
		if g.received[c.next]++; g.received[c.next] == len(g.all) {
			delivered++
		}
		c.next++
	}
	g.mu.Unlock()
	for range delivered {
		g.report(Traffic{}, nil)
	}
}

// client is one xDS client.
type client struct {
	group    *clients
	complete func()
	missing  map[string]int // resources to receive until the client is connected
	next     int            // index of the next expected body; group.mu guards it
}

// The windows are those of an Envoy: flow control never stops a server.
const (
	streamWindow     = 16 << 20
	connectionWindow = 24 << 20
	maxMessage       = 1 << 30
)

func (c *client) run(ctx context.Context) error {
	conn, err := grpc.NewClient("passthrough:///"+c.group.plan.Address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithInitialWindowSize(streamWindow), grpc.WithInitialConnWindowSize(connectionWindow),
		grpc.WithReadBufferSize(128<<10),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(Raw), grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)))
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer conn.Close()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, c.group.plan.Method)
	if err != nil {
		return fmt.Errorf("open stream: %w", err)
	}
	for _, r := range c.group.plan.Requests {
		if err := stream.SendMsg(r.Message); err != nil {
			return c.streamError(stream, "send request", err)
		}
	}
	waiting := len(c.missing) > 0
	if !waiting {
		c.complete()
	}
	var message []byte
	for {
		if err := stream.RecvMsg(&message); err != nil {
			return c.streamError(stream, "receive response", err)
		}
		r, err := scan(message)
		if err != nil {
			return err
		}
		if err := stream.SendMsg(c.ack(r)); err != nil {
			return c.streamError(stream, "send ACK", err)
		}
		c.group.bytes.Add(int64(len(message)))
		c.group.responses.Add(1)
		c.group.match(c, message)
		if !waiting {
			continue
		}
		if c.missing[r.typeURL] -= r.resources; c.missing[r.typeURL] <= 0 {
			delete(c.missing, r.typeURL)
		}
		if waiting = len(c.missing) > 0; !waiting {
			c.complete()
		}
	}
}

// streamError returns the status of the stream instead of the EOF of SendMsg.
func (c *client) streamError(stream grpc.ClientStream, what string, err error) error {
	if errors.Is(err, io.EOF) {
		var message []byte
		for err = nil; err == nil; {
			err = stream.RecvMsg(&message)
		}
	}
	return fmt.Errorf("%s: %w", what, err)
}

// Field numbers of the discovery messages. Both responses have the same for what is
// used here.
const (
	responseVersion   = 1
	responseResources = 2
	responseType      = 4
	responseNonce     = 5

	requestVersion = 1
	requestNonce   = 5

	deltaRequestType  = 2
	deltaRequestNonce = 6
)

// ack returns the ACK of a response. In SotW, it repeats the request for the type, whose
// names are the subscription.
func (c *client) ack(r response) []byte {
	if c.group.plan.Delta {
		out := appendText(nil, deltaRequestType, r.typeURL)
		return appendText(out, deltaRequestNonce, r.nonce)
	}
	var out []byte
	for _, request := range c.group.plan.Requests {
		if request.TypeURL == r.typeURL {
			out = bytes.Clone(request.Message)
		}
	}
	out = appendText(out, requestVersion, r.version)
	return appendText(out, requestNonce, r.nonce)
}

func appendText(b []byte, field protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), s)
}

// response is what a client reads of a response.
type response struct {
	typeURL, version, nonce string
	resources               int
}

func scan(message []byte) (response, error) {
	var r response
	for len(message) > 0 {
		field, wire, n := protowire.ConsumeTag(message)
		if n < 0 {
			return r, fmt.Errorf("read response: %w", protowire.ParseError(n))
		}
		message = message[n:]
		if wire != protowire.BytesType {
			if n = protowire.ConsumeFieldValue(field, wire, message); n < 0 {
				return r, fmt.Errorf("read response: %w", protowire.ParseError(n))
			}
			message = message[n:]
			continue
		}
		value, n := protowire.ConsumeBytes(message)
		if n < 0 {
			return r, fmt.Errorf("read response: %w", protowire.ParseError(n))
		}
		message = message[n:]
		switch field {
		case responseVersion:
			r.version = string(value)
		case responseResources:
			r.resources++
		case responseType:
			r.typeURL = string(value)
		case responseNonce:
			r.nonce = string(value)
		}
	}
	return r, nil
}
