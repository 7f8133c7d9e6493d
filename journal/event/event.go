// Package event is the event model of xdswal and its record codec.
//
// An [Event] is one update of one node of one journaled cache. It is encoded
// as a protobuf message, described in xdswal.proto, that any protobuf tool
// reads; this package writes and parses it by hand because the journal, the
// snapshot and the replay spend their time here. A test holds the two equal.
package event

import (
	"fmt"
	"strconv"
	"time"
	"weak"
)

// Sequence is the place of an event in the journal. The first event has
// sequence 1; 0 stands for "before every event".
type Sequence uint64

// String returns the sequence as 20 decimal digits, so that text sorts as
// numbers do.
func (s Sequence) String() string { return fmt.Sprintf("%020d", uint64(s)) }

// ParseSequence parses the decimal text of a sequence, with or without
// leading zeros.
func ParseSequence(s string) (Sequence, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("parse sequence %q: not a decimal number", s)
	}
	return Sequence(n), nil
}

// Kind says what an event does to its node.
type Kind uint8

// The kinds of events; the values are those of xdswal.proto.
const (
	// Update applies type changes to a node and creates it if need be.
	Update Kind = 1
	// Clear removes a node with all that it holds.
	Clear Kind = 2
)

// String returns "update" or "clear".
func (k Kind) String() string {
	switch k {
	case Update:
		return "update"
	case Clear:
		return "clear"
	default:
		return fmt.Sprintf("kind(%d)", uint8(k))
	}
}

// Event is one update of one node of one cache. Sequence and Time are set
// when the journal commits it. An event that was queued or decoded is
// immutable.
type Event struct {
	Sequence Sequence
	// Time is when the event was committed; it never decreases along the
	// journal.
	Time time.Time
	Kind Kind
	// Cache names the journaled cache: "snapshot/NAME" or "linear/NAME".
	Cache string
	// Node is the node's key in a snapshot cache, empty in a linear cache.
	Node string
	// Types are the changed types, sorted by URL. A Clear has none.
	Types []TypeChange
}

// TypeChange is what an event does to the resources of one type of its node.
type TypeChange struct {
	TypeURL string
	// Version is the type's version after the event.
	Version string
	// Upserts sets resources by name; Deletes removes names.
	Upserts []*Resource
	Deletes []string
}

// Resource is one xDS resource, held as the very bytes that are journaled,
// snapshotted, hashed and served. It is immutable.
type Resource struct {
	// Name is the resource's key among the resources of its type.
	Name string
	// TypeURL is the message's own type.
	TypeURL string
	// Version is the resource's version in the delta protocol: the SHA-256 of
	// Value in hexadecimal, unless the cache's user chose another.
	Version string
	// Value is the message in deterministic wire format.
	Value []byte
	// TTL is nil for a resource that does not expire.
	TTL *time.Duration
	// Source is the address of the message that Value was marshaled from,
	// as long as somebody holds that message. A message that is set again
	// under the same address needs no second marshaling. It is not encoded.
	Source weak.Pointer[byte]
}

// Size returns the wire size of the resource's value in bytes.
func (r *Resource) Size() int64 { return int64(len(r.Value)) }

// Same reports whether r and o are the same to an Envoy: bytes, type, version
// and TTL.
func (r *Resource) Same(o *Resource) bool {
	return r.Version == o.Version && r.TypeURL == o.TypeURL && sameTTL(r.TTL, o.TTL) &&
		string(r.Value) == string(o.Value)
}

func sameTTL(a, b *time.Duration) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}
