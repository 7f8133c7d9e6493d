// Package oracle judges a store from outside: it keeps its own account of the
// updates that were sent and of those that were acknowledged, and holds what
// the store shows after a crash against it.
//
// It knows nothing of how the store works. What it relies on is that an update
// names itself: each PUT and PATCH carries a version that no other has, and
// what it sets differs from what every other sets.
//
// # What is checked
//
//   - Every acknowledged update is in the journal, at the sequence that the
//     acknowledgement gave, once.
//   - Everything in the journal was sent, for that node and with those names,
//     and was not refused.
//   - An update that was acknowledged before another was sent comes before it.
//   - What was once in the journal stays there, at its sequence; what was not
//     there after a crash does not come later.
//   - Each node holds the fold of its updates in the order of the journal,
//     version by version and resource by resource, and no other node is there.
//   - The sequence is never below an acknowledged one.
package oracle

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
)

// Kind is what an update does.
type Kind int

// The kinds of updates.
const (
	// Put makes a node hold what is set and nothing else.
	Put Kind = iota + 1
	// Patch sets and removes resources of a node, and makes the node.
	Patch
	// Delete removes a node.
	Delete
)

// Key names a resource of a node.
type Key struct{ Type, Name string }

// Update is one update, as it is sent.
type Update struct {
	// ID names the update. It is the version that a Put or a Patch carries.
	ID   string
	Node string
	Kind Kind
	// Set maps resources to what tells their content from any other. A Patch
	// sets at least one.
	Set map[Key]string
	// Remove is what a Patch removes. It may not be there.
	Remove []Key
}

// Event is an event of the journal, as the store shows it.
type Event struct {
	Seq  uint64
	Node string
	// Clear tells the removal of a node from an update.
	Clear bool
	// Version is what an update set its types to.
	Version string
	Set     []Key
	Removed []Key
}

// Node is what the store shows of a node.
type Node struct {
	// Seq is the sequence of the node's last event.
	Seq uint64
	// Versions are those of the types that the node has.
	Versions  map[string]string
	Resources map[Key]string
}

// View is what the store shows at a moment without updates.
type View struct {
	Seq   uint64
	Nodes map[string]Node
}

// Account is what the oracle knows. Its methods are safe for concurrent use.
type Account struct {
	// types are the types that a Put gives its version, with resources or not.
	types []string

	mu       sync.Mutex
	clock    int // counts what was sent and acknowledged
	highest  uint64
	stats    Stats
	updates  map[string]*update // the open ones and those that are in the journal
	open     []*update          // sent since the last check
	settled  map[string]bool    // known not to be in the journal
	events   []Event            // events[i] has sequence i+1
	judged   int                // events before it were checked
	nodes    map[string]*node   // the fold of the events that were checked
	absences map[string][]span  // of the nodes, since the last check
}

// Stats counts what an account has seen.
type Stats struct {
	// Sent is how many updates were sent, Acknowledged and Refused how many of
	// them were answered so. Survived counts those that were not answered and
	// are in the journal all the same.
	Sent, Acknowledged, Refused, Survived int
	// Events and Checks count what was held against the account.
	Events, Checks int
}

type update struct {
	Update
	sent         int
	floor        uint64 // highest sequence acknowledged when it was sent
	acknowledged int    // 0 if it was not
	refused      bool
	seq          uint64 // as acknowledged
	at           uint64 // in the journal, 0 if it is not
}

type node struct {
	seq       uint64
	versions  map[string]string
	resources map[Key]string
}

// span is a range of sequences, both included, at which a node is not there.
type span struct{ from, to uint64 }

const forever = ^uint64(0)

// New returns an account of a store that is empty. A Put gives its version to
// all of the types.
func New(types []string) *Account {
	return &Account{
		types: types, updates: map[string]*update{}, settled: map[string]bool{},
		nodes: map[string]*node{}, absences: map[string][]span{},
	}
}

// Sending notes an update. It is called before the first byte is sent.
func (a *Account) Sending(u Update) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.clock++
	a.stats.Sent++
	record := &update{Update: u, sent: a.clock, floor: a.highest}
	a.updates[u.ID] = record
	a.open = append(a.open, record)
}

// Acknowledged notes that the store has answered that the update is durable at
// a sequence. It is called after the whole answer has come.
func (a *Account) Acknowledged(id string, seq uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.clock++
	a.stats.Acknowledged++
	u := a.updates[id]
	u.acknowledged, u.seq = a.clock, seq
	a.highest = max(a.highest, seq)
}

// Refused notes that the store has answered that it did not take the update.
func (a *Account) Refused(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stats.Refused++
	a.updates[id].refused = true
}

// Stats returns what was counted.
func (a *Account) Stats() Stats {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stats.Events = len(a.events)
	return a.stats
}

// Next returns the sequence of the first event that was not observed yet.
func (a *Account) Next() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return uint64(len(a.events)) + 1
}

// Observe takes consecutive events of the journal, which may have been observed
// before. Updates may be under way. Every event has to be observed: the error
// is about one that was passed over, or that is not what it was.
func (a *Account) Observe(events []Event) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, ev := range events {
		next := uint64(len(a.events)) + 1
		switch {
		case ev.Seq == next:
			a.events = append(a.events, ev)
		case ev.Seq == 0 || ev.Seq > next:
			return fmt.Errorf("observed event %d where %d should stand", ev.Seq, next)
		default:
			if was := a.events[ev.Seq-1]; !same(was, ev) {
				return fmt.Errorf("event %d has changed from %+v to %+v", ev.Seq, was, ev)
			}
		}
	}
	return nil
}

func same(a, b Event) bool {
	return a.Seq == b.Seq && a.Node == b.Node && a.Clear == b.Clear && a.Version == b.Version &&
		slices.Equal(a.Set, b.Set) && slices.Equal(a.Removed, b.Removed)
}

// maxProblems bounds an error's length.
const maxProblems = 20

// Check holds all that was observed, and the view, against the account. It is
// called while no update is under way, after a restart that followed the last
// one; all events up to the view's sequence were observed by then. What was
// sent and not answered until now is settled: it is in the journal now, or
// never.
func (a *Account) Check(v View) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stats.Checks++
	var problems []error
	problem := func(format string, args ...any) {
		if len(problems) < maxProblems {
			problems = append(problems, fmt.Errorf(format, args...))
		}
	}
	if v.Seq < a.highest {
		problem("the store is at sequence %d, and %d was acknowledged", v.Seq, a.highest)
	}
	if v.Seq != uint64(len(a.events)) {
		problem("the store is at sequence %d, and events up to %d were observed", v.Seq, len(a.events))
	}
	a.fold(problem)
	a.answers(problem)
	a.order(problem)
	a.compare(v, problem)
	a.settle()
	return errors.Join(problems...)
}

// fold finds the update of each new event, and applies it.
func (a *Account) fold(problem func(string, ...any)) {
	for name, n := range a.nodes {
		if n == nil {
			a.absences[name] = []span{{uint64(a.judged), forever}}
		}
	}
	for _, u := range a.open {
		if _, known := a.nodes[u.Node]; !known {
			a.absences[u.Node] = []span{{0, forever}}
			a.nodes[u.Node] = nil
		}
	}
	for _, ev := range a.events[a.judged:] {
		if ev.Clear {
			a.clear(ev, problem)
		} else {
			a.update(ev, problem)
		}
	}
	a.judged = len(a.events)
}

func (a *Account) update(ev Event, problem func(string, ...any)) {
	u := a.updates[ev.Version]
	switch {
	case u == nil && a.settled[ev.Version]:
		problem("event %d is update %q, which was not there after an earlier restart", ev.Seq, ev.Version)
		return
	case u == nil || u.Kind == Delete:
		problem("event %d of node %q has version %q, which was never sent", ev.Seq, ev.Node, ev.Version)
		return
	case u.Node != ev.Node:
		problem("event %d is update %q of node %q, which was sent for node %q", ev.Seq, u.ID, ev.Node, u.Node)
		return
	case u.at != 0:
		problem("event %d is update %q again, which is event %d", ev.Seq, u.ID, u.at)
		return
	case u.refused:
		problem("event %d is update %q, which was refused", ev.Seq, u.ID)
	case u.acknowledged != 0 && u.seq != ev.Seq:
		problem("event %d is update %q, which was acknowledged as %d", ev.Seq, u.ID, u.seq)
	}
	u.at = ev.Seq
	if u.acknowledged == 0 {
		a.stats.Survived++
	}
	for _, k := range ev.Set {
		if _, sent := u.Set[k]; !sent {
			problem("event %d sets %v, which update %q did not", ev.Seq, k, u.ID)
		}
	}
	n := a.nodes[u.Node]
	for _, k := range ev.Removed {
		if n == nil || n.resources[k] == "" {
			problem("event %d removes %v, which node %q did not have", ev.Seq, k, u.Node)
		}
	}
	a.present(u.Node, ev.Seq)
	a.nodes[u.Node] = n.after(u, ev.Seq, a.types)
}

// after returns the node with an update applied; n is not changed.
func (n *node) after(u *update, seq uint64, types []string) *node {
	out := &node{seq: seq, versions: map[string]string{}, resources: map[Key]string{}}
	if u.Kind == Put {
		for _, t := range types {
			out.versions[t] = u.ID
		}
	} else if n != nil {
		maps.Copy(out.versions, n.versions)
		maps.Copy(out.resources, n.resources)
	}
	for _, k := range u.Remove {
		delete(out.resources, k)
		if _, ok := out.versions[k.Type]; ok {
			out.versions[k.Type] = u.ID
		}
	}
	for k, content := range u.Set {
		out.resources[k] = content
		out.versions[k.Type] = u.ID
	}
	return out
}

// clear finds a Delete for an event: one that was acknowledged with that
// sequence, or else one without an answer.
func (a *Account) clear(ev Event, problem func(string, ...any)) {
	var candidate *update
	for _, u := range a.open {
		if u.Kind != Delete || u.Node != ev.Node || u.at != 0 || u.refused {
			continue
		}
		if u.acknowledged != 0 && u.seq == ev.Seq {
			candidate = u
			break
		}
		if u.acknowledged == 0 && candidate == nil {
			candidate = u
		}
	}
	if candidate == nil {
		problem("event %d removes node %q, and no delete that was sent can be the cause", ev.Seq, ev.Node)
		return
	}
	if a.nodes[ev.Node] == nil {
		problem("event %d removes node %q, which was not there", ev.Seq, ev.Node)
	}
	candidate.at = ev.Seq
	if candidate.acknowledged == 0 {
		a.stats.Survived++
	}
	a.nodes[ev.Node] = nil
	a.absences[ev.Node] = append(a.absences[ev.Node], span{ev.Seq, forever})
}

func (a *Account) present(name string, seq uint64) {
	if spans := a.absences[name]; len(spans) > 0 && spans[len(spans)-1].to == forever {
		spans[len(spans)-1].to = seq - 1
	}
}

// answers checks each acknowledgement since the last check.
func (a *Account) answers(problem func(string, ...any)) {
	for _, u := range a.open {
		switch {
		case u.acknowledged == 0 || u.at != 0:
		case u.Kind != Delete:
			problem("update %q of node %q was acknowledged as %d and is not in the journal", u.ID, u.Node, u.seq)
		case !slices.ContainsFunc(a.absences[u.Node], func(s span) bool { return s.from <= u.seq && s.to >= u.floor }):
			// A node that is not there already is deleted without an event.
			problem("delete %q of node %q was acknowledged as %d, and the node was there all the time from %d on", u.ID, u.Node, u.seq, u.floor)
		}
	}
}

// order checks that no update stands before one that was acknowledged before
// it was sent.
func (a *Account) order(problem func(string, ...any)) {
	var journaled []*update
	for _, u := range a.open {
		if u.at != 0 {
			journaled = append(journaled, u)
		}
	}
	slices.SortFunc(journaled, func(x, y *update) int { return int(int64(y.at) - int64(x.at)) })
	var earliest *update // acknowledged, of those later in the journal
	for _, u := range journaled {
		if earliest != nil && u.sent > earliest.acknowledged {
			problem("update %q is event %d, before %q, which is event %d and was acknowledged before it was sent", u.ID, u.at, earliest.ID, earliest.at)
		}
		if u.acknowledged != 0 && (earliest == nil || u.acknowledged < earliest.acknowledged) {
			earliest = u
		}
	}
}

// compare holds the view against the fold.
func (a *Account) compare(v View, problem func(string, ...any)) {
	for name, n := range a.nodes {
		shown, there := v.Nodes[name]
		switch {
		case n == nil && there:
			problem("node %q is there, and its last event removed it or none made it", name)
		case n != nil && !there:
			problem("node %q is not there, and event %d set it", name, n.seq)
		case n != nil:
			n.compare(name, shown, problem)
		}
	}
	for name := range v.Nodes {
		if _, known := a.nodes[name]; !known {
			problem("node %q is there, and nothing was ever sent for it", name)
		}
	}
}

func (n *node) compare(name string, shown Node, problem func(string, ...any)) {
	if shown.Seq != n.seq {
		problem("node %q is at event %d, and its last is %d", name, shown.Seq, n.seq)
	}
	if !maps.Equal(shown.Versions, n.versions) {
		problem("node %q has versions %v, and should have %v", name, shown.Versions, n.versions)
	}
	for k, content := range n.resources {
		if got, ok := shown.Resources[k]; !ok {
			problem("node %q does not have %v", name, k)
		} else if got != content {
			problem("node %q has %v with the content of another update", name, k)
		}
	}
	for k := range shown.Resources {
		if _, ok := n.resources[k]; !ok {
			problem("node %q has %v, which it should not", name, k)
		}
	}
}

// settle closes what was sent until now.
func (a *Account) settle() {
	for _, u := range a.open {
		// The contents are in the fold, and needed no more.
		u.Set, u.Remove = nil, nil
		if u.at == 0 {
			delete(a.updates, u.ID)
			a.settled[u.ID] = true
		}
	}
	a.open = nil
	clear(a.absences)
}
