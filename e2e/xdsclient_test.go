package e2e

import (
	"context"
	"maps"
	"slices"
	"testing"
	"time"

	// Links the messages that nameOfAny decodes.
	_ "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/service/runtime/v3"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	_ "github.com/envoyproxy/go-control-plane/ratelimit/config/ratelimit/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/anypb"
)

// dial returns a connection to the daemon's xDS server, which reconnects when the daemon
// has restarted.
func dial(t testing.TB, d *daemon) *grpc.ClientConn {
	t.Helper()
	retry := backoff.DefaultConfig
	retry.BaseDelay, retry.MaxDelay = 20*time.Millisecond, 200*time.Millisecond
	conn, err := grpc.NewClient("passthrough:///"+d.xds,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: retry, MinConnectTimeout: 5 * time.Second}),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func streamContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	t.Cleanup(cancel)
	return ctx
}

// served are the resources of one type that a client has received.
type served struct {
	// version is the version of the type in the SotW protocol.
	version string
	// bytes are the resources by name, as on the wire.
	bytes map[string]string
	// versions are the versions of the resources in the delta protocol.
	versions map[string]string
}

func newServed() served { return served{bytes: map[string]string{}, versions: map[string]string{}} }

// sotw is a SotW ADS stream.
type sotw struct {
	t      testing.TB
	node   string
	ctx    context.Context
	stream discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesClient
}

func openSotW(t testing.TB, conn *grpc.ClientConn, node string) *sotw {
	t.Helper()
	ctx := streamContext(t)
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).StreamAggregatedResources(ctx)
	require.NoError(t, err)
	return &sotw{t: t, node: node, ctx: ctx, stream: stream}
}

// ask requests a type. Version and nonce are those of the response that it ACKs; without a
// nonce, version is that of the client's last stream.
func (s *sotw) ask(typeURL, version, nonce string, names ...string) {
	s.t.Helper()
	require.NoError(s.t, s.stream.Send(&discoveryv3.DiscoveryRequest{
		Node: &corev3.Node{Id: s.node}, TypeUrl: typeURL, VersionInfo: version, ResponseNonce: nonce, ResourceNames: names,
	}))
}

// receive receives a response and ACKs it.
func (s *sotw) receive(typeURL string, names ...string) served {
	s.t.Helper()
	resp, err := s.stream.Recv()
	require.NoError(s.t, err)
	require.Equal(s.t, typeURL, resp.GetTypeUrl())
	out := newServed()
	out.version = resp.GetVersionInfo()
	for _, r := range resp.GetResources() {
		out.bytes[nameOfAny(s.t, r)] = r.GetTypeUrl() + "\n" + string(r.GetValue())
	}
	require.Len(s.t, out.bytes, len(resp.GetResources()), "a name was sent twice")
	s.ask(typeURL, out.version, resp.GetNonce(), names...)
	return out
}

// nameOfAny returns the name of a resource, which may be wrapped with a TTL.
func nameOfAny(t testing.TB, r *anypb.Any) string {
	t.Helper()
	message, err := r.UnmarshalNew()
	require.NoError(t, err)
	if wrapped, ok := message.(*discoveryv3.Resource); ok {
		return wrapped.GetName()
	}
	return cachev3.GetResourceName(message)
}

// awaitEnd waits until the server has closed the stream.
func (s *sotw) awaitEnd() {
	s.t.Helper()
	for {
		if _, err := s.stream.Recv(); err != nil {
			require.NoError(s.t, s.ctx.Err(), "the stream is still open")
			return
		}
	}
}

// delta is a delta ADS stream.
type delta struct {
	t      testing.TB
	node   string
	stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
}

func openDelta(t testing.TB, conn *grpc.ClientConn, node string) *delta {
	t.Helper()
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(streamContext(t))
	require.NoError(t, err)
	return &delta{t: t, node: node, stream: stream}
}

// subscribe subscribes to names of a type as a client that has the versions in have.
func (s *delta) subscribe(typeURL string, have map[string]string, names ...string) {
	s.t.Helper()
	require.NoError(s.t, s.stream.Send(&discoveryv3.DeltaDiscoveryRequest{
		Node: &corev3.Node{Id: s.node}, TypeUrl: typeURL, InitialResourceVersions: have, ResourceNamesSubscribe: names,
	}))
}

// receive receives a response, ACKs it and applies it to have. It returns the names that
// were sent and removed.
func (s *delta) receive(typeURL string, have served) (sent, removed []string) {
	s.t.Helper()
	resp, err := s.stream.Recv()
	require.NoError(s.t, err)
	require.Equal(s.t, typeURL, resp.GetTypeUrl())
	for _, r := range resp.GetResources() {
		require.Equal(s.t, r.GetName(), nameOfAny(s.t, r.GetResource()))
		require.NotEmpty(s.t, r.GetVersion())
		have.bytes[r.GetName()] = r.GetResource().GetTypeUrl() + "\n" + string(r.GetResource().GetValue()) + "\n" + r.GetTtl().String()
		have.versions[r.GetName()] = r.GetVersion()
		sent = append(sent, r.GetName())
	}
	for _, name := range resp.GetRemovedResources() {
		delete(have.bytes, name)
		delete(have.versions, name)
		removed = append(removed, name)
	}
	require.NoError(s.t, s.stream.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: typeURL, ResponseNonce: resp.GetNonce()}))
	return sent, removed
}

// fetchAll returns the resources of all types of a node that a new client receives by SotW
// and by delta.
func fetchAll(t testing.TB, conn *grpc.ClientConn, node string) map[string]served {
	t.Helper()
	all := map[string]served{}
	s, d := openSotW(t, conn, node), openDelta(t, conn, node)
	for _, typeURL := range allTypes {
		s.ask(typeURL, "", "")
		all["SotW: "+typeURL] = s.receive(typeURL)
		have := newServed()
		d.subscribe(typeURL, nil, "*")
		_, removed := d.receive(typeURL, have)
		require.Empty(t, removed)
		all["delta: "+typeURL] = have
	}
	require.NoError(t, s.stream.CloseSend())
	require.NoError(t, d.stream.CloseSend())
	return all
}

// requireSame compares served resources without printing them.
func requireSame(t testing.TB, before, after map[string]served) {
	t.Helper()
	require.ElementsMatch(t, slices.Collect(maps.Keys(before)), slices.Collect(maps.Keys(after)))
	for what, b := range before {
		a := after[what]
		require.Equal(t, b.version, a.version, what)
		require.Equal(t, b.versions, a.versions, what)
		require.ElementsMatch(t, slices.Collect(maps.Keys(b.bytes)), slices.Collect(maps.Keys(a.bytes)), what)
		for name, bytes := range b.bytes {
			require.True(t, bytes == a.bytes[name], "%s: the bytes of %q differ", what, name)
		}
	}
}

// countServed returns the number of served resources.
func countServed(all map[string]served) int {
	n := 0
	for _, s := range all {
		n += len(s.bytes)
	}
	return n
}
