// Package state is the fold: it applies journal events, in order, to an immutable
// state.
//
// A [State] at sequence S is the result of events 1 to S for every node of every
// cache. It is a tree that shares with its predecessor everything that the last event
// did not change. So keeping a state is cheap, and readers never block the goroutine
// that applies events. A state keeps its own nodes and resources in memory, and of
// earlier states only a bounded number of clusters. Resources are kept as they are passed
// in, and so is any memory that they share with others. Of equal values, in one node or in
// many, it keeps one: a resource that is passed in is replaced by an equal one that the
// state has, or by a copy with the same value in memory.
//
// This package has no I/O, and imports only the journal's types. Its one lock guards what
// finds equal values; [Node.Apply] and readers do not take it.
package state

import (
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/xdswal/xdswal/journal"
)

// ErrOrder is the identity of the error about an event that does not have the next
// sequence of a state.
var ErrOrder = errors.New("event out of order")

// State is the fold of all events up to a sequence. It is immutable and safe for
// concurrent use. The zero value is the state before the first event.
type State struct {
	seq       journal.Sequence
	at        time.Time
	nodes     tree[*Node]
	resources int
	bytes     int64
	bodies    *bodies // nil in the zero value
}

// Sequence returns the sequence of the last event, 0 if there is none.
func (s *State) Sequence() journal.Sequence { return s.seq }

// Time returns the time of the last event.
func (s *State) Time() time.Time { return s.at }

// NumNodes returns the number of nodes of all caches.
func (s *State) NumNodes() int { return s.nodes.size }

// NumResources returns the number of resources of all nodes.
func (s *State) NumResources() int { return s.resources }

// Bytes returns the sum of the sizes of the resources' values.
func (s *State) Bytes() int64 { return s.bytes }

// Node returns a node of a cache, or nil.
func (s *State) Node(cache, node string) *Node {
	n, _ := s.nodes.get(nodeKey(cache, node))
	return n
}

// All yields all nodes, sorted by cache and then by name.
func (s *State) All() iter.Seq[*Node] {
	return func(yield func(*Node) bool) {
		for _, n := range s.nodes.all() {
			if !yield(n) {
				return
			}
		}
	}
}

// Cache yields the nodes of one cache, sorted by name.
func (s *State) Cache(cache string) iter.Seq[*Node] {
	return func(yield func(*Node) bool) {
		prefix := nodeKey(cache, "")
		for key, n := range s.nodes.from(prefix) {
			if !strings.HasPrefix(key, prefix) || !yield(n) {
				return
			}
		}
	}
}

// Caches returns the names of the caches that have a node, sorted.
func (s *State) Caches() []string {
	var names []string
	for next, found := "", true; found; {
		found = false
		for _, n := range s.nodes.from(next) {
			names = append(names, n.cache)
			// The first key that sorts after all nodes of this cache.
			next, found = n.cache+"\x01", true
			break
		}
	}
	return names
}

// Apply returns the state after ev. The error is [ErrOrder] if ev does not have the
// next sequence. The time depends on the size of the event, and on the logarithm of
// the size of the state.
func (s *State) Apply(ev *journal.Event) (*State, error) {
	if ev.Sequence != s.seq+1 {
		return nil, fmt.Errorf("apply event: %w: got event %d, want %d", ErrOrder, ev.Sequence, s.seq+1)
	}
	next := *s
	next.seq, next.at = ev.Sequence, ev.Time
	key := nodeKey(ev.Cache, ev.Node)
	before, _ := s.nodes.get(key)
	if next.bodies == nil {
		next.bodies = newBodies()
	}
	next.bodies.mu.Lock()
	defer next.bodies.mu.Unlock()
	if before == nil {
		before = &Node{cache: ev.Cache, name: ev.Node}
	}
	if ev.Kind == journal.Clear {
		next.bodies.dropNode(before)
		next.nodes = s.nodes.del(key)
		next.resources -= before.resources
		next.bytes -= before.bytes
		return &next, nil
	}
	after := before.apply(ev, next.bodies)
	next.nodes, _ = s.nodes.set(key, after)
	next.resources += after.resources - before.resources
	next.bytes += after.bytes - before.bytes
	return &next, nil
}

// nodeKey returns a key that sorts by cache and then by name. The caches reject a
// cache name with a zero byte.
func nodeKey(cache, node string) string { return cache + "\x00" + node }
