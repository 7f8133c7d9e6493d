package xdsserver

import (
	"maps"
	"slices"
	"time"

	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/journal"
)

// plan is what a client is owed of one type.
type plan struct {
	now *state.Type
	// upserts are resources to send, sorted by name, and gone the resources that the
	// client has and the node no longer.
	upserts []*journal.Resource
	gone    map[string]*journal.Resource
	// missing are names that the client has asked for since the last answer, and that do
	// not exist, sorted.
	missing []string
	// always reports that an answer is due even if there is nothing to send.
	always bool
}

// isFull reports whether each answer contains the complete state.
func (s *subscription) isFull() bool { return !s.delta && (s.wildcard || s.traits.fullState) }

// plan compares what the client was last sent with its node. It changes nothing.
func (s *subscription) plan(now *state.Type) *plan {
	p := &plan{now: now}
	switch {
	case !s.answered && s.delta:
		s.planFirstDelta(p)
	case !s.answered:
		p.upserts = s.subscribed(now)
		p.missing = s.missingNames(now, len(p.upserts))
		p.always = s.isFull()
		if len(s.former) > 0 {
			p.gone = make(map[string]*journal.Resource, len(s.former))
		}
		for name, h := range s.former {
			if s.wants(name) {
				p.gone[name] = h.resource
			}
		}
	case s.all:
		p.upserts = s.subscribed(now)
		p.missing = s.missingNames(now, len(p.upserts))
		p.always = s.isFull() || s.wildcard
		s.planGone(p)
	default:
		s.planChanges(p)
		s.planDue(p)
		p.always = s.resend
	}
	return p
}

// planFirstDelta trusts the versions that the client had when the stream began.
func (s *subscription) planFirstDelta(p *plan) {
	subscribed := s.subscribed(p.now)
	for _, r := range subscribed {
		version, has := s.initial[r.Name]
		if !has || s.untrusted || version != r.Version || (s.traits.rank == endpointRank && staleAfter(r.Value) > 0) {
			p.upserts = append(p.upserts, r)
		}
	}
	p.gone = map[string]*journal.Resource{}
	for name := range s.initial {
		if s.wants(name) && p.now.Get(name) == nil {
			p.gone[name] = nil
		}
	}
	for _, name := range s.missingNames(p.now, len(subscribed)) {
		if _, has := p.gone[name]; !has {
			p.missing = append(p.missing, name)
		}
	}
	p.always = s.wildcard
}

// missingNames returns the names that the client subscribes to and that do not exist.
// found is the number of resources that it subscribes to and that exist.
func (s *subscription) missingNames(now *state.Type, found int) []string {
	if !s.wildcard && len(s.globs) == 0 && found == len(s.names) {
		return nil
	}
	var out []string
	for name := range s.names {
		if !s.exists(now, name) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// fewNames is the number of names up to which looking each of them up is cheaper than
// comparing two states, at the worst.
const fewNames = 16

func (s *subscription) planChanges(p *plan) {
	if !s.wildcard && len(s.globs) == 0 && len(s.names) <= fewNames {
		for name := range s.names {
			s.planChange(p, name, s.base.Get(name), p.now.Get(name))
		}
		sortResources(p.upserts)
		return
	}
	upserts, deletes := state.Changes(s.base, p.now)
	for _, r := range upserts {
		if s.wants(r.Name) {
			s.planChange(p, r.Name, s.base.Get(r.Name), r)
		}
	}
	for _, name := range deletes {
		if s.wants(name) {
			s.planChange(p, name, s.base.Get(name), nil)
		}
	}
}

func (s *subscription) planChange(p *plan, name string, before, now *journal.Resource) {
	if before == nil {
		// A resource that is held is one that the client has.
		before = s.held[name].resource
	}
	switch {
	case now == nil && s.base.Get(name) == nil: // is held, or does not exist
	case now == nil && s.lacks(name): // is missing, and not removed
	case now == nil:
		if p.gone == nil {
			p.gone = map[string]*journal.Resource{}
		}
		p.gone[name] = before
	case before == nil || (before != now && !before.Same(now)):
		p.upserts = append(p.upserts, now)
	}
}

// planGone adds what base has and the node no longer.
func (s *subscription) planGone(p *plan) {
	_, deletes := state.Changes(s.base, p.now)
	for _, name := range deletes {
		if s.wants(name) {
			s.planChange(p, name, s.base.Get(name), nil)
		}
	}
}

// planDue adds the names that the client is owed whether they have changed or not.
func (s *subscription) planDue(p *plan) {
	if len(s.due) == 0 {
		return
	}
	add := map[string]*journal.Resource{}
	for name := range s.due {
		g, isGlob := s.globs[name]
		r := p.now.Get(name)
		switch {
		case isGlob:
			found := false
			for r := range g.resources(p.now) {
				add[r.Name], found = r, true
			}
			if !found {
				p.missing = append(p.missing, name)
			}
		case !s.wants(name):
		case r != nil:
			add[name] = r
		default:
			if _, gone := p.gone[name]; gone && (s.traits.rank != endpointRank || s.isFull()) {
				continue
			}
			// A cluster waits for its endpoints, so that their removal is not held.
			delete(p.gone, name)
			p.missing = append(p.missing, name)
		}
	}
	for _, r := range p.upserts {
		add[r.Name] = r
	}
	p.upserts = slices.Collect(maps.Values(add))
	sortResources(p.upserts)
	slices.Sort(p.missing)
}

// commit records that the client gets what was planned, and returns the answer, or nil if
// there is nothing to send. Resources that are gone since a time after until stay with
// the client. grace is the delay after which a SotW client is told that an assignment
// does not exist.
func (s *subscription) commit(p *plan, until, now time.Time, grace time.Duration) *answer {
	a := &answer{typeURL: s.typeURL, delta: s.delta, resources: p.upserts, changed: p.upserts}
	for _, r := range p.upserts {
		delete(s.held, r.Name)
		delete(s.told, r.Name)
		delete(s.missing, r.Name)
	}
	for name, r := range p.gone {
		delete(s.refresh, name)
		if s.canRemove() {
			from := s.from
			if h, ok := s.former[name]; ok {
				from = h.from
			}
			s.held[name] = heldResource{r, now, from}
		}
	}
	removed := false
	for name, h := range s.held {
		switch {
		case p.now.Get(name) != nil: // exists again, as the client has it
			delete(s.held, name)
		case !h.since.After(until):
			delete(s.held, name)
			a.removed = append(a.removed, name)
			removed = true
		}
	}
	for _, name := range p.missing {
		removed = removed || s.delta
		a.removed = append(a.removed, name)
		if !s.isFull() {
			delete(s.held, name) // a complete state says it only when it is not held any more
		}
	}
	if !s.delta {
		a.removed = nil
		s.awaitMissing(p.missing, now.Add(grace))
		s.addMissing(a, now)
	}
	s.base, s.answered, s.all, s.resend, s.initial = p.now, true, false, false, nil
	clear(s.due)
	clear(s.fresh)
	if len(a.resources) == 0 && !removed && !p.always {
		return nil
	}
	if s.isFull() {
		a.resources = s.fullState(p.now)
	}
	slices.Sort(a.removed)
	a.removed = slices.Compact(a.removed)
	s.noteSent(a, now)
	return a
}

// canRemove reports whether the client must be told that a resource was removed. A SotW
// client drops resources of most types when nothing refers to them any more.
func (s *subscription) canRemove() bool { return s.delta || s.isFull() }

// fullState returns what a SotW client must be sent so that it has what it subscribes to,
// and what is held.
func (s *subscription) fullState(now *state.Type) []*journal.Resource {
	out := s.subscribed(now)
	if len(s.held) == 0 {
		return out
	}
	for _, h := range s.held {
		if h.resource != nil {
			out = append(out, h.resource)
		}
	}
	sortResources(out)
	return out
}

// awaitMissing makes a SotW client be told at a time that assignments do not exist. Other
// types have no such answer, and a complete state needs none.
func (s *subscription) awaitMissing(names []string, at time.Time) {
	if s.traits.rank != endpointRank || s.isFull() {
		return
	}
	for _, name := range names {
		if _, ok := s.told[name]; ok {
			continue
		}
		if _, ok := s.globs[name]; ok {
			continue // it names no assignment
		}
		if _, ok := s.missing[name]; ok {
			continue
		}
		if s.missing == nil {
			s.missing = map[string]time.Time{}
		}
		s.missing[name] = at
	}
}

// postponeMissing makes a SotW client not be told before a time that assignments do not
// exist.
func (s *subscription) postponeMissing(until time.Time) {
	for name, at := range s.missing {
		if at.Before(until) {
			s.missing[name] = until
		}
	}
}

// addMissing adds an assignment without endpoints for each name that has been missing
// long enough: a client that gets none waits for it, and its cluster with it.
func (s *subscription) addMissing(a *answer, now time.Time) {
	for _, name := range slices.Sorted(maps.Keys(s.missing)) {
		if now.Before(s.missing[name]) {
			continue
		}
		delete(s.missing, name)
		if s.told == nil {
			s.told = map[string]struct{}{}
		}
		s.told[name] = struct{}{}
		a.resources = append(a.resources, &journal.Resource{Name: name, TypeURL: s.typeURL, Value: emptyAssignment(name)})
	}
}

// noteSent records which of the resources that are sent expire, and which must be sent
// again in time.
func (s *subscription) noteSent(a *answer, now time.Time) {
	for _, r := range a.resources {
		if r.TTL != nil {
			s.hasTTL, a.expires = true, true
		}
		if s.traits.rank != endpointRank {
			continue
		}
		d := staleAfter(r.Value)
		if d <= 0 {
			delete(s.refresh, r.Name)
			continue
		}
		if s.refresh == nil {
			s.refresh = map[string]time.Time{}
		}
		// Half of the time leaves the other half for a slow network.
		s.refresh[r.Name] = now.Add(max(d/2, minRefresh))
	}
}

// minRefresh is the shortest time after which an assignment is sent again.
const minRefresh = 100 * time.Millisecond
