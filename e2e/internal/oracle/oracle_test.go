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

// store is a store that does what it should, in the simplest way.
type store struct {
	events []oracle.Event
	nodes  map[string]oracle.Node
}

func newStore() *store { return &store{nodes: map[string]oracle.Node{}} }

func (s *store) seq() uint64 { return uint64(len(s.events)) }

// apply returns what the store answers.
func (s *store) apply(u oracle.Update) uint64 {
	old, there := s.nodes[u.Node]
	if u.Kind == oracle.Delete {
		if there {
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
		_, had := old.Resources[k]
		if _, set := u.Set[k]; had && !set {
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

// history is an honest one of three nodes: a was put, patched and put, b put and
// deleted, c patched into being.
type history struct {
	account *oracle.Account
	store   *store
	events  []oracle.Event
	view    oracle.View
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
	h.account.Sending(u)
	h.account.Acknowledged(u.ID, h.store.apply(u))
}

func newHistory() *history {
	h := &history{account: oracle.New(types), store: newStore()}
	for _, u := range updates() {
		h.send(u)
	}
	h.events, h.view = slices.Clone(h.store.events), h.store.view()
	return h
}

func (h *history) check() error {
	if err := h.account.Observe(h.events); err != nil {
		return err
	}
	return h.account.Check(h.view)
}

// refold makes the store one that applied other updates, and shows it.
func (h *history) refold(updates ...oracle.Update) {
	h.store = newStore()
	for _, u := range updates {
		h.store.apply(u)
	}
	h.events, h.view = h.store.events, h.store.view()
}

func TestAccountAcceptsHonestHistories(t *testing.T) {
	for name, more := range map[string]func(h *history){
		"acknowledged": func(*history) {},
		"not answered and lost": func(h *history) {
			h.account.Sending(oracle.Update{ID: "7", Node: "a", Kind: oracle.Delete})
			h.account.Sending(oracle.Update{ID: "8", Node: "d", Kind: oracle.Put})
		},
		"not answered and there": func(h *history) {
			for _, u := range []oracle.Update{
				{ID: "7", Node: "a", Kind: oracle.Delete},
				{ID: "8", Node: "d", Kind: oracle.Patch, Set: map[oracle.Key]string{cluster("x"): "8"}},
			} {
				h.account.Sending(u)
				h.store.apply(u)
			}
		},
		"refused": func(h *history) {
			h.account.Sending(oracle.Update{ID: "7", Node: "a", Kind: oracle.Delete})
			h.account.Refused("7")
		},
		"delete of what is not there": func(h *history) {
			h.send(oracle.Update{ID: "7", Node: "b", Kind: oracle.Delete})
			h.send(oracle.Update{ID: "8", Node: "d", Kind: oracle.Delete})
		},
		"concurrent updates in either order": func(h *history) {
			first := oracle.Update{ID: "7", Node: "a", Kind: oracle.Put, Set: map[oracle.Key]string{cluster("x"): "7"}}
			second := oracle.Update{ID: "8", Node: "a", Kind: oracle.Put, Set: map[oracle.Key]string{cluster("x"): "8"}}
			h.account.Sending(first)
			h.account.Sending(second)
			h.account.Acknowledged("8", h.store.apply(second))
			h.account.Acknowledged("7", h.store.apply(first))
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHistory()
			more(h)
			h.events, h.view = h.store.events, h.store.view()
			require.NoError(t, h.check())
			require.NoError(t, h.check(), "the same again")
			h.send(oracle.Update{ID: "99", Node: "b", Kind: oracle.Put})
			h.events, h.view = h.store.events[h.account.Next()-1:], h.store.view()
			require.NoError(t, h.check(), "a round later")
		})
	}
}

func TestAccountObjects(t *testing.T) {
	sent := updates()
	for _, tc := range []struct {
		name   string
		doctor func(h *history)
		want   string
	}{
		{"the last acknowledged update is lost", func(h *history) {
			h.refold(sent[:5]...)
		}, "at sequence 5, and 6 was acknowledged"},
		{"an acknowledged update in the middle is lost", func(h *history) {
			h.refold(sent[0], sent[1], sent[3], sent[4], sent[5])
		}, `update "3" of node "a" was acknowledged as 3 and is not in the journal`},
		{"another update stands where it should", func(h *history) {
			other := oracle.Update{ID: "7", Node: "a", Kind: oracle.Put, Set: map[oracle.Key]string{cluster("x"): "7"}}
			h.account.Sending(other)
			h.refold(sent[0], sent[1], other, sent[3], sent[4], sent[5])
		}, `update "3" of node "a" was acknowledged as 3 and is not in the journal`},
		{"a delete is lost", func(h *history) {
			h.refold(sent[0], sent[1], sent[2], sent[3], sent[5])
			h.events = append(h.events, oracle.Event{Seq: 6, Node: "a", Version: "6"})
		}, `delete "5" of node "b" was acknowledged as 5, and the node was there all the time`},
		{"everything is lost", func(h *history) {
			h.refold()
		}, "at sequence 0, and 6 was acknowledged"},
		{"a version that was never sent", func(h *history) {
			h.events[5].Version = "foreign"
		}, `version "foreign", which was never sent`},
		{"an update of another node", func(h *history) {
			h.events[5].Node = "c"
		}, `event 6 is update "6" of node "c", which was sent for node "a"`},
		{"a resource that the update did not set", func(h *history) {
			h.events[5].Set = append(h.events[5].Set, cluster("z"))
		}, "event 6 sets {cluster z}, which update \"6\" did not"},
		{"a removal of what was not there", func(h *history) {
			h.events[3].Removed = []oracle.Key{cluster("q")}
		}, "event 4 removes {cluster q}"},
		{"foreign content", func(h *history) {
			h.view.Nodes["a"].Resources[cluster("x")] = "foreign"
		}, "with the content of another update"},
		{"content of an earlier update", func(h *history) {
			h.view.Nodes["a"].Resources[cluster("x")] = "1/x"
		}, "with the content of another update"},
		{"a foreign resource", func(h *history) {
			h.view.Nodes["a"].Resources[cluster("y")] = "3/y"
		}, "has {cluster y}, which it should not"},
		{"half an update", func(h *history) {
			delete(h.view.Nodes["c"].Resources, cluster("x"))
		}, `node "c" does not have {cluster x}`},
		{"an old version", func(h *history) {
			h.view.Nodes["a"].Versions["endpoint"] = "3"
		}, `node "a" has versions`},
		{"a foreign node", func(h *history) {
			h.view.Nodes["z"] = oracle.Node{}
		}, `node "z" is there, and nothing was ever sent for it`},
		{"a node that is gone", func(h *history) {
			delete(h.view.Nodes, "c")
		}, `node "c" is not there, and event 4 set it`},
		{"a deleted node that is back", func(h *history) {
			h.view.Nodes["b"] = oracle.Node{Seq: 2, Versions: map[string]string{"cluster": "2", "endpoint": "2"}, Resources: map[oracle.Key]string{cluster("x"): "2/x"}}
		}, `node "b" is there, and its last event removed it`},
		{"a node at an earlier of its states", func(h *history) {
			earlier := newStore()
			for _, u := range sent[:3] {
				earlier.apply(u)
			}
			h.view.Nodes["a"] = earlier.view().Nodes["a"]
		}, `node "a" is at event 3, and its last is 6`},
		{"two updates of a node swapped", func(h *history) {
			h.refold(sent[0], sent[1], sent[5], sent[3], sent[4], sent[2])
		}, `event 3 is update "6", which was acknowledged as 6`},
		{"two updates of different nodes swapped", func(h *history) {
			h.refold(sent[0], sent[1], sent[3], sent[2], sent[4], sent[5])
		}, `event 3 is update "4", which was acknowledged as 4`},
		{"an unanswered update before what was acknowledged before it was sent", func(h *history) {
			late := oracle.Update{ID: "7", Node: "c", Kind: oracle.Put}
			h.account.Sending(late)
			h.refold(sent[0], sent[1], sent[2], sent[3], sent[4], late, sent[5])
		}, `update "7" is event 6, before "6"`},
		{"an update twice", func(h *history) {
			h.refold(append(slices.Clone(sent), sent[2])...)
		}, `event 7 is update "3" again, which is event 3`},
		{"an update that was refused", func(h *history) {
			refused := oracle.Update{ID: "7", Node: "c", Kind: oracle.Put}
			h.account.Sending(refused)
			h.account.Refused("7")
			h.refold(append(slices.Clone(sent), refused)...)
		}, `event 7 is update "7", which was refused`},
		{"a node removed without a delete", func(h *history) {
			h.refold(append(slices.Clone(sent), oracle.Update{Node: "a", Kind: oracle.Delete})...)
		}, `event 7 removes node "a", and no delete that was sent can be the cause`},
		{"a delete that did nothing though the node was there", func(h *history) {
			h.account.Sending(oracle.Update{ID: "7", Node: "a", Kind: oracle.Delete})
			h.account.Acknowledged("7", 6)
		}, `delete "7" of node "a" was acknowledged as 6, and the node was there all the time from 6 on`},
		{"an event missing among those shown", func(h *history) {
			h.events = slices.Delete(h.events, 2, 3)
		}, "observed event 4 where 3 should stand"},
		{"the journal ends before the state", func(h *history) {
			h.events = h.events[:5]
		}, "at sequence 6, and events up to 5 were observed"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := newHistory()
			tc.doctor(h)
			require.ErrorContains(t, h.check(), tc.want)
		})
	}
}

func TestAccountObjectsToARewrittenPast(t *testing.T) {
	h := newHistory()
	require.NoError(t, h.check())
	h.events[2].Version = "6"
	require.ErrorContains(t, h.check(), "event 3 has changed")
}

func TestAccountObjectsToAnUpdateThatComesBack(t *testing.T) {
	h := newHistory()
	lost := oracle.Update{ID: "7", Node: "c", Kind: oracle.Put}
	h.account.Sending(lost)
	require.NoError(t, h.check())
	h.store.apply(lost)
	h.events, h.view = h.store.events, h.store.view()
	require.ErrorContains(t, h.check(), "which was not there after an earlier restart")
}

// TestAccountAgainstRandomHistories sends many updates, some at once, and takes
// one event out of what the store shows.
func TestAccountAgainstRandomHistories(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 1))
		account, honest := oracle.New(types), newStore()
		var applied []oracle.Update
		lost := -1 // in applied
		for round := range 20 {
			batch := make([]oracle.Update, 1+r.IntN(4))
			for i := range batch {
				id := fmt.Sprint(round, ".", i)
				batch[i] = oracle.Update{ID: id, Node: string(rune('a' + r.IntN(3))), Kind: oracle.Kind(1 + r.IntN(3))}
				if batch[i].Kind != oracle.Delete {
					batch[i].Set = map[oracle.Key]string{cluster(string(rune('p' + r.IntN(3)))): id}
				}
				account.Sending(batch[i])
			}
			r.Shuffle(len(batch), func(i, j int) { batch[i], batch[j] = batch[j], batch[i] })
			for _, u := range batch {
				before := honest.seq()
				seq := honest.apply(u)
				if r.IntN(4) > 0 {
					account.Acknowledged(u.ID, seq)
					if seq > before && u.Kind != oracle.Delete {
						lost = len(applied)
					}
				}
				applied = append(applied, u)
			}
		}
		if seed%2 == 0 {
			require.NoError(t, account.Observe(honest.events))
			require.NoError(t, account.Check(honest.view()), "seed %d", seed)
			continue
		}
		doctored := newStore()
		for i, u := range applied {
			if i != lost {
				doctored.apply(u)
			}
		}
		require.NoError(t, account.Observe(doctored.events))
		require.Error(t, account.Check(doctored.view()), "seed %d", seed)
	}
}
