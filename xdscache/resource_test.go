package xdscache_test

import (
	"fmt"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	testresource "github.com/envoyproxy/go-control-plane/pkg/test/resource/v3"
	ratelimitv3 "github.com/envoyproxy/go-control-plane/ratelimit/config/ratelimit/v3"
	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/xdswal/xdswal/journal"
	"github.com/xdswal/xdswal/xdscache"
)

// allTypes returns one or two resources of each type that go-control-plane knows.
func allTypes() map[string][]types.Resource {
	secrets := testresource.MakeSecrets("tls", "root")
	return map[string][]types.Resource{
		resourcev3.EndpointType:        {testresource.MakeEndpoint("c", 8080), testresource.MakeEndpoint("d", 8081)},
		resourcev3.ClusterType:         {testresource.MakeCluster(testresource.Ads, "c"), withMaps("d")},
		resourcev3.RouteType:           {testresource.MakeRouteConfig("r", "c")},
		resourcev3.ScopedRouteType:     {testresource.MakeScopedRouteConfig("s", "r", []string{"1.2.3.4"})},
		resourcev3.VirtualHostType:     {testresource.MakeVirtualHost("v", "c")},
		resourcev3.ListenerType:        {testresource.MakeRouteHTTPListener(testresource.Ads, "l", 80, "r")},
		resourcev3.SecretType:          {secrets[0], secrets[1]},
		resourcev3.RuntimeType:         {testresource.MakeRuntime("rt")},
		resourcev3.ExtensionConfigType: {testresource.MakeExtensionConfig(testresource.Ads, "x", "r")},
		resourcev3.RateLimitConfigType: {&ratelimitv3.RateLimitConfig{Name: "rl", Domain: "d"}},
	}
}

// withMaps is a cluster whose bytes depend on the order of a map.
func withMaps(name string) *clusterv3.Cluster {
	c := &clusterv3.Cluster{Name: name, Metadata: &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{}}}
	for i := range 20 {
		c.Metadata.FilterMetadata[fmt.Sprint("filter", i)] = &structpb.Struct{
			Fields: map[string]*structpb.Value{"a": structpb.NewStringValue("x"), "b": structpb.NewNumberValue(float64(i))},
		}
	}
	return c
}

// resourceOf returns a message as a cache serves it.
func resourceOf(t testing.TB, m proto.Message) *xdscache.Resource {
	t.Helper()
	value, err := cachev3.MarshalResource(m)
	require.NoError(t, err)
	return &xdscache.Resource{
		Name:    cachev3.GetResourceName(m),
		TypeURL: resourcev3.APITypePrefix + string(m.ProtoReflect().Descriptor().FullName()),
		Version: cachev3.HashResource(value),
		Value:   value,
	}
}

// Every use of a resource as a message gives the same result as the message that was set.
func TestResourceIsTheMessage(t *testing.T) {
	for url, messages := range allTypes() {
		for _, m := range append(messages, &durationpb.Duration{Seconds: 1}, &emptypb.Empty{}) {
			t.Run(fmt.Sprintf("%s/%s", strings.TrimPrefix(url, resourcev3.APITypePrefix), m.ProtoReflect().Descriptor().Name()), func(t *testing.T) {
				r := resourceOf(t, m)
				require.Equal(t, cachev3.GetResourceName(m), r.GetName())
				require.True(t, proto.Equal(m, r))
				require.True(t, proto.Equal(r, m))
				require.True(t, proto.Equal(r, r))
				require.True(t, proto.Equal(r, resourceOf(t, m)))
				require.Empty(t, cmp.Diff([]types.Resource{m}, []types.Resource{r}, protocmp.Transform()))

				clone := proto.Clone(r)
				require.IsType(t, m, clone)
				requireProtoEqual(t, m, clone)
				decoded, err := r.Decoded()
				require.NoError(t, err)
				require.IsType(t, m, decoded)
				requireProtoEqual(t, m, decoded)
				merged := m.ProtoReflect().New().Interface()
				proto.Merge(merged, r)
				requireProtoEqual(t, m, merged)

				requireMarshalsAlike(t, m, r)
				require.Equal(t, m.ProtoReflect().Descriptor(), r.ProtoReflect().Descriptor())
				require.Equal(t, proto.MessageName(m), proto.MessageName(r))
				require.NoError(t, proto.CheckInitialized(r))
			})
		}
	}
}

func requireMarshalsAlike(t *testing.T, m proto.Message, r *xdscache.Resource) {
	t.Helper()
	value, err := cachev3.MarshalResource(m)
	require.NoError(t, err)
	for _, opt := range []proto.MarshalOptions{{}, {Deterministic: true}, {AllowPartial: true}} {
		got, err := opt.Marshal(r)
		require.NoError(t, err)
		require.Equal(t, string(value), string(got))
		got, err = opt.MarshalAppend([]byte("before"), r)
		require.NoError(t, err)
		require.Equal(t, "before"+string(value), string(got))
		require.Equal(t, len(value), opt.Size(r))
	}
	packed, err := anypb.New(r)
	require.NoError(t, err)
	require.Equal(t, "type.googleapis.com/"+string(proto.MessageName(m)), packed.GetTypeUrl())
	unpacked, err := packed.UnmarshalNew()
	require.NoError(t, err)
	requireProtoEqual(t, m, unpacked)

	// The text encoders vary their white space on purpose, but not within one process.
	wantJSON, err := protojson.Marshal(m)
	require.NoError(t, err)
	gotJSON, err := protojson.Marshal(r)
	require.NoError(t, err)
	require.JSONEq(t, string(wantJSON), string(gotJSON))
	wantText, err := prototext.Marshal(m)
	require.NoError(t, err)
	gotText, err := prototext.Marshal(r)
	require.NoError(t, err)
	require.Equal(t, string(wantText), string(gotText))
}

func TestResourcesThatDiffer(t *testing.T) {
	a := resourceOf(t, cluster("a"))
	for _, m := range []proto.Message{cluster("b"), clusterOf("a", "x"), endpoint("a"), &emptypb.Empty{}} {
		require.False(t, proto.Equal(a, m))
		require.False(t, proto.Equal(m, a))
		require.False(t, proto.Equal(a, resourceOf(t, m)))
	}
	var none *clusterv3.Cluster
	require.False(t, proto.Equal(a, none))
	require.False(t, proto.Equal(none, a))
	require.False(t, proto.Equal(a, nil))
}

// A type that is not linked into the program is an Empty with the resource in
// its unknown fields.
func TestUnknownType(t *testing.T) {
	value, err := proto.Marshal(clusterOf("a", "x"))
	require.NoError(t, err)
	r := &xdscache.Resource{Name: "a", TypeURL: "type.googleapis.com/some.Thing", Value: value}
	got, err := proto.Marshal(r)
	require.NoError(t, err)
	require.Equal(t, value, got)
	m, err := r.Decoded()
	require.NoError(t, err)
	require.IsType(t, &emptypb.Empty{}, m)
	require.Equal(t, value, []byte(m.ProtoReflect().GetUnknown()))
	require.Equal(t, value, []byte(r.ProtoReflect().GetUnknown()))
	require.True(t, proto.Equal(r, m))
	require.False(t, proto.Equal(r, &emptypb.Empty{}))
	text, err := protojson.Marshal(r)
	require.NoError(t, err)
	require.JSONEq(t, "{}", string(text))
	require.IsType(t, &emptypb.Empty{}, proto.Clone(r))
}

// Bytes that are not a message of their type are served unchanged and cause no panic.
func TestUndecodable(t *testing.T) {
	r := &xdscache.Resource{Name: "a", TypeURL: resourcev3.ClusterType, Value: []byte("\xffthe secret")}
	got, err := proto.Marshal(r)
	require.NoError(t, err)
	require.Equal(t, r.Value, got)
	_, err = r.Decoded()
	require.Error(t, err)
	require.NotContains(t, err.Error(), "secret")
	require.False(t, proto.Equal(r, cluster("a")))
	require.NotPanics(t, func() { proto.Clone(r) })
}

func TestResourceIsImmutable(t *testing.T) {
	r := resourceOf(t, withMaps("a"))
	m := r.ProtoReflect()
	fields := m.Descriptor().Fields()
	name, metadata := fields.ByName("name"), fields.ByName("metadata")
	for what, change := range map[string]func(){
		"set":            func() { m.Set(name, protoreflect.ValueOfString("b")) },
		"clear":          func() { m.Clear(name) },
		"mutable":        func() { m.Mutable(metadata) },
		"unknown fields": func() { m.SetUnknown(nil) },
		"reset":          func() { proto.Reset(r) },
		"unmarshal":      func() { _ = proto.Unmarshal([]byte{10, 1, 'b'}, r) },
		"merge":          func() { proto.Merge(r, cluster("b")) },
	} {
		require.Panics(t, change, what)
	}
	requireProtoEqual(t, withMaps("a"), r)
	require.True(t, m.IsValid())
	require.True(t, m.Has(name))
	require.Equal(t, "a", m.Get(name).String())
	require.Same(t, r, m.Interface())
}

// No text of a resource contains its body.
func TestResourceTextHasNoContents(t *testing.T) {
	const secret = "the private key"
	m := &tlsv3.Secret{Name: "tls", Type: &tlsv3.Secret_GenericSecret{GenericSecret: &tlsv3.GenericSecret{
		Secret: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: secret}},
	}}}
	r := resourceOf(t, m)
	require.Equal(t, fmt.Sprintf("%s %q (%d bytes)", resourcev3.SecretType, "tls", len(r.Value)), r.String())
	for _, format := range []string{"%v", "%+v", "%s", "%q"} {
		require.NotContains(t, fmt.Sprintf(format, r), secret)
		require.NotContains(t, fmt.Sprintf(format, []types.Resource{r}), secret)
		require.NotContains(t, fmt.Sprintf(format, map[string]*xdscache.Resource{"tls": r}), secret)
	}
	defer func() { require.NotContains(t, fmt.Sprint(recover()), secret) }()
	proto.Reset(r)
}

// A served resource that is set again, into the same cache or another, keeps its
// bytes and its version.
func TestServedResourceIsSetAgain(t *testing.T) {
	l := newLog(t)
	c := newCache(l)
	set(t, c, "n", foreign("1", map[string]string{"a": "own"}, cluster("a")))
	r := (*xdscache.Resource)(c.GetNode("n").Type(resourcev3.ClusterType).Get("a"))
	events := l.appended(func() { set(t, c, "m", clusters(t, "1", r)) })
	require.Len(t, events, 1)
	got := *events[0].Types[0].Upserts[0]
	require.True(t, got.Same((*journal.Resource)(r)))
	require.Empty(t, l.appended(func() { set(t, c, "m", clusters(t, "1", r)) }))
	requireServed(t, l, c)
}
