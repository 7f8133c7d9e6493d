package state

import (
	"iter"
	"strings"

	"github.com/xdswal/xdswal/journal"
)

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
			// The first key after all nodes of this cache.
			next, found = n.cache+"\x01", true
			break
		}
	}
	return names
}

// from yields the entries from key on.
func (t tree[V]) from(key string) iter.Seq2[string, V] {
	return func(yield func(string, V) bool) {
		if t.root != nil {
			t.root.walkFrom(key, yield)
		}
	}
}

func (p *page[V]) walkFrom(key string, yield func(string, V) bool) bool {
	if p.kids == nil {
		i, _ := p.find(key)
		for _, e := range p.entries[i:] {
			if !yield(e.key, e.val) {
				return false
			}
		}
		return true
	}
	i := p.kidFor(key)
	if !p.kids[i].walkFrom(key, yield) {
		return false
	}
	for _, kid := range p.kids[i+1:] {
		if !kid.walk(yield) {
			return false
		}
	}
	return true
}

// Changes returns what makes a type out of an earlier state of it: resources
// to set and names to remove, each sorted by name. Either may be nil, which is
// a type without resources. The cost grows with the difference, where the two
// share their past.
func Changes(before, after *Type) (upserts []*journal.Resource, deletes []string) {
	var a, b tree[*journal.Resource]
	if before != nil {
		a = before.resources
	}
	if after != nil {
		b = after.resources
	}
	diff(a.root, b.root, func(name string, old, now *journal.Resource) {
		switch {
		case now == nil:
			deletes = append(deletes, name)
		case old != now:
			upserts = append(upserts, now)
		}
	})
	return upserts, deletes
}

// diff calls fn for the keys of two trees whose values may differ; an absent
// value is nil. Pages that both trees share are passed over.
func diff[V any](a, b *page[*V], fn func(key string, old, now *V)) {
	if a == b {
		return
	}
	if a != nil && b != nil && a.kids != nil && b.kids != nil && sameKeys(a.keys, b.keys) {
		for i := range a.kids {
			diff(a.kids[i], b.kids[i], fn)
		}
		return
	}
	diffLeaves(a.leaves(nil), b.leaves(nil), fn)
}

// sameKeys reports whether two branches divide their keys alike. An update
// that splits and merges nothing leaves the slice as it was.
func sameKeys(a, b []string) bool { return len(a) == len(b) && &a[0] == &b[0] }

func (p *page[V]) leaves(out []*page[V]) []*page[V] {
	if p == nil {
		return out
	}
	if p.kids == nil {
		return append(out, p)
	}
	for _, kid := range p.kids {
		out = kid.leaves(out)
	}
	return out
}

// diffLeaves merges two rows of leaves.
func diffLeaves[V any](a, b []*page[*V], fn func(key string, old, now *V)) {
	i, j := 0, 0 // within a[0] and b[0]
	for len(a) > 0 || len(b) > 0 {
		switch {
		case len(a) > 0 && i == len(a[0].entries):
			a, i = a[1:], 0
		case len(b) > 0 && j == len(b[0].entries):
			b, j = b[1:], 0
		case len(a) > 0 && len(b) > 0 && i == 0 && j == 0 && a[0] == b[0]:
			a, b = a[1:], b[1:]
		case len(b) == 0 || (len(a) > 0 && a[0].entries[i].key < b[0].entries[j].key):
			fn(a[0].entries[i].key, a[0].entries[i].val, nil)
			i++
		case len(a) == 0 || a[0].entries[i].key > b[0].entries[j].key:
			fn(b[0].entries[j].key, nil, b[0].entries[j].val)
			j++
		default:
			if old, now := a[0].entries[i].val, b[0].entries[j].val; old != now {
				fn(a[0].entries[i].key, old, now)
			}
			i, j = i+1, j+1
		}
	}
}
