package xdscache

import (
	"context"
	"iter"
	"slices"
	"sync"
	"sync/atomic"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"

	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/journal"
)

// watch is an open request of a client for one type. It decides what the client is due:
// the difference between what it was last sent, which go-control-plane's server keeps
// for us in the subscription, and what its node holds.
type watch struct {
	*watchRequest
	// send hands a response to the client's channel. With a nil canceled it does not
	// block, and reports whether the channel had room.
	send func(r *response, canceled <-chan struct{}) bool
	// version returns the version of the type in a response.
	version func(node *state.Node, typeURL string) string

	// nodeWatches guards the rest.

	// isWithheld means that the client is due a response that must wait until the client
	// requests all resources. hasLeftover means that known has names that are not
	// requested.
	isWithheld, hasLeftover bool
	// canceled and delivered are not nil while a goroutine waits for room in the client's
	// channel: canceled ends the wait, and delivered is closed when the goroutine is done.
	canceled, delivered chan struct{}
	cancelOnce          sync.Once

	isCanceled atomic.Bool
}

// watchRequest is what a client requests, and by which rules it is answered. It is
// immutable.
type watchRequest struct {
	node    *corev3.Node
	typeURL string
	// isWildcard means all resources of the type; else those in names are requested.
	isWildcard bool
	names      map[string]struct{}
	// known are the resources that the client was last sent, with their knownVersion. The
	// server owns the map, and does not change it while the watch is open.
	known map[string]string

	sotw  *cachev3.Request // nil in the delta protocol
	delta *cachev3.DeltaRequest
	// again are the names that the client must be sent again.
	again again
	// isWhole means that a response contains all requested resources, and not only those
	// that differ. In the SotW protocol only such a response can tell of a removal.
	isWhole bool
	// isDueAlways means that the first response is sent even if it is empty.
	isDueAlways bool
	// comparesVersion means that the type's version counts too, and not only the contents.
	comparesVersion bool
	// withholds means that a response waits until the client requests all resources.
	withholds bool
	// remember, if not nil, is called with the map of known resources after a response, and
	// the type of which the client then has what it requests.
	remember func(q *watchRequest, known map[string]string, of *state.Type)
	// onTTL, if not nil, is called when a resource with a TTL is sent.
	onTTL func()
}

func newSotwRequest(request *cachev3.Request, sub cachev3.Subscription) *watchRequest {
	return &watchRequest{
		node:       request.GetNode(),
		typeURL:    request.GetTypeUrl(),
		isWildcard: sub.IsWildcard(),
		names:      sub.SubscribedResources(),
		known:      sub.ReturnedResources(),
		sotw:       request,
	}
}

func newDeltaRequest(request *cachev3.DeltaRequest, sub cachev3.Subscription) *watchRequest {
	return &watchRequest{
		node:       request.GetNode(),
		typeURL:    request.GetTypeUrl(),
		isWildcard: sub.IsWildcard(),
		names:      sub.SubscribedResources(),
		known:      sub.ReturnedResources(),
		delta:      request,
		// Envoy waits for the first response of a wildcard.
		isDueAlways: sub.IsWildcard() && request.GetResponseNonce() == "",
	}
}

// replacesWildcard reports whether a delta client subscribes to names instead of all: it
// has those that it names.
func (q *watchRequest) replacesWildcard() bool {
	return slices.Contains(q.delta.GetResourceNamesUnsubscribe(), "*")
}

// requests reports whether a name is requested.
func (q *watchRequest) requests(name string) bool {
	if q.isWildcard {
		return true
	}
	_, ok := q.names[name]
	return ok
}

// requested yields the resources of a type that are requested.
func (q *watchRequest) requested(t *state.Type) iter.Seq[*journal.Resource] {
	if q.isWildcard {
		return t.All()
	}
	return func(yield func(*journal.Resource) bool) {
		if len(q.names) < t.Len()/8 {
			for name := range q.names {
				if r := t.Get(name); r != nil && !yield(r) {
					return
				}
			}
			return
		}
		for r := range t.All() {
			if _, ok := q.names[r.Name]; ok && !yield(r) {
				return
			}
		}
	}
}

// isRejection reports whether the client rejects what it was last sent.
func (q *watchRequest) isRejection() bool { return q.sotw.GetErrorDetail() != nil }

// isVersionDue reports whether a client that has all contents must be told the version
// of the type. One that rejected the contents is not sent them again until they change.
func (q *watchRequest) isVersionDue(t *state.Type) bool {
	if !q.comparesVersion || q.isRejection() {
		return false
	}
	if t.Version() == q.sotw.GetVersionInfo() {
		// Under the same version, an earlier stream may have had other contents.
		return t.Version() != "" && q.sotw.GetResponseNonce() == "" && len(q.known) == 0
	}
	// A type without a version is sent under one that is made for it. The first request of
	// a stream may have a version from an earlier stream, and then what that had.
	return t.Version() != "" || q.sotw.GetResponseNonce() == ""
}

// knownVersion is what go-control-plane's server keeps for a resource that the client
// was sent: its version in the delta protocol, and its TTL.
func knownVersion(r *journal.Resource) string {
	if r.TTL == nil {
		return r.Version
	}
	return r.Version + " TTL " + r.TTL.String()
}

// answer is what a client is sent: resources of one type.
type answer struct {
	of      *state.Type
	version string
	// resources are sent, or all that are requested if isWhole is set.
	resources []*journal.Resource
	removed   []string // sent in the delta protocol
	isWhole   bool
	// isHeartbeat means that the client has the resources, and only their TTL is sent.
	isHeartbeat bool
	// hasLeftover is that of the watch.
	hasLeftover bool
	// isStale means that the response changes nothing.
	isStale bool
}

// compare returns the answer that brings a client from what it was last sent to what its
// node holds, and whether it is due. The time depends on the size of the type.
func (w *watch) compare(node *state.Node) (a answer, isDue bool) {
	if node == nil {
		return answer{}, false // nothing is sent for a node that does not exist
	}
	t := state.TypeOf(node, w.typeURL)
	a = answer{of: t, isWhole: w.isWhole, version: w.version(node, w.typeURL)}
	// A caller of CreateWatch that is not a server says by the version that all it knows
	// is current, as go-control-plane's contract for subscriptions has it.
	isCurrent := w.sotw != nil && w.sotw.GetResponseNonce() == "" &&
		w.sotw.GetVersionInfo() == w.currentVersion(t, a.version)
	isDue = w.isDueAlways || w.isVersionDue(t)
	if isDue && w.isWhole {
		return a, true
	}
	matched := 0
	for r := range w.requested(t) {
		version, isKnown := w.known[r.Name]
		if isKnown {
			matched++
			if !w.again.has(r.Name) && (isCurrent || version == knownVersion(r) || w.hadInitially(r)) {
				continue
			}
		}
		isDue = true
		if w.isWhole {
			return a, true
		}
		a.resources = append(a.resources, r)
	}
	if matched < len(w.known) {
		for name := range w.known {
			switch {
			case !w.requests(name):
				a.hasLeftover = true
			case t.Get(name) == nil:
				a.removed = append(a.removed, name)
			}
		}
		isDue = isDue || (len(a.removed) > 0 && w.reportsRemovals() && !isCurrent)
	}
	return a, isDue
}

// hadInitially reports whether a delta client had a resource when its stream began. It
// then knows the version alone, and its TTL runs on.
func (w *watch) hadInitially(r *journal.Resource) bool {
	return w.delta.GetResponseNonce() == "" && w.known[r.Name] == r.Version &&
		w.delta.GetInitialResourceVersions()[r.Name] == r.Version
}

// compareFrom is compare for a client that has a state of the type, or nil if that is
// unknown. The time depends on what has changed since.
func (w *watch) compareFrom(has *state.Type, node *state.Node) (a answer, isDue bool) {
	if has == nil || node == nil {
		return w.compare(node)
	}
	return w.follow(node, newChange(has, state.TypeOf(node, w.typeURL)))
}

// currentVersion is the version of a request that is up to date.
func (w *watch) currentVersion(t *state.Type, sent string) string {
	if w.comparesVersion {
		return t.Version()
	}
	return sent
}

func (w *watch) reportsRemovals() bool { return w.isWhole || w.delta != nil }

// change is the difference between two states of a type.
type change struct {
	before, after *state.Type
	upserts       []*journal.Resource
	deletes       []string
}

// newChange returns the difference between the types of two states of a node. If one was
// made from the other, the time depends on the size of the difference.
func newChange(before, after *state.Type) *change {
	c := &change{before: before, after: after}
	c.upserts, c.deletes = state.Changes(before, after)
	// After a new restore, equal resources have other addresses.
	c.upserts = slices.DeleteFunc(c.upserts, func(r *journal.Resource) bool {
		old := before.Get(r.Name)
		return old != nil && old.Same(r)
	})
	return c
}

// follow is compare for a client that was due nothing before a change. The time depends
// on the size of the change.
func (w *watch) follow(node *state.Node, c *change) (a answer, isDue bool) {
	a = answer{of: c.after, isWhole: w.isWhole, hasLeftover: w.hasLeftover}
	isDue = w.isVersionDue(c.after)
	if w.isWildcard {
		a.resources, a.removed = c.upserts, c.deletes
	} else {
		for _, r := range c.upserts {
			if w.requests(r.Name) {
				a.resources = append(a.resources, r)
			}
		}
		for _, name := range c.deletes {
			if w.requests(name) {
				a.removed = append(a.removed, name)
			}
		}
	}
	isDue = isDue || len(a.resources) > 0 || (len(a.removed) > 0 && w.reportsRemovals())
	if isDue {
		a.version = w.version(node, w.typeURL)
	}
	return a, isDue
}

// mustWithhold reports whether an answer waits until the client requests all resources of
// the type.
func (w *watch) mustWithhold(t *state.Type) bool {
	if !w.withholds {
		return false
	}
	n := 0
	for range w.requested(t) {
		n++
	}
	return n < t.Len()
}

// sender returns the send function of a watch.
func sender[T any](ch chan T, wrap func(*response) T) func(*response, <-chan struct{}) bool {
	return func(r *response, canceled <-chan struct{}) bool {
		if canceled == nil {
			select {
			case ch <- wrap(r):
				return true
			default:
				return false
			}
		}
		select {
		case ch <- wrap(r):
			return true
		case <-canceled:
			return false
		}
	}
}

// offer hands an answer to the client's channel if that has room. Else a goroutine waits
// for room until the watch is canceled, and the answer is made again from the newest
// state when the client reads it.
func (w *watch) offer(ctx context.Context, a answer, n *nodeWatches) (sent bool) {
	if w.send(newResponse(ctx, w, a, nil), nil) {
		return true
	}
	r := newResponse(ctx, w, a, n.newest)
	w.canceled, w.delivered = make(chan struct{}), make(chan struct{})
	go func() {
		defer close(w.delivered)
		if w.send(r, w.canceled) {
			n.remove(w)
		}
	}()
	return false
}

// isPending reports whether the client has an answer that it has not read.
func (w *watch) isPending() bool { return w.canceled != nil }

// cancel ends the wait for room, and returns when nothing is sent any more: the server
// then closes the channel. The watch is not open any more.
func (w *watch) cancel() {
	w.isCanceled.Store(true)
	if w.canceled == nil {
		return
	}
	w.cancelOnce.Do(func() { close(w.canceled) })
	<-w.delivered
}
