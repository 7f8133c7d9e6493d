package journal_test

import (
	"context"
	"fmt"
	"os"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/journal"
)

// A reader of events.
func Example() {
	dir, err := os.MkdirTemp("", "journal-example")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	ctx := context.Background()
	store, err := xdswal.Open(ctx, xdswal.Options{Dir: dir, Sync: journal.SyncAlways})
	if err != nil {
		panic(err)
	}
	defer store.Close(ctx)
	snapshot, err := cachev3.NewSnapshot("1", map[string][]types.Resource{
		resourcev3.ClusterType: {&clusterv3.Cluster{Name: "web"}},
	})
	if err != nil {
		panic(err)
	}
	if err := store.SnapshotCache(true, cachev3.IDHash{}, nil).SetSnapshot(ctx, "edge-1", snapshot); err != nil {
		panic(err)
	}

	err = store.Events(ctx, 1, 0, func(ev *journal.Event) error {
		for _, change := range ev.Types {
			for _, r := range change.Upserts {
				fmt.Println(uint64(ev.Sequence), ev.Kind, ev.Node, change.Version, r.Name)
			}
		}
		return nil
	})
	if err != nil {
		panic(err)
	}
	// Output: 1 update edge-1 1 web
}

func ExampleParseSyncPolicy() {
	for _, s := range []string{"always", "100ms", "never"} {
		p, err := journal.ParseSyncPolicy(s)
		fmt.Println(p, p.Interval(), err)
	}
	_, err := journal.ParseSyncPolicy("sometimes")
	fmt.Println(err)
	// Output:
	// always 0s <nil>
	// 100ms 100ms <nil>
	// never -1ns <nil>
	// parse sync policy "sometimes": use always, never or a positive duration such as 100ms
}
