package wal_test

import (
	"context"
	"fmt"
	"os"

	"github.com/xdswal/xdswal/internal/wal"
	"github.com/xdswal/xdswal/journal"
)

func Example() {
	dir, err := os.MkdirTemp("", "journal")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)

	j, err := wal.Open(dir, wal.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	for _, node := range []string{"edge-1", "edge-2"} {
		// Append returns when the event is on stable storage.
		seq, err := j.Append(ctx, &journal.Event{Kind: journal.Update, Cache: "snapshot/main", Node: node})
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println("appended", uint64(seq))
	}
	if err := j.Close(); err != nil {
		fmt.Println(err)
		return
	}

	// After a restart the events are there.
	j, err = wal.Open(dir, wal.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer j.Close()
	err = j.Range(ctx, 1, 0, func(ev *journal.Event) error {
		fmt.Println("found", uint64(ev.Sequence), ev.Kind, ev.Node)
		return nil
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output:
	// appended 1
	// appended 2
	// found 1 update edge-1
	// found 2 update edge-2
}
