package xdsserver_test

import (
	"context"
	"io"
	"sync"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// modelWire is a stream between a client and the server, in memory. It marshals each
// message with gRPC's own codec. A message for the client waits until the client reads
// it, or until one of window places is free, so that a client can read slowly.
type modelWire struct {
	ctx      context.Context
	cancel   context.CancelFunc
	node     *modelNode
	toServer chan []byte
	toClient chan modelFrame

	mu      sync.Mutex
	taken   int // number of requests that the server has received
	sending int // number of calls of SendMsg that wait
	base    modelBase
}

// modelBase is the oldest that a response can be made from.
type modelBase struct{ state, taken int }

// modelFrame is a response, and what the server can have known when it made it: one of
// the node's states from through until, and the requests before at least low and at most
// high.
type modelFrame struct {
	data        []byte
	from, until int
	low, high   int
	at          time.Time
}

func newModelWire(ctx context.Context, node *modelNode, window int) *modelWire {
	w := &modelWire{node: node, toServer: make(chan []byte, 4096), toClient: make(chan modelFrame, window)}
	w.ctx, w.cancel = context.WithCancel(ctx)
	w.base.state = int(node.completed.Load())
	return w
}

var modelCodec = encoding.GetCodecV2("proto")

func modelMarshal(m any) []byte {
	data, err := modelCodec.Marshal(m)
	if err != nil {
		panic(err)
	}
	return data.Materialize()
}

func modelUnmarshal(data []byte, m any) error {
	return modelCodec.Unmarshal(mem.BufferSlice{mem.SliceBuffer(data)}, m)
}

func (w *modelWire) Context() context.Context     { return w.ctx }
func (w *modelWire) SetHeader(metadata.MD) error  { return nil }
func (w *modelWire) SendHeader(metadata.MD) error { return nil }
func (w *modelWire) SetTrailer(metadata.MD)       {}

func (w *modelWire) SendMsg(m any) error {
	f := modelFrame{data: modelMarshal(m), until: int(w.node.begun.Load()), at: time.Now()}
	w.mu.Lock()
	f.from, f.low, f.high = w.base.state, w.base.taken, w.taken
	w.sending++
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		w.sending--
		w.mu.Unlock()
	}()
	select {
	case w.toClient <- f:
		return nil
	case <-w.ctx.Done():
		return status.FromContextError(w.ctx.Err()).Err()
	}
}

func (w *modelWire) RecvMsg(m any) error {
	select {
	case data, ok := <-w.toServer:
		if !ok {
			return io.EOF
		}
		w.mu.Lock()
		w.taken++
		w.mu.Unlock()
		return modelUnmarshal(data, m)
	case <-w.ctx.Done():
		return status.Error(codes.Canceled, "context canceled")
	}
}

// settled records that the server has nothing to do: what it sends from now on is made
// from the present state and all requests, unless a response already waits.
func (w *modelWire) settled() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.sending == 0 {
		w.base = modelBase{int(w.node.completed.Load()), w.taken}
	}
}

type modelSotwWire struct{ *modelWire }

func (w modelSotwWire) Send(m *discoveryv3.DiscoveryResponse) error { return w.SendMsg(m) }

func (w modelSotwWire) Recv() (*discoveryv3.DiscoveryRequest, error) {
	m := &discoveryv3.DiscoveryRequest{}
	return m, w.RecvMsg(m)
}

type modelDeltaWire struct{ *modelWire }

func (w modelDeltaWire) Send(m *discoveryv3.DeltaDiscoveryResponse) error { return w.SendMsg(m) }

func (w modelDeltaWire) Recv() (*discoveryv3.DeltaDiscoveryRequest, error) {
	m := &discoveryv3.DeltaDiscoveryRequest{}
	return m, w.RecvMsg(m)
}
