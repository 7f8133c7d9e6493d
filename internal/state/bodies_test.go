package state_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"
	"weak"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/journal"
)

// versioned returns a resource whose value is in memory of its own.
func versioned(name, value, version string) *journal.Resource {
	hash := sha256.Sum256([]byte(value))
	switch version {
	case "short":
		version = base64.RawURLEncoding.EncodeToString(hash[:12])
	case "long":
		version = hex.EncodeToString(hash[:])
	}
	return &journal.Resource{Name: name, TypeURL: typeURLs[0], Version: version, Value: []byte(value)}
}

// madeOf returns a state of nodes with these resources of one type, which are sorted.
func madeOf(t testing.TB, made string, nodes ...[]*journal.Resource) *state.State {
	t.Helper()
	st, b := &state.State{}, state.NewBuilder(1, time.Time{})
	for i, resources := range nodes {
		name := fmt.Sprintf("node-%03d", i)
		require.NoError(t, b.Node("snapshot/c", name, 1, time.Time{}))
		require.NoError(t, b.Type("t", "1"))
		require.NoError(t, b.Resources(resources))
		if made == "applied one by one" {
			for _, r := range resources {
				st = applied(t, st, name, journal.TypeChange{TypeURL: "t", Version: "1", Upserts: []*journal.Resource{r}})
			}
		} else {
			st = applied(t, st, name, journal.TypeChange{TypeURL: "t", Version: "1", Upserts: resources})
		}
	}
	if made == "built" {
		return b.Build()
	}
	return st
}

func applied(t testing.TB, st *state.State, node string, changes ...journal.TypeChange) *state.State {
	t.Helper()
	ev := update("snapshot/c", node, changes...)
	ev.Sequence = st.Sequence() + 1
	next, err := st.Apply(ev)
	require.NoError(t, err)
	return next
}

// requireHeldOnce checks that equal values of a state are in one place, and returns the
// number of different ones.
func requireHeldOnce(t testing.TB, st *state.State) int {
	t.Helper()
	at := map[string]*byte{}
	for n := range st.All() {
		for i := range n.Types() {
			for r := range n.Types()[i].All() {
				if len(r.Value) == 0 {
					continue
				}
				p := unsafe.SliceData(r.Value)
				if at[string(r.Value)] == nil {
					at[string(r.Value)] = p
				}
				require.Same(t, at[string(r.Value)], p, "%s of node %s has a value of its own", r.Name, n.Name())
			}
		}
	}
	return len(at)
}

func TestEqualValuesAreHeldOnce(t *testing.T) {
	list := func(resources ...*journal.Resource) []*journal.Resource { return resources }
	minute, hour := time.Minute, time.Hour
	timed := func(r *journal.Resource, ttl *time.Duration) *journal.Resource {
		r.TTL = ttl
		return r
	}
	for _, row := range []struct {
		name      string
		nodes     func() [][]*journal.Resource
		values    int
		resources int // different ones, by address
	}{
		{"in three nodes", func() [][]*journal.Resource {
			n := func() []*journal.Resource { return list(versioned("a", "1", "short"), versioned("b", "2", "short")) }
			return [][]*journal.Resource{n(), n(), n()}
		}, 2, 2},
		{"with versions of the caller's own", func() [][]*journal.Resource {
			n := func() []*journal.Resource { return list(versioned("a", "1", "v1"), versioned("b", "2", "v1")) }
			return [][]*journal.Resource{n(), n()}
		}, 2, 2},
		{"with versions of the caller's own of 16 characters", func() [][]*journal.Resource {
			return [][]*journal.Resource{list(versioned("a", "1", "0123456789abcdef")), list(versioned("a", "1", "0123456789abcdef"))}
		}, 1, 1},
		{"as an earlier xdswal journaled it, and as today", func() [][]*journal.Resource {
			return [][]*journal.Resource{list(versioned("a", "1", "long")), list(versioned("a", "1", "short")), list(versioned("a", "1", "long"))}
		}, 1, 2},
		{"twice in a node", func() [][]*journal.Resource {
			return [][]*journal.Resource{list(versioned("a", "1", "short"), versioned("b", "1", "short"))}
		}, 1, 2},
		{"with different TTLs", func() [][]*journal.Resource {
			return [][]*journal.Resource{list(timed(versioned("a", "1", "short"), &minute)), list(timed(versioned("a", "1", "short"), &hour))}
		}, 1, 2},
	} {
		for _, made := range []string{"built", "applied", "applied one by one"} {
			t.Run(row.name+", "+made, func(t *testing.T) {
				nodes := row.nodes()
				st := madeOf(t, made, nodes...)
				require.Equal(t, row.values, requireHeldOnce(t, st))
				different := map[*journal.Resource]bool{}
				for i, want := range nodes {
					typ := st.Node("snapshot/c", fmt.Sprintf("node-%03d", i)).Type("t")
					require.Equal(t, len(want), typ.Len())
					for _, r := range want {
						got := typ.Get(r.Name)
						require.Equal(t, r.Name, got.Name)
						require.True(t, r.Same(got))
						different[got] = true
					}
				}
				require.Len(t, different, row.resources)
			})
		}
	}
}

// Resources of one version with different values stay different.
func TestEqualVersionsOfDifferentValues(t *testing.T) {
	for _, version := range []string{"1", "0123456789abcdef", strings.Repeat("0", 64)} {
		var nodes [][]*journal.Resource
		for i := range 5 {
			nodes = append(nodes, []*journal.Resource{versioned("a", fmt.Sprint(i), version), versioned("b", fmt.Sprint(i%2), version)})
		}
		for _, made := range []string{"built", "applied"} {
			st := madeOf(t, made, nodes...)
			for i := range 5 {
				typ := st.Node("snapshot/c", fmt.Sprintf("node-%03d", i)).Type("t")
				require.Equal(t, fmt.Sprint(i), string(typ.Get("a").Value))
				require.Equal(t, fmt.Sprint(i%2), string(typ.Get("b").Value))
			}
		}
	}
}

// Values that come and go in many nodes are held once, whatever was dropped before.
func TestEqualValuesAreHeldOnceAfterChanges(t *testing.T) {
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 0))
		st := &state.State{}
		for range 2000 {
			node := fmt.Sprint(random.IntN(8))
			if random.IntN(100) == 0 {
				ev := &journal.Event{Sequence: st.Sequence() + 1, Kind: journal.Clear, Cache: "snapshot/c", Node: node}
				next, err := st.Apply(ev)
				require.NoError(t, err)
				st = next
				continue
			}
			name := fmt.Sprint(random.IntN(60))
			tc := journal.TypeChange{TypeURL: "t", Version: "1"}
			if random.IntN(3) == 0 {
				tc.Deletes = []string{name}
			} else {
				// Each name has a few values. A value of two names could be held twice, when
				// the first of its resources is gone.
				tc.Upserts = []*journal.Resource{versioned(name, name+fmt.Sprint(" value ", random.IntN(4)), "short")}
			}
			st = applied(t, st, node, tc)
		}
		require.Positive(t, requireHeldOnce(t, st))
	}
}

// A value is freed with the last resource that has it, also where several had it.
func TestSharedValuesAreFreed(t *testing.T) {
	long := strings.Repeat("the body ", 1000)
	for _, made := range []string{"built", "applied"} {
		t.Run(made, func(t *testing.T) {
			st := madeOf(t, made,
				[]*journal.Resource{versioned("a", long, "short"), versioned("b", "2", "short")},
				[]*journal.Resource{versioned("a", long, "short"), versioned("b", "2", "short")})
			value := weak.Make(&st.Node("snapshot/c", "node-000").Type("t").Get("a").Value[0])
			st = applied(t, st, "node-000", journal.TypeChange{TypeURL: "t", Version: "2", Deletes: []string{"a"}})
			runtime.GC()
			require.NotNil(t, value.Value())
			st = applied(t, st, "node-001", journal.TypeChange{TypeURL: "t", Version: "2", Upserts: []*journal.Resource{versioned("a", "3", "short")}})
			require.Eventually(t, func() bool {
				runtime.GC()
				return value.Value() == nil
			}, 10*time.Second, time.Millisecond)
			// It is held once again when it comes back.
			st = applied(t, st, "node-000", journal.TypeChange{TypeURL: "t", Version: "3", Upserts: []*journal.Resource{versioned("a", long, "short")}})
			st = applied(t, st, "node-001", journal.TypeChange{TypeURL: "t", Version: "3", Upserts: []*journal.Resource{versioned("a", long, "short")}})
			require.Equal(t, 2, requireHeldOnce(t, st))
		})
	}
}

// What is remembered of shared values is forgotten with them.
func TestSharedValuesAreForgotten(t *testing.T) {
	st := &state.State{}
	round := func(i int) {
		for _, node := range []string{"a", "b"} {
			tc := journal.TypeChange{TypeURL: "t", Version: "1"}
			for k := range 1000 {
				tc.Upserts = append(tc.Upserts, versioned(fmt.Sprintf("%04d", k), fmt.Sprint(i, k), "short"))
			}
			st = applied(t, st, node, tc)
		}
	}
	for i := range 5 {
		round(i)
		runtime.GC()
	}
	before := heap()
	for i := range 50 {
		round(i + 5)
		runtime.GC()
	}
	after := heap()
	t.Logf("%d bytes before, %d after", before, after)
	require.Less(t, after, before+512<<10)
	require.Equal(t, 1000, requireHeldOnce(t, st))
}

// A resource of a value that another one has keeps nothing else of that one in memory, and
// nothing of the memory that it was decoded into.
func TestSharedValueKeepsNoOther(t *testing.T) {
	body := strings.Repeat("the body ", 1000)
	decode := func() (*state.State, weak.Pointer[byte]) {
		block := []byte("b" + body)
		second := &journal.Resource{Name: unsafe.String(&block[0], 1), TypeURL: "t", Version: "2", Value: block[1:]}
		first := &journal.Resource{Name: "a", TypeURL: "t", Version: "1", Value: []byte(body)}
		return madeOf(t, "applied", []*journal.Resource{first, second}), weak.Make(&block[0])
	}
	st, freed := decode()
	require.Eventually(t, func() bool {
		runtime.GC()
		return freed.Value() == nil
	}, 10*time.Second, time.Millisecond)
	require.Equal(t, "2", st.Node("snapshot/c", "node-000").Type("t").Get("b").Version)
	require.Equal(t, 1, requireHeldOnce(t, st))
}

// Nodes with the same resources share their trees too.
func TestEqualNodesShareTheirTrees(t *testing.T) {
	resources := func(changed int) (out []*journal.Resource) {
		for i := range 2000 {
			value := fmt.Sprint("value ", i)
			if i == changed {
				value = "changed"
			}
			out = append(out, versioned(fmt.Sprintf("%05d", i), value, "short"))
		}
		return out
	}
	for _, made := range []string{"built", "applied"} {
		st := madeOf(t, made, resources(-1), resources(-1), resources(1000), resources(1000))
		typ := func(i int) *state.Type { return st.Node("snapshot/c", fmt.Sprintf("node-%03d", i)).Type("t") }
		require.True(t, typ(0).Shares(typ(1)), made)
		require.True(t, typ(2).Shares(typ(3)), made)
		require.False(t, typ(0).Shares(typ(2)), made)
		upserts, deletes := state.Changes(typ(0), typ(2))
		require.Len(t, upserts, 1)
		require.Empty(t, deletes)
		require.Equal(t, "changed", string(typ(3).Get("01000").Value))
		require.Equal(t, "value 1000", string(typ(1).Get("01000").Value))

		// A change of one node is not one of the other.
		next := applied(t, st, "node-001", journal.TypeChange{TypeURL: "t", Version: "2", Deletes: []string{"00000"}})
		require.Equal(t, 1999, next.Node("snapshot/c", "node-001").Type("t").Len())
		require.Equal(t, 2000, next.Node("snapshot/c", "node-000").Type("t").Len())
		requireHeldOnce(t, next)
	}
}
