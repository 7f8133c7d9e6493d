package batch_test

import (
	"fmt"
	"time"

	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/internal/format/batch"
	"github.com/xdswal/xdswal/journal"
)

func Example() {
	w, err := batch.NewWriter()
	if err != nil {
		panic(err)
	}
	for seq := journal.Sequence(41); seq <= 42; seq++ {
		// The journal returns its records in this form.
		record, err := event.Marshal(&journal.Event{Kind: journal.Clear, Cache: "snapshot/default", Node: "edge"})
		if err != nil {
			panic(err)
		}
		event.Seal(record, seq, time.Unix(1700000000, 0))
		if err := w.Add(seq, record); err != nil {
			panic(err)
		}
	}
	first, _ := w.Bounds()
	name := batch.Name{Epoch: 3, First: first}
	fmt.Println(name)
	err = batch.Decode(w.Bytes(), name, func(ev *journal.Event) error {
		fmt.Println(uint64(ev.Sequence), ev.Node)
		return nil
	})
	if err != nil {
		panic(err)
	}
	// Output:
	// events-0000000003-00000000000000000041.zst
	// 41 edge
	// 42 edge
}
