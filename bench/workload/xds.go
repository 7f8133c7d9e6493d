package workload

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime/pprof"
	"sync"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/service/endpoint/v3"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	serverv3 "github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"

	"github.com/xdswal/xdswal/bench/fleet"
	"github.com/xdswal/xdswal/bench/harness"
	"github.com/xdswal/xdswal/xdsserver"
)

const (
	deltaADS  = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
	sotwADS   = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
	deltaEDS  = "/envoy.service.endpoint.v3.EndpointDiscoveryService/DeltaEndpoints"
	maxRecv   = 64 << 20 // a reconnect with 100,000 versions is 12 MB
	settleFor = 3 * time.Second
)

// discoveryServer is the part of an xDS server that the workloads use.
type discoveryServer interface {
	discoveryv3.AggregatedDiscoveryServiceServer
	endpointv3.EndpointDiscoveryServiceServer
}

// serverOf returns the xDS server that serves a cache, and its gRPC options.
type serverOf func(context.Context, cachev3.Cache) (discoveryServer, []grpc.ServerOption)

// upstreamServer is go-control-plane's server.
func upstreamServer(ctx context.Context, cache cachev3.Cache) (discoveryServer, []grpc.ServerOption) {
	return serverv3.NewServer(ctx, cache, nil), nil
}

// ownServer is xdswal's server.
func ownServer(ctx context.Context, cache cachev3.Cache) (discoveryServer, []grpc.ServerOption) {
	return xdsserver.NewServer(ctx, cache, nil), xdsserver.GRPCOptions()
}

// served is a gRPC server on a loopback port of this process.
type served struct {
	address string
	server  *grpc.Server
	cancel  context.CancelFunc
	done    chan error
}

// serveCache serves a cache until close. A profile attributes the server's work to the
// candidate.
func serveCache(ctx context.Context, workload, candidate string, cache cachev3.Cache, newServer serverOf) (*served, error) {
	ctx, cancel := context.WithCancel(ctx)
	srv, opts := newServer(ctx, cache)
	s := &served{server: grpc.NewServer(append(opts, grpc.MaxRecvMsgSize(maxRecv))...), cancel: cancel}
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(s.server, srv)
	endpointv3.RegisterEndpointDiscoveryServiceServer(s.server, srv)
	return s, s.start(ctx, workload, candidate)
}

func (s *served) start(ctx context.Context, workload, candidate string) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		s.cancel()
		return fmt.Errorf("listen: %w", err)
	}
	s.address, s.done = l.Addr().String(), make(chan error, 1)
	pprof.Do(ctx, pprof.Labels("workload", workload, "candidate", candidate), func(context.Context) {
		go func() { s.done <- s.server.Serve(l) }()
	})
	return nil
}

func (s *served) close() error {
	s.cancel()
	s.server.Stop()
	return <-s.done
}

// rawServer is the floor of every xDS server: it sends bytes that were marshaled before,
// whatever a client requests.
type rawServer struct {
	*served
	// responses are the answers to the first requests of a stream, in their order.
	responses [][]byte

	mu      sync.Mutex
	streams map[chan []byte]struct{}
}

func serveRaw(ctx context.Context, workload string, responses [][]byte) (*rawServer, error) {
	ctx, cancel := context.WithCancel(ctx)
	s := &rawServer{responses: responses, streams: map[chan []byte]struct{}{}}
	s.served = &served{cancel: cancel, server: grpc.NewServer(
		grpc.ForceServerCodecV2(fleet.Raw), grpc.MaxRecvMsgSize(maxRecv),
		grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error { return s.handle(stream) }),
	)}
	return s, s.start(ctx, workload, rawSendName)
}

func (s *rawServer) handle(stream grpc.ServerStream) error {
	updates := make(chan []byte, 1)
	s.mu.Lock()
	s.streams[updates] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.streams, updates)
		s.mu.Unlock()
	}()
	var request []byte
	for _, r := range s.responses {
		if err := stream.RecvMsg(&request); err != nil {
			return err
		}
		if err := stream.SendMsg(r); err != nil {
			return err
		}
	}
	ended := make(chan error, 1)
	go func() {
		var ack []byte
		for {
			if err := stream.RecvMsg(&ack); err != nil {
				ended <- err
				return
			}
		}
	}()
	for {
		select {
		case u := <-updates:
			if err := stream.SendMsg(u); err != nil {
				return err
			}
		case err := <-ended:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

// broadcast sends a response to each stream.
func (s *rawServer) broadcast(response []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.streams {
		c <- response
	}
}

// awaitStreams waits until clients have opened their streams.
func (s *rawServer) awaitStreams(ctx context.Context, clients int) error {
	for {
		s.mu.Lock()
		n := len(s.streams)
		s.mu.Unlock()
		if n == clients {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(time.Millisecond):
		}
	}
}

// settle waits until this process is idle, so that the work that an operation has left
// to other goroutines is counted with it, and returns the processor time then.
func settle(ctx context.Context) (time.Duration, error) {
	const (
		interval = 10 * time.Millisecond
		idle     = 300 * time.Microsecond // of processor time in an interval
	)
	before := harness.CPUTime()
	for deadline := time.Now().Add(settleFor); time.Now().Before(deadline); {
		select {
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		case <-time.After(interval):
		}
		now := harness.CPUTime()
		if now-before < idle {
			return now, nil
		}
		before = now
	}
	return before, nil
}
