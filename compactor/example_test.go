package compactor_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/xdswal/xdswal/compactor"
	"github.com/xdswal/xdswal/journal/event"
	"github.com/xdswal/xdswal/replay/state"
)

func Example() {
	dir, err := os.MkdirTemp("", "xdswal-")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	ctx := context.Background()
	snapshots := filepath.Join(dir, "snapshots")
	if err := os.Mkdir(snapshots, 0o700); err != nil {
		panic(err)
	}

	// The fold of what a journal holds; a store replaces it with each commit.
	st, err := (&state.State{}).Apply(&event.Event{
		Sequence: 1, Kind: event.Update, Cache: "snapshot/default", Node: "edge",
		Types: []event.TypeChange{{TypeURL: "type.googleapis.com/envoy.config.cluster.v3.Cluster", Version: "1"}},
	})
	if err != nil {
		panic(err)
	}
	c, err := compactor.New(func() *state.State { return st }, nil, compactor.Options{
		Dir:     snapshots,
		StoreID: "example",
		Epoch:   1,
		Logger:  slog.Default(),
	})
	if err != nil {
		panic(err)
	}
	c.Start()
	seq, err := c.Compact(ctx)
	if err != nil {
		panic(err)
	}
	c.Stop()
	if err := c.Close(ctx); err != nil { // writes what is not written yet
		panic(err)
	}
	entries, err := c.Snapshots()
	if err != nil {
		panic(err)
	}
	fmt.Println(uint64(seq), c.Status().Sequence == seq, entries[0].Name)
	// Output:
	// 1 true snapshot-0000000001-00000000000000000001.zst
}
