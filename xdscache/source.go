package xdscache

import (
	"reflect"
	"weak"

	"google.golang.org/protobuf/proto"

	"github.com/xdswal/xdswal/journal"
)

// address returns the address of a message, or nil if it is not a pointer.
func address(m proto.Message) *byte {
	v := reflect.ValueOf(m)
	if v.Kind() != reflect.Pointer {
		return nil
	}
	return (*byte)(v.UnsafePointer())
}

// sourceOf returns the address of a message. It does not keep the message in memory,
// and no later message at that address is equal to it.
func sourceOf(m proto.Message) weak.Pointer[byte] {
	if !canCompareAddresses {
		return weak.Pointer[byte]{}
	}
	return weak.Make(address(m))
}

// isSource reports whether r was marshaled from m. False means that it is unknown.
func isSource(r *journal.Resource, m proto.Message) bool {
	p := address(m)
	return canCompareAddresses && p != nil && r.Source.Value() == p
}

func isNil(m proto.Message) bool {
	if m == nil {
		return true
	}
	v := reflect.ValueOf(m)
	return v.Kind() == reflect.Pointer && v.IsNil()
}
