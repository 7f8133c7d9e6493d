package xdsserver

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/encoding"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/journal"
)

func someAnswer(delta bool) *answer {
	second, odd := time.Second, 1500*time.Millisecond
	return &answer{
		delta: delta, typeURL: resourcev3.ClusterType, version: "v7",
		resources: []*journal.Resource{
			{Name: "a", Version: "1", Value: []byte("\x0a\x01a")},
			{Name: "b", Version: "2", Value: []byte("\x0a\x01b"), TTL: &second},
			{Name: "c", Value: nil, TTL: &odd},
			{Name: "d", Version: "4", Value: protowire.AppendString([]byte{0x0a}, strings.Repeat("d", 300))},
		},
		removed: []string{"x", "y"},
	}
}

// What is marshaled by hand is what the generated code reads, and what callbacks are
// called with.
func TestWireFormat(t *testing.T) {
	a := someAnswer(true)
	for _, heartbeat := range []bool{false, true} {
		a.heartbeat = heartbeat
		_, want := a.message("5")
		got := &discoveryv3.DeltaDiscoveryResponse{Nonce: "5"}
		require.NoError(t, proto.UnmarshalOptions{Merge: true}.Unmarshal(a.marshal(), got))
		require.True(t, proto.Equal(want, got), "got %v, want %v", got, want)
		require.LessOrEqual(t, len(a.marshal()), a.size())
	}
	a = someAnswer(false)
	a.removed = nil
	want, _ := a.message("5")
	got := &discoveryv3.DiscoveryResponse{Nonce: "5"}
	require.NoError(t, proto.UnmarshalOptions{Merge: true}.Unmarshal(a.marshal(), got))
	require.Len(t, got.GetResources(), 4)
	require.LessOrEqual(t, len(a.marshal()), a.size())
	for i, any := range got.GetResources() {
		if a.resources[i].TTL == nil {
			require.True(t, proto.Equal(want.GetResources()[i], any))
			continue
		}
		// The order of the fields of a message within a message is not compared.
		wrapped, wantWrapped := &discoveryv3.Resource{}, &discoveryv3.Resource{}
		require.NoError(t, any.UnmarshalTo(wrapped))
		require.NoError(t, want.GetResources()[i].UnmarshalTo(wantWrapped))
		require.True(t, proto.Equal(wantWrapped, wrapped), "got %v, want %v", wrapped, wantWrapped)
	}
}

func TestFieldNumbers(t *testing.T) {
	eds := func(c *clusterv3.Cluster) string {
		b, err := proto.Marshal(c)
		require.NoError(t, err)
		return assignmentName(b)
	}
	require.Equal(t, "a", eds(&clusterv3.Cluster{Name: "a", ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS}}))
	require.Equal(t, "s", eds(&clusterv3.Cluster{
		Name: "a", ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig: &clusterv3.Cluster_EdsClusterConfig{ServiceName: "s"},
	}))
	require.Empty(t, eds(&clusterv3.Cluster{Name: "a", ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STRICT_DNS}}))
	require.Empty(t, eds(&clusterv3.Cluster{Name: "a"}))
	require.Empty(t, assignmentName([]byte("\xff\xff not a message")))

	stale := func(d time.Duration) time.Duration {
		a := &endpointv3.ClusterLoadAssignment{ClusterName: "a", Policy: &endpointv3.ClusterLoadAssignment_Policy{}}
		if d > 0 {
			a.Policy.EndpointStaleAfter = durationpb.New(d)
		}
		b, err := proto.Marshal(a)
		require.NoError(t, err)
		return staleAfter(b)
	}
	require.Equal(t, 1500*time.Millisecond, stale(1500*time.Millisecond))
	require.Equal(t, 30*time.Second, stale(30*time.Second))
	require.Zero(t, stale(0))

	empty := &endpointv3.ClusterLoadAssignment{}
	require.NoError(t, proto.Unmarshal(emptyAssignment("a"), empty))
	require.True(t, proto.Equal(&endpointv3.ClusterLoadAssignment{ClusterName: "a"}, empty))
}

func TestGlobs(t *testing.T) {
	for _, name := range []string{"a", "a/*", "xdstp://a/T/x", "xdstp://a/T/*x", "xdstp://a/T/x*", "*"} {
		_, ok := parseGlob(name)
		require.False(t, ok, name)
	}
	g, ok := parseGlob("xdstp://a/T/pool/*")
	require.True(t, ok)
	require.True(t, g.matches("xdstp://a/T/pool/1"))
	require.True(t, g.matches("xdstp://a/T/pool/1/2"))
	for _, other := range []string{"xdstp://a/T/pool/", "xdstp://a/T/pools/1", "xdstp://b/T/pool/1", "xdstp://a/T/pool/1?k=v"} {
		require.False(t, g.matches(other), other)
	}
	g, ok = parseGlob("xdstp://a/T/pool/*?k=v")
	require.True(t, ok)
	require.True(t, g.matches("xdstp://a/T/pool/1?k=v"))
	require.False(t, g.matches("xdstp://a/T/pool/1"))
	require.False(t, g.matches("xdstp://a/T/pool/1?k=w"))
}

// Streams that are sent the same large answer share its bytes, which nothing keeps
// afterwards.
func TestAnswersAreShared(t *testing.T) {
	var as answers
	large := &journal.Resource{Name: "a", Value: make([]byte, sharedAnswerSize)}
	build := func() *answer {
		return &answer{typeURL: resourcev3.ClusterType, version: "1", resources: []*journal.Resource{large}}
	}
	first, second := as.marshal(build()), as.marshal(build())
	require.Same(t, first, second)
	other := build()
	other.version = "2"
	require.NotSame(t, first, as.marshal(other))
	runtime.KeepAlive(first)

	small := &answer{typeURL: resourcev3.ClusterType, resources: []*journal.Resource{{Name: "a"}}}
	require.NotSame(t, as.marshal(small), as.marshal(small))

	require.Eventually(t, func() bool {
		runtime.GC()
		n := 0
		as.shared.Range(func(any, any) bool { n++; return true })
		return n == 0
	}, 20*time.Second, time.Millisecond)
}

// The codec sends the shared bytes themselves, and what it sends is what gRPC's codec
// would send.
func TestCodec(t *testing.T) {
	usual := encoding.GetCodecV2("proto")
	ours := codec{usual}
	body := make([]byte, 0, sharedAnswerSize+100)
	for i := range sharedAnswerSize / 8 {
		body = appendText(body, responseRemoved, fmt.Sprintf("%08d", i))
	}
	m := &discoveryv3.DeltaDiscoveryResponse{Nonce: "12"}
	m.ProtoReflect().SetUnknown(body)
	slices, err := ours.Marshal(m)
	require.NoError(t, err)
	require.Len(t, slices, 2)
	require.Same(t, &body[0], &slices[1].ReadOnlyData()[0])
	want, err := usual.Marshal(m)
	require.NoError(t, err)
	require.Equal(t, want.Materialize(), slices.Materialize())

	m.ControlPlane = nil
	m.SystemVersionInfo = "known field"
	want, err = usual.Marshal(m)
	require.NoError(t, err)
	got, err := ours.Marshal(m)
	require.NoError(t, err)
	require.Equal(t, want.Materialize(), got.Materialize())
	got, err = ours.Marshal(&discoveryv3.DiscoveryResponse{Nonce: "1"})
	require.NoError(t, err)
	require.Equal(t, "\x2a\x011", string(got.Materialize()))
}

func TestHeldVersion(t *testing.T) {
	held := map[string]heldResource{}
	require.Equal(t, "v", heldVersion("v", held))
	for i := range 20 {
		held[fmt.Sprint(i)] = heldResource{from: journal.Sequence(i / 2)}
	}
	v := heldVersion("v", held)
	require.Equal(t, "v~held 2 3 4 5 6 7 8 9", v)
	version, from := cutHeldVersion(v)
	require.Equal(t, "v", version)
	require.Len(t, from, maxHeldStates)
}

// A SotW client is sent an empty assignment for a name, and not for a glob, nor beside the
// complete state of a wildcard.
func TestEmptyAssignments(t *testing.T) {
	for _, row := range []struct {
		names []string
		want  []string
	}{
		{[]string{"a"}, []string{"a"}},
		{[]string{"xdstp://a/T/*"}, nil},
		{[]string{"*", "a"}, nil},
	} {
		s := newSubscription(resourcev3.EndpointType, false)
		s.replaceNames(row.names)
		now := time.Unix(0, 0)
		s.commit(s.plan(state.NoType), now, now, time.Second)
		later := now.Add(2 * time.Second)
		var got []string
		if a := s.commit(s.plan(state.NoType), later, later, time.Second); a != nil {
			for _, r := range a.resources {
				got = append(got, r.Name)
			}
		}
		require.Equal(t, row.want, got, "%q", row.names)
	}
}
