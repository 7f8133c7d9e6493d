package compactor_test

import (
	"context"
	"fmt"
	"os"

	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/compactor"
)

// Hooks that report when snapshots are written, and those that fail.
func Example() {
	dir, err := os.MkdirTemp("", "compactor-example")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	ctx := context.Background()
	store, err := xdswal.Open(ctx, xdswal.Options{Dir: dir, Hooks: xdswal.Hooks{Compactor: compactor.Hooks{
		SnapshotWriteBegin: func(s compactor.Snapshot) { fmt.Println("begin", s.Name) },
		SnapshotWriteEnd: func(s compactor.Snapshot) {
			if s.Err != nil {
				fmt.Println("exception", s.Name, s.Err)
				return
			}
			fmt.Println("end", s.Name, s.Nodes)
		},
	}}})
	if err != nil {
		panic(err)
	}
	if err := store.SnapshotCache(true, cachev3.IDHash{}, nil).SetSnapshot(ctx, "edge-1", &cachev3.Snapshot{}); err != nil {
		panic(err)
	}
	if err := store.Close(ctx); err != nil {
		panic(err)
	}
	// Output:
	// begin snapshot-0000000001-00000000000000000001.zst
	// end snapshot-0000000001-00000000000000000001.zst 1
}
