package fleet_test

import (
	"context"
	"net"
	"os"
	"strconv"
	"testing"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/xdswal/xdswal/bench/fleet"
)

func TestMain(m *testing.M) {
	fleet.Main()
	os.Exit(m.Run())
}

const (
	typeURL = "type.googleapis.com/a"
	sotw    = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
	delta   = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
)

// server answers the first request of a stream with resources, and each ACK with what it
// is given for that stream. It reports streams and requests.
type server struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	first    []string
	streams  chan chan []string
	requests chan proto.Message
	err      error // ends each stream after its first answer
}

func (s *server) StreamAggregatedResources(stream discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	send := make(chan []string, 2)
	s.streams <- send
	for i, bodies := 0, s.first; ; i++ {
		req, err := stream.Recv()
		if err != nil {
			return err
		}
		s.requests <- req
		if bodies == nil {
			bodies = <-send
		}
		response := &discoveryv3.DiscoveryResponse{TypeUrl: typeURL, VersionInfo: "v" + strconv.Itoa(i), Nonce: "n" + strconv.Itoa(i)}
		for _, b := range bodies {
			response.Resources = append(response.Resources, &anypb.Any{TypeUrl: typeURL, Value: []byte(b)})
		}
		if err := stream.Send(response); err != nil {
			return err
		}
		if s.err != nil {
			return s.err
		}
		bodies = nil
	}
}

func (s *server) DeltaAggregatedResources(stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	req, err := stream.Recv()
	if err != nil {
		return err
	}
	s.requests <- req
	response := &discoveryv3.DeltaDiscoveryResponse{TypeUrl: typeURL, Nonce: "n0"}
	for _, b := range s.first {
		response.Resources = append(response.Resources, &discoveryv3.Resource{Name: b, Resource: &anypb.Any{TypeUrl: typeURL, Value: []byte(b)}})
	}
	if err := stream.Send(response); err != nil {
		return err
	}
	if req, err = stream.Recv(); err != nil {
		return err
	}
	s.requests <- req
	<-stream.Context().Done()
	return nil
}

// serve starts the server and the clients' process.
func serve(t *testing.T, s *server) (*fleet.Fleet, string) {
	s.streams, s.requests = make(chan chan []string, 2), make(chan proto.Message, 16)
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	g := grpc.NewServer()
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, s)
	go func() { _ = g.Serve(l) }()
	t.Cleanup(g.Stop)
	f, err := fleet.Start(context.Background()) //nolint:usetesting // The context of the test ends before Stop.
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.Stop()) })
	return f, l.Addr().String()
}

func sotwPlan(address string, clients, resources int) fleet.Plan {
	request, _ := proto.Marshal(&discoveryv3.DiscoveryRequest{TypeUrl: typeURL, ResourceNames: []string{"a", "b"}})
	return fleet.Plan{Address: address, Method: sotw, Clients: clients, Requests: []fleet.Request{{TypeURL: typeURL, Message: request, Resources: resources}}}
}

func TestDelivery(t *testing.T) {
	s := &server{first: []string{"one", "two"}}
	f, address := serve(t, s)
	group, err := f.Connect(sotwPlan(address, 2, 2))
	require.NoError(t, err)
	for range 4 { // the first request and the ACK of each client
		<-s.requests
	}
	require.NoError(t, group.Expect([][]byte{[]byte("three"), []byte("four")}))
	require.ErrorContains(t, group.Expect(nil), "others are expected")
	delivered := make(chan error)
	go func() { delivered <- group.Wait() }()
	first, second := <-s.streams, <-s.streams
	first <- []string{"three"}
	second <- []string{"other"}
	for range 2 {
		<-s.requests
	}
	select {
	case err := <-delivered:
		require.Fail(t, "one client has not received the resource", "%v", err)
	default:
	}
	first <- []string{"four"}
	second <- []string{"three", "four"}
	require.NoError(t, <-delivered)
	require.NoError(t, group.Wait())
	require.ErrorContains(t, group.Wait(), "none is expected")
	traffic, err := group.Close()
	require.NoError(t, err)
	require.EqualValues(t, 6, traffic.Responses)
	require.Positive(t, traffic.Bytes)
}

func TestACK(t *testing.T) {
	s := &server{first: []string{"one", "two"}}
	f, address := serve(t, s)
	_, err := f.Connect(sotwPlan(address, 1, 2))
	require.NoError(t, err)
	require.Empty(t, (<-s.requests).(*discoveryv3.DiscoveryRequest).GetResponseNonce())
	want := &discoveryv3.DiscoveryRequest{TypeUrl: typeURL, ResourceNames: []string{"a", "b"}, VersionInfo: "v0", ResponseNonce: "n0"}
	require.True(t, proto.Equal(want, <-s.requests), "a SotW ACK repeats the names")

	request, err := proto.Marshal(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: typeURL, ResourceNamesSubscribe: []string{"a"}})
	require.NoError(t, err)
	_, err = f.Connect(fleet.Plan{Address: address, Method: delta, Delta: true, Clients: 1, Requests: []fleet.Request{{TypeURL: typeURL, Message: request, Resources: 2}}})
	require.NoError(t, err)
	<-s.requests
	require.True(t, proto.Equal(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: typeURL, ResponseNonce: "n0"}, <-s.requests))
}

// A server that sends less, or ends a stream, fails the run.
func TestStreamEnds(t *testing.T) {
	s := &server{first: []string{"one"}, err: status.Error(codes.Unavailable, "over")}
	f, address := serve(t, s)
	_, err := f.Connect(sotwPlan(address, 1, 2))
	require.ErrorContains(t, err, "over")
}
