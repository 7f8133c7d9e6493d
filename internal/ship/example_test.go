package ship_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/xdswal/xdswal/backends/file"
	"github.com/xdswal/xdswal/internal/catalog"
	"github.com/xdswal/xdswal/internal/ship"
	"github.com/xdswal/xdswal/internal/wal"
	"github.com/xdswal/xdswal/journal"
)

func Example() {
	dir, err := os.MkdirTemp("", "xdswal-")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	ctx := context.Background()
	backend, err := file.New(file.Config{Dir: filepath.Join(dir, "backend")})
	if err != nil {
		panic(err)
	}
	j, err := wal.Open(filepath.Join(dir, "journal"), wal.Options{})
	if err != nil {
		panic(err)
	}
	// The first writer claims the first epoch.
	epoch := catalog.Epoch{Number: 1, StoreID: "example", Token: "drawn by the writer", Claimed: time.Now()}
	s, err := ship.New(ship.Options{
		Backend:       backend,
		Epoch:         epoch,
		Journal:       bounded{j},
		Snapshots:     func() ([]catalog.Entry, error) { return nil, nil },
		KeepSnapshots: 3,
		Logger:        slog.New(slog.DiscardHandler),
	})
	if err != nil {
		panic(err)
	}
	s.Start()
	seq, err := j.Append(ctx, &journal.Event{Kind: journal.Clear, Cache: "snapshot/default", Node: "edge"})
	if err != nil {
		panic(err)
	}
	s.Committed(seq)
	s.Stop()
	if err := j.Close(); err != nil {
		panic(err)
	}
	if err := s.Close(ctx); err != nil { // ships what is not shipped yet
		panic(err)
	}
	objects, err := backend.List(ctx, "")
	if err != nil {
		panic(err)
	}
	for _, o := range objects {
		fmt.Println(o.Key)
	}
	// Output:
	// epochs/0000000001
	// events/events-0000000001-00000000000000000001.zst
}
