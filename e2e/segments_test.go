package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal"
)

// TestRestartKeepsSegments reopens a store of many segments: without a snapshot, none is
// dropped.
func TestRestartKeepsSegments(t *testing.T) {
	const updates = 400
	ctx, dir := context.Background(), t.TempDir()
	open := func() *xdswal.Store {
		s, err := xdswal.Open(ctx, xdswal.Options{Dir: dir, SegmentBytes: 64 << 10, DisableSnapshots: true})
		require.NoError(t, err)
		return s
	}
	s := open()
	c := s.SnapshotCache(true, cachev3.IDHash{}, nil)
	for i := range updates {
		snapshot, err := cachev3.NewSnapshot(fmt.Sprint(i), map[string][]types.Resource{
			resourcev3.ClusterType: {&clusterv3.Cluster{Name: "a", AltStatName: strings.Repeat("x", 2000)}},
		})
		require.NoError(t, err)
		require.NoError(t, c.SetSnapshot(ctx, fmt.Sprint("node-", i), snapshot))
	}
	digest := s.State().Digest()
	require.Greater(t, s.Status().Journal.Segments, 2)
	require.NoError(t, s.Close(ctx))
	for range 3 {
		s = open()
		require.EqualValues(t, 1, s.Status().Journal.First)
		require.EqualValues(t, updates, s.Status().Sequence)
		require.Equal(t, digest, s.State().Digest())
		require.NoError(t, s.Close(ctx))
	}
}
