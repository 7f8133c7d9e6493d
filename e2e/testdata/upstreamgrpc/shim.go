package e2e

import (
	"context"
	"os"
	"testing"

	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/log"
	"github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/xdsserver"
)

// mode is "stock", "cache" or "server".
var mode = os.Getenv("XDSWAL_E2E_MODE")

func newSnapshotCache(t *testing.T, ads bool, hash cache.NodeHash, logger log.Logger) cache.SnapshotCache {
	if mode == "stock" {
		return cache.NewSnapshotCache(ads, hash, logger)
	}
	store, err := xdswal.Open(context.Background(), xdswal.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return store.SnapshotCache(ads, hash, logger)
}

func newServer(ctx context.Context, cache cache.Cache, callbacks server.Callbacks) server.Server {
	if mode == "server" {
		return xdsserver.NewServer(ctx, cache, callbacks)
	}
	return server.NewServer(ctx, cache, callbacks)
}

func grpcOptions() []grpc.ServerOption {
	if mode == "server" {
		return xdsserver.GRPCOptions()
	}
	return nil
}
