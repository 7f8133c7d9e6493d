// Package state is the fold: it applies journal events, in the order of their
// sequences, to an immutable state.
//
// A [State] at sequence S is what events 1 to S leave of every node of every
// cache. It is a tree that shares with its predecessor all that the last event
// did not change, so a view costs nothing to take and nothing to hold, and
// who applies events never waits for who reads.
package state

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/xdswal/xdswal/journal"
)

// ErrOrder is the identity of the error about an event that is not the next
// one of a state.
var ErrOrder = errors.New("event out of order")

// State is the fold of all events up to a sequence. It is immutable and safe
// for concurrent use. The zero value is the state before every event.
type State struct {
	seq       journal.Sequence
	at        time.Time
	nodes     tree[*Node]
	resources int
	bytes     int64
}

// Sequence returns the sequence of the last event folded, 0 if there is none.
func (s *State) Sequence() journal.Sequence { return s.seq }

// Time returns the time of the last event folded.
func (s *State) Time() time.Time { return s.at }

// NumNodes returns the number of nodes of all caches.
func (s *State) NumNodes() int { return s.nodes.size }

// NumResources returns the number of resources of all nodes.
func (s *State) NumResources() int { return s.resources }

// Bytes returns the sum of the resources' wire sizes.
func (s *State) Bytes() int64 { return s.bytes }

// Node returns a node of a cache, nil if it has none by that name.
func (s *State) Node(cache, node string) *Node {
	n, _ := s.nodes.get(nodeKey(cache, node))
	return n
}

// All yields the nodes, sorted by cache and then by name.
func (s *State) All() iter.Seq[*Node] {
	return func(yield func(*Node) bool) {
		for _, n := range s.nodes.all() {
			if !yield(n) {
				return
			}
		}
	}
}

// Apply returns the state after ev, which must have the next sequence; if it
// has not, the error is [ErrOrder]. The cost grows with the event and the
// logarithm of what the state holds.
func (s *State) Apply(ev *journal.Event) (*State, error) {
	if ev.Sequence != s.seq+1 {
		return nil, fmt.Errorf("apply event %d to the state at %d: %w", ev.Sequence, s.seq, ErrOrder)
	}
	next := *s
	next.seq, next.at = ev.Sequence, ev.Time
	key := nodeKey(ev.Cache, ev.Node)
	before, _ := s.nodes.get(key)
	if before == nil {
		before = &Node{cache: ev.Cache, name: ev.Node}
	}
	if ev.Kind == journal.Clear {
		next.nodes = s.nodes.del(key)
		next.resources -= before.resources
		next.bytes -= before.bytes
		return &next, nil
	}
	after := before.Apply(ev)
	next.nodes = s.nodes.set(key, after)
	next.resources += after.resources - before.resources
	next.bytes += after.bytes - before.bytes
	return &next, nil
}

// Digest returns the SHA-256 of all that an Envoy could tell two states apart
// by, and of the sequences; docs/format/snapshot.md gives its exact input.
func (s *State) Digest() [sha256.Size]byte {
	d := digest{hash: sha256.New(), buf: make([]byte, 0, 32<<10)}
	d.number(uint64(s.seq))
	d.number(uint64(s.nodes.size))
	for _, n := range s.nodes.all() {
		d.text(n.cache)
		d.text(n.name)
		d.number(uint64(n.seq))
		d.number(uint64(len(n.types)))
		for i := range n.types {
			t := &n.types[i]
			d.text(t.url)
			d.text(t.version)
			d.number(uint64(t.resources.size))
			for r := range t.All() {
				d.resource(r)
			}
		}
	}
	return d.sum()
}

// digest writes numbers as 8 bytes, big-endian, and texts after their length.
// It gathers what it writes: the hash is slow with small pieces.
type digest struct {
	hash hash.Hash
	buf  []byte
}

func (d *digest) number(n uint64) {
	d.room(8)
	d.buf = binary.BigEndian.AppendUint64(d.buf, n)
}

func (d *digest) text(s string) {
	d.number(uint64(len(s)))
	d.room(len(s))
	d.buf = append(d.buf, s...)
}

func (d *digest) value(b []byte) {
	d.number(uint64(len(b)))
	if len(b) >= cap(d.buf) {
		d.flush()
		d.hash.Write(b)
		return
	}
	d.room(len(b))
	d.buf = append(d.buf, b...)
}

func (d *digest) room(n int) {
	if len(d.buf)+n > cap(d.buf) {
		d.flush()
	}
}

func (d *digest) flush() {
	d.hash.Write(d.buf)
	d.buf = d.buf[:0]
}

func (d *digest) sum() [sha256.Size]byte {
	d.flush()
	return [sha256.Size]byte(d.hash.Sum(nil))
}

func (d *digest) resource(r *journal.Resource) {
	d.text(r.Name)
	d.text(r.TypeURL)
	d.text(r.Version)
	ttl := int64(-1)
	if r.TTL != nil {
		ttl = int64(*r.TTL)
	}
	d.number(uint64(ttl))
	d.value(r.Value)
}

// nodeKey orders nodes by cache, then by name: no cache name holds a zero
// byte, as the caches see to.
func nodeKey(cache, node string) string { return cache + "\x00" + node }

// Node is one node of one cache. It is immutable.
type Node struct {
	cache, name string
	seq         journal.Sequence
	at          time.Time
	types       []Type // sorted by URL
	resources   int
	bytes       int64
}

// NewNode returns a node that holds nothing.
func NewNode(cache, name string) *Node { return &Node{cache: cache, name: name} }

// Cache returns the name of the node's cache.
func (n *Node) Cache() string { return n.cache }

// Name returns the node's key in its cache.
func (n *Node) Name() string { return n.name }

// Sequence returns the sequence of the last event that changed the node.
func (n *Node) Sequence() journal.Sequence { return n.seq }

// Time returns the time of the last event that changed the node.
func (n *Node) Time() time.Time { return n.at }

// NumResources returns the number of the node's resources.
func (n *Node) NumResources() int { return n.resources }

// Bytes returns the sum of the resources' wire sizes.
func (n *Node) Bytes() int64 { return n.bytes }

// Types returns the node's types, sorted by URL. The caller must not change
// the slice.
func (n *Node) Types() []Type { return n.types }

// Type returns a type of the node, nil if it has neither a version nor a
// resource of it.
func (n *Node) Type(url string) *Type {
	if i, ok := n.findType(url); ok {
		return &n.types[i]
	}
	return nil
}

func (n *Node) findType(url string) (int, bool) {
	return slices.BinarySearchFunc(n.types, url, func(t Type, url string) int {
		return strings.Compare(t.url, url)
	})
}

// Apply returns the node after an Update. It does not look at the event's
// sequence, so it also shows what an event that is not yet committed will do.
func (n *Node) Apply(ev *journal.Event) *Node {
	next := *n
	next.seq, next.at = ev.Sequence, ev.Time
	next.types = slices.Clone(n.types)
	for i := range ev.Types {
		next.applyType(&ev.Types[i])
	}
	return &next
}

func (n *Node) applyType(tc *journal.TypeChange) {
	i, found := n.findType(tc.TypeURL)
	t := Type{url: tc.TypeURL}
	if found {
		t = n.types[i]
	}
	before, beforeBytes := t.resources.size, t.bytes
	t.version = tc.Version
	for _, name := range tc.Deletes {
		t.remove(name)
	}
	for _, r := range tc.Upserts {
		t.set(r)
	}
	n.resources += t.resources.size - before
	n.bytes += t.bytes - beforeBytes
	switch gone := t.version == "" && t.resources.size == 0; {
	case gone && found:
		n.types = slices.Delete(n.types, i, i+1)
	case gone:
	case found:
		n.types[i] = t
	default:
		n.types = slices.Insert(n.types, i, t)
	}
}

// Type is all resources of one type of one node, and their version. It is
// immutable.
type Type struct {
	url, version string
	resources    tree[*journal.Resource]
	bytes        int64
}

// URL returns the type URL.
func (t *Type) URL() string { return t.url }

// Version returns the version that the control plane gave the type.
func (t *Type) Version() string { return t.version }

// Len returns the number of resources.
func (t *Type) Len() int { return t.resources.size }

// Shares reports whether two types have the very same resources because one
// comes from the other and no event changed them in between. It costs nothing;
// types that do not share may still hold equal resources.
func (t *Type) Shares(o *Type) bool { return t.resources.root == o.resources.root }

// Get returns a resource by name, nil if there is none.
func (t *Type) Get(name string) *journal.Resource {
	r, _ := t.resources.get(name)
	return r
}

// All yields the resources, sorted by name.
func (t *Type) All() iter.Seq[*journal.Resource] {
	return func(yield func(*journal.Resource) bool) {
		for _, r := range t.resources.all() {
			if !yield(r) {
				return
			}
		}
	}
}

func (t *Type) set(r *journal.Resource) {
	if old, ok := t.resources.get(r.Name); ok {
		t.bytes -= old.Size()
	}
	t.bytes += r.Size()
	t.resources = t.resources.set(r.Name, r)
}

func (t *Type) remove(name string) {
	if old, ok := t.resources.get(name); ok {
		t.bytes -= old.Size()
		t.resources = t.resources.del(name)
	}
}
