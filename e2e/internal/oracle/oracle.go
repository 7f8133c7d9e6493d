// Package oracle checks a store from outside: it records the updates that were sent and
// their answers, and compares the contents of the store after a crash with them.
//
// It contains no code of the store. It requires that each PUT and PATCH has a unique
// version, and that each sets resources to a unique content.
//
// # What is checked
//
//   - Each update that has returned is in the journal once, with the returned sequence.
//   - Each event is an update that was sent, for its node and with its names, and that
//     was not rejected.
//   - An update that has returned before another one was sent is before it in the journal.
//   - No event changes or disappears. An event that is missing after a crash never
//     appears later.
//   - Each node is the fold of its events, version by version and resource by resource,
//     and there is no other node.
//   - The sequence of the store is never below a returned one.
package oracle

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"
)

// Kind is the kind of an update.
type Kind int

// The kinds of updates.
const (
	// Put replaces all resources of a node.
	Put Kind = iota + 1
	// Patch sets and removes resources of a node, and creates the node.
	Patch
	// Delete removes a node.
	Delete
)

// Key identifies a resource of a node.
type Key struct{ Type, Name string }

// Update is one update, as it is sent.
type Update struct {
	// ID identifies the update. It is the version of a Put or a Patch.
	ID   string
	Node string
	Kind Kind
	// Set maps resources to unique contents. A Patch sets at least one.
	Set map[Key]string
	// Remove are the resources that a Patch removes. They need not exist.
	Remove []Key
}

// Event is an event of the journal, as the store returns it.
type Event struct {
	Seq  uint64
	Node string
	// Clear is set if the event removes the node.
	Clear bool
	// Version is the version of the changed types.
	Version string
	Set     []Key
	Removed []Key
}

// Node is a node, as the store returns it.
type Node struct {
	// Seq is the sequence of the node's last event.
	Seq uint64
	// Versions are the versions of the node's types.
	Versions  map[string]string
	Resources map[Key]string
}

// View is the contents of the store at a time without updates.
type View struct {
	Seq   uint64
	Nodes map[string]Node
}

// Oracle records updates and events. Its methods are safe for concurrent use.
type Oracle struct {
	// types are the types whose version a Put sets, with or without resources.
	types []string

	mu       sync.Mutex
	clock    int // counts sent and returned updates
	highest  uint64
	stats    Stats
	updates  map[string]*update // the open ones and those in the journal
	open     []*update          // sent since the last check
	missing  map[string]bool    // known not to be in the journal
	events   []Event            // events[i] has sequence i+1
	checked  int                // number of events that were checked
	nodes    map[string]*Node   // the fold of the checked events; nil if absent
	absences map[string][]span  // of the nodes, since the last check
	problems []error            // of the current check
}

// Stats are counts of updates, events and checks.
type Stats struct {
	// Returned, Rejected and Survived count updates by outcome; Survived are those in the
	// journal without an answer.
	Sent, Returned, Rejected, Survived int
	Events, Checks                     int
}

type update struct {
	Update
	sent     int
	floor    uint64 // highest returned sequence when it was sent
	returned int    // 0 without an answer
	answer   uint64 // returned sequence
	rejected bool
	seq      uint64 // in the journal; 0 if it is missing
}

// span is a range of sequences, both included, at which a node is absent.
type span struct{ from, to uint64 }

const forever = ^uint64(0)

// New returns an oracle of an empty store. A Put sets the version of all types.
func New(types []string) *Oracle {
	return &Oracle{
		types: types, updates: map[string]*update{}, missing: map[string]bool{},
		nodes: map[string]*Node{}, absences: map[string][]span{},
	}
}

// Sending records an update. It is called before the first byte is sent.
func (o *Oracle) Sending(u Update) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.clock++
	o.stats.Sent++
	record := &update{Update: u, sent: o.clock, floor: o.highest}
	o.updates[u.ID] = record
	o.open = append(o.open, record)
}

// Returned records that an update has returned with a sequence. It is called after the
// complete answer was received.
func (o *Oracle) Returned(id string, seq uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.clock++
	o.stats.Returned++
	u := o.updates[id]
	u.returned, u.answer = o.clock, seq
	o.highest = max(o.highest, seq)
}

// Rejected records that the store has rejected an update.
func (o *Oracle) Rejected(id string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.stats.Rejected++
	o.updates[id].rejected = true
}

// Stats returns the counts.
func (o *Oracle) Stats() Stats {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.stats.Events = len(o.events)
	return o.stats
}

// Next returns the sequence of the first event that was not observed.
func (o *Oracle) Next() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return uint64(len(o.events)) + 1
}

// Observe records consecutive events of the journal, also while updates run. Events may be
// observed again. The error is about an event that was skipped, or that has changed.
func (o *Oracle) Observe(events []Event) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, ev := range events {
		next := uint64(len(o.events)) + 1
		switch {
		case ev.Seq == next:
			o.events = append(o.events, ev)
		case ev.Seq == 0 || ev.Seq > next:
			return fmt.Errorf("got event %d, want %d", ev.Seq, next)
		case !reflect.DeepEqual(o.events[ev.Seq-1], ev):
			return fmt.Errorf("event %d has changed from %+v to %+v", ev.Seq, o.events[ev.Seq-1], ev)
		}
	}
	return nil
}

// maxProblems bounds an error's length.
const maxProblems = 20

func (o *Oracle) problem(format string, args ...any) {
	if len(o.problems) < maxProblems {
		o.problems = append(o.problems, fmt.Errorf(format, args...))
	}
}

// Check compares the observed events and the view with the updates. It is called after a
// restart, while no update is pending and after all events of the view were observed. A
// sent update without an answer is in the journal now, or never.
func (o *Oracle) Check(v View) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.stats.Checks++
	o.problems = nil
	if v.Seq < o.highest {
		o.problem("got sequence %d, want at least the returned %d", v.Seq, o.highest)
	}
	if v.Seq != uint64(len(o.events)) {
		o.problem("got sequence %d, want %d as observed", v.Seq, len(o.events))
	}
	o.fold()
	o.checkReturned()
	o.checkOrder()
	o.checkNodes(v)
	o.settle()
	return errors.Join(o.problems...)
}

// fold finds the update of each new event and applies it.
func (o *Oracle) fold() {
	for _, u := range o.open {
		if _, known := o.nodes[u.Node]; !known {
			o.nodes[u.Node] = nil
		}
	}
	for name, n := range o.nodes {
		if n == nil {
			o.absences[name] = []span{{uint64(o.checked), forever}}
		}
	}
	for _, ev := range o.events[o.checked:] {
		find := o.findUpdate
		if ev.Clear {
			find = o.findDelete
		}
		u := find(ev)
		if u == nil {
			continue
		}
		u.seq = ev.Seq
		if u.returned == 0 {
			o.stats.Survived++
		}
		if ev.Clear {
			o.nodes[u.Node] = nil
			o.absences[u.Node] = append(o.absences[u.Node], span{ev.Seq, forever})
			continue
		}
		o.nodes[u.Node] = o.nodes[u.Node].after(u, o.types)
		if spans := o.absences[u.Node]; len(spans) > 0 && spans[len(spans)-1].to == forever {
			spans[len(spans)-1].to = ev.Seq - 1
		}
	}
	o.checked = len(o.events)
}

// findUpdate returns the Put or Patch of an event, or nil.
func (o *Oracle) findUpdate(ev Event) *update {
	u := o.updates[ev.Version]
	switch {
	case u == nil && o.missing[ev.Version]:
		o.problem("event %d: update %q was missing after an earlier restart", ev.Seq, ev.Version)
		return nil
	case u == nil || u.Kind == Delete:
		o.problem("event %d of node %q: version %q was never sent", ev.Seq, ev.Node, ev.Version)
		return nil
	case u.Node != ev.Node:
		o.problem("event %d: update %q of node %q was sent for node %q", ev.Seq, u.ID, ev.Node, u.Node)
		return nil
	case u.seq != 0:
		o.problem("event %d: update %q is event %d already", ev.Seq, u.ID, u.seq)
		return nil
	case u.rejected:
		o.problem("event %d: update %q was rejected", ev.Seq, u.ID)
	case u.returned != 0 && u.answer != ev.Seq:
		o.problem("event %d: update %q has returned sequence %d", ev.Seq, u.ID, u.answer)
	}
	for _, k := range ev.Set {
		if _, sent := u.Set[k]; !sent {
			o.problem("event %d sets %v, but update %q does not", ev.Seq, k, u.ID)
		}
	}
	n := o.nodes[u.Node]
	for _, k := range ev.Removed {
		if n == nil || n.Resources[k] == "" {
			o.problem("event %d removes %v, which node %q does not have", ev.Seq, k, u.Node)
		}
	}
	return u
}

// findDelete returns the Delete of an event: one that has returned its sequence, or else
// one without an answer, or nil.
func (o *Oracle) findDelete(ev Event) *update {
	var found *update
	for _, u := range o.open {
		if u.Kind != Delete || u.Node != ev.Node || u.seq != 0 || u.rejected {
			continue
		}
		if u.returned != 0 && u.answer == ev.Seq {
			found = u
			break
		}
		if u.returned == 0 && found == nil {
			found = u
		}
	}
	if found == nil {
		o.problem("event %d removes node %q, but no delete was sent for it", ev.Seq, ev.Node)
	} else if o.nodes[ev.Node] == nil {
		o.problem("event %d removes node %q, which is absent", ev.Seq, ev.Node)
	}
	return found
}

// after returns the node with an update applied; n is not changed and may be nil.
func (n *Node) after(u *update, types []string) *Node {
	out := &Node{Seq: u.seq, Versions: map[string]string{}, Resources: map[Key]string{}}
	if u.Kind == Put {
		for _, t := range types {
			out.Versions[t] = u.ID
		}
	} else if n != nil {
		maps.Copy(out.Versions, n.Versions)
		maps.Copy(out.Resources, n.Resources)
	}
	for _, k := range u.Remove {
		delete(out.Resources, k)
		if _, ok := out.Versions[k.Type]; ok {
			out.Versions[k.Type] = u.ID
		}
	}
	for k, content := range u.Set {
		out.Resources[k] = content
		out.Versions[k.Type] = u.ID
	}
	return out
}

// checkReturned checks that each update that has returned is in the journal.
func (o *Oracle) checkReturned() {
	for _, u := range o.open {
		switch {
		case u.returned == 0 || u.seq != 0:
		case u.Kind != Delete:
			o.problem("update %q of node %q has returned sequence %d and is missing from the journal", u.ID, u.Node, u.answer)
		case !slices.ContainsFunc(o.absences[u.Node], func(s span) bool { return s.from <= u.answer && s.to >= u.floor }):
			// A Delete of an absent node has no event.
			o.problem("delete %q of node %q has returned sequence %d without an event, but the node was present from %d on", u.ID, u.Node, u.answer, u.floor)
		}
	}
}

// checkOrder checks that no update is before one that had returned when it was sent.
func (o *Oracle) checkOrder() {
	journaled := slices.DeleteFunc(slices.Clone(o.open), func(u *update) bool { return u.seq == 0 })
	slices.SortFunc(journaled, func(x, y *update) int { return int(int64(y.seq) - int64(x.seq)) })
	var earliest *update // to return, of those later in the journal
	for _, u := range journaled {
		if earliest != nil && u.sent > earliest.returned {
			o.problem("event %d: update %q was sent after update %q, event %d, had returned", u.seq, u.ID, earliest.ID, earliest.seq)
		}
		if u.returned != 0 && (earliest == nil || u.returned < earliest.returned) {
			earliest = u
		}
	}
}

// checkNodes compares the view with the fold.
func (o *Oracle) checkNodes(v View) {
	for name, n := range o.nodes {
		got, ok := v.Nodes[name]
		switch {
		case n == nil && ok:
			o.problem("node %q is present, want it absent after its events", name)
		case n != nil && !ok:
			o.problem("node %q is absent, want it as of event %d", name, n.Seq)
		case n != nil:
			o.checkNode(name, got, n)
		}
	}
	for name := range v.Nodes {
		if _, known := o.nodes[name]; !known {
			o.problem("node %q is present, but no update was sent for it", name)
		}
	}
}

func (o *Oracle) checkNode(name string, got Node, want *Node) {
	if got.Seq != want.Seq {
		o.problem("node %q: got event %d, want %d", name, got.Seq, want.Seq)
	}
	if !maps.Equal(got.Versions, want.Versions) {
		o.problem("node %q: got versions %v, want %v", name, got.Versions, want.Versions)
	}
	for k, content := range want.Resources {
		if c, ok := got.Resources[k]; !ok {
			o.problem("node %q: %v is missing", name, k)
		} else if c != content {
			o.problem("node %q: %v has the content of another update", name, k)
		}
	}
	for k := range got.Resources {
		if _, ok := want.Resources[k]; !ok {
			o.problem("node %q: %v is present, want it absent", name, k)
		}
	}
}

// settle closes the open updates.
func (o *Oracle) settle() {
	for _, u := range o.open {
		u.Set, u.Remove = nil, nil // the fold contains them
		if u.seq == 0 {
			delete(o.updates, u.ID)
			o.missing[u.ID] = true
		}
	}
	o.open = nil
	clear(o.absences)
}
