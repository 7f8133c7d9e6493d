package resourcefile_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/cmd/xdswal/internal/resourcefile"
)

// addSeeds gives a fuzz target the example files and one body for each branch of the
// form.
func addSeeds(f *testing.F) {
	f.Helper()
	files, err := filepath.Glob(quickstart + "/*.yaml")
	require.NoError(f, err)
	for _, file := range files {
		data, err := os.ReadFile(file)
		require.NoError(f, err)
		f.Add(data)
		d, err := resourcefile.Parse(data)
		require.NoError(f, err)
		asJSON, err := resourcefile.Marshal(d, resourcefile.JSON)
		require.NoError(f, err)
		f.Add(asJSON)
	}
	for _, body := range []string{
		"",
		"version: 1\nresources: []\n",
		`{"version":"1","resources":[` + clusterA + `]}`,
		`{"versions":{"` + resource.ClusterType + `":"7"},"resources":[` + clusterA + `]}`,
		wrapped(`"name":"a","ttl":"1.5s","resource":` + clusterA),
		jsonCluster(`"metadata":{"filter_metadata":{"x":{"a":[null,1.5e300,"\u2028 \n x",true,{}]}}}`),
		jsonCluster(`"typed_extension_protocol_options":{"x":{"@type":"type.googleapis.com/google.protobuf.Value","value":[-0,"NaN"]}}`),
		jsonCluster(`"typed_extension_protocol_options":{"x":{"@type":"type.googleapis.com/google.protobuf.FieldMask","value":"aB,c"}}`),
		yamlCluster("  metadata: {filter_metadata: {x: {a: [~, .inf, 0x1F, yes, 2024-01-01, !!binary aGk=, \"a\\n b\\n\\n\"]}}}"),
		"version: 1\nresources:\n- &a {\"@type\": " + resource.ClusterType + ", name: a}\n- {<<: *a, name: b}\n",
		`{"version":43,"upsert":[` + clusterA + `],"delete":[{"type_url":"` + resource.ClusterType + `","name":"b"}]}`,
		"version: 43\ndelete:\n- {type_url: " + resource.SecretType + ", name: s}\n",
	} {
		f.Add([]byte(body))
	}
}

func FuzzParse(f *testing.F) {
	addSeeds(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := resourcefile.Parse(data)
		if err != nil {
			var e *resourcefile.Error
			require.ErrorAs(t, err, &e)
			require.NotEmpty(t, e.Reason)
			return
		}
		requireRoundTrip(t, d)
		_, err = d.Snapshot()
		require.NoError(t, err)
	})
}

func FuzzParsePatch(f *testing.F) {
	addSeeds(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := resourcefile.ParsePatch(data)
		if err != nil {
			var e *resourcefile.Error
			require.ErrorAs(t, err, &e)
			return
		}
		require.NotEmpty(t, p.Version)
		require.NotZero(t, len(p.Upsert)+len(p.Delete))
		if len(p.Upsert) > 0 {
			requireRoundTrip(t, &resourcefile.Document{Version: p.Version, Resources: p.Upsert})
		}
	})
}
