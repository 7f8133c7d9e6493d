package sloghooks_test

import (
	"context"
	"log/slog"
	"os"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/telemetry/sloghooks"
)

func Example() {
	dir, err := os.MkdirTemp("", "xdswal-example")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	logger := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{
		// Leave out what differs from run to run.
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey || a.Key == "duration" {
				return slog.Attr{}
			}
			return a
		},
	}))

	ctx := context.Background()
	store, err := xdswal.Open(ctx, xdswal.Options{Dir: dir, Hooks: sloghooks.New(logger)})
	if err != nil {
		panic(err)
	}
	if err := store.Close(ctx); err != nil {
		panic(err)
	}
	// Output:
	// level=INFO msg="replay finished" source="" snapshot="" sequence=0 events=0 shipped=0 nodes=0 resources=0 resource_bytes=0 skipped_snapshots=0
}
