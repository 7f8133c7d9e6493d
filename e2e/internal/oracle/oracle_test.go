package oracle_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/e2e/internal/oracle"
)

var types = []string{"cluster", "endpoint"}

func cluster(name string) oracle.Key  { return oracle.Key{Type: "cluster", Name: name} }
func endpoint(name string) oracle.Key { return oracle.Key{Type: "endpoint", Name: name} }

// store is the simplest correct store.
type store struct {
	events []oracle.Event
	nodes  map[string]oracle.Node
}

func newStore() *store { return &store{nodes: map[string]oracle.Node{}} }

func (s *store) seq() uint64 { return uint64(len(s.events)) }

// apply applies an update and returns the answer.
func (s *store) apply(u oracle.Update) uint64 {
	old, ok := s.nodes[u.Node]
	if u.Kind == oracle.Delete {
		if ok {
			delete(s.nodes, u.Node)
			s.events = append(s.events, oracle.Event{Seq: s.seq() + 1, Node: u.Node, Clear: true})
		}
		return s.seq()
	}
	ev := oracle.Event{Seq: s.seq() + 1, Node: u.Node, Version: u.ID}
	n := oracle.Node{Seq: ev.Seq, Versions: map[string]string{}, Resources: map[oracle.Key]string{}}
	gone := u.Remove
	if u.Kind == oracle.Put {
		for _, t := range types {
			n.Versions[t] = u.ID
		}
		gone = slices.Collect(maps.Keys(old.Resources))
	} else {
		maps.Copy(n.Versions, old.Versions)
		maps.Copy(n.Resources, old.Resources)
	}
	for _, k := range gone {
		_, exists := old.Resources[k]
		if _, set := u.Set[k]; exists && !set {
			ev.Removed = append(ev.Removed, k)
			delete(n.Resources, k)
		}
		if _, ok := n.Versions[k.Type]; ok {
			n.Versions[k.Type] = u.ID
		}
	}
	for k, content := range u.Set {
		ev.Set = append(ev.Set, k)
		n.Resources[k], n.Versions[k.Type] = content, u.ID
	}
	s.nodes[u.Node] = n
	s.events = append(s.events, ev)
	return ev.Seq
}

func (s *store) view() oracle.View {
	v := oracle.View{Seq: s.seq(), Nodes: map[string]oracle.Node{}}
	for name, n := range s.nodes {
		v.Nodes[name] = oracle.Node{Seq: n.Seq, Versions: maps.Clone(n.Versions), Resources: maps.Clone(n.Resources)}
	}
	return v
}

// history is a correct history of three nodes: a is put, patched and put, b is put and
// deleted, and c is created by a patch.
type history struct {
	oracle *oracle.Oracle
	store  *store
	events []oracle.Event
	view   oracle.View
}

func updates() []oracle.Update {
	set := func(id string, keys ...oracle.Key) map[oracle.Key]string {
		out := map[oracle.Key]string{}
		for _, k := range keys {
			out[k] = id + "/" + k.Name
		}
		return out
	}
	return []oracle.Update{
		{ID: "1", Node: "a", Kind: oracle.Put, Set: set("1", cluster("x"), endpoint("x"))},
		{ID: "2", Node: "b", Kind: oracle.Put, Set: set("2", cluster("x"))},
		{ID: "3", Node: "a", Kind: oracle.Patch, Set: set("3", cluster("y")), Remove: []oracle.Key{endpoint("x")}},
		{ID: "4", Node: "c", Kind: oracle.Patch, Set: set("4", cluster("x"))},
		{ID: "5", Node: "b", Kind: oracle.Delete},
		{ID: "6", Node: "a", Kind: oracle.Put, Set: set("6", cluster("x"))},
	}
}

func (h *history) send(u oracle.Update) {
	h.oracle.Sending(u)
	h.oracle.Returned(u.ID, h.store.apply(u))
}

func newHistory() *history {
	h := &history{oracle: oracle.New(types), store: newStore()}
	for _, u := range updates() {
		h.send(u)
	}
	h.events, h.view = slices.Clone(h.store.events), h.store.view()
	return h
}

func (h *history) check() error {
	if err := h.oracle.Observe(h.events); err != nil {
		return err
	}
	return h.oracle.Check(h.view)
}

// refold replaces the store by one that applied other updates.
func (h *history) refold(updates ...oracle.Update) {
	h.store = newStore()
	for _, u := range updates {
		h.store.apply(u)
	}
	h.events, h.view = h.store.events, h.store.view()
}

func TestAcceptsCorrectHistories(t *testing.T) {
	for name, more := range map[string]func(h *history){
		"returned": func(*history) {},
		"unanswered and lost": func(h *history) {
			h.oracle.Sending(oracle.Update{ID: "7", Node: "a", Kind: oracle.Delete})
			h.oracle.Sending(oracle.Update{ID: "8", Node: "d", Kind: oracle.Put})
		},
		"unanswered and durable": func(h *history) {
			for _, u := range []oracle.Update{
				{ID: "7", Node: "a", Kind: oracle.Delete},
				{ID: "8", Node: "d", Kind: oracle.Patch, Set: map[oracle.Key]string{cluster("x"): "8"}},
			} {
				h.oracle.Sending(u)
				h.store.apply(u)
			}
		},
		"rejected": func(h *history) {
			h.oracle.Sending(oracle.Update{ID: "7", Node: "a", Kind: oracle.Delete})
			h.oracle.Rejected("7")
		},
		"delete of an absent node": func(h *history) {
			h.send(oracle.Update{ID: "7", Node: "b", Kind: oracle.Delete})
			h.send(oracle.Update{ID: "8", Node: "d", Kind: oracle.Delete})
		},
		"concurrent updates in either order": func(h *history) {
			first := oracle.Update{ID: "7", Node: "a", Kind: oracle.Put, Set: map[oracle.Key]string{cluster("x"): "7"}}
			second := oracle.Update{ID: "8", Node: "a", Kind: oracle.Put, Set: map[oracle.Key]string{cluster("x"): "8"}}
			h.oracle.Sending(first)
			h.oracle.Sending(second)
			h.oracle.Returned("8", h.store.apply(second))
			h.oracle.Returned("7", h.store.apply(first))
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHistory()
			more(h)
			h.events, h.view = h.store.events, h.store.view()
			require.NoError(t, h.check())
			require.NoError(t, h.check(), "the same view again")
			h.send(oracle.Update{ID: "99", Node: "b", Kind: oracle.Put})
			h.events, h.view = h.store.events[h.oracle.Next()-1:], h.store.view()
			require.NoError(t, h.check(), "a round later")
		})
	}
}

func TestRejectsWrongHistories(t *testing.T) {
	sent := updates()
	for _, tc := range []struct {
		name   string
		change func(h *history)
		want   string
	}{
		{"the last returned update is lost", func(h *history) {
			h.refold(sent[:5]...)
		}, "got sequence 5, want at least the returned 6"},
		{"a returned update in the middle is lost", func(h *history) {
			h.refold(sent[0], sent[1], sent[3], sent[4], sent[5])
		}, `update "3" of node "a" has returned sequence 3 and is missing from the journal`},
		{"another update has its sequence", func(h *history) {
			other := oracle.Update{ID: "7", Node: "a", Kind: oracle.Put, Set: map[oracle.Key]string{cluster("x"): "7"}}
			h.oracle.Sending(other)
			h.refold(sent[0], sent[1], other, sent[3], sent[4], sent[5])
		}, `update "3" of node "a" has returned sequence 3 and is missing from the journal`},
		{"a delete is lost", func(h *history) {
			h.refold(sent[0], sent[1], sent[2], sent[3], sent[5])
			h.events = append(h.events, oracle.Event{Seq: 6, Node: "a", Version: "6"})
		}, `delete "5" of node "b" has returned sequence 5 without an event, but the node was present`},
		{"everything is lost", func(h *history) {
			h.refold()
		}, "got sequence 0, want at least the returned 6"},
		{"a version that was never sent", func(h *history) {
			h.events[5].Version = "foreign"
		}, `event 6 of node "a": version "foreign" was never sent`},
		{"an update of another node", func(h *history) {
			h.events[5].Node = "c"
		}, `event 6: update "6" of node "c" was sent for node "a"`},
		{"a resource that the update did not set", func(h *history) {
			h.events[5].Set = append(h.events[5].Set, cluster("z"))
		}, "event 6 sets {cluster z}, but update \"6\" does not"},
		{"a removal of an absent resource", func(h *history) {
			h.events[3].Removed = []oracle.Key{cluster("q")}
		}, "event 4 removes {cluster q}"},
		{"foreign content", func(h *history) {
			h.view.Nodes["a"].Resources[cluster("x")] = "foreign"
		}, "{cluster x} has the content of another update"},
		{"content of an earlier update", func(h *history) {
			h.view.Nodes["a"].Resources[cluster("x")] = "1/x"
		}, "{cluster x} has the content of another update"},
		{"a foreign resource", func(h *history) {
			h.view.Nodes["a"].Resources[cluster("y")] = "3/y"
		}, "{cluster y} is present, want it absent"},
		{"half an update", func(h *history) {
			delete(h.view.Nodes["c"].Resources, cluster("x"))
		}, `node "c": {cluster x} is missing`},
		{"an old version", func(h *history) {
			h.view.Nodes["a"].Versions["endpoint"] = "3"
		}, `node "a": got versions`},
		{"a foreign node", func(h *history) {
			h.view.Nodes["z"] = oracle.Node{}
		}, `node "z" is present, but no update was sent for it`},
		{"a missing node", func(h *history) {
			delete(h.view.Nodes, "c")
		}, `node "c" is absent, want it as of event 4`},
		{"a deleted node that is present", func(h *history) {
			h.view.Nodes["b"] = oracle.Node{Seq: 2, Versions: map[string]string{"cluster": "2", "endpoint": "2"}, Resources: map[oracle.Key]string{cluster("x"): "2/x"}}
		}, `node "b" is present, want it absent after its events`},
		{"a node in an earlier state", func(h *history) {
			earlier := newStore()
			for _, u := range sent[:3] {
				earlier.apply(u)
			}
			h.view.Nodes["a"] = earlier.view().Nodes["a"]
		}, `node "a": got event 3, want 6`},
		{"two updates of a node swapped", func(h *history) {
			h.refold(sent[0], sent[1], sent[5], sent[3], sent[4], sent[2])
		}, `event 3: update "6" has returned sequence 6`},
		{"two updates of different nodes swapped", func(h *history) {
			h.refold(sent[0], sent[1], sent[3], sent[2], sent[4], sent[5])
		}, `event 3: update "4" has returned sequence 4`},
		{"an unanswered update before one that had returned when it was sent", func(h *history) {
			late := oracle.Update{ID: "7", Node: "c", Kind: oracle.Put}
			h.oracle.Sending(late)
			h.refold(sent[0], sent[1], sent[2], sent[3], sent[4], late, sent[5])
		}, `event 6: update "7" was sent after update "6", event 7, had returned`},
		{"an update twice", func(h *history) {
			h.refold(append(slices.Clone(sent), sent[2])...)
		}, `event 7: update "3" is event 3 already`},
		{"an update that was rejected", func(h *history) {
			rejected := oracle.Update{ID: "7", Node: "c", Kind: oracle.Put}
			h.oracle.Sending(rejected)
			h.oracle.Rejected("7")
			h.refold(append(slices.Clone(sent), rejected)...)
		}, `event 7: update "7" was rejected`},
		{"a node removed without a delete", func(h *history) {
			h.refold(append(slices.Clone(sent), oracle.Update{Node: "a", Kind: oracle.Delete})...)
		}, `event 7 removes node "a", but no delete was sent for it`},
		{"a delete without an event although the node was present", func(h *history) {
			h.oracle.Sending(oracle.Update{ID: "7", Node: "a", Kind: oracle.Delete})
			h.oracle.Returned("7", 6)
		}, `delete "7" of node "a" has returned sequence 6 without an event, but the node was present from 6 on`},
		{"a missing event", func(h *history) {
			h.events = slices.Delete(h.events, 2, 3)
		}, "got event 4, want 3"},
		{"the journal ends before the state", func(h *history) {
			h.events = h.events[:5]
		}, "got sequence 6, want 5 as observed"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := newHistory()
			tc.change(h)
			require.ErrorContains(t, h.check(), tc.want)
		})
	}
}

func TestRejectsChangedEvent(t *testing.T) {
	h := newHistory()
	require.NoError(t, h.check())
	h.events[2].Version = "6"
	require.ErrorContains(t, h.check(), "event 3 has changed")
}

func TestRejectsEventThatAppearsLater(t *testing.T) {
	h := newHistory()
	lost := oracle.Update{ID: "7", Node: "c", Kind: oracle.Put}
	h.oracle.Sending(lost)
	require.NoError(t, h.check())
	h.store.apply(lost)
	h.events, h.view = h.store.events, h.store.view()
	require.ErrorContains(t, h.check(), `update "7" was missing after an earlier restart`)
}

// TestRandomHistories sends random updates, some of them concurrently, and removes one event
// in every second history.
func TestRandomHistories(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 1))
		o, correct := oracle.New(types), newStore()
		var applied []oracle.Update
		lost := -1 // in applied
		for round := range 20 {
			group := make([]oracle.Update, 1+r.IntN(4))
			for i := range group {
				id := fmt.Sprint(round, ".", i)
				group[i] = oracle.Update{ID: id, Node: string(rune('a' + r.IntN(3))), Kind: oracle.Kind(1 + r.IntN(3))}
				if group[i].Kind != oracle.Delete {
					group[i].Set = map[oracle.Key]string{cluster(string(rune('p' + r.IntN(3)))): id}
				}
				o.Sending(group[i])
			}
			r.Shuffle(len(group), func(i, j int) { group[i], group[j] = group[j], group[i] })
			for _, u := range group {
				before := correct.seq()
				seq := correct.apply(u)
				if r.IntN(4) > 0 {
					o.Returned(u.ID, seq)
					if seq > before && u.Kind != oracle.Delete {
						lost = len(applied)
					}
				}
				applied = append(applied, u)
			}
		}
		if seed%2 == 0 {
			require.NoError(t, o.Observe(correct.events))
			require.NoError(t, o.Check(correct.view()), "seed %d", seed)
			continue
		}
		changed := newStore()
		for i, u := range applied {
			if i != lost {
				changed.apply(u)
			}
		}
		require.NoError(t, o.Observe(changed.events))
		require.Error(t, o.Check(changed.view()), "seed %d", seed)
	}
}
