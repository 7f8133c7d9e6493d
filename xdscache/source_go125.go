//go:build go1.25

package xdscache

import (
	"weak"

	"google.golang.org/protobuf/proto"
)

// addressesTell is whether isSource can find an address again.
const addressesTell = true

// sourceOf returns the message's address in a form that does not keep the
// message in memory, and that no later message at that address equals.
func sourceOf(m proto.Message) weak.Pointer[byte] { return weak.Make(address(m)) }
