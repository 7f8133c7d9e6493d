package state

import (
	"errors"
	"fmt"
	"time"

	"github.com/xdswal/xdswal/journal"
)

// Builder builds a state from sorted nodes, types and resources, such as those of a
// snapshot file. It is many times faster than applying events. One goroutine uses a
// Builder, for one state.
type Builder struct {
	state     State
	nodes     []entry[*Node]
	resources []entry[*journal.Resource] // of the last type
}

var errUnsorted = errors.New("not in sorted order")

// NewBuilder returns a builder of the state at a sequence. at is the time of the event
// with that sequence.
func NewBuilder(seq journal.Sequence, at time.Time) *Builder {
	return &Builder{state: State{seq: seq, at: at, bodies: newBodies()}}
}

// Node begins a node.
func (b *Builder) Node(cache, name string, seq journal.Sequence, at time.Time) error {
	b.endNode()
	key := nodeKey(cache, name)
	if n := len(b.nodes); n > 0 && b.nodes[n-1].key >= key {
		return fmt.Errorf("add node %q of cache %q: %w", name, cache, errUnsorted)
	}
	b.nodes = append(b.nodes, entry[*Node]{key, &Node{cache: cache, name: name, seq: seq, at: at}})
	return nil
}

// Type begins a type of the last node.
func (b *Builder) Type(url, version string) error {
	b.endType()
	if len(b.nodes) == 0 {
		return fmt.Errorf("add type %q: %w: node is missing", url, errUnsorted)
	}
	node := b.nodes[len(b.nodes)-1].val
	if n := len(node.types); n > 0 && node.types[n-1].url >= url {
		return fmt.Errorf("add type %q of node %q: %w", url, node.name, errUnsorted)
	}
	node.types = append(node.types, Type{url: url, version: version})
	return nil
}

// Resources adds resources to the last type. It keeps the resources, but not the slice. Of
// equal values it keeps one.
func (b *Builder) Resources(resources []*journal.Resource) error {
	t := b.lastType()
	if t == nil {
		return fmt.Errorf("add resources: %w: type is missing", errUnsorted)
	}
	for _, r := range resources {
		if n := len(b.resources); n > 0 && b.resources[n-1].key >= r.Name {
			return fmt.Errorf("add resource %q of type %q: %w", r.Name, t.url, errUnsorted)
		}
		r = b.state.bodies.share(r)
		b.resources = append(b.resources, entry[*journal.Resource]{r.Name, r})
		t.bytes += r.Size()
	}
	return nil
}

// Build returns the state and clears the builder.
func (b *Builder) Build() *State {
	b.endNode()
	st := b.state
	st.nodes = build(b.nodes, nil)
	*b = Builder{}
	return &st
}

func (b *Builder) lastType() *Type {
	if len(b.nodes) == 0 {
		return nil
	}
	node := b.nodes[len(b.nodes)-1].val
	if len(node.types) == 0 {
		return nil
	}
	return &node.types[len(node.types)-1]
}

func (b *Builder) endType() {
	if t := b.lastType(); t != nil && len(b.resources) > 0 {
		t.resources = b.state.bodies.build(t.url, b.resources)
		b.resources = b.resources[:0]
	}
}

func (b *Builder) endNode() {
	b.endType()
	if len(b.nodes) == 0 {
		return
	}
	node := b.nodes[len(b.nodes)-1].val
	for i := range node.types {
		node.resources += node.types[i].resources.size
		node.bytes += node.types[i].bytes
	}
	b.state.resources += node.resources
	b.state.bytes += node.bytes
}
