package xdsserver

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/xdswal/xdswal/internal/feed"
	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/journal"
)

// subscription is what a client wants of one type, and what it has: the resources of
// base that it subscribes to, and those in held.
type subscription struct {
	typeURL string
	traits  typeTraits
	delta   bool
	node    *watchedNode // nil if no cache has the type

	// What the client wants.
	wildcard bool
	// legacyWildcard is set while the client has never named a resource.
	legacyWildcard bool
	names          map[string]struct{} // with globs
	namesSize      int                 // sum of the names' lengths
	globs          map[string]glob

	// What the client has.
	answered bool
	// base is the type as it was when the client was last sent what it lacked of it.
	base *state.Type
	// held are resources that the node no longer has, and that the client still has until
	// nothing refers to them. The resource is nil if its content is not known.
	held map[string]heldResource
	// initial are the versions that the client had when the stream began, until the first
	// answer.
	initial     map[string]string
	initialSize int // sum of the lengths in it
	// resumed is the version that a SotW client had when the stream began, until the first
	// answer.
	resumed string
	// former are clusters that the client had then and that its node no longer has.
	former map[string]heldResource
	// from is the sequence of the state that the client was last sent.
	from journal.Sequence
	// untrusted reports that the client may lack what it has these versions of.
	untrusted bool

	// What the client is owed beside the difference to base.
	all    bool                // everything that it subscribes to
	resend bool                // the complete state, though nothing in it is new
	due    map[string]struct{} // these names, whether they exist or not
	// fresh are names, globs and "*" that the client has subscribed to since the last
	// answer: it does not have what they stand for, although base may contain it.
	fresh map[string]struct{}
	// missing are names of assignments that do not exist, and the time at which a SotW
	// client is told so; told are those that it was told of.
	missing map[string]time.Time
	told    map[string]struct{}
	// refresh are the times at which assignments are sent again before they go stale.
	refresh map[string]time.Time
	// blocked is set while changes are held back for the acknowledgement of the clusters.
	blocked     bool
	hasTTL      bool // a resource that was sent expires
	heartbeat   bool // TTLs have to be renewed
	warnedOfTTL bool

	// What the client answered.
	outstanding []sentAnswer // not acknowledged, by nonce
	lastNonce   string
	lastNames   []string // of the last SotW request
	// dropped are names that SotW requests with an older nonce did not contain.
	dropped map[string]struct{}
	acked   bool // the client has replied to all answers
	replied bool // the client has replied to an answer
	// rejectedLast reports that the client has rejected the last answer.
	rejectedLast bool
	// complete is the sequence up to which the client has everything, provided that
	// nothing is outstanding.
	complete journal.Sequence
	status   ClientType
}

type heldResource struct {
	resource *journal.Resource
	since    time.Time
	from     journal.Sequence // of the state that the client has it from
}

// sentAnswer is an answer that was sent and to which the client has not replied.
type sentAnswer struct {
	nonce    string
	sequence journal.Sequence
	version  string
	// adds reports that the answer contains resources.
	adds bool
	// complete reports that nothing was held back when it was sent.
	complete bool
}

// watchedNode is the node of a client in one cache.
type watchedNode struct {
	source feed.Source
	key    string
	stop   func()
	// Of the current look at the state.
	node     *state.Node
	sequence journal.Sequence
}

func newSubscription(typeURL string, delta bool) *subscription {
	return &subscription{
		typeURL:        typeURL,
		traits:         traitsOf(typeURL),
		delta:          delta,
		legacyWildcard: true,
		names:          map[string]struct{}{},
		due:            map[string]struct{}{},
		fresh:          map[string]struct{}{},
		held:           map[string]heldResource{},
		status:         ClientType{TypeURL: typeURL},
	}
}

// wants reports whether the client subscribes to a resource.
func (s *subscription) wants(name string) bool {
	if s.wildcard {
		return true
	}
	if _, ok := s.names[name]; ok {
		return true
	}
	for _, g := range s.globs {
		if g.matches(name) {
			return true
		}
	}
	return false
}

// lacks reports whether the client does not have a resource that it wants, although base
// contains it.
func (s *subscription) lacks(name string) bool {
	if len(s.fresh) == 0 {
		return false
	}
	isFresh := func(name string) bool {
		_, ok := s.fresh[name]
		return ok
	}
	if _, named := s.names[name]; isFresh(name) || named {
		return isFresh(name)
	}
	if s.wildcard && !isFresh("*") {
		return false
	}
	for key, g := range s.globs {
		if g.matches(name) && !isFresh(key) {
			return false
		}
	}
	return true
}

// add subscribes to a name, and reports whether the client did not subscribe to it.
func (s *subscription) add(name string) bool {
	if name == "*" {
		added := !s.wildcard
		s.wildcard = true
		return added
	}
	if _, ok := s.names[name]; ok {
		return false
	}
	s.names[name] = struct{}{}
	s.namesSize += len(name)
	if g, ok := parseGlob(name); ok {
		if s.globs == nil {
			s.globs = map[string]glob{}
		}
		s.globs[name] = g
	}
	return true
}

// remove unsubscribes from a name.
func (s *subscription) remove(name string) {
	delete(s.fresh, name)
	if name == "*" {
		s.wildcard = false
		s.dropHeld()
		return
	}
	_, subscribed := s.names[name]
	_, isGlob := s.globs[name]
	if subscribed {
		s.namesSize -= len(name)
	}
	delete(s.names, name)
	delete(s.globs, name)
	delete(s.missing, name)
	delete(s.told, name)
	delete(s.refresh, name)
	switch {
	case s.wants(name):
		// A name that a wildcard covers too: the client drops it and must be told whether
		// it exists, as the protocol asks.
		if subscribed {
			s.due[name] = struct{}{}
			if s.delta {
				s.fresh[name] = struct{}{}
			}
		}
	default:
		delete(s.due, name)
		delete(s.held, name)
	}
	if isGlob {
		s.dropHeld()
	}
}

// dropHeld forgets removals that the client no longer waits for.
func (s *subscription) dropHeld() {
	maps.DeleteFunc(s.held, func(name string, _ heldResource) bool { return !s.wants(name) })
}

// replaceNames is the subscription of a SotW request. It returns the names that are new.
func (s *subscription) replaceNames(names []string) (added []string) {
	if s.answered && len(s.dropped) == 0 && slices.Equal(names, s.lastNames) {
		return nil
	}
	for name := range s.dropped {
		s.remove(name)
	}
	s.dropped = nil
	s.lastNames = names
	if len(names) > 0 {
		s.legacyWildcard = false
	}
	if s.legacyWildcard {
		s.wildcard = true
		return nil
	}
	want := make(map[string]struct{}, len(names))
	for _, name := range names {
		want[name] = struct{}{}
	}
	if _, ok := want["*"]; !ok {
		s.remove("*")
	}
	for _, name := range slices.Collect(maps.Keys(s.names)) {
		if _, ok := want[name]; !ok {
			s.remove(name)
		}
	}
	for _, name := range names {
		lacks := name == "*" || !s.wants(name)
		if s.add(name) {
			added = append(added, name)
			if lacks {
				s.fresh[name] = struct{}{}
			}
		}
	}
	return added
}

// noteDropped records that the client has dropped the resources that a request does not
// name. They are new to the client when a later request names them again.
func (s *subscription) noteDropped(names []string) {
	if s.legacyWildcard || s.traits.fullState || slices.Equal(names, s.lastNames) {
		return
	}
	has := make(map[string]struct{}, len(names))
	for _, name := range names {
		has[name] = struct{}{}
	}
	for name := range s.names {
		if _, ok := has[name]; ok {
			continue
		}
		if s.dropped == nil {
			s.dropped = map[string]struct{}{}
		}
		s.dropped[name] = struct{}{}
	}
}

// distrust makes the first answer contain a resource that the client may have.
func (s *subscription) distrust(name string) {
	if _, has := s.initial[name]; has {
		s.initial[name] = ""
	}
}

// subscribed returns the resources of a type that the client subscribes to, sorted by name.
func (s *subscription) subscribed(t *state.Type) []*journal.Resource {
	if s.wildcard {
		return slices.AppendSeq(make([]*journal.Resource, 0, t.Len()), t.All())
	}
	var out []*journal.Resource
	// Walking the type, which is sorted, is cheaper than looking many names up and sorting
	// what was found.
	if len(s.globs) == 0 && len(s.names) > t.Len()/walkShare {
		for r := range t.All() {
			if _, ok := s.names[r.Name]; ok {
				out = append(out, r)
			}
		}
		return out
	}
	for name := range s.names {
		if r := t.Get(name); r != nil {
			out = append(out, r)
		}
	}
	for _, g := range s.globs {
		out = slices.AppendSeq(out, g.resources(t))
	}
	sortResources(out)
	return slices.Compact(out)
}

// walkShare is the part of a type's resources from which on a client that names them is
// answered by walking the type.
const walkShare = 8

// exists reports whether the node has a resource that a subscribed name stands for.
func (s *subscription) exists(t *state.Type, name string) bool {
	g, ok := s.globs[name]
	if !ok {
		return t.Get(name) != nil
	}
	for range g.resources(t) {
		return true
	}
	return false
}

// acknowledge removes the answers up to a nonce from those that are outstanding, and
// returns the one with the nonce. It reports false for a nonce that is not outstanding.
func (s *subscription) acknowledge(nonce string) (sentAnswer, bool) {
	for i, a := range s.outstanding {
		if a.nonce == nonce {
			s.outstanding = slices.Delete(s.outstanding, 0, i+1)
			return a, true
		}
	}
	return sentAnswer{}, false
}

func sortResources(rs []*journal.Resource) {
	slices.SortFunc(rs, func(a, b *journal.Resource) int { return strings.Compare(a.Name, b.Name) })
}
