package xdsserver_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	serverv3 "github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/xdswal/xdswal/xdsserver"
)

// calls records callbacks.
type calls struct {
	mu  sync.Mutex
	all []string
}

func (c *calls) add(call string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, call)
}

func (c *calls) get() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.all...)
}

// Callbacks are called as by go-control-plane's server, with what is sent.
func TestCallbacks(t *testing.T) {
	w := newWorld(t)
	w.set("n", "1", edsCluster("a", ""))
	var c calls
	var sent *discoveryv3.DiscoveryResponse
	var sentDelta *discoveryv3.DeltaDiscoveryResponse
	refuse := errors.New("refused by a callback")
	w.server = xdsserver.NewServer(t.Context(), w.cache, serverv3.CallbackFuncs{
		StreamOpenFunc: func(context.Context, int64, string) error { c.add("open"); return nil },
		StreamClosedFunc: func(_ int64, node *corev3.Node) {
			c.add("closed " + node.GetId())
		},
		StreamRequestFunc: func(_ int64, req *discoveryv3.DiscoveryRequest) error {
			c.add("request " + req.GetNode().GetId())
			if req.GetErrorDetail() != nil {
				return refuse
			}
			return nil
		},
		StreamResponseFunc: func(_ context.Context, _ int64, req *discoveryv3.DiscoveryRequest, resp *discoveryv3.DiscoveryResponse) {
			c.add("response " + req.GetNode().GetId())
			sent = resp
		},
		DeltaStreamOpenFunc:    func(context.Context, int64, string) error { c.add("delta open"); return nil },
		DeltaStreamClosedFunc:  func(int64, *corev3.Node) { c.add("delta closed") },
		StreamDeltaRequestFunc: func(int64, *discoveryv3.DeltaDiscoveryRequest) error { c.add("delta request"); return nil },
		StreamDeltaResponseFunc: func(_ int64, _ *discoveryv3.DeltaDiscoveryRequest, resp *discoveryv3.DeltaDiscoveryResponse) {
			c.add("delta response")
			sentDelta = resp
		},
	})
	w.conn = serve(t, w.server)

	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(w.conn).StreamAggregatedResources(t.Context())
	require.NoError(t, err)
	require.NoError(t, stream.Send(&discoveryv3.DiscoveryRequest{Node: &corev3.Node{Id: "n"}, TypeUrl: resourcev3.ClusterType}))
	resp, err := stream.Recv()
	require.NoError(t, err)
	require.True(t, proto.Equal(sent, resp), "got %v, want %v", resp, sent)
	// A later request may omit the node.
	require.NoError(t, stream.Send(&discoveryv3.DiscoveryRequest{TypeUrl: resourcev3.ClusterType, ResponseNonce: resp.GetNonce()}))
	require.NoError(t, stream.CloseSend())
	_, err = stream.Recv()
	require.Error(t, err)
	want := []string{"open", "request n", "response n", "request n", "closed n"}
	require.Eventually(t, func() bool { return len(c.get()) == len(want) }, timeout, time.Millisecond)
	require.Equal(t, want, c.get())

	d := w.delta()
	d.subscribe(resourcev3.ClusterType)
	got, _ := d.receive()
	require.True(t, proto.Equal(sentDelta, got), "got %v, want %v", got, sentDelta)
	require.NoError(t, d.stream.CloseSend())
	require.Error(t, <-d.ended)
	want = append(want, "delta open", "delta request", "delta response", "delta closed")
	require.Eventually(t, func() bool { return len(c.get()) == len(want) }, timeout, time.Millisecond)
	require.Equal(t, want, c.get())
}

// A stream that ends before its first request, or whose first request has no node, has an
// empty node, so that callbacks may read its fields.
func TestCallbacksWithoutNode(t *testing.T) {
	w := newWorld(t)
	ids := make(chan string, 2)
	w.server = xdsserver.NewServer(t.Context(), w.cache, serverv3.CallbackFuncs{
		DeltaStreamOpenFunc:    func(context.Context, int64, string) error { return nil },
		StreamDeltaRequestFunc: func(_ int64, req *discoveryv3.DeltaDiscoveryRequest) error { ids <- req.Node.Id; return nil },
		DeltaStreamClosedFunc:  func(_ int64, node *corev3.Node) { ids <- node.Id },
	})
	w.conn = serve(t, w.server)
	require.NoError(t, w.delta().stream.CloseSend())
	require.Empty(t, <-ids)
	require.NoError(t, w.delta().stream.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: resourcev3.ClusterType}))
	require.Empty(t, <-ids)
}

func TestFetch(t *testing.T) {
	w := newWorld(t)
	w.set("n", "7", edsCluster("a", ""))
	resp, err := w.server.FetchClusters(t.Context(), &discoveryv3.DiscoveryRequest{Node: &corev3.Node{Id: "n"}})
	require.NoError(t, err)
	require.Equal(t, "7", resp.GetVersionInfo())
	require.Len(t, resp.GetResources(), 1)
	_, err = w.server.FetchClusters(t.Context(), nil)
	require.Error(t, err)
}

// TTLs are renewed: over delta without bodies, over SotW with everything that the client
// would otherwise remove.
func TestHeartbeats(t *testing.T) {
	w := newWorld(t, xdsserver.Options{HeartbeatInterval: 50 * time.Millisecond})
	ttl := time.Minute
	_, err := w.cache.UpdateResources(t.Context(), "n", map[string][]types.ResourceWithTTL{
		resourcev3.ClusterType: {{Resource: edsCluster("a", ""), TTL: &ttl}, {Resource: edsCluster("b", "")}},
	}, nil, "1")
	require.NoError(t, err)
	d := w.delta()
	d.subscribe(resourcev3.ClusterType)
	d.expect("Cluster +a +b")
	resp, got := d.receive()
	require.Equal(t, "Cluster +a", got)
	require.Nil(t, resp.GetResources()[0].GetResource())
	require.Equal(t, ttl, resp.GetResources()[0].GetTtl().AsDuration())

	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(w.conn).StreamAggregatedResources(t.Context())
	require.NoError(t, err)
	require.NoError(t, stream.Send(&discoveryv3.DiscoveryRequest{Node: &corev3.Node{Id: "n"}, TypeUrl: resourcev3.ClusterType}))
	for range 3 {
		resp, err := stream.Recv()
		require.NoError(t, err)
		require.Len(t, resp.GetResources(), 2)
		wrapped := &discoveryv3.Resource{}
		require.NoError(t, resp.GetResources()[0].UnmarshalTo(wrapped))
		require.NotEmpty(t, wrapped.GetResource().GetValue())
	}
}
