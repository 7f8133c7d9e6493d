package cache_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/log"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/xdscache"
)

func newSnapshotCache(t *testing.T, ads bool, hash cache.NodeHash, logger log.Logger) cache.SnapshotCache {
	return open(t).SnapshotCache(ads, hash, logger)
}

func newHeartbeatingCache(ctx context.Context, t *testing.T, ads bool, hash cache.NodeHash, logger log.Logger, interval time.Duration) cache.SnapshotCache {
	return open(t).SnapshotCache(ads, hash, logger, xdscache.WithHeartbeat(ctx, interval))
}

func open(t *testing.T) *xdswal.Store {
	store, err := xdswal.Open(context.Background(), xdswal.Options{Dir: t.TempDir(), SegmentBytes: 64 << 10})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close(context.Background())) })
	return store
}

type rawResources interface {
	GetRawResources() []types.ResourceWithTTL
}

// numWatches returns the number of open watches of a node.
func numWatches(c cache.SnapshotCache, node string) int {
	info := c.GetStatusInfo(node)
	if info == nil {
		return 0
	}
	return info.GetNumWatches() + info.GetNumDeltaWatches()
}

// protoEqual is reflect.DeepEqual, except that it compares messages by proto.Equal.
func protoEqual(a, b any) bool { return cmp.Equal(a, b, cmp.Comparer(proto.Equal)) }
