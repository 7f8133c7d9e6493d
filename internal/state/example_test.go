package state_test

import (
	"fmt"

	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/journal"
)

func Example() {
	events := []*journal.Event{
		{Sequence: 1, Kind: journal.Update, Cache: "snapshot/default", Node: "edge", Types: []journal.TypeChange{{
			TypeURL: "type.googleapis.com/envoy.config.cluster.v3.Cluster",
			Version: "1",
			Upserts: []*journal.Resource{{Name: "payments", Value: []byte("…")}, {Name: "accounts", Value: []byte("…")}},
		}}},
		{Sequence: 2, Kind: journal.Update, Cache: "snapshot/default", Node: "edge", Types: []journal.TypeChange{{
			TypeURL: "type.googleapis.com/envoy.config.cluster.v3.Cluster",
			Version: "2",
			Deletes: []string{"payments"},
		}}},
	}
	st := &state.State{}
	var views []*state.State
	for _, ev := range events {
		next, err := st.Apply(ev)
		if err != nil {
			panic(err)
		}
		st = next
		views = append(views, st)
	}
	for _, view := range views {
		for node := range view.All() {
			for _, t := range node.Types() {
				fmt.Printf("at %d: node %s, version %s:", view.Sequence(), node.Name(), t.Version())
				for r := range t.All() {
					fmt.Print(" ", r.Name)
				}
				fmt.Println()
			}
		}
	}
	// Output:
	// at 1: node edge, version 1: accounts payments
	// at 2: node edge, version 2: accounts
}
