package xdswal_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/backends/file"
)

func TestSmoke(t *testing.T) {
	ctx := context.Background()
	dir, bdir := t.TempDir(), t.TempDir()
	b, err := file.New(file.Config{Dir: bdir})
	require.NoError(t, err)
	open := func(dir string) *xdswal.Store {
		s, err := xdswal.Open(ctx, xdswal.Options{Dir: dir, Backend: b})
		require.NoError(t, err)
		return s
	}
	s := open(dir)
	c := s.SnapshotCache(true, cachev3.IDHash{}, nil)
	var wg sync.WaitGroup
	start := time.Now()
	for w := range 64 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range 50 {
				snap, err := cachev3.NewSnapshot(fmt.Sprint(w, "-", i), map[string][]types.Resource{resourcev3.ClusterType: {&clusterv3.Cluster{Name: "a"}, &clusterv3.Cluster{Name: fmt.Sprint("b", w, i)}}})
				require.NoError(t, err)
				require.NoError(t, c.SetSnapshot(ctx, fmt.Sprint("node", w%7), snap))
			}
		}()
	}
	wg.Wait()
	t.Log(time.Since(start))
	require.EqualValues(t, 64*50, s.Status().Sequence)
	l := s.LinearCache(resourcev3.ClusterType)
	require.NoError(t, l.UpdateResource("x", &clusterv3.Cluster{Name: "x"}))
	digest := s.State().Digest()
	require.NoError(t, s.Close(ctx))

	s = open(dir)
	t.Logf("%+v", s.Status().Restored)
	require.Equal(t, digest, s.State().Digest())
	c = s.SnapshotCache(true, cachev3.IDHash{}, nil)
	snap, err := c.GetSnapshot("node3")
	require.NoError(t, err)
	require.True(t, proto.Equal(&clusterv3.Cluster{Name: "a"}, snap.GetResources(resourcev3.ClusterType)["a"]))
	require.Len(t, s.LinearCache(resourcev3.ClusterType).GetResources(), 1)
	require.NoError(t, s.Close(ctx))

	s = open(t.TempDir())
	t.Logf("%+v", s.Status().Restored)
	require.Equal(t, digest, s.State().Digest())
	c = s.SnapshotCache(true, cachev3.IDHash{}, nil)
	require.NoError(t, c.Clear(ctx, "node3"))
	require.EqualValues(t, 64*50+2, s.Status().Sequence)
	require.NoError(t, s.Close(ctx))
}
