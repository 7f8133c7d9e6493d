package resourcefile_test

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	runtime "github.com/envoyproxy/go-control-plane/envoy/service/runtime/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/xdswal/xdswal/cmd/xdswal/internal/resourcefile"
)

const clusterA = `{"@type":"type.googleapis.com/envoy.config.cluster.v3.Cluster","name":"a"}`

// requireRoundTrip writes d in each format and wants the same document back, and the
// same bytes again.
func requireRoundTrip(t testing.TB, d *resourcefile.Document) {
	t.Helper()
	for _, format := range []resourcefile.Format{resourcefile.JSON, resourcefile.YAML} {
		data, err := resourcefile.Marshal(d, format)
		require.NoError(t, err)
		back, err := resourcefile.Parse(data)
		require.NoError(t, err, "%s", data)
		requireEqual(t, d, back)
		again, err := resourcefile.Marshal(back, format)
		require.NoError(t, err)
		require.Equal(t, string(data), string(again))
	}
}

func requireEqual(t testing.TB, want, got *resourcefile.Document) {
	t.Helper()
	require.Equal(t, want.Version, got.Version)
	require.Equal(t, len(want.Versions), len(got.Versions))
	for typeURL, version := range want.Versions {
		require.Equal(t, version, got.Versions[typeURL])
	}
	require.Len(t, got.Resources, len(want.Resources))
	for i, w := range want.Resources {
		g := got.Resources[i]
		require.Equal(t, w.TypeURL, g.TypeURL)
		require.Equal(t, w.Name, g.Name)
		require.Equal(t, w.TTL, g.TTL)
		require.True(t, proto.Equal(w.Message, g.Message), "%s %s", w.TypeURL, w.Name)
	}
}

func TestParseJSONAndYAMLAlike(t *testing.T) {
	fromJSON, err := resourcefile.Parse([]byte(`
{
  "version": "42",
  "versions": {"type.googleapis.com/envoy.config.listener.v3.Listener": "7"},
  "resources": [
    {"@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": "a", "connectTimeout": "1.5s"},
    {
      "@type": "type.googleapis.com/envoy.service.discovery.v3.Resource",
      "name": "e",
      "ttl": "5s",
      "resource": {
        "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        "clusterName": "e"
      }
    }
  ]
}`))
	require.NoError(t, err)
	fromYAML, err := resourcefile.Parse([]byte(`
version: 42
versions:
  type.googleapis.com/envoy.config.listener.v3.Listener: 7
resources:
- "@type": type.googleapis.com/envoy.config.cluster.v3.Cluster
  name: a
  connect_timeout: 1.5s
- "@type": type.googleapis.com/envoy.service.discovery.v3.Resource
  ttl: 5s
  resource:
    "@type": type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment
    cluster_name: e
`))
	require.NoError(t, err)
	requireEqual(t, fromJSON, fromYAML)
	require.Equal(t, "42", fromJSON.Version)
	require.Equal(t, "7", fromJSON.VersionOf(resource.ListenerType))
	require.Equal(t, 5*time.Second, *fromJSON.Resources[1].TTL)
	requireRoundTrip(t, fromJSON)
}

func TestParseYAMLScalars(t *testing.T) {
	for name, test := range map[string]struct{ version, want string }{
		"integer":       {"42", "42"},
		"fraction":      {"1.10", "1.10"},
		"hexadecimal":   {"0x2A", "0x2A"},
		"leading zeros": {"007", "007"},
		"date":          {"2024-01-31", "2024-01-31"},
		"quoted":        {`"42"`, "42"},
		"word":          {"v1", "v1"},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := resourcefile.Parse([]byte("version: " + test.version + "\nresources: []\n"))
			require.NoError(t, err)
			require.Equal(t, test.want, d.Version)
		})
	}
}

func TestParseYAMLNumbers(t *testing.T) {
	for name, test := range map[string]struct {
		written string
		want    uint32
	}{
		"decimal":     {"1000", 1000},
		"hexadecimal": {"0x10", 16},
		"underscores": {"1_000", 1000},
		"octal":       {"0o17", 15},
		"exponent":    {"1e3", 1000},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := resourcefile.Parse([]byte(yamlCluster("  per_connection_buffer_limit_bytes: " + test.written)))
			require.NoError(t, err)
			require.Equal(t, test.want, d.Resources[0].Message.(*cluster.Cluster).GetPerConnectionBufferLimitBytes().GetValue())
		})
	}
}

func TestParseYAMLFloats(t *testing.T) {
	for written, want := range map[string]float64{
		".5": 0.5, "+1.5": 1.5, "-.25": -0.25, "5.": 5, "1_000.5": 1000.5, "1e3": 1000, "0xFFFFFFFFFF": 0xFFFFFFFFFF,
		".inf": math.Inf(1), "-.Inf": math.Inf(-1), "+.INF": math.Inf(1), ".nan": math.NaN(), "!!float 3": 3,
	} {
		t.Run(written, func(t *testing.T) {
			d, err := resourcefile.Parse([]byte(yamlCluster("  common_lb_config: {healthy_panic_threshold: {value: " + written + "}}")))
			if want < 0 || want > 100 { // not a percentage
				requireReason(t, err, resourcefile.ReasonInvalid)
				require.ErrorContains(t, err, "value must be inside range [0, 100]")
				return
			}
			require.NoError(t, err)
			got := d.Resources[0].Message.(*cluster.Cluster).GetCommonLbConfig().GetHealthyPanicThreshold().GetValue()
			require.Equal(t, fmt.Sprint(want), fmt.Sprint(got))
		})
	}
}

// A YAML parser reads each of these in another way, or not at all.
func TestParseJSONAsJSON(t *testing.T) {
	long := strings.Repeat("k", 2000)
	for name, test := range map[string]struct{ written, want string }{
		"solidus":        {`"\/"`, "/"},
		"surrogate pair": {`"\uD83D\ude00"`, "\U0001F600"},
		"replacement":    {`"\ufffd"`, "\ufffd"},
		"line separator": {"\"a\u2028 b\u0085 c\"", "a\u2028 b\u0085 c"},
		"delete":         {"\"\x7f\"", "\x7f"},
		"yaml escape":    {`"\\x41"`, `\x41`},
		"comment":        {`"a #b"`, "a #b"},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := resourcefile.Parse([]byte(jsonCluster("\t\"alt_stat_name\"\r\n:\t" + test.written)))
			require.NoError(t, err)
			require.Equal(t, test.want, d.Resources[0].Message.(*cluster.Cluster).GetAltStatName())
			requireRoundTrip(t, d)
		})
	}
	d, err := resourcefile.Parse([]byte(jsonCluster(`"metadata":{"filter_metadata":{"` + long + `":{"<<":{"*a":1}}}}`)))
	require.NoError(t, err)
	require.Contains(t, d.Resources[0].Message.(*cluster.Cluster).GetMetadata().GetFilterMetadata(), long)
	requireRoundTrip(t, d)
}

// yamlCluster is a document of one cluster with more lines.
func yamlCluster(lines ...string) string {
	return "version: 1\nresources:\n- \"@type\": type.googleapis.com/envoy.config.cluster.v3.Cluster\n  name: a\n" + strings.Join(lines, "\n") + "\n"
}

func TestParseYAMLAnchorsAndMerges(t *testing.T) {
	d, err := resourcefile.Parse([]byte(`
version: 1
resources:
- &base
  "@type": type.googleapis.com/envoy.config.cluster.v3.Cluster
  name: a
  connect_timeout: &second 1s
  lb_policy: RANDOM
- <<: *base
  name: b
  dns_refresh_rate: *second
- <<: [{connect_timeout: 3s}, *base]
  name: c
`))
	require.NoError(t, err)
	b := d.Resources[1].Message.(*cluster.Cluster)
	require.Equal(t, "b", b.GetName())
	require.Equal(t, cluster.Cluster_RANDOM, b.GetLbPolicy())
	require.Equal(t, time.Second, b.GetConnectTimeout().AsDuration())
	require.Equal(t, time.Second, b.GetDnsRefreshRate().AsDuration()) //nolint:staticcheck // Any duration field does.
	require.Equal(t, 3*time.Second, d.Resources[2].Message.(*cluster.Cluster).GetConnectTimeout().AsDuration())
}

func TestSnapshotHasVersionsAndTTLs(t *testing.T) {
	d, err := resourcefile.Parse([]byte(`{
		"version": "42",
		"versions": {"` + resource.ListenerType + `": "7", "` + resource.RuntimeType + `": ""},
		"resources": [` + clusterA + `, {"@type": "type.googleapis.com/envoy.service.discovery.v3.Resource", "ttl": "5s",
			"resource": {"@type": "type.googleapis.com/envoy.config.route.v3.VirtualHost", "name": "v", "domains": ["*"]}}]}`))
	require.NoError(t, err)
	snapshot, err := d.Snapshot()
	require.NoError(t, err)
	require.Equal(t, "42", snapshot.GetVersion(resource.ClusterType))
	require.Equal(t, "42", snapshot.GetVersion(resource.SecretType), "an empty type has the document's version")
	require.Equal(t, "7", snapshot.GetVersion(resource.ListenerType))
	require.Empty(t, snapshot.GetVersion(resource.RuntimeType))
	require.Nil(t, snapshot.GetResourcesAndTTL(resource.ClusterType)["a"].TTL)
	require.Equal(t, 5*time.Second, *snapshot.GetResourcesAndTTL(resource.VirtualHostType)["v"].TTL)

	back := resourcefile.FromSnapshot(snapshot)
	requireRoundTrip(t, back)
	again, err := back.Snapshot()
	require.NoError(t, err)
	for i := range types.UnknownType {
		typeURL, err := cachev3.GetResponseTypeURL(i)
		require.NoError(t, err)
		require.Equal(t, snapshot.GetVersion(typeURL), again.GetVersion(typeURL), typeURL)
		require.Equal(t, snapshot.GetResourcesAndTTL(typeURL), again.GetResourcesAndTTL(typeURL), typeURL)
	}
}

func TestSnapshotRefusesWhatItWouldLose(t *testing.T) {
	a := resourcefile.Resource{TypeURL: resource.ClusterType, Name: "a", Message: &cluster.Cluster{Name: "a"}}
	with := func(change func(*resourcefile.Resource)) []resourcefile.Resource {
		r := a
		change(&r)
		return []resourcefile.Resource{r}
	}
	for name, test := range map[string]struct {
		version   string
		resources []resourcefile.Resource
		reason    resourcefile.Reason
	}{
		"twice":         {"1", []resourcefile.Resource{a, a}, resourcefile.ReasonDuplicateName},
		"other name":    {"1", with(func(r *resourcefile.Resource) { r.Name = "b" }), resourcefile.ReasonMissingName},
		"no message":    {"1", with(func(r *resourcefile.Resource) { r.Message = nil }), resourcefile.ReasonMissingName},
		"unserved type": {"1", with(func(r *resourcefile.Resource) { r.TypeURL = resource.ThriftRouteType }), resourcefile.ReasonUnservedType},
		"no version":    {"", []resourcefile.Resource{a}, resourcefile.ReasonMissingVersion},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := (&resourcefile.Document{Version: test.version, Resources: test.resources}).Snapshot()
			requireReason(t, err, test.reason)
		})
	}
}

func TestParsePatch(t *testing.T) {
	p, err := resourcefile.ParsePatch([]byte(`{"version":43,"upsert":[` + clusterA + `],"delete":[{"type_url":"` + resource.ClusterType + `","name":"b"}]}`))
	require.NoError(t, err)
	require.Equal(t, "43", p.Version)
	require.Len(t, p.Upsert, 1)
	require.Equal(t, []resourcefile.Name{{TypeURL: resource.ClusterType, Name: "b"}}, p.Delete)

	p, err = resourcefile.ParsePatch([]byte("version: 43\ndelete:\n- type_url: " + resource.SecretType + "\n  name: s\n"))
	require.NoError(t, err)
	require.Empty(t, p.Upsert)
	require.Len(t, p.Delete, 1)
}

func TestMarshalForms(t *testing.T) {
	ttl := 1500 * time.Millisecond
	d := &resourcefile.Document{
		Version:  "on",
		Versions: map[string]string{resource.SecretType: "2", resource.ClusterType: "3"},
		Resources: []resourcefile.Resource{
			{TypeURL: resource.ClusterType, Name: "<a>", TTL: &ttl, Message: &cluster.Cluster{Name: "<a>", AltStatName: "1e3"}},
		},
	}
	requireRoundTrip(t, d)
	data, err := resourcefile.Marshal(d, resourcefile.JSON)
	require.NoError(t, err)
	require.Equal(t, `{
  "version": "on",
  "versions": {
    "type.googleapis.com/envoy.config.cluster.v3.Cluster": "3",
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret": "2"
  },
  "resources": [
    {
      "@type": "type.googleapis.com/envoy.service.discovery.v3.Resource",
      "name": "<a>",
      "ttl": "1.500s",
      "resource": {
        "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
        "name": "<a>",
        "alt_stat_name": "1e3"
      }
    }
  ]
}
`, string(data))
	data, err = resourcefile.Marshal(d, resourcefile.YAML)
	require.NoError(t, err)
	require.Equal(t, `version: "on"
versions:
  type.googleapis.com/envoy.config.cluster.v3.Cluster: "3"
  type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret: "2"
resources:
  - "@type": type.googleapis.com/envoy.service.discovery.v3.Resource
    name: "<a>"
    ttl: "1.500s"
    resource:
      "@type": type.googleapis.com/envoy.config.cluster.v3.Cluster
      name: "<a>"
      alt_stat_name: "1e3"
`, string(data))
}

// YAML has many ways to read a string as something else.
func TestMarshalKeepsStrings(t *testing.T) {
	values := map[string]any{}
	for i, s := range []string{
		"", " ", "\n", "a\n", "a\n\n", "a\n\nb\n", "a \nb", " a\nb", "a\n b\n", "a\n  ", "\ta\nb", "a\tb\nc", "a\r\nb", "é\nb",
		"#", "a #b", "a: b", "- a", "---", "---\na\n", "...\nb", "a\n---\nb\n", "\u2028", "\u0085\nb", "\x7f", "\x00", "\ufeff", "𝄞",
		"~", "null", "yes", "No", "on", "y", "true", "1", "0x1", "1_0", "1e3", "12:30:00", ".inf", "2024-01-01", "<<", "=", "*a", "&a", "!a", "%a", "@a", "`a", "{", "[", "'", "\"", "\\",
	} {
		values[fmt.Sprint(i)] = s
		values["key "+s] = s
	}
	fields, err := structpb.NewStruct(values)
	require.NoError(t, err)
	requireRoundTrip(t, &resourcefile.Document{Version: "~", Resources: []resourcefile.Resource{{
		TypeURL: resource.RuntimeType, Name: "r", Message: &runtime.Runtime{Name: "r", Layer: fields},
	}}})
}

func TestMarshalNamesUnlinkedType(t *testing.T) {
	c := &cluster.Cluster{Name: "a", TypedExtensionProtocolOptions: map[string]*anypb.Any{
		"x": {TypeUrl: "type.googleapis.com/example.Missing", Value: []byte("hunter2")},
	}}
	_, err := resourcefile.Marshal(&resourcefile.Document{Version: "1", Resources: []resourcefile.Resource{
		{TypeURL: resource.ClusterType, Name: "a", Message: c},
	}}, resourcefile.JSON)
	requireReason(t, err, resourcefile.ReasonUnknownType)
	require.ErrorContains(t, err, `envoy.config.cluster.v3.Cluster "a" packs type.googleapis.com/example.Missing`)
	require.NotContains(t, err.Error(), "hunter2")

	_, err = resourcefile.Marshal(&resourcefile.Document{}, "toml")
	requireReason(t, err, resourcefile.ReasonInvalid)
}

func requireReason(t testing.TB, err error, reason resourcefile.Reason) {
	t.Helper()
	var e *resourcefile.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, reason, e.Reason, e.Message)
}

func BenchmarkParse(b *testing.B) {
	for _, format := range []resourcefile.Format{resourcefile.JSON, resourcefile.YAML} {
		b.Run(string(format), func(b *testing.B) {
			edge, err := resourcefile.Parse([]byte(largeDocument()))
			require.NoError(b, err)
			data, err := resourcefile.Marshal(edge, format)
			require.NoError(b, err)
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := resourcefile.Parse(data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func largeDocument() string {
	var s strings.Builder
	s.WriteString("version: 1\nresources:\n")
	for i := range 1000 {
		fmt.Fprintf(&s, "- \"@type\": %s\n  name: c%d\n  connect_timeout: 1s\n  type: EDS\n  eds_cluster_config: {eds_config: {ads: {}, resource_api_version: V3}}\n", resource.ClusterType, i)
	}
	return s.String()
}
