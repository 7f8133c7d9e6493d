package compact_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/xdswal/xdswal/internal/compact"
	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/journal"
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
	st, err := (&state.State{}).Apply(&journal.Event{
		Sequence: 1, Kind: journal.Update, Cache: "snapshot/default", Node: "edge",
		Types: []journal.TypeChange{{TypeURL: "type.googleapis.com/envoy.config.cluster.v3.Cluster", Version: "1"}},
	})
	if err != nil {
		panic(err)
	}
	c, err := compact.New(func() *state.State { return st }, nil, compact.Options{
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
