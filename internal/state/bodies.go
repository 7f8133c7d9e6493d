package state

import (
	"bytes"
	"hash/maphash"
	"strings"
	"sync"
	"weak"

	"github.com/xdswal/xdswal/journal"
)

// bodies finds equal values among the resources of a state, so that the state holds them
// once. All states that were made from one another share it; it knows the resources of the
// newest of them. What it does not find costs memory and nothing else, so it may forget.
//
// A resource whose value no other one has is held by a plain pointer until it leaves the
// state: nearly all are so, and a weak pointer for each would cost more than the rest of a
// restore. From its second use on, a value has a weak pointer, because nothing counts its
// uses.
type bodies struct {
	mu     sync.Mutex
	sole   table
	shared map[uint64]weak.Pointer[journal.Resource]
	// built are the roots of the trees that were built last, by type: nodes with the same
	// resources share their trees too.
	built map[string]weak.Pointer[page[*journal.Resource]]
	// sweepAt is the length of shared at which the dead are removed.
	sweepAt int
}

// minSweep is the least length of bodies.shared at which the dead are removed.
const minSweep = 1024

func newBodies() *bodies {
	return &bodies{
		shared:  map[uint64]weak.Pointer[journal.Resource]{},
		built:   map[string]weak.Pointer[page[*journal.Resource]]{},
		sweepAt: minSweep,
	}
}

// share returns r, or a resource that is equal to r and has the value of one that the state
// has already. A nil bodies returns r. The caller holds mu.
func (b *bodies) share(r *journal.Resource) *journal.Resource {
	if b == nil || len(r.Value) == 0 {
		return r
	}
	key := contentKey(r)
	held := b.shared[key].Value()
	isSole := held == nil
	if isSole {
		held = b.sole.getOrAdd(key, r)
	}
	if held == nil || !bytes.Equal(held.Value, r.Value) {
		return r
	}
	if isSole {
		b.sole.remove(key, held)
		b.shared[key] = weak.Make(held)
		b.sweep()
	}
	return withValueOf(r, held)
}

// build returns a tree of the resources of a type of a node. The caller holds mu.
func (b *bodies) build(url string, entries []entry[*journal.Resource]) tree[*journal.Resource] {
	if b == nil {
		return build(entries, nil)
	}
	t := build(entries, b.built[url].Value())
	// Few nodes with few resources would gain from it.
	if len(entries) > maxFanout {
		b.built[url] = weak.Make(t.root)
	}
	return t
}

// drop forgets a resource that leaves the newest state. The caller holds mu.
func (b *bodies) drop(r *journal.Resource) {
	if b == nil {
		return
	}
	b.sole.remove(contentKey(r), r)
}

// dropNode forgets the resources of a node. The caller holds mu.
func (b *bodies) dropNode(n *Node) {
	for i := range n.types {
		for r := range n.types[i].All() {
			b.drop(r)
		}
	}
}

func (b *bodies) sweep() {
	if len(b.shared) < b.sweepAt {
		return
	}
	for key, held := range b.shared {
		if held.Value() == nil {
			delete(b.shared, key)
		}
	}
	b.sweepAt = max(minSweep, 2*len(b.shared))
}

// withValueOf returns held, if it is equal to r, or a copy of r with held's value. The copy
// shares no memory with r, whose name and version may be in one allocation with its value.
func withValueOf(r, held *journal.Resource) *journal.Resource {
	if r.Name == held.Name && r.Same(held) {
		return held
	}
	c := *r
	c.Name, c.Version, c.Value = strings.Clone(r.Name), strings.Clone(r.Version), held.Value
	return &c
}

var seed = maphash.MakeSeed()

// contentKey returns a number that resources with equal values have in common. The versions
// that xdscache makes are hashes of the value already: it is the first 6 bytes of them, in
// base64 or hexadecimal. A resource whose own version only looks like that is not found.
func contentKey(r *journal.Resource) uint64 {
	switch len(r.Version) {
	case 16:
		return digits(r.Version[:8], 6)
	case 64:
		return digits(r.Version[:12], 4)
	default:
		return maphash.Bytes(seed, r.Value)
	}
}

// digits returns the number that text has in base64 or hexadecimal, of 6 or 4 bits a digit.
func digits(text string, bits int) uint64 {
	values := &base64Values
	if bits == 4 {
		values = &hexValues
	}
	var n uint64
	for i := range len(text) {
		n = n<<bits | uint64(values[text[i]])
	}
	return n
}

var (
	base64Values = valuesOf("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
	hexValues    = valuesOf("0123456789abcdef")
)

func valuesOf(alphabet string) (values [256]byte) {
	for i := range len(alphabet) {
		values[alphabet[i]] = byte(i)
	}
	return values
}

// table is a hash table with open addressing. Its keys are hashes. It is twice as fast as a
// map, which a restore would notice.
type table struct {
	slots []slot // a power of two; at most three quarters are used
	used  int
}

type slot struct {
	key uint64
	val *journal.Resource // nil if the slot is not used
}

// getOrAdd returns the value of key, or adds val and returns nil.
func (t *table) getOrAdd(key uint64, val *journal.Resource) *journal.Resource {
	if 4*(t.used+1) > 3*len(t.slots) {
		old := t.slots
		t.slots = make([]slot, max(16, 2*len(old)))
		for _, s := range old {
			if s.val != nil {
				*t.find(s.key) = s
			}
		}
	}
	s := t.find(key)
	if s.val == nil {
		*s = slot{key, val}
		t.used++
		return nil
	}
	return s.val
}

// find returns the slot of key, or the unused one where it belongs.
func (t *table) find(key uint64) *slot {
	for i := t.home(key); ; i = t.next(i) {
		if s := &t.slots[i]; s.val == nil || s.key == key {
			return s
		}
	}
}

func (t *table) home(key uint64) int { return int(key & uint64(len(t.slots)-1)) }
func (t *table) next(i int) int      { return (i + 1) & (len(t.slots) - 1) }

// remove removes key if it has val.
func (t *table) remove(key uint64, val *journal.Resource) {
	if t.used == 0 {
		return
	}
	i := t.home(key)
	for t.slots[i].val != nil && t.slots[i].key != key {
		i = t.next(i)
	}
	if t.slots[i].val != val {
		return
	}
	t.used--
	// Later slots move up, if that brings them nearer to their home.
	for j := t.next(i); t.slots[j].val != nil; j = t.next(j) {
		if mask := len(t.slots) - 1; (j-t.home(t.slots[j].key))&mask >= (j-i)&mask {
			t.slots[i], i = t.slots[j], j
		}
	}
	t.slots[i] = slot{}
}
