package replay

import (
	"iter"
	"time"

	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/journal"
)

// State is the fold of all events up to a sequence: every node of every cache. It is
// immutable and safe for concurrent use. Keeping it is cheap, because it shares with
// later states everything that they did not change.
type State state.State

func (s *State) fold() *state.State { return (*state.State)(s) }

// Sequence returns the sequence of the last event, 0 if there is none.
func (s *State) Sequence() journal.Sequence { return s.fold().Sequence() }

// Time returns the time of the last event.
func (s *State) Time() time.Time { return s.fold().Time() }

// NumNodes returns the number of nodes of all caches.
func (s *State) NumNodes() int { return s.fold().NumNodes() }

// NumResources returns the number of resources of all nodes.
func (s *State) NumResources() int { return s.fold().NumResources() }

// Bytes returns the sum of the sizes of all resources' values.
func (s *State) Bytes() int64 { return s.fold().Bytes() }

// Caches returns the names of the caches that have a node, sorted.
func (s *State) Caches() []string { return s.fold().Caches() }

// Node returns a node of a cache, or nil. The name of the cache is that of events:
// "snapshot/NAME" or "linear/NAME".
func (s *State) Node(cache, node string) *Node { return (*Node)(s.fold().Node(cache, node)) }

// Nodes yields all nodes, sorted by cache and then by name.
func (s *State) Nodes() iter.Seq[*Node] {
	return func(yield func(*Node) bool) {
		for n := range s.fold().All() {
			if !yield((*Node)(n)) {
				return
			}
		}
	}
}

// Cache yields the nodes of one cache, sorted by name. The cache has the name that
// events give it.
func (s *State) Cache(cache string) iter.Seq[*Node] {
	return func(yield func(*Node) bool) {
		for n := range s.fold().Cache(cache) {
			if !yield((*Node)(n)) {
				return
			}
		}
	}
}

// Digest returns the SHA-256 of everything in which two states can differ for an Envoy,
// and of the sequences. docs/format/snapshot.md defines its input.
func (s *State) Digest() [32]byte { return s.fold().Digest() }

// Node is one node of one cache. It is immutable.
type Node state.Node

func (n *Node) fold() *state.Node { return (*state.Node)(n) }

// Cache returns the name of the node's cache.
func (n *Node) Cache() string { return n.fold().Cache() }

// Name returns the node's key in its cache.
func (n *Node) Name() string { return n.fold().Name() }

// Sequence returns the sequence of the last event that changed the node.
func (n *Node) Sequence() journal.Sequence { return n.fold().Sequence() }

// Time returns the time of the last event that changed the node.
func (n *Node) Time() time.Time { return n.fold().Time() }

// NumResources returns the number of the node's resources.
func (n *Node) NumResources() int { return n.fold().NumResources() }

// Bytes returns the sum of the sizes of the resources' values.
func (n *Node) Bytes() int64 { return n.fold().Bytes() }

// Type returns a type of the node, or nil if it has neither a version nor resources
// of it.
func (n *Node) Type(url string) *Type { return (*Type)(n.fold().Type(url)) }

// Types yields the node's types, sorted by URL.
func (n *Node) Types() iter.Seq[*Type] {
	return func(yield func(*Type) bool) {
		types := n.fold().Types()
		for i := range types {
			if !yield((*Type)(&types[i])) {
				return
			}
		}
	}
}

// Type is all resources of one type of one node, and their version. It is
// immutable.
type Type state.Type

func (t *Type) fold() *state.Type { return (*state.Type)(t) }

// URL returns the type URL.
func (t *Type) URL() string { return t.fold().URL() }

// Version returns the version that the control plane set for the type.
func (t *Type) Version() string { return t.fold().Version() }

// Len returns the number of resources.
func (t *Type) Len() int { return t.fold().Len() }

// Get returns a resource by name, or nil.
func (t *Type) Get(name string) *journal.Resource { return t.fold().Get(name) }

// All yields the resources, sorted by name.
func (t *Type) All() iter.Seq[*journal.Resource] { return t.fold().All() }
