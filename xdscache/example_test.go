package xdscache_test

import (
	"context"
	"fmt"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/xdscache"
)

// The cost of an update of some resources does not grow with the node.
func ExampleSnapshotCache_UpdateResources() {
	ctx := context.Background()
	store, err := xdswal.Open(ctx, xdswal.Options{MemoryOnly: true})
	if err != nil {
		panic(err)
	}
	defer store.Close(ctx)
	cache := store.SnapshotCache(true, cachev3.IDHash{}, nil)
	snapshot, err := cachev3.NewSnapshot("1", map[string][]types.Resource{
		resourcev3.ClusterType: {&clusterv3.Cluster{Name: "accounts"}, &clusterv3.Cluster{Name: "payments"}},
	})
	if err != nil {
		panic(err)
	}
	if err := cache.SetSnapshot(ctx, "edge", snapshot); err != nil {
		panic(err)
	}
	sequence, err := cache.UpdateResources(ctx, "edge",
		map[string][]types.ResourceWithTTL{resourcev3.ClusterType: {{Resource: &clusterv3.Cluster{Name: "search"}}}},
		[]xdscache.ResourceName{{TypeURL: resourcev3.ClusterType, Name: "accounts"}},
		"2")
	if err != nil {
		panic(err)
	}
	clusters := cache.GetNode("edge").Type(resourcev3.ClusterType)
	fmt.Printf("event %d, version %s:\n", sequence, clusters.Version())
	for r := range clusters.All() {
		fmt.Println((*xdscache.Resource)(r))
	}
	// Output:
	// event 2, version 2:
	// type.googleapis.com/envoy.config.cluster.v3.Cluster "payments" (10 bytes)
	// type.googleapis.com/envoy.config.cluster.v3.Cluster "search" (8 bytes)
}

func ExampleLinearCache() {
	ctx := context.Background()
	store, err := xdswal.Open(ctx, xdswal.Options{MemoryOnly: true})
	if err != nil {
		panic(err)
	}
	defer store.Close(ctx)
	clusters := store.LinearCache(resourcev3.ClusterType)
	// It returns when the update is durable.
	if err := clusters.UpdateResource("payments", &clusterv3.Cluster{Name: "payments"}); err != nil {
		panic(err)
	}
	// A MuxCache serves some types from it, and others from another cache.
	_ = cachev3.MuxCache{
		Classify:      func(r *cachev3.Request) string { return r.GetTypeUrl() },
		ClassifyDelta: func(r *cachev3.DeltaRequest) string { return r.GetTypeUrl() },
		Caches:        map[string]cachev3.Cache{resourcev3.ClusterType: clusters},
	}
	fmt.Println(clusters.NumResources())
	// Output: 1
}
