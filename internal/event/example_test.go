package event_test

import (
	"errors"
	"fmt"
	"time"

	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/journal"
)

func Example() {
	ev := &journal.Event{
		Kind:  journal.Update,
		Cache: "snapshot/main",
		Node:  "edge-1",
		Types: []journal.TypeChange{{
			TypeURL: "type.googleapis.com/envoy.config.cluster.v3.Cluster",
			Version: "v1",
			Upserts: []*journal.Resource{{
				Name:    "web",
				TypeURL: "type.googleapis.com/envoy.config.cluster.v3.Cluster",
				Value:   []byte("\n\x03web"),
			}},
		}},
	}
	record, err := event.Marshal(ev)
	if err != nil {
		fmt.Println(err)
		return
	}
	event.Seal(record, 1, time.Unix(1700000000, 0))

	got, err := event.Unmarshal(record)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(got.Sequence, got.Kind, got.Node, got.Types[0].Upserts[0].Name)

	record[len(record)-1] ^= 1
	_, err = event.Unmarshal(record)
	fmt.Println(errors.Is(err, event.ErrCorrupt))
	// Output:
	// 00000000000000000001 update edge-1 web
	// true
}
