package state

import (
	"iter"
	"slices"
	"strings"
)

// tree is an immutable sorted map with string keys: a B+tree whose updates copy the
// path from the root to one leaf and share the rest. The zero value is the empty tree.
// All methods are safe for concurrent use.
type tree[V any] struct {
	root *page[V]
	size int
}

// page is a leaf, which has entries, or a branch, which has kids. A page that is part
// of a tree never changes.
type page[V any] struct {
	entries []entry[V] // sorted by key
	kids    []*page[V]
	keys    []string // keys[i] is a lower bound of kids[i]; keys[0] is unused
}

type entry[V any] struct {
	key string
	val V
}

// maxFanout is the maximum number of entries of a leaf and of kids of a branch. With
// 10,000 keys, the times for 16 to 64 differ by less than the noise.
const maxFanout = 32

func (t tree[V]) get(key string) (V, bool) {
	p := t.root
	if p == nil {
		var zero V
		return zero, false
	}
	for p.kids != nil {
		p = p.kids[p.kidFor(key)]
	}
	i, ok := p.find(key)
	if !ok {
		var zero V
		return zero, false
	}
	return p.entries[i].val, true
}

// set returns a tree in which key has val, and the value that it had, or nil.
func (t tree[V]) set(key string, val V) (tree[V], *V) {
	if t.root == nil {
		return tree[V]{root: &page[V]{entries: []entry[V]{{key, val}}}, size: 1}, nil
	}
	p, right, split, old := t.root.set(key, val)
	if right != nil {
		p = &page[V]{kids: []*page[V]{p, right}, keys: []string{"", split}}
	}
	if old == nil {
		t.size++
	}
	t.root = p
	return t, old
}

// del returns a tree without key, or t if key is missing.
func (t tree[V]) del(key string) tree[V] {
	if t.root == nil {
		return t
	}
	p, ok := t.root.del(key)
	if !ok {
		return t
	}
	for p != nil && len(p.kids) == 1 {
		p = p.kids[0]
	}
	return tree[V]{root: p, size: t.size - 1}
}

// all yields the entries in the order of their keys.
func (t tree[V]) all() iter.Seq2[string, V] { return t.from("") }

// from yields the entries with keys from key on, in order.
func (t tree[V]) from(key string) iter.Seq2[string, V] {
	return func(yield func(string, V) bool) {
		if t.root != nil {
			t.root.walk(key, yield)
		}
	}
}

func (p *page[V]) walk(key string, yield func(string, V) bool) bool {
	i := 0
	if p.kids == nil {
		if key != "" {
			i, _ = p.find(key)
		}
		for _, e := range p.entries[i:] {
			if !yield(e.key, e.val) {
				return false
			}
		}
		return true
	}
	if key != "" {
		i = p.kidFor(key)
	}
	for _, kid := range p.kids[i:] {
		if !kid.walk(key, yield) {
			return false
		}
		key = "" // All keys of the next kids are greater.
	}
	return true
}

// kidFor returns the index of the kid that key belongs to.
func (p *page[V]) kidFor(key string) int {
	lo, hi := 1, len(p.keys)
	for lo < hi {
		mid := (lo + hi) / 2
		if p.keys[mid] <= key {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo - 1
}

func (p *page[V]) find(key string) (int, bool) {
	return slices.BinarySearchFunc(p.entries, key, func(e entry[V], key string) int {
		return strings.Compare(e.key, key)
	})
}

// set returns the page with key set, and the value that it had, or nil. If the page was
// split, it also returns the new page to the right and its lower bound.
func (p *page[V]) set(key string, val V) (left, right *page[V], split string, old *V) {
	if p.kids == nil {
		i, found := p.find(key)
		if found {
			entries := slices.Clone(p.entries)
			// The old key would keep the old value's memory.
			entries[i] = entry[V]{key, val}
			return &page[V]{entries: entries}, nil, "", &p.entries[i].val
		}
		left = &page[V]{entries: insert(p.entries, i, entry[V]{key, val})}
		right, split = left.split()
		return left, right, split, nil
	}
	i := p.kidFor(key)
	kid, kidRight, kidSplit, old := p.kids[i].set(key, val)
	left = &page[V]{keys: p.keys}
	if kidRight == nil {
		left.kids = slices.Clone(p.kids)
		left.kids[i] = kid
		return left, nil, "", old
	}
	left.kids = insert(p.kids, i+1, kidRight)
	left.kids[i] = kid
	left.keys = insert(p.keys, i+1, kidSplit)
	right, split = left.split()
	return left, right, split, old
}

// split moves the upper half of a page that is too large, and not yet part of a tree,
// to a new page. The halves do not share an array, and the lower bound is a copy, so
// that a page keeps only its own entries in memory.
func (p *page[V]) split() (*page[V], string) {
	if len(p.entries) > maxFanout {
		half := len(p.entries) / 2
		right := &page[V]{entries: slices.Clone(p.entries[half:])}
		p.entries = slices.Clone(p.entries[:half])
		return right, strings.Clone(right.entries[0].key)
	}
	if len(p.kids) > maxFanout {
		half := len(p.kids) / 2
		right := &page[V]{kids: slices.Clone(p.kids[half:]), keys: slices.Clone(p.keys[half:])}
		p.kids, p.keys = slices.Clone(p.kids[:half]), slices.Clone(p.keys[:half])
		return right, right.keys[0]
	}
	return nil, ""
}

// del returns the page without key, or nil if it would be empty.
func (p *page[V]) del(key string) (*page[V], bool) {
	if p.kids == nil {
		i, found := p.find(key)
		if !found {
			return p, false
		}
		if len(p.entries) == 1 {
			return nil, true
		}
		return &page[V]{entries: remove(p.entries, i)}, true
	}
	i := p.kidFor(key)
	kid, ok := p.kids[i].del(key)
	if !ok {
		return p, false
	}
	if kid == nil {
		if len(p.kids) == 1 {
			return nil, true
		}
		return &page[V]{kids: remove(p.kids, i), keys: remove(p.keys, i)}, true
	}
	q := &page[V]{kids: slices.Clone(p.kids), keys: p.keys}
	q.kids[i] = kid
	q.join(i)
	return q, true
}

// join merges kid i, of a page that is not yet part of a tree, with a neighbor if both
// fill at most half a page. So deletes do not leave many small pages.
func (p *page[V]) join(i int) {
	for _, l := range []int{i - 1, i} {
		if l < 0 || l+1 >= len(p.kids) {
			continue
		}
		a, b := p.kids[l], p.kids[l+1]
		if max(len(a.entries)+len(b.entries), len(a.kids)+len(b.kids)) > maxFanout/2 {
			continue
		}
		merged := &page[V]{entries: slices.Concat(a.entries, b.entries)}
		if a.kids != nil {
			merged = &page[V]{kids: slices.Concat(a.kids, b.kids), keys: slices.Concat(a.keys, b.keys)}
			merged.keys[len(a.keys)] = p.keys[l+1]
		}
		p.kids = remove(p.kids, l+1)
		p.keys = remove(p.keys, l+1)
		p.kids[l] = merged
		return
	}
}

// build returns a tree of entries, which must be sorted by key and distinct. Each page
// has its own array: a shared one would keep all values in memory as long as one page
// is in use. The tree shares the leaves that a similar tree has too, or all of that tree if
// it has the same values; similar is the root of a tree that build has returned, or nil.
func build[V comparable](entries []entry[V], similar *page[V]) tree[V] {
	if len(entries) == 0 {
		return tree[V]{}
	}
	var pages []*page[V]
	var lows []string
	leaves, shared := similar.leaves(nil), 0
	for part := range slices.Chunk(entries, maxFanout) {
		lows = append(lows, strings.Clone(part[0].key))
		if i := len(pages); i < len(leaves) && slices.EqualFunc(leaves[i].entries, part, sameValue) {
			pages = append(pages, leaves[i])
			shared++
			continue
		}
		pages = append(pages, &page[V]{entries: slices.Clone(part)})
	}
	if shared == len(pages) && shared == len(leaves) {
		return tree[V]{root: similar, size: len(entries)}
	}
	for len(pages) > 1 {
		var up []*page[V]
		var upLows []string
		for lo := 0; lo < len(pages); lo += maxFanout {
			hi := min(lo+maxFanout, len(pages))
			up = append(up, &page[V]{kids: slices.Clone(pages[lo:hi]), keys: slices.Clone(lows[lo:hi])})
			upLows = append(upLows, lows[lo])
		}
		pages, lows = up, upLows
	}
	return tree[V]{root: pages[0], size: len(entries)}
}

func sameValue[V comparable](a, b entry[V]) bool { return a.val == b.val }

// insert and remove return a new slice and do not change s.
func insert[E any](s []E, i int, e E) []E {
	out := make([]E, 0, len(s)+1)
	out = append(out, s[:i]...)
	out = append(out, e)
	return append(out, s[i:]...)
}

func remove[E any](s []E, i int) []E {
	out := make([]E, 0, len(s)-1)
	out = append(out, s[:i]...)
	return append(out, s[i+1:]...)
}
