package state_test

import (
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"
	"unsafe"
	"weak"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/journal"
)

func TestApplyAgainstReference(t *testing.T) {
	tests := []struct {
		name                 string
		nodes, names, events int
	}{
		{"few names, so that types vanish", 2, 3, 600},
		{"several pages of names", 2, 150, 600},
		{"several pages of nodes", 80, 10, 900},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			type version struct {
				state *state.State
				want  *reference
			}
			src := newSource(uint64(tt.names), tt.nodes, tt.names)
			want, st := newReference(), &state.State{}
			versions := []version{{st, want.clone()}}
			for range tt.events {
				ev := src.next()
				want.apply(ev)
				next, err := st.Apply(ev)
				require.NoError(t, err)
				st = next
				if ev.Sequence%50 == 0 {
					versions = append(versions, version{st, want.clone()})
				}
			}
			requireState(t, want, st)
			for _, v := range versions {
				requireState(t, v.want, v.state)
				requireState(t, v.want, rebuild(t, v.state))
			}
		})
	}
}

// Events apply to a built state as to the original.
func TestApplyAfterBuild(t *testing.T) {
	src := newSource(5, 40, 60)
	want, st := newReference(), &state.State{}
	for i := range 600 {
		if i%100 == 99 {
			st = rebuild(t, st)
		}
		ev := src.next()
		want.apply(ev)
		var err error
		st, err = st.Apply(ev)
		require.NoError(t, err)
	}
	requireState(t, want, st)
}

func update(cache, node string, types ...journal.TypeChange) *journal.Event {
	return &journal.Event{Kind: journal.Update, Cache: cache, Node: node, Types: types}
}

func resource(name string) *journal.Resource {
	return &journal.Resource{Name: name, TypeURL: typeURLs[0], Version: "1", Value: []byte(name)}
}

func TestApply(t *testing.T) {
	a, b := resource("a"), resource("b")
	both := journal.TypeChange{TypeURL: "t", Version: "1", Upserts: []*journal.Resource{a, b}}
	tests := []struct {
		name   string
		events []*journal.Event
		// the result for node "n" of cache "snapshot/c"
		there     bool
		types     int
		resources int
		bytes     int64
	}{
		{name: "an update without types creates a node", events: []*journal.Event{update("snapshot/c", "n")}, there: true},
		{name: "a version alone is a type", events: []*journal.Event{
			update("snapshot/c", "n", journal.TypeChange{TypeURL: "t", Version: "1"}),
		}, there: true, types: 1},
		{name: "resources without a version are a type", events: []*journal.Event{
			update("snapshot/c", "n", journal.TypeChange{TypeURL: "t", Upserts: []*journal.Resource{a}}),
		}, there: true, types: 1, resources: 1, bytes: 1},
		{name: "a type without either is none", events: []*journal.Event{
			update("snapshot/c", "n", journal.TypeChange{TypeURL: "t"}),
		}, there: true},
		{name: "a type vanishes with its version and its last resource", events: []*journal.Event{
			update("snapshot/c", "n", both, journal.TypeChange{TypeURL: "u", Version: "1"}),
			update("snapshot/c", "n", journal.TypeChange{TypeURL: "t", Deletes: []string{"a", "b"}}),
		}, there: true, types: 1},
		{name: "a type without resources stays as long as it has a version", events: []*journal.Event{
			update("snapshot/c", "n", both),
			update("snapshot/c", "n", journal.TypeChange{TypeURL: "t", Version: "2", Deletes: []string{"a", "b"}}),
		}, there: true, types: 1},
		{name: "a delete of what is not there", events: []*journal.Event{
			update("snapshot/c", "n", both),
			update("snapshot/c", "n", journal.TypeChange{TypeURL: "t", Version: "2", Deletes: []string{"c"}}),
		}, there: true, types: 1, resources: 2, bytes: 2},
		{name: "a name that is deleted and set exists", events: []*journal.Event{
			update("snapshot/c", "n", both),
			update("snapshot/c", "n", journal.TypeChange{TypeURL: "t", Version: "2", Deletes: []string{"a"}, Upserts: []*journal.Resource{a}}),
		}, there: true, types: 1, resources: 2, bytes: 2},
		{name: "clear", events: []*journal.Event{
			update("snapshot/c", "n", both),
			{Kind: journal.Clear, Cache: "snapshot/c", Node: "n"},
		}},
		{name: "clear of a missing node", events: []*journal.Event{
			{Kind: journal.Clear, Cache: "snapshot/c", Node: "n"},
		}},
		{name: "clear of the same node of another cache", events: []*journal.Event{
			update("snapshot/c", "n", both),
			{Kind: journal.Clear, Cache: "snapshot/d", Node: "n"},
		}, there: true, types: 1, resources: 2, bytes: 2},
		{name: "an update after a clear creates the node again", events: []*journal.Event{
			update("snapshot/c", "n", both),
			{Kind: journal.Clear, Cache: "snapshot/c", Node: "n"},
			update("snapshot/c", "n", journal.TypeChange{TypeURL: "t", Version: "1", Upserts: []*journal.Resource{a}}),
		}, there: true, types: 1, resources: 1, bytes: 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want, st := newReference(), &state.State{}
			for i, ev := range tt.events {
				ev.Sequence = journal.Sequence(i + 1)
				want.apply(ev)
				next, err := st.Apply(ev)
				require.NoError(t, err)
				st = next
			}
			n := st.Node("snapshot/c", "n")
			require.Equal(t, tt.there, n != nil)
			if n != nil {
				require.Len(t, n.Types(), tt.types)
			}
			require.Equal(t, tt.resources, st.NumResources())
			require.Equal(t, tt.bytes, st.Bytes())
			requireState(t, want, st)
		})
	}
}

func TestApplyRefusesOtherThanTheNext(t *testing.T) {
	st := &state.State{}
	for seq := journal.Sequence(1); seq <= 3; seq++ {
		ev := update("snapshot/c", "n")
		ev.Sequence = seq
		next, err := st.Apply(ev)
		require.NoError(t, err)
		st = next
	}
	before := st.Digest()
	for _, seq := range []journal.Sequence{0, 1, 3, 5, 1 << 63} {
		ev := update("snapshot/c", "other")
		ev.Sequence = seq
		next, err := st.Apply(ev)
		require.ErrorIs(t, err, state.ErrOrder)
		require.Nil(t, next)
	}
	require.Equal(t, before, st.Digest())
	require.Equal(t, 1, st.NumNodes())
}

// Node.Apply computes the result of an event before it has a sequence.
func TestNodeApply(t *testing.T) {
	n := state.NewNode("snapshot/c", "n")
	after := n.Apply(update("snapshot/c", "n", journal.TypeChange{
		TypeURL: "t", Version: "1", Upserts: []*journal.Resource{resource("a"), resource("b")},
	}))
	require.Equal(t, 2, after.NumResources())
	require.Equal(t, int64(2), after.Bytes())
	require.Equal(t, journal.Sequence(0), after.Sequence())
	require.Empty(t, n.Types())
	require.Zero(t, n.NumResources())
	require.Equal(t, []string{"snapshot/c", "n"}, []string{after.Cache(), after.Name()})
}

func TestBuilderRefusesDisorder(t *testing.T) {
	node := func(cache, name string) func(*state.Builder) error {
		return func(b *state.Builder) error { return b.Node(cache, name, 1, time.Time{}) }
	}
	typ := func(url string) func(*state.Builder) error {
		return func(b *state.Builder) error { return b.Type(url, "1") }
	}
	add := func(names ...string) func(*state.Builder) error {
		var rs []*journal.Resource
		for _, name := range names {
			rs = append(rs, resource(name))
		}
		return func(b *state.Builder) error { return b.Resources(rs) }
	}
	tests := []struct {
		name  string
		steps []func(*state.Builder) error // the last one is refused
	}{
		{"type before a node", []func(*state.Builder) error{typ("t")}},
		{"resources before a node", []func(*state.Builder) error{add("a")}},
		{"resources before a type", []func(*state.Builder) error{node("c", "n"), add("a")}},
		{"resources before a type of the second node", []func(*state.Builder) error{node("c", "n"), typ("t"), add("a"), node("c", "o"), add("b")}},
		{"node twice", []func(*state.Builder) error{node("c", "n"), node("c", "n")}},
		{"nodes unsorted", []func(*state.Builder) error{node("c", "n"), node("c", "m")}},
		{"caches unsorted", []func(*state.Builder) error{node("c", "n"), node("b", "o")}},
		{"type twice", []func(*state.Builder) error{node("c", "n"), typ("t"), add("a"), typ("t")}},
		{"types unsorted", []func(*state.Builder) error{node("c", "n"), typ("t"), typ("s")}},
		{"resource twice", []func(*state.Builder) error{node("c", "n"), typ("t"), add("a", "a")}},
		{"resources unsorted", []func(*state.Builder) error{node("c", "n"), typ("t"), add("b", "a")}},
		{"resources unsorted across calls", []func(*state.Builder) error{node("c", "n"), typ("t"), add("b"), add("a")}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := state.NewBuilder(1, time.Time{})
			last := len(tt.steps) - 1
			for _, step := range tt.steps[:last] {
				require.NoError(t, step(b))
			}
			require.ErrorContains(t, tt.steps[last](b), "not in sorted order")
		})
	}
}

// A cache whose name begins with the name of another cache sorts after all nodes of
// the other cache.
func TestOrderOfCaches(t *testing.T) {
	want, st := newReference(), &state.State{}
	for i, id := range []nodeID{{"b", "z"}, {"a", "z"}, {"ab", "a"}, {"a", ""}, {"a", "b"}, {"a!", "0"}} {
		ev := update(id.cache, id.node)
		ev.Sequence = journal.Sequence(i + 1)
		want.apply(ev)
		next, err := st.Apply(ev)
		require.NoError(t, err)
		st = next
	}
	requireState(t, want, st)
	requireState(t, want, rebuild(t, st))
}

// States that a client can distinguish have different digests.
func TestDigest(t *testing.T) {
	type part struct {
		seq, nodeSeq            journal.Sequence
		cache, node             string
		url, version            string
		name, resURL, resourceV string
		value                   string
		ttl                     *time.Duration
		more                    []*journal.Resource
	}
	second, zero := time.Second, time.Duration(0)
	base := part{9, 8, "snapshot/c", "node", "url", "v1", "name", "type", "hash", "value", &second, nil}
	digest := func(p part) [32]byte {
		b := state.NewBuilder(p.seq, time.Unix(1, 0))
		require.NoError(t, b.Node(p.cache, p.node, p.nodeSeq, time.Unix(2, 0)))
		require.NoError(t, b.Type(p.url, p.version))
		require.NoError(t, b.Resources(append([]*journal.Resource{{
			Name: p.name, TypeURL: p.resURL, Version: p.resourceV, Value: []byte(p.value), TTL: p.ttl,
		}}, p.more...)))
		return b.Build().Digest()
	}
	tests := []struct {
		name   string
		change func(*part)
	}{
		{"sequence", func(p *part) { p.seq++ }},
		{"sequence of the node", func(p *part) { p.nodeSeq++ }},
		{"cache", func(p *part) { p.cache += "x" }},
		{"node", func(p *part) { p.node += "x" }},
		{"type URL", func(p *part) { p.url += "x" }},
		{"type version", func(p *part) { p.version = "v2" }},
		{"no type version", func(p *part) { p.version = "" }},
		{"name", func(p *part) { p.name += "x" }},
		{"resource type", func(p *part) { p.resURL += "x" }},
		{"resource version", func(p *part) { p.resourceV += "x" }},
		{"value", func(p *part) { p.value = "Value" }},
		{"shorter value", func(p *part) { p.value = "valu" }},
		{"no value", func(p *part) { p.value = "" }},
		{"other TTL", func(p *part) { p.ttl = ptr(second + 1) }},
		{"TTL of zero", func(p *part) { p.ttl = &zero }},
		{"no TTL", func(p *part) { p.ttl = nil }},
		{"another resource", func(p *part) { p.more = []*journal.Resource{resource("z")} }},
		{"a letter moved from name to type", func(p *part) { p.name, p.resURL = "nam", "etype" }},
		{"a letter moved from cache to node", func(p *part) { p.cache, p.node = "snapshot/", "cnode" }},
	}
	seen := map[[32]byte]string{digest(base): "base"}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := base
			tt.change(&p)
			d := digest(p)
			require.Empty(t, seen[d])
			seen[d] = tt.name
			require.Equal(t, d, digest(p))
		})
	}
	require.Len(t, seen, len(tests)+1)
}

func ptr[T any](v T) *T { return &v }

// Values of all sizes around those of the digest's buffer are hashed completely.
func TestDigestOfLargeValues(t *testing.T) {
	want, st := newReference(), &state.State{}
	for i, size := range []int{0, 1, 32<<10 - 9, 32<<10 - 8, 32<<10 - 1, 32 << 10, 32<<10 + 1, 1 << 20} {
		r := resource(fmt.Sprint(i))
		r.Value = slices.Repeat([]byte{byte(i + 1)}, size)
		ev := update("snapshot/c", "n", journal.TypeChange{TypeURL: "t", Version: "1", Upserts: []*journal.Resource{r}})
		ev.Sequence = journal.Sequence(i + 1)
		want.apply(ev)
		next, err := st.Apply(ev)
		require.NoError(t, err)
		st = next
		requireState(t, want, st)
	}
}

// Readers of a state never wait for later events, and never see them.
func TestConcurrentReaders(t *testing.T) {
	src := newSource(11, 10, 80)
	want, st := newReference(), &state.State{}
	var wg sync.WaitGroup
	for range 30 {
		for range 10 {
			ev := src.next()
			want.apply(ev)
			next, err := st.Apply(ev)
			require.NoError(t, err)
			st = next
		}
		view, digest := st, want.digest()
		for range 3 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				if view.Digest() != digest {
					t.Error("a view changed")
				}
				n := view.Node("linear/clusters", "")
				if n != nil && n.Type(typeURLs[0]) != nil {
					n.Type(typeURLs[0]).Get("name-0001")
				}
			}()
		}
	}
	wg.Wait()
	requireState(t, want, st)
}

// A buffer with the names and values of several resources is freed once all of them
// are replaced or deleted. A page keeps no resources of other pages in memory.
func TestChangedResourcesAreFreed(t *testing.T) {
	const n = 2000
	set := func(name string, tc *journal.TypeChange) { tc.Upserts = append(tc.Upserts, resource(name)) }
	del := func(name string, tc *journal.TypeChange) { tc.Deletes = append(tc.Deletes, name) }
	tests := []struct {
		name   string
		made   string
		part   string // whose resources change; each part has one buffer
		change func(name string, tc *journal.TypeChange)
	}{
		{"built, first half replaced", "built", "a", set},
		{"built, second half replaced", "built", "b", set},
		{"built, first half deleted", "built", "a", del},
		{"built, second half deleted", "built", "b", del},
		{"applied, first half replaced", "applied", "a", set},
		{"applied, second half replaced", "applied", "b", set},
		{"applied, first half deleted", "applied", "a", del},
		{"applied, second half deleted", "applied", "b", del},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, aBuffer := inOneBuffer("a", n)
			b, bBuffer := inOneBuffer("b", n)
			buffers := map[string]weak.Pointer[byte]{"a": aBuffer, "b": bBuffer}
			st := stateOf(t, tt.made, slices.Concat(a, b))
			tc := journal.TypeChange{TypeURL: "t", Version: "2"}
			for i := range n {
				tt.change(fmt.Sprintf("%s-%05d", tt.part, i), &tc)
			}
			ev := update("snapshot/c", "n", tc)
			ev.Sequence = st.Sequence() + 1
			st, err := st.Apply(ev)
			require.NoError(t, err)
			runtime.GC()
			runtime.GC()
			require.Nil(t, buffers[tt.part].Value(), "the changed resources' buffer is still in use")
			delete(buffers, tt.part)
			for _, other := range buffers {
				require.NotNil(t, other.Value())
			}
			require.GreaterOrEqual(t, st.NumResources(), n)
		})
	}
}

func stateOf(t *testing.T, made string, resources []*journal.Resource) *state.State {
	t.Helper()
	if made == "applied" {
		st, err := new(state.State).Apply(&journal.Event{
			Sequence: 1, Kind: journal.Update, Cache: "snapshot/c", Node: "n",
			Types: []journal.TypeChange{{TypeURL: "t", Version: "1", Upserts: resources}},
		})
		require.NoError(t, err)
		return st
	}
	b := state.NewBuilder(1, time.Time{})
	require.NoError(t, b.Node("snapshot/c", "n", 1, time.Time{}))
	require.NoError(t, b.Type("t", "1"))
	require.NoError(t, b.Resources(resources))
	return b.Build()
}

// inOneBuffer returns n resources whose names and values are parts of one buffer.
func inOneBuffer(prefix string, n int) ([]*journal.Resource, weak.Pointer[byte]) {
	var buf []byte
	for i := range n {
		buf = fmt.Appendf(buf, "%s-%05d", prefix, i)
	}
	size := len(buf) / n
	var out []*journal.Resource
	for i := range n {
		part := buf[i*size : (i+1)*size]
		out = append(out, &journal.Resource{
			Name: unsafe.String(&part[0], size), TypeURL: "t", Version: "1", Value: part,
		})
	}
	return out, weak.Make(&buf[0])
}
