package state

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// sizes are those just below and above the splits of leaves, branches of leaves and
// branches of branches.
var sizes = []int{
	0, 1, 2, maxFanout / 2, maxFanout - 1, maxFanout, maxFanout + 1, 2 * maxFanout, 2*maxFanout + 1,
	maxFanout * maxFanout / 2, maxFanout*maxFanout - 1, maxFanout * maxFanout, maxFanout*maxFanout + 1, 5 * maxFanout * maxFanout,
}

func treeKey(i int) string { return fmt.Sprintf("key-%06d", i) }

// requireTree checks the structure of a tree, and that its entries are those of want.
func requireTree(t *testing.T, tr tree[int], want map[string]int) {
	t.Helper()
	require.Equal(t, len(want), tr.size)
	if tr.root == nil {
		require.Empty(t, want)
		return
	}
	require.NotEqual(t, 1, len(tr.root.kids), "the root is not a branch of one")
	depth := -1
	var check func(p *page[int], level int, low, high string)
	check = func(p *page[int], level int, low, high string) {
		if p.kids == nil {
			if depth < 0 {
				depth = level
			}
			require.Equal(t, depth, level, "all leaves are as deep")
			require.NotEmpty(t, p.entries)
			require.LessOrEqual(t, len(p.entries), maxFanout)
			require.Empty(t, p.keys)
			for i, e := range p.entries {
				require.GreaterOrEqual(t, e.key, low)
				require.True(t, high == "" || e.key < high, "%q is not below %q", e.key, high)
				require.True(t, i == 0 || p.entries[i-1].key < e.key)
			}
			return
		}
		require.Empty(t, p.entries)
		require.LessOrEqual(t, len(p.kids), maxFanout)
		require.Len(t, p.keys, len(p.kids))
		for i, kid := range p.kids {
			kidLow, kidHigh := low, high
			if i > 0 {
				kidLow = p.keys[i]
				require.Greater(t, kidLow, low)
			}
			if i+1 < len(p.kids) {
				kidHigh = p.keys[i+1]
			}
			check(kid, level+1, kidLow, kidHigh)
		}
	}
	check(tr.root, 0, "", "")

	keys := slices.Sorted(maps.Keys(want))
	i := 0
	for key, val := range tr.all() {
		require.Less(t, i, len(keys))
		require.Equal(t, keys[i], key)
		require.Equal(t, want[key], val)
		i++
	}
	require.Equal(t, len(keys), i)
	for _, key := range keys {
		val, ok := tr.get(key)
		require.True(t, ok)
		require.Equal(t, want[key], val)
		_, ok = tr.get(key + "\x00")
		require.False(t, ok)
	}
}

func pages[V any](p *page[V]) int {
	if p == nil {
		return 0
	}
	n := 1
	for _, kid := range p.kids {
		n += pages(kid)
	}
	return n
}

// Trees remain valid while they grow and shrink in several orders.
func TestTreeGrowsAndShrinks(t *testing.T) {
	orders := map[string]func(n int) []int{
		"ascending":       func(n int) []int { return rangeOf(n) },
		"descending":      func(n int) []int { s := rangeOf(n); slices.Reverse(s); return s },
		"random":          func(n int) []int { return rand.New(rand.NewPCG(1, uint64(n))).Perm(n) },
		"from the middle": func(n int) []int { s := rangeOf(n); return slices.Concat(s[n/2:], s[:n/2]) },
	}
	for name, order := range orders {
		t.Run(name, func(t *testing.T) {
			for _, n := range sizes {
				var tr tree[int]
				want := map[string]int{}
				for _, i := range order(n) {
					tr, _ = tr.set(treeKey(i), i)
					want[treeKey(i)] = i
				}
				requireTree(t, tr, want)
				for k, i := range order(n) {
					before := tr
					tr = tr.del(treeKey(i))
					require.Equal(t, before.size-1, tr.size)
					require.Equal(t, tr, tr.del(treeKey(i)), "a second delete changes nothing")
					delete(want, treeKey(i))
					if k%(n/7+1) == 0 {
						requireTree(t, tr, want)
					}
				}
				require.Nil(t, tr.root)
				requireTree(t, tr, want)
			}
		})
	}
}

func rangeOf(n int) []int {
	s := make([]int, n)
	for i := range s {
		s[i] = i
	}
	return s
}

// Changes of a tree do not change the trees that it was made from.
func TestTreeAgainstMap(t *testing.T) {
	for _, keys := range []int{3, maxFanout + 1, 4 * maxFanout, 2000} {
		t.Run(fmt.Sprintf("%d keys", keys), func(t *testing.T) {
			type version struct {
				tree tree[int]
				want map[string]int
			}
			rnd := rand.New(rand.NewPCG(7, uint64(keys)))
			var tr tree[int]
			var versions []version
			want := map[string]int{}
			sets := 0.9
			for step := range 6 * keys {
				if step%keys == keys-1 {
					sets = 1 - sets // grow, then shrink, then grow
				}
				key := treeKey(rnd.IntN(keys))
				if rnd.Float64() < sets {
					tr, _ = tr.set(key, step)
					want[key] = step
				} else {
					tr = tr.del(key)
					delete(want, key)
				}
				if step%(keys/10+1) == 0 {
					versions = append(versions, version{tr, maps.Clone(want)})
				}
			}
			for _, v := range versions {
				requireTree(t, v.tree, v.want)
			}
			requireTree(t, tr, want)
		})
	}
}

// Ranges of keys are deleted and partly set again, so that branches lose their first
// kids and merge.
func TestTreeRanges(t *testing.T) {
	const keys = 6 * maxFanout * maxFanout
	for seed := range uint64(8) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		var tr tree[int]
		want := map[string]int{}
		for range 12 {
			for range rnd.IntN(keys) {
				i := rnd.IntN(keys)
				tr, _ = tr.set(treeKey(i), i)
				want[treeKey(i)] = i
			}
			for range 1 + rnd.IntN(6) {
				low := rnd.IntN(keys)
				high := low + rnd.IntN(keys/4)
				for i := low; i < high; i++ {
					tr = tr.del(treeKey(i))
					delete(want, treeKey(i))
				}
				if i := low + rnd.IntN(high-low+1); i < keys {
					tr, _ = tr.set(treeKey(i), i)
					want[treeKey(i)] = i
				}
			}
			requireTree(t, tr, want)
		}
	}
}

func TestTreeBuild(t *testing.T) {
	for _, n := range sizes {
		want := map[string]int{}
		var entries []entry[int]
		for i := range n {
			entries = append(entries, entry[int]{treeKey(i), i})
			want[treeKey(i)] = i
		}
		tr := build(entries, nil)
		clear(entries) // the caller may use its slice again
		requireTree(t, tr, want)
		if n == 0 {
			continue
		}
		changed, _ := tr.set(treeKey(n/2)+"+", -1)
		changed = changed.del(treeKey(0))
		requireTree(t, tr, want)
		delete(want, treeKey(0))
		want[treeKey(n/2)+"+"] = -1
		requireTree(t, changed, want)
	}
}

// A tree shares with a similar one what both have, and all of it if they are equal.
func TestTreeSharesPages(t *testing.T) {
	for _, n := range sizes {
		want := map[string]int{}
		var entries []entry[int]
		for i := range n {
			entries = append(entries, entry[int]{treeKey(i), i})
			want[treeKey(i)] = i
		}
		similar := build(entries, nil)
		require.Same(t, similar.root, build(entries, similar.root).root)
		if n == 0 {
			continue
		}
		longer := build(append(slices.Clip(entries), entry[int]{treeKey(n), n}), similar.root)
		require.NotSame(t, similar.root, longer.root)
		shorter := build(entries[:n-1], similar.root)
		require.NotSame(t, similar.root, shorter.root)
		changed := slices.Clone(entries)
		changed[n/2].val = -1
		other := build(changed, similar.root)
		requireTree(t, similar, want)
		want[treeKey(n/2)] = -1
		requireTree(t, other, want)
		want[treeKey(n/2)] = n / 2
		delete(want, treeKey(n-1))
		requireTree(t, shorter, want)
		want[treeKey(n-1)], want[treeKey(n)] = n-1, n
		requireTree(t, longer, want)
		ours, theirs := other.root.leaves(nil), similar.root.leaves(nil)
		require.Len(t, ours, len(theirs))
		shared := 0
		for i := range ours {
			if ours[i] == theirs[i] {
				shared++
			}
		}
		require.Equal(t, len(ours)-1, shared)
	}
}

func TestTreeStops(t *testing.T) {
	tr := build([]entry[int]{}, nil)
	want := map[string]int{}
	for i := range 3 * maxFanout {
		tr, _ = tr.set(treeKey(i), i)
		want[treeKey(i)] = i
	}
	for stop := range 3 * maxFanout {
		seen := 0
		for _, val := range tr.all() {
			require.Equal(t, seen, val)
			if seen == stop {
				break
			}
			seen++
		}
		require.Equal(t, stop, seen)
	}
	requireTree(t, tr, want)
}

// After many deletes, a tree has the size of a small one.
func TestTreeGivesPagesBack(t *testing.T) {
	const n, left = 20_000, 200
	want := map[string]int{}
	var entries []entry[int]
	for i := range n {
		entries = append(entries, entry[int]{treeKey(i), i})
		want[treeKey(i)] = i
	}
	tr := build(entries, nil)
	full := pages(tr.root)
	for _, i := range rand.New(rand.NewPCG(3, 3)).Perm(n)[left:] {
		tr = tr.del(treeKey(i))
		delete(want, treeKey(i))
	}
	requireTree(t, tr, want)
	require.Less(t, pages(tr.root), full*4*left/n, "pages are less than four times as thin as before")
}
