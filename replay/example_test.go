package replay_test

import (
	"context"
	"fmt"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/xdswal/xdswal"
)

// The state of a store, which later updates do not change.
func ExampleState() {
	ctx := context.Background()
	store, err := xdswal.Open(ctx, xdswal.Options{MemoryOnly: true})
	if err != nil {
		panic(err)
	}
	cache := store.SnapshotCache(true, cachev3.IDHash{}, nil)
	snapshot, err := cachev3.NewSnapshot("1", map[string][]types.Resource{
		resourcev3.ClusterType: {&clusterv3.Cluster{Name: "web"}, &clusterv3.Cluster{Name: "api"}},
	})
	if err != nil {
		panic(err)
	}
	if err := cache.SetSnapshot(ctx, "edge-1", snapshot); err != nil {
		panic(err)
	}
	state := store.State()
	cache.ClearSnapshot("edge-1")

	for node := range state.Nodes() {
		clusters := node.Type(resourcev3.ClusterType)
		fmt.Println(node.Cache(), node.Name(), clusters.Version(), clusters.Len())
		for r := range clusters.All() {
			fmt.Println(r.Name)
		}
	}
	fmt.Println(store.State().NumNodes())
	// Output:
	// snapshot/ edge-1 1 2
	// api
	// web
	// 0
}
