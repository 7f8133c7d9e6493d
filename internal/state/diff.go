package state

import "github.com/xdswal/xdswal/journal"

// Changes returns the resources to set and the names to remove that turn the type
// before into after, each sorted by name. A nil type has no resources. If one type was
// made from the other, the time depends on the size of the difference.
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

// diff calls fn for each key whose values in two trees may differ; a missing value is
// nil. It skips pages that both trees share.
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

// sameKeys reports whether two branches have the same slice of keys. An update shares
// the slice unless it splits or merges kids.
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

// diffLeaves is diff for two sorted lists of leaves.
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
