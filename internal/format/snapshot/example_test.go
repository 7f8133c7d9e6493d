package snapshot_test

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/xdswal/xdswal/internal/format/snapshot"
	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/journal"
)

func Example() {
	first := &journal.Event{
		Sequence: 1, Time: time.Unix(1_700_000_000, 0), Kind: journal.Update, Cache: "snapshot/default", Node: "edge",
		Types: []journal.TypeChange{{
			TypeURL: "type.googleapis.com/envoy.config.cluster.v3.Cluster", Version: "1",
			Upserts: []*journal.Resource{{Name: "payments", Value: []byte("…")}},
		}},
	}
	st, err := new(state.State).Apply(first)
	if err != nil {
		panic(err)
	}

	// Write it: each node, followed by its types, followed by their resources.
	var file bytes.Buffer
	w, err := snapshot.NewWriter(&file, snapshot.Header{Sequence: st.Sequence(), Time: st.Time(), Epoch: 3})
	if err != nil {
		panic(err)
	}
	for node := range st.All() {
		must(w.Node(node.Cache(), node.Name(), node.Sequence(), node.Time()))
		for _, t := range node.Types() {
			must(w.Type(t.URL(), t.Version()))
			for r := range t.All() {
				must(w.Resource(r))
			}
		}
	}
	if _, err := w.Close(st.Digest()); err != nil {
		panic(err)
	}
	fmt.Println(snapshot.Name{Epoch: 3, Sequence: st.Sequence()})

	// Read it back into a state.
	var b *state.Builder
	contents, err := snapshot.Read(context.Background(), &file, func(h snapshot.Header) (snapshot.Sink, error) {
		b = state.NewBuilder(h.Sequence, h.Time)
		return b, nil
	})
	if err != nil {
		panic(err)
	}
	restored := b.Build()
	fmt.Println(contents.Trailer.Nodes, "node,", contents.Trailer.Resources, "resource, same digest:", restored.Digest() == contents.Trailer.Digest)
	// Output:
	// snapshot-0000000003-00000000000000000001.zst
	// 1 node, 1 resource, same digest: true
}
