package state

import (
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/xdswal/xdswal/journal"
)

// Node is one node of one cache. It is immutable.
type Node struct {
	cache, name string
	seq         journal.Sequence
	at          time.Time
	types       []Type // sorted by URL
	resources   int
	bytes       int64

	clustersSince journal.Sequence
	former        []Former
}

// NewNode returns an empty node.
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

// Bytes returns the sum of the sizes of the resources' values.
func (n *Node) Bytes() int64 { return n.bytes }

// Types returns the node's types, sorted by URL. The caller must not change
// the slice.
func (n *Node) Types() []Type { return n.types }

// Type returns a type of the node, or nil if it has neither a version nor resources
// of it.
func (n *Node) Type(url string) *Type {
	if i, ok := n.findType(url); ok {
		return &n.types[i]
	}
	return nil
}

// NoType is a type without a version and without resources.
var NoType = &Type{}

// TypeOf returns a type of a node, which may be nil, or [NoType].
func TypeOf(n *Node, url string) *Type {
	if n != nil {
		if t := n.Type(url); t != nil {
			return t
		}
	}
	return NoType
}

func (n *Node) findType(url string) (int, bool) {
	return slices.BinarySearchFunc(n.types, url, func(t Type, url string) int {
		return strings.Compare(t.url, url)
	})
}

// Apply returns the node after an Update. It does not check the event's sequence, so
// it also computes the result of an event that is not yet committed.
func (n *Node) Apply(ev *journal.Event) *Node { return n.apply(ev, nil) }

func (n *Node) apply(ev *journal.Event, b *bodies) *Node {
	next := *n
	next.seq, next.at = ev.Sequence, ev.Time
	next.types = slices.Clone(n.types)
	next.keepClusters(n, ev)
	for i := range ev.Types {
		next.applyType(&ev.Types[i], b)
	}
	return &next
}

func (n *Node) applyType(tc *journal.TypeChange, b *bodies) {
	i, found := n.findType(tc.TypeURL)
	t := Type{url: tc.TypeURL}
	if found {
		t = n.types[i]
	}
	before, beforeBytes := t.resources.size, t.bytes
	t.version = tc.Version
	for _, name := range tc.Deletes {
		t.remove(name, b)
	}
	if t.resources.size > 0 || !t.build(tc.Upserts, b) {
		for _, r := range tc.Upserts {
			t.set(r, b)
		}
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

// Version returns the version that the control plane set for the type.
func (t *Type) Version() string { return t.version }

// Len returns the number of resources.
func (t *Type) Len() int { return t.resources.size }

// Shares reports whether one of two types was made from the other without a change
// of resources. It does not compare resources: types that do not share may still be
// equal.
func (t *Type) Shares(o *Type) bool { return t.resources.root == o.resources.root }

// Get returns a resource by name, or nil.
func (t *Type) Get(name string) *journal.Resource {
	r, _ := t.resources.get(name)
	return r
}

// All yields the resources, sorted by name.
func (t *Type) All() iter.Seq[*journal.Resource] { return t.From("") }

// From yields the resources from a name on, sorted by name.
func (t *Type) From(name string) iter.Seq[*journal.Resource] {
	return func(yield func(*journal.Resource) bool) {
		for _, r := range t.resources.from(name) {
			if !yield(r) {
				return
			}
		}
	}
}

// Page is a run of a type's resources.
type Page struct{ entries []entry[*journal.Resource] }

// Pages returns the resources as runs of at most a few dozen, sorted by name, for callers
// that look at all of a large type at once on several processors.
func (t *Type) Pages() []Page {
	leaves := t.resources.root.leaves(nil)
	out := make([]Page, len(leaves))
	for i, leaf := range leaves {
		out[i] = Page{leaf.entries}
	}
	return out
}

// All yields the names and the resources of the page, sorted by name. A caller that needs
// the name alone need not load the resource into the processor's cache.
func (p Page) All() iter.Seq2[string, *journal.Resource] {
	return func(yield func(string, *journal.Resource) bool) {
		for i := range p.entries {
			if e := &p.entries[i]; !yield(e.key, e.val) {
				return
			}
		}
	}
}

// build sets the resources of a type that has none. It returns false if they are not
// sorted.
func (t *Type) build(resources []*journal.Resource, b *bodies) bool {
	for i := 1; i < len(resources); i++ {
		if resources[i-1].Name >= resources[i].Name {
			return false
		}
	}
	entries := make([]entry[*journal.Resource], len(resources))
	for i, r := range resources {
		r = b.share(r)
		entries[i] = entry[*journal.Resource]{r.Name, r}
		t.bytes += r.Size()
	}
	t.resources = b.build(t.url, entries)
	return true
}

func (t *Type) set(r *journal.Resource, b *bodies) {
	if old, ok := t.resources.get(r.Name); ok {
		t.bytes -= old.Size()
		b.drop(old)
	}
	r = b.share(r)
	t.bytes += r.Size()
	t.resources, _ = t.resources.set(r.Name, r)
}

func (t *Type) remove(name string, b *bodies) {
	if old, ok := t.resources.get(name); ok {
		t.bytes -= old.Size()
		b.drop(old)
		t.resources = t.resources.del(name)
	}
}
