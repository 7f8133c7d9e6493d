package xdscache

import (
	"maps"
	"reflect"
	"runtime"
	"sync"
	"weak"

	"github.com/xdswal/xdswal/internal/state"
)

// knownStates finds the state of a type that a client has, by the map of its known
// resources: go-control-plane's server passes the map of the last response back with the
// client's next request, and nothing else that names the stream. With the state, the
// request costs the difference, and not a look at each name. It keeps no map in memory.
type knownStates struct {
	byMap sync.Map // of knownState, by weak.Pointer[byte]
}

type knownState struct {
	of         *state.Type
	isWildcard bool
	// size is the length of the map. The server removes names from it when the client
	// unsubscribes.
	size int
	// nonce and names are those of the last request by which a SotW client has
	// acknowledged the response.
	nonce string
	names map[string]struct{}
}

// weakMap returns a weak pointer to a map.
func weakMap(m map[string]string) (weak.Pointer[byte], *byte) {
	p := (*byte)(reflect.ValueOf(m).UnsafePointer())
	return weak.Make(p), p
}

// remember records that a client that is sent a response with the map m has the resources
// of a type that it requests.
func (ks *knownStates) remember(q *watchRequest, m map[string]string, of *state.Type) {
	if len(m) == 0 {
		return
	}
	key, p := weakMap(m)
	ks.byMap.Store(key, knownState{of: of, isWildcard: q.isWildcard, size: len(m)})
	runtime.AddCleanup(p, func(key weak.Pointer[byte]) { ks.byMap.Delete(key) }, key)
}

// find returns the state of the requested resources that a client has, or nil if it is
// unknown or the client may request other names than before.
func (ks *knownStates) find(q *watchRequest) *state.Type {
	if len(q.known) == 0 || q.isDueAlways || (q.sotw != nil && len(q.names) > 0) {
		return nil
	}
	key, _ := weakMap(q.known)
	v, ok := ks.byMap.Load(key)
	if !ok {
		return nil
	}
	if len(q.delta.GetResourceNamesSubscribe())+len(q.delta.GetResourceNamesUnsubscribe()) > 0 {
		ks.byMap.Delete(key) // it does not hold for the next request either
		return nil
	}
	if known := v.(knownState); known.isWildcard == q.isWildcard && known.size == len(q.known) {
		return known.of
	}
	return nil
}

// acknowledge reports whether a SotW client repeats a request by which it has
// acknowledged its last response: it has dropped resources that it was sent, and waits for
// an answer. An Envoy does so for the endpoints of a cluster that it has replaced.
func (ks *knownStates) acknowledge(q *watchRequest) (isRepeated bool) {
	nonce := q.sotw.GetResponseNonce()
	if len(q.known) == 0 || len(q.names) == 0 || nonce == "" || q.isRejection() {
		return false
	}
	key, _ := weakMap(q.known)
	v, ok := ks.byMap.Load(key)
	if !ok {
		return false
	}
	known := v.(knownState)
	isRepeated = known.nonce == nonce && maps.Equal(known.names, q.names)
	known.nonce, known.names = nonce, q.names
	ks.byMap.Store(key, known)
	return isRepeated
}
