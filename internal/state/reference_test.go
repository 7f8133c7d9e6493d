package state_test

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/journal"
)

// reference is a simple implementation of the fold, with maps.
type reference struct {
	seq   journal.Sequence
	at    time.Time
	nodes map[nodeID]refNode
}

type nodeID struct{ cache, node string }

type refNode struct {
	seq   journal.Sequence
	at    time.Time
	types map[string]refType
}

type refType struct {
	version   string
	resources map[string]*journal.Resource
}

func newReference() *reference { return &reference{nodes: map[nodeID]refNode{}} }

func (f *reference) apply(ev *journal.Event) {
	f.seq, f.at = ev.Sequence, ev.Time
	id := nodeID{ev.Cache, ev.Node}
	if ev.Kind == journal.Clear {
		delete(f.nodes, id)
		return
	}
	n := f.nodes[id]
	n.seq, n.at = ev.Sequence, ev.Time
	if n.types == nil {
		n.types = map[string]refType{}
	}
	for _, tc := range ev.Types {
		typ := n.types[tc.TypeURL]
		if typ.resources == nil {
			typ.resources = map[string]*journal.Resource{}
		}
		typ.version = tc.Version
		for _, name := range tc.Deletes {
			delete(typ.resources, name)
		}
		for _, r := range tc.Upserts {
			typ.resources[r.Name] = r
		}
		n.types[tc.TypeURL] = typ
		if typ.version == "" && len(typ.resources) == 0 {
			delete(n.types, tc.TypeURL)
		}
	}
	f.nodes[id] = n
}

func (f *reference) clone() *reference {
	c := &reference{seq: f.seq, at: f.at, nodes: map[nodeID]refNode{}}
	for id, n := range f.nodes {
		types := map[string]refType{}
		for url, typ := range n.types {
			types[url] = refType{typ.version, maps.Clone(typ.resources)}
		}
		c.nodes[id] = refNode{n.seq, n.at, types}
	}
	return c
}

func (f *reference) sorted() []nodeID {
	return slices.SortedFunc(maps.Keys(f.nodes), func(a, b nodeID) int {
		if a.cache != b.cache {
			return compare(a.cache, b.cache)
		}
		return compare(a.node, b.node)
	})
}

func compare(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	default:
		return 0
	}
}

// digest implements the documentation of the digest.
func (f *reference) digest() [32]byte {
	var b []byte
	number := func(n uint64) { b = binary.BigEndian.AppendUint64(b, n) }
	text := func(s string) {
		number(uint64(len(s)))
		b = append(b, s...)
	}
	number(uint64(f.seq))
	number(uint64(len(f.nodes)))
	for _, id := range f.sorted() {
		n := f.nodes[id]
		text(id.cache)
		text(id.node)
		number(uint64(n.seq))
		number(uint64(len(n.types)))
		for _, url := range slices.Sorted(maps.Keys(n.types)) {
			typ := n.types[url]
			text(url)
			text(typ.version)
			number(uint64(len(typ.resources)))
			for _, name := range slices.Sorted(maps.Keys(typ.resources)) {
				r := typ.resources[name]
				text(r.Name)
				text(r.TypeURL)
				text(r.Version)
				ttl := int64(-1)
				if r.TTL != nil {
					ttl = int64(*r.TTL)
				}
				number(uint64(ttl))
				text(string(r.Value))
			}
		}
	}
	return sha256.Sum256(b)
}

// requireState checks that all methods of a state return the same as the reference.
func requireState(t *testing.T, want *reference, st *state.State) {
	t.Helper()
	require.Equal(t, want.seq, st.Sequence())
	require.True(t, want.at.Equal(st.Time()))
	require.Equal(t, len(want.nodes), st.NumNodes())
	resources, bytes := 0, int64(0)
	ids := want.sorted()
	i := 0
	for n := range st.All() {
		require.Less(t, i, len(ids))
		require.Equal(t, ids[i], nodeID{n.Cache(), n.Name()})
		require.Same(t, n, st.Node(n.Cache(), n.Name()))
		requireNode(t, want.nodes[ids[i]], n)
		resources += n.NumResources()
		bytes += n.Bytes()
		i++
	}
	require.Equal(t, len(ids), i)
	require.Equal(t, resources, st.NumResources())
	require.Equal(t, bytes, st.Bytes())
	requireCaches(t, ids, st)
	require.Nil(t, st.Node("snapshot/nowhere", "n"))
	require.Equal(t, want.digest(), st.Digest())
}

func requireCaches(t *testing.T, ids []nodeID, st *state.State) {
	t.Helper()
	var caches []string
	for _, id := range ids {
		caches = append(caches, id.cache)
	}
	caches = slices.Compact(caches)
	require.Equal(t, caches, st.Caches())
	var got []nodeID
	for _, cache := range caches {
		for n := range st.Cache(cache) {
			got = append(got, nodeID{n.Cache(), n.Name()})
		}
	}
	require.Equal(t, ids, got)
	for n := range st.Cache("snapshot") { // a prefix of other names, but not a name
		t.Fatalf("node %q of %q", n.Name(), n.Cache())
	}
}

func requireNode(t *testing.T, want refNode, n *state.Node) {
	t.Helper()
	require.Equal(t, want.seq, n.Sequence())
	require.True(t, want.at.Equal(n.Time()))
	urls := slices.Sorted(maps.Keys(want.types))
	require.Len(t, n.Types(), len(urls))
	require.Nil(t, n.Type("type.googleapis.com/none"))
	resources, bytes := 0, int64(0)
	for i := range n.Types() {
		typ := &n.Types()[i]
		ref := want.types[urls[i]]
		require.Equal(t, urls[i], typ.URL())
		require.Equal(t, ref.version, typ.Version())
		require.Same(t, typ, n.Type(typ.URL()))
		names := slices.Sorted(maps.Keys(ref.resources))
		require.Equal(t, len(names), typ.Len())
		k := 0
		for r := range typ.All() {
			require.Less(t, k, len(names))
			require.Equal(t, names[k], r.Name)
			require.True(t, ref.resources[names[k]].Same(r))
			require.Same(t, r, typ.Get(r.Name))
			bytes += int64(len(r.Value))
			resources++
			k++
		}
		require.Equal(t, len(names), k)
		require.Nil(t, typ.Get("no such name"))
	}
	require.Equal(t, resources, n.NumResources())
	require.Equal(t, bytes, n.Bytes())
}

// source generates random events with consecutive sequences.
type source struct {
	*rand.Rand
	seq   journal.Sequence
	nodes int
	names int
}

var typeURLs = []string{
	"type.googleapis.com/envoy.config.cluster.v3.Cluster",
	"type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
	"type.googleapis.com/envoy.config.listener.v3.Listener",
	"type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
}

func newSource(seed uint64, nodes, names int) *source {
	return &source{Rand: rand.New(rand.NewPCG(seed, 42)), nodes: nodes, names: names}
}

func (s *source) next() *journal.Event {
	s.seq++
	ev := &journal.Event{
		Sequence: s.seq,
		Time:     time.Unix(1_700_000_000, int64(s.seq)),
		Kind:     journal.Update,
		Cache:    []string{"linear/clusters", "snapshot/a", "snapshot/b"}[s.IntN(3)],
	}
	if ev.Cache != "linear/clusters" {
		ev.Node = fmt.Sprintf("node-%d", s.IntN(s.nodes))
	}
	if s.IntN(20) == 0 {
		ev.Kind = journal.Clear
		return ev
	}
	for _, url := range typeURLs {
		if s.IntN(2) == 0 {
			ev.Types = append(ev.Types, s.change(url))
		}
	}
	return ev
}

func (s *source) change(url string) journal.TypeChange {
	tc := journal.TypeChange{TypeURL: url, Version: fmt.Sprintf("v%d", s.seq)}
	if s.IntN(4) == 0 {
		tc.Version = ""
	}
	upserts, deletes := s.IntN(6), s.IntN(4)
	if s.IntN(8) == 0 {
		upserts, deletes = 0, 2*s.names // most likely all
	}
	for range upserts {
		tc.Upserts = append(tc.Upserts, s.resource(url))
	}
	for range deletes {
		tc.Deletes = append(tc.Deletes, s.name())
	}
	return tc
}

func (s *source) name() string { return fmt.Sprintf("name-%04d", s.IntN(s.names)) }

func (s *source) resource(url string) *journal.Resource {
	r := &journal.Resource{
		Name: s.name(), TypeURL: url, Version: fmt.Sprintf("%x", s.Uint32()),
		Value: make([]byte, s.IntN(50)),
	}
	for i := range r.Value {
		r.Value[i] = byte(s.Uint32())
	}
	if s.IntN(3) == 0 {
		ttl := time.Duration(s.IntN(3)) * time.Second
		r.TTL = &ttl
	}
	return r
}

// rebuild copies a state with a builder.
func rebuild(t testing.TB, st *state.State) *state.State {
	t.Helper()
	b := state.NewBuilder(st.Sequence(), st.Time())
	for n := range st.All() {
		require.NoError(t, b.Node(n.Cache(), n.Name(), n.Sequence(), n.Time()))
		for i := range n.Types() {
			typ := &n.Types()[i]
			require.NoError(t, b.Type(typ.URL(), typ.Version()))
			resources := slices.Collect(typ.All())
			half := len(resources) / 2
			require.NoError(t, b.Resources(resources[:half]))
			require.NoError(t, b.Resources(resources[half:]))
		}
	}
	return b.Build()
}
