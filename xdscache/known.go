package xdscache

import (
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
	of *state.Type
	// size is the length of the map. The server removes names from it when the client
	// unsubscribes.
	size int
}

// weakMap returns a weak pointer to a map.
func weakMap(m map[string]string) (weak.Pointer[byte], *byte) {
	p := (*byte)(reflect.ValueOf(m).UnsafePointer())
	return weak.Make(p), p
}

// remember records that a client that is sent a response with the map m has the requested
// resources of a type.
func (ks *knownStates) remember(m map[string]string, of *state.Type) {
	if len(m) == 0 {
		return
	}
	key, p := weakMap(m)
	ks.byMap.Store(key, knownState{of, len(m)})
	runtime.AddCleanup(p, func(key weak.Pointer[byte]) { ks.byMap.Delete(key) }, key)
}

// find returns the state of the requested resources that a client has, or nil if it is
// unknown.
func (ks *knownStates) find(q *watchRequest) *state.Type {
	if len(q.known) == 0 || q.isDueAlways {
		return nil
	}
	key, _ := weakMap(q.known)
	v, ok := ks.byMap.Load(key)
	if !ok {
		return nil
	}
	if q.changesNames() {
		ks.byMap.Delete(key) // it does not hold for the next request either
		return nil
	}
	if known := v.(knownState); known.size == len(q.known) {
		return known.of
	}
	return nil
}

// changesNames reports whether the client may request other names than it did when it was
// sent its last response.
func (q *watchRequest) changesNames() bool {
	if q.sotw != nil {
		return !q.isWildcard || len(q.names) > 0
	}
	return len(q.delta.GetResourceNamesSubscribe())+len(q.delta.GetResourceNamesUnsubscribe()) > 0
}
