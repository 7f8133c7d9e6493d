package xdsserver

import (
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // registers the codec that codec uses
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

const (
	// maxRequestBytes admits a delta client that reconnects with 100,000 resources, whose
	// names and versions take about 10 MB, with room for more.
	maxRequestBytes = 64 << 20
	// maxReceiveBytes is what gRPC receives. Of a larger request it tells not even the node.
	maxReceiveBytes = 2 * maxRequestBytes
	// minPing is less than the 5 seconds between the keepalive pings of many Envoys.
	minPing    = time.Second
	maxStreams = 100_000
)

// GRPCOptions returns options for a grpc.Server that serves xDS. They admit requests of up
// to 64 MiB (the server itself refuses those of up to 128 MiB, which it can log with their
// node): a delta client that reconnects names all its resources with their versions, and
// gRPC's default of 4 MiB ends the stream of an Envoy with 15,000 clusters again and again.
// They admit keepalive pings each second, find clients that are gone within 40
// seconds, and send large answers without copying them.
func GRPCOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(maxReceiveBytes),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minPing, PermitWithoutStream: true}),
		grpc.ForceServerCodecV2(codec{encoding.GetCodecV2("proto")}),
	}
}

// codec is gRPC's codec, which does not copy the bytes of answers that streams share.
type codec struct{ encoding.CodecV2 }

// Marshal returns a message in wire format.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	switch m := v.(type) {
	case *discoveryv3.DiscoveryResponse:
		if b := sharedBytes(m, m.GetNonce()); b != nil {
			return b, nil
		}
	case *discoveryv3.DeltaDiscoveryResponse:
		if b := sharedBytes(m, m.GetNonce()); b != nil {
			return b, nil
		}
	}
	return c.CodecV2.Marshal(v)
}

// sharedBytes returns a response that consists of a nonce and of marshaled fields, or nil
// for another response.
func sharedBytes(m proto.Message, nonce string) mem.BufferSlice {
	body := m.ProtoReflect().GetUnknown()
	if len(body) < sharedAnswerSize {
		return nil
	}
	head := appendText(nil, responseNonce, nonce)
	if proto.Size(m) != len(head)+len(body) {
		return nil
	}
	return mem.BufferSlice{mem.SliceBuffer(head), mem.SliceBuffer(body)}
}
