package xdscache

import (
	"reflect"
	"sync"
	"unsafe"
	"weak"

	"google.golang.org/protobuf/proto"

	"github.com/xdswal/xdswal/journal"
)

// sources knows which resource was made from a message, by the address of the message.
// It keeps neither in memory. It is safe for concurrent use; a nil sources knows nothing.
//
// journal.Resource.Source keeps the first of the messages, where it is found sooner.
type sources struct {
	mu        sync.RWMutex
	byAddress map[uintptr]source
	sweepAt   int // the number of sources at which the dead ones are removed
}

type source struct {
	// message is nil once the message is dead, so that a later one at its address is not
	// taken for it.
	message  weak.Pointer[byte]
	resource weak.Pointer[journal.Resource]
}

// minSweep is the least number of sources at which the dead ones are removed.
const minSweep = 1024

func newSources() *sources { return &sources{byAddress: map[uintptr]source{}, sweepAt: minSweep} }

// find sets known in each of the items.
func (s *sources) find(items []item) {
	if s == nil {
		return
	}
	missing := false
	for i := range items {
		it := &items[i]
		if p := address(it.Resource); p != nil && it.old != nil && it.old.Source == p {
			it.known = it.old
		} else {
			missing = true
		}
	}
	if !missing {
		return
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	for i := range items {
		it := &items[i]
		if it.known != nil {
			continue
		}
		p := address(it.Resource)
		if found, ok := s.byAddress[uintptr(unsafe.Pointer(p))]; ok && found.message.Value() == p {
			it.known = found.resource.Value()
		}
	}
}

// add records that r was made from m, or has its content.
func (s *sources) add(m proto.Message, r *journal.Resource) {
	p := address(m)
	if s == nil || p == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.byAddress[uintptr(unsafe.Pointer(p))] = source{message: weak.Make(p), resource: weak.Make(r)}
	if len(s.byAddress) < s.sweepAt {
		return
	}
	for at, found := range s.byAddress {
		if found.message.Value() == nil || found.resource.Value() == nil {
			delete(s.byAddress, at)
		}
	}
	s.sweepAt = max(minSweep, 2*len(s.byAddress))
}

// address returns the address of a message, or nil if it is not a pointer.
func address(m proto.Message) *byte {
	v := reflect.ValueOf(m)
	if v.Kind() != reflect.Pointer {
		return nil
	}
	return (*byte)(v.UnsafePointer())
}

func isNil(m proto.Message) bool {
	if m == nil {
		return true
	}
	v := reflect.ValueOf(m)
	return v.Kind() == reflect.Pointer && v.IsNil()
}
