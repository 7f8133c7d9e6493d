package xdswal_test

import (
	"context"
	"fmt"
	"os"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/backends/file"
)

// A control plane serves its last configuration after a restart, without its data source.
func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "xdswal-example-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)

	for start := range 2 {
		store, err := xdswal.Open(ctx, xdswal.Options{Dir: dir})
		if err != nil {
			panic(err)
		}
		// Replaces cachev3.NewSnapshotCache.
		cache := store.SnapshotCache(true, cachev3.IDHash{}, nil)
		if start == 0 {
			snapshot, err := cachev3.NewSnapshot("1", map[string][]types.Resource{
				resourcev3.ClusterType: {&clusterv3.Cluster{Name: "payments"}},
			})
			if err != nil {
				panic(err)
			}
			// SetSnapshot returns when the snapshot is durable.
			if err := cache.SetSnapshot(ctx, "edge", snapshot); err != nil {
				panic(err)
			}
		}
		snapshot, err := cache.GetSnapshot("edge")
		if err != nil {
			panic(err)
		}
		for _, cluster := range snapshot.GetResources(resourcev3.ClusterType) {
			fmt.Printf("start %d: %s\n", start+1, cachev3.GetResourceName(cluster))
		}
		if err := store.Close(ctx); err != nil {
			panic(err)
		}
	}
	// Output:
	// start 1: payments
	// start 2: payments
}

// With a backend, the configuration survives the machine: a store in an empty directory
// restores what was shipped.
func ExampleOptions_backend() {
	ctx := context.Background()
	shared, err := os.MkdirTemp("", "xdswal-example-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(shared)
	backend, err := file.New(file.Config{Dir: shared})
	if err != nil {
		panic(err)
	}
	for machine := range 2 {
		dir, err := os.MkdirTemp("", "xdswal-example-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		store, err := xdswal.Open(ctx, xdswal.Options{Dir: dir, Backend: backend})
		if err != nil {
			panic(err)
		}
		clusters := store.LinearCache(resourcev3.ClusterType)
		if machine == 0 {
			if err := clusters.UpdateResource("payments", &clusterv3.Cluster{Name: "payments"}); err != nil {
				panic(err)
			}
		}
		fmt.Printf("machine %d: %d cluster, up to event %d\n", machine+1, clusters.NumResources(), store.Status().Sequence)
		if err := store.Close(ctx); err != nil {
			panic(err)
		}
	}
	// Output:
	// machine 1: 1 cluster, up to event 1
	// machine 2: 1 cluster, up to event 1
}
