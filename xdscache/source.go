package xdscache

import (
	"reflect"

	"google.golang.org/protobuf/proto"

	"github.com/xdswal/xdswal/journal"
)

// address returns where a message is, nil if it is not behind a pointer.
func address(m proto.Message) *byte {
	v := reflect.ValueOf(m)
	if v.Kind() != reflect.Pointer {
		return nil
	}
	return (*byte)(v.UnsafePointer())
}

// isSource reports whether r was marshaled from the message at p.
func isSource(r *journal.Resource, p *byte) bool {
	return addressesTell && p != nil && r.Source.Value() == p
}
