package state_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/journal"
)

// requireChanges checks that the changes between two types are exactly the names with
// different resources, sorted.
func requireChanges(t *testing.T, before, after *state.Type) {
	t.Helper()
	was, is := resourcesOf(before), resourcesOf(after)
	var upserts []*journal.Resource
	for _, name := range slices.Sorted(maps.Keys(is)) {
		if was[name] != is[name] {
			upserts = append(upserts, is[name])
		}
	}
	var deletes []string
	for _, name := range slices.Sorted(maps.Keys(was)) {
		if is[name] == nil {
			deletes = append(deletes, name)
		}
	}
	gotUpserts, gotDeletes := state.Changes(before, after)
	require.Len(t, gotUpserts, len(upserts))
	for i := range upserts {
		require.Same(t, upserts[i], gotUpserts[i])
	}
	require.Equal(t, deletes, gotDeletes)
}

func resourcesOf(typ *state.Type) map[string]*journal.Resource {
	m := map[string]*journal.Resource{}
	if typ != nil {
		for r := range typ.All() {
			m[r.Name] = r
		}
	}
	return m
}

// Changes returns the differences between near and distant versions, after splits and
// merges of pages, and between types that share nothing.
func TestChanges(t *testing.T) {
	for _, names := range []int{3, 40, 400, 3000} {
		t.Run(fmt.Sprintf("%d names", names), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(uint64(names), 1))
			node := state.NewNode("snapshot/c", "n")
			var versions []*state.Node
			for step := range 30 {
				tc := journal.TypeChange{TypeURL: "t", Version: "1"}
				many := rnd.IntN(names/2 + 1)
				if step%3 == 0 {
					many = 1
				}
				for range many {
					name := fmt.Sprintf("name-%05d", rnd.IntN(names))
					if step/5%2 == 0 {
						tc.Upserts = append(tc.Upserts, resource(name))
					} else {
						tc.Deletes = append(tc.Deletes, name)
					}
				}
				node = node.Apply(update("snapshot/c", "n", tc))
				versions = append(versions, node)
			}
			for i, a := range versions {
				requireChanges(t, nil, a.Type("t"))
				requireChanges(t, a.Type("t"), nil)
				for _, j := range []int{i, i + 1, rnd.IntN(len(versions))} {
					if j < len(versions) {
						requireChanges(t, a.Type("t"), versions[j].Type("t"))
					}
				}
			}
		})
	}
}
