package main

import (
	"context"
	"io"
	"log"
	"os"
	"time"

	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	cplog "github.com/envoyproxy/go-control-plane/pkg/log"
	conf "github.com/envoyproxy/go-control-plane/pkg/server/config"
	"github.com/envoyproxy/go-control-plane/pkg/server/v3"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/xdscache"
	"github.com/xdswal/xdswal/xdsserver"
)

// store is never closed: the process ends while it serves.
var store = func() *xdswal.Store {
	store, err := xdswal.Open(context.Background(), xdswal.Options{Dir: os.Getenv("XDSWAL_E2E_STORE")})
	if err != nil {
		log.Fatal(err)
	}
	return store
}()

func newSnapshotCache(ads bool, hash cache.NodeHash, logger cplog.Logger) cache.SnapshotCache {
	return store.SnapshotCache(ads, hash, logger)
}

func newLinearCache(typeURL string) *xdscache.LinearCache { return store.LinearCache(typeURL) }

// newServer ignores the options: one makes the answers ordered, which ours are.
func newServer(ctx context.Context, cache cache.Cache, callbacks server.Callbacks, _ ...conf.XDSOption) server.Server {
	return xdsserver.NewServer(ctx, cache, callbacks)
}

// serveOn serves until the input ends, and then requires that every listener answers in
// time. Over REST an Envoy polls each type by itself, so some routes are late.
func serveOn() {
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		log.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		ok, failed := callEcho()
		if failed == 0 {
			return
		}
		if time.Now().After(deadline) {
			log.Fatalf("after the last update: %d listeners answered, %d did not", ok, failed)
		}
	}
}
