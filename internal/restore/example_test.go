package restore_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/xdswal/xdswal/internal/restore"
	"github.com/xdswal/xdswal/internal/wal"
	"github.com/xdswal/xdswal/journal"
)

// journalWithBounds is a journal as a restore needs it.
type journalWithBounds struct{ *wal.Journal }

func (j journalWithBounds) Bounds() (first, last journal.Sequence, err error) {
	s, err := j.Stats()
	return s.First, s.Last, err
}

func Example() {
	dir, err := os.MkdirTemp("", "xdswal-")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	ctx := context.Background()

	j, err := wal.Open(filepath.Join(dir, "journal"), wal.Options{})
	if err != nil {
		panic(err)
	}
	defer func() { _ = j.Close() }()
	for _, version := range []string{"1", "2", "3"} {
		_, err := j.Append(ctx, &journal.Event{
			Kind: journal.Update, Cache: "snapshot/default", Node: "edge",
			Types: []journal.TypeChange{{TypeURL: "type.googleapis.com/envoy.config.cluster.v3.Cluster", Version: version}},
		})
		if err != nil {
			panic(err)
		}
	}

	opt := restore.Options{Dir: filepath.Join(dir, "snapshots"), Journal: journalWithBounds{j}}
	for _, target := range []restore.Target{{}, {Sequence: 2}} {
		opt.Target = target
		st, result, err := restore.Restore(ctx, opt)
		if err != nil {
			panic(err)
		}
		version := st.Node("snapshot/default", "edge").Types()[0].Version()
		fmt.Printf("%s: version %s after %d events\n", target, version, result.Events)
	}
	opt.Target.Sequence = 4
	_, _, err = restore.Restore(ctx, opt)
	fmt.Println(err)
	// Output:
	// the newest state: version 3 after 3 events
	// sequence 2: version 2 after 2 events
	// restore sequence 4: not within what is kept: sequence 4 is yet to come, the newest event is 3
}
