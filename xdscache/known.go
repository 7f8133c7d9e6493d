package xdscache

import (
	"maps"
	"reflect"
	"runtime"
	"sync"
	"weak"

	"github.com/xdswal/xdswal/internal/state"
)

// knownStates keeps what the caches know of a client beside the resources that it was
// sent. go-control-plane's server passes nothing that names the stream, but it passes the
// map of the last response back with each request, until the next response. The map is
// kept in memory by the server alone.
type knownStates struct {
	byMap sync.Map // of knownState, by weak.Pointer[byte]
}

// knownState is what is known of the client of a map.
type knownState struct {
	// of has all resources that the client was sent, if it requests what it did then. It is
	// nil if that is unknown. size is the length of the map: the server removes names from
	// it when the client unsubscribes.
	of         *state.Type
	isWildcard bool
	size       int
	// nonce and names are those of the last request of a SotW client.
	nonce string
	names map[string]struct{}
	// again are names that the client must be sent again by its next response.
	again again
}

// again is a set of names that a client subscribes to once more: it has dropped what it
// was sent, and waits for an answer.
type again struct {
	names map[string]struct{}
	isAll bool
}

func (a again) has(name string) bool {
	_, ok := a.names[name]
	return ok || a.isAll
}

// add adds names, and does not change the set that both may share.
func (a *again) add(names []string) {
	a.names = maps.Clone(a.names)
	if a.names == nil {
		a.names = make(map[string]struct{}, len(names))
	}
	for _, name := range names {
		a.names[name] = struct{}{}
		a.isAll = a.isAll || name == "*"
	}
}

// weakMap returns a weak pointer to a map.
func weakMap(m map[string]string) (weak.Pointer[byte], *byte) {
	p := (*byte)(reflect.ValueOf(m).UnsafePointer())
	return weak.Make(p), p
}

func (ks *knownStates) get(m map[string]string) knownState {
	key, _ := weakMap(m)
	if v, ok := ks.byMap.Load(key); ok {
		return v.(knownState)
	}
	return knownState{}
}

func (ks *knownStates) put(m map[string]string, s knownState) {
	key, p := weakMap(m)
	if _, replaced := ks.byMap.Swap(key, s); !replaced {
		runtime.AddCleanup(p, func(key weak.Pointer[byte]) { ks.byMap.Delete(key) }, key)
	}
}

// remember records that a client that is sent a response with the map m has the resources
// of a type that it requests.
func (ks *knownStates) remember(q *watchRequest, m map[string]string, of *state.Type) {
	if len(m) > 0 {
		ks.put(m, knownState{of: of, isWildcard: q.isWildcard, size: len(m)})
	}
}

// request completes a request by what the client must be sent again. It returns the
// state of the requested resources that the client has, or nil if it is unknown.
func (ks *knownStates) request(q *watchRequest) *state.Type {
	if len(q.known) == 0 {
		return nil // it is sent all
	}
	s := ks.get(q.known)
	if q.sotw != nil {
		ks.requestSotw(q, &s)
	} else {
		ks.requestDelta(q, &s)
	}
	q.again = s.again
	isSame := s.isWildcard == q.isWildcard && s.size == len(q.known)
	if q.isDueAlways || !isSame || s.again.isAll || len(s.again.names) > 0 {
		return nil
	}
	return s.of
}

// requestSotw detects a request that repeats an acknowledged one. An Envoy does so for the
// endpoints of a cluster that it has replaced.
func (ks *knownStates) requestSotw(q *watchRequest, s *knownState) {
	if len(q.names) == 0 {
		return
	}
	s.of = nil // the names may be others than before
	if q.isRejection() || q.sotw.GetResponseNonce() == "" {
		return
	}
	if s.nonce == q.sotw.GetResponseNonce() && maps.Equal(s.names, q.names) {
		s.again.names = q.names
	}
	s.nonce, s.names = q.sotw.GetResponseNonce(), q.names
	ks.put(q.known, *s)
}

// requestDelta detects names that the client subscribes to once more.
func (ks *knownStates) requestDelta(q *watchRequest, s *knownState) {
	subscribed, unsubscribed := q.delta.GetResourceNamesSubscribe(), q.delta.GetResourceNamesUnsubscribe()
	if len(subscribed)+len(unsubscribed) == 0 || len(q.delta.GetInitialResourceVersions()) > 0 {
		return // the first request of a stream tells what the client has
	}
	s.of = nil
	if !q.replacesWildcard() {
		s.again.add(subscribed)
	}
	ks.put(q.known, *s)
}
