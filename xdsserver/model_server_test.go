package xdsserver_test

import (
	"context"

	"github.com/xdswal/xdswal/xdscache"
	"github.com/xdswal/xdswal/xdsserver"
)

func newModelServer(ctx context.Context, cache *xdscache.SnapshotCache) *xdsserver.Server {
	return xdsserver.NewServer(ctx, cache, nil, xdsserver.Options{AckTimeout: modelBound})
}
