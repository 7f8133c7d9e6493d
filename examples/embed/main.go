// Command embed is a complete control plane whose configuration survives a crash: start
// it, kill -9 it, and start it again.
package main

import (
	"context"
	"flag"
	"log"
	"net"
	"os/signal"
	"syscall"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/grpc"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/xdsserver"
)

func main() {
	dir := flag.String("dir", "embed-data", "data directory")
	addr := flag.String("addr", "127.0.0.1:18000", "xDS address")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()

	store, err := xdswal.Open(ctx, xdswal.Options{Dir: *dir})
	if err != nil {
		log.Fatal(err)
	}
	cache := store.SnapshotCache(false, cachev3.IDHash{}, nil) // instead of cachev3.NewSnapshotCache
	log.Printf("restored %d nodes at sequence %d", store.Status().Nodes, store.Status().Sequence)

	server := grpc.NewServer(xdsserver.GRPCOptions()...)
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(server, xdsserver.NewServer(ctx, cache, nil)) // instead of serverv3.NewServer
	listener, err := net.Listen("tcp", *addr)
	if err != nil {
		log.Fatal(err)
	}
	go server.Serve(listener)

	version := time.Now().Format(time.RFC3339Nano)
	snapshot, _ := cachev3.NewSnapshot(version, map[resourcev3.Type][]types.Resource{
		resourcev3.ClusterType: {&clusterv3.Cluster{Name: "greeter"}},
	})
	if err := cache.SetSnapshot(ctx, "edge-1", snapshot); err != nil { // durable when SetSnapshot returns
		log.Fatal(err)
	}
	<-ctx.Done()
	server.Stop()
	if err := store.Close(context.Background()); err != nil {
		log.Fatal(err)
	}
}
