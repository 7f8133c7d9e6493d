package corpus_test

import (
	"testing"

	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/xdswal/xdswal/bench/corpus"
)

func TestSameEveryTime(t *testing.T) {
	s := corpus.Shape{Nodes: 2, PerNode: 100}
	for url, resources := range s.Resources(1) {
		for i, again := range s.Resources(1)[url] {
			a, err := cachev3.MarshalResource(resources[i])
			require.NoError(t, err)
			b, err := cachev3.MarshalResource(again)
			require.NoError(t, err)
			require.Equal(t, a, b)
		}
	}
}

func TestTypical(t *testing.T) {
	s := corpus.Shape{Nodes: 1, PerNode: 1000}
	count := 0
	for url, resources := range s.Resources(0) {
		names, bytes := map[string]bool{}, 0
		for _, r := range resources {
			names[cachev3.GetResourceName(r)] = true
			bytes += proto.Size(r)
			require.NoError(t, validate(r))
		}
		require.Len(t, names, len(resources), "names are distinct")
		t.Logf("%s: %d of %d bytes each", url, len(resources), bytes/len(resources))
		count += len(resources)
	}
	require.Equal(t, s.Total(), count)
	require.Len(t, s.Resources(0), 5)
	require.NotEmpty(t, s.Resources(0)[resourcev3.ListenerType])
}

func TestEndpointsDifferByRevision(t *testing.T) {
	a, b := corpus.Endpoints(3, 1), corpus.Endpoints(3, 2)
	require.Equal(t, cachev3.GetResourceName(a), cachev3.GetResourceName(b))
	require.False(t, proto.Equal(a, b))
	require.InDelta(t, 250, proto.Size(a), 100)
}

// validate applies Envoy's validation rules of the message.
func validate(r types.Resource) error {
	if v, ok := r.(interface{ Validate() error }); ok {
		return v.Validate()
	}
	return nil
}

func TestOpaqueDoesNotRepeat(t *testing.T) {
	seen := map[string]bool{}
	for node := range 2 {
		for number := range 2 {
			url, r := corpus.Opaque(node, number, 1000)
			require.Equal(t, resourcev3.SecretType, url)
			require.NoError(t, validate(r))
			value, err := cachev3.MarshalResource(r)
			require.NoError(t, err)
			_, again := corpus.Opaque(node, number, 1000)
			require.True(t, proto.Equal(r, again))
			require.InDelta(t, 1000, len(value), 100)
			seen[string(value)] = true
		}
	}
	require.Len(t, seen, 4)
}
