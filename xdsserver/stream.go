package xdsserver

import (
	"context"
	"errors"
	"io"
	"runtime"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/stream/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// request is a request of either protocol.
type request struct {
	delta   bool
	size    int // bytes
	node    *corev3.Node
	typeURL string
	nonce   string
	err     *rpcstatus.Status
	// Of SotW: all names, and the version that the client has.
	names   []string
	version string
	// Of delta.
	subscribe, unsubscribe []string
	initial                map[string]string
}

// protocol is what SotW and delta streams differ in.
type protocol interface {
	open(ctx context.Context, id int64, typeURL string) error
	closed(id int64, node *corev3.Node)
	// receive returns the next request, after setting what separate services and later
	// requests may omit.
	receive() (proto.Message, error)
	// accept completes a request and calls the callback.
	accept(id int64, m proto.Message, of *session) (*request, error)
	send(id int64, out *outgoing, body []byte) error
}

// StreamHandler serves a SotW stream of one type, or of all types if the URL is empty. It
// is called by the service methods.
func (s *Server) StreamHandler(str stream.Stream, typeURL string) error {
	return s.serve(str, &sotwProtocol{server: s, stream: str, last: map[string]*discoveryv3.DiscoveryRequest{}}, false, typeURL)
}

// DeltaStreamHandler is StreamHandler for the delta protocol.
func (s *Server) DeltaStreamHandler(str stream.DeltaStream, typeURL string) error {
	return s.serve(str, &deltaProtocol{server: s, stream: str, last: map[string]*discoveryv3.DeltaDiscoveryRequest{}}, true, typeURL)
}

func (s *Server) serve(str grpc.ServerStream, p protocol, delta bool, service string) error {
	ctx := str.Context()
	address := ""
	if from, ok := peer.FromContext(ctx); ok && from.Addr != nil {
		address = from.Addr.String()
	}
	id := s.streams.Add(1)
	of := newSession(s, delta, service, address, time.Now())
	if err := s.open(of); err != nil {
		return err
	}
	defer func() {
		s.close(of)
		p.closed(id, of.node)
	}()
	if err := p.open(ctx, id, service); err != nil {
		return err
	}
	requests, failed := receiveAll(ctx, p)
	timer := time.NewTimer(0)
	defer timer.Stop()
	always := make(chan struct{})
	close(always)
	more := false // another answer may be due
	for s.ctx.Err() == nil {
		var again chan struct{} // is ready if another answer may be due
		if more {
			again = always
		}
		var m proto.Message
		// A request comes before another answer: a client that reads more slowly than its
		// node changes is always due one.
		select {
		case m = <-requests:
		default:
			select {
			case <-s.ctx.Done():
				continue
			case <-ctx.Done():
				// Why is in the error of the receiver: gRPC ends the stream of a request that
				// is too large.
				return s.received(of, <-failed)
			case err := <-failed:
				return s.received(of, err)
			case m = <-requests:
			case <-of.changed:
			case <-timer.C:
			case <-again:
			}
		}
		if m != nil {
			req, err := p.accept(id, m, of)
			if err != nil {
				return err
			}
			req.size = proto.Size(m)
			if err := of.handle(ctx, req); err != nil {
				return err
			}
		}
		var err error
		if more, err = s.sendNext(id, of, p, timer); err != nil {
			return err
		}
	}
	return status.Error(codes.Unavailable, "the server is shutting down")
}

// sendNext sends the next answer that the client is owed, and reports whether there was
// one. It returns when the client has taken it, and the next is made after that.
func (s *Server) sendNext(id int64, of *session, p protocol, timer *time.Timer) (bool, error) {
	out, again := of.next(time.Now())
	if out == nil {
		if again.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(max(time.Until(again), 0))
		}
		return false, nil
	}
	s.warnOfTTL(of, out)
	body := s.answers.marshal(out.answer)
	err := p.send(id, out, body.bytes)
	runtime.KeepAlive(body) // so that others share it
	return true, err
}

// warnOfTTL logs, once for each type of a stream, that a resource is sent with a TTL that
// Envoy does not survive.
func (s *Server) warnOfTTL(of *session, out *outgoing) {
	if out.delta || !out.expires || out.sub.warnedOfTTL {
		return
	}
	if out.typeURL != resourcev3.EndpointType && out.typeURL != resourcev3.RouteType {
		return
	}
	out.sub.warnedOfTTL = true
	s.opt.Logger.Warn("sending resources with a TTL over SotW: Envoy crashes when endpoints or routes expire; use the delta protocol, or set no TTL",
		"node", bounded(of.nodeID), "peer", of.peer, "type", out.typeURL)
}

// receiveAll receives requests until the stream ends.
func receiveAll(ctx context.Context, p protocol) (<-chan proto.Message, <-chan error) {
	requests, failed := make(chan proto.Message), make(chan error, 1)
	go func() {
		for {
			m, err := p.receive()
			if err != nil {
				failed <- err
				return
			}
			select {
			case requests <- m:
			case <-ctx.Done():
				failed <- io.EOF
				return
			}
		}
	}()
	return requests, failed
}

// received returns the error that ends a stream from which nothing can be received.
func (s *Server) received(of *session, err error) error {
	switch {
	case errors.Is(err, io.EOF), status.Code(err) == codes.Canceled:
		return nil
	case status.Code(err) == codes.ResourceExhausted:
		return s.refuse(of, codes.ResourceExhausted, "request size", "%s", status.Convert(err).Message())
	}
	return err
}

type sotwProtocol struct {
	server *Server
	stream stream.Stream
	last   map[string]*discoveryv3.DiscoveryRequest // by type, for callbacks
}

func (p *sotwProtocol) open(ctx context.Context, id int64, typeURL string) error {
	if p.server.callbacks == nil {
		return nil
	}
	return p.server.callbacks.OnStreamOpen(ctx, id, typeURL)
}

func (p *sotwProtocol) closed(id int64, node *corev3.Node) {
	if p.server.callbacks != nil {
		p.server.callbacks.OnStreamClosed(id, node)
	}
}

func (p *sotwProtocol) receive() (proto.Message, error) { return p.stream.Recv() }

func (p *sotwProtocol) accept(id int64, m proto.Message, of *session) (*request, error) {
	req := m.(*discoveryv3.DiscoveryRequest)
	if req == nil {
		return nil, of.refuseEmpty()
	}
	given := req.GetNode()
	if given == nil {
		req.Node = of.node
	}
	if err := of.setTypeURL(&req.TypeUrl); err != nil {
		return nil, err
	}
	if p.server.callbacks != nil {
		if err := p.server.callbacks.OnStreamRequest(id, req); err != nil {
			return nil, err
		}
		p.last[req.GetTypeUrl()] = req
	}
	return &request{
		node: given, typeURL: req.GetTypeUrl(), nonce: req.GetResponseNonce(), err: req.GetErrorDetail(), names: req.GetResourceNames(), version: req.GetVersionInfo(),
	}, nil
}

func (p *sotwProtocol) send(id int64, out *outgoing, body []byte) error {
	if p.server.callbacks != nil {
		full, _ := out.message(out.nonce)
		p.server.callbacks.OnStreamResponse(p.stream.Context(), id, p.last[out.typeURL], full)
	}
	m := &discoveryv3.DiscoveryResponse{Nonce: out.nonce}
	m.ProtoReflect().SetUnknown(body)
	return p.stream.Send(m)
}

type deltaProtocol struct {
	server *Server
	stream stream.DeltaStream
	last   map[string]*discoveryv3.DeltaDiscoveryRequest // by type, for callbacks
}

func (p *deltaProtocol) open(ctx context.Context, id int64, typeURL string) error {
	if p.server.callbacks == nil {
		return nil
	}
	return p.server.callbacks.OnDeltaStreamOpen(ctx, id, typeURL)
}

func (p *deltaProtocol) closed(id int64, node *corev3.Node) {
	if p.server.callbacks != nil {
		p.server.callbacks.OnDeltaStreamClosed(id, node)
	}
}

func (p *deltaProtocol) receive() (proto.Message, error) { return p.stream.Recv() }

func (p *deltaProtocol) accept(id int64, m proto.Message, of *session) (*request, error) {
	req := m.(*discoveryv3.DeltaDiscoveryRequest)
	if req == nil {
		return nil, of.refuseEmpty()
	}
	given := req.GetNode()
	if given == nil {
		req.Node = of.node
	}
	if err := of.setTypeURL(&req.TypeUrl); err != nil {
		return nil, err
	}
	if p.server.callbacks != nil {
		if err := p.server.callbacks.OnStreamDeltaRequest(id, req); err != nil {
			return nil, err
		}
		p.last[req.GetTypeUrl()] = req
	}
	return &request{
		delta: true, node: given, typeURL: req.GetTypeUrl(), nonce: req.GetResponseNonce(), err: req.GetErrorDetail(),
		subscribe: req.GetResourceNamesSubscribe(), unsubscribe: req.GetResourceNamesUnsubscribe(), initial: req.GetInitialResourceVersions(),
	}, nil
}

func (p *deltaProtocol) send(id int64, out *outgoing, body []byte) error {
	if p.server.callbacks != nil {
		_, full := out.message(out.nonce)
		p.server.callbacks.OnStreamDeltaResponse(id, p.last[out.typeURL], full)
	}
	m := &discoveryv3.DeltaDiscoveryResponse{Nonce: out.nonce}
	m.ProtoReflect().SetUnknown(body)
	return p.stream.Send(m)
}

func (s *session) refuseEmpty() error {
	return s.server.refuse(s, codes.InvalidArgument, "empty request", "empty request")
}

// setTypeURL sets the type of a request of a separate service, which may omit it.
func (s *session) setTypeURL(url *string) error {
	switch {
	case *url == "" && s.service == "":
		return s.server.refuse(s, codes.InvalidArgument, "no type", "type URL is required for ADS")
	case *url == "":
		*url = s.service
	case s.service != "" && *url != s.service:
		return s.server.refuse(s, codes.InvalidArgument, "wrong type", "type URL %q does not belong to the service of %s", bounded(*url), s.service)
	}
	return nil
}
