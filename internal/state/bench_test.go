package state_test

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/journal"
)

func manyResources(n int) []*journal.Resource {
	out := make([]*journal.Resource, n)
	for i := range out {
		out[i] = resource(fmt.Sprintf("service-%06d.team.svc.cluster.local", i))
	}
	return out
}

func build(tb testing.TB, resources []*journal.Resource) *state.State {
	b := state.NewBuilder(1, time.Time{})
	require.NoError(tb, b.Node("snapshot/c", "n", 1, time.Time{}))
	require.NoError(tb, b.Type("t", "1"))
	require.NoError(tb, b.Resources(resources))
	return b.Build()
}

// The time for an event must not depend on the size of its node.
func BenchmarkApplyOne(b *testing.B) {
	for _, n := range []int{100, 10_000, 100_000} {
		b.Run(fmt.Sprintf("of=%d", n), func(b *testing.B) {
			resources := manyResources(n)
			st := build(b, resources)
			ev := update("snapshot/c", "n", journal.TypeChange{TypeURL: "t", Version: "2"})
			upserts := []*journal.Resource{nil}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				i = (i + 7919) % n
				upserts[0] = resources[i]
				ev.Types[0].Upserts = upserts
				ev.Sequence = st.Sequence() + 1
				next, err := st.Apply(ev)
				if err != nil {
					b.Fatal(err)
				}
				st = next
			}
		})
	}
}

func BenchmarkApplyNodes(b *testing.B) {
	for _, n := range []int{100, 10_000, 100_000} {
		b.Run(fmt.Sprintf("of=%d", n), func(b *testing.B) {
			st := &state.State{}
			apply := func(i int) {
				ev := update("snapshot/c", fmt.Sprintf("node-%06d", i), journal.TypeChange{TypeURL: "t", Version: "1"})
				ev.Sequence = st.Sequence() + 1
				next, err := st.Apply(ev)
				if err != nil {
					b.Fatal(err)
				}
				st = next
			}
			for i := range n {
				apply(i)
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				i = (i + 7919) % n
				apply(i)
			}
		})
	}
}

func BenchmarkBuilder(b *testing.B) {
	resources := manyResources(100_000)
	b.ReportAllocs()
	for b.Loop() {
		build(b, resources)
	}
}

// BenchmarkMemory reports the memory of the trees without the resources.
func BenchmarkMemory(b *testing.B) {
	const n = 100_000
	resources := manyResources(n)
	for _, made := range []string{"built", "applied"} {
		b.Run(made, func(b *testing.B) {
			var perResource float64
			for b.Loop() {
				before := heap()
				var st *state.State
				if made == "built" {
					st = build(b, resources)
				} else {
					st = &state.State{}
					for i := range resources {
						ev := update("snapshot/c", "n", journal.TypeChange{TypeURL: "t", Version: "1", Upserts: resources[i : i+1]})
						ev.Sequence = st.Sequence() + 1
						var err error
						st, err = st.Apply(ev)
						require.NoError(b, err)
					}
				}
				perResource = float64(heap()-before) / n
				runtime.KeepAlive(st)
			}
			b.ReportMetric(perResource, "heap-B/resource")
		})
	}
	runtime.KeepAlive(resources)
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
