package journal

import (
	"fmt"
	"time"
)

// Sequence is the position of an event in the journal. The first event has
// sequence 1; 0 is the position before every event.
type Sequence uint64

// String returns the sequence as 20 decimal digits, so that text sorts as
// numbers do.
func (s Sequence) String() string { return fmt.Sprintf("%020d", uint64(s)) }

// Kind is what an event does to its node. Its values are those of
// internal/event/xdswal.proto.
type Kind uint8

const (
	// Update applies type changes to a node, and creates the node if it does not
	// exist.
	Update Kind = 1
	// Clear removes a node and all its resources.
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

// Event is one update of one node of one cache. Sequence and Time are set when the
// event is committed. A queued or decoded event is immutable.
type Event struct {
	Sequence Sequence
	// Time is the time of the commit. It never decreases along the journal.
	Time time.Time
	Kind Kind
	// Cache is the name of the cache: "snapshot/NAME" or "linear/NAME".
	Cache string
	// Node is the node's key in a snapshot cache. It is empty in a linear cache.
	Node string
	// Types are the changed types, sorted by URL. A Clear has none.
	Types []TypeChange
}

// TypeChange is what an event does to the resources of one type of its node.
type TypeChange struct {
	TypeURL string
	// Version is the type's version after the event.
	Version string
	// Upserts are the resources that are set, Deletes the names of the resources
	// that are removed.
	Upserts []*Resource
	Deletes []string
}

// Resource is one xDS resource, with the bytes that are journaled, written to
// snapshots, hashed and served. It is immutable.
type Resource struct {
	// Name is the resource's key among the resources of its type.
	Name string
	// TypeURL is the type of the message.
	TypeURL string
	// Version is the resource's version in the delta protocol. Unless the caller of the
	// cache chose one, it is of 16 characters: the first 12 bytes of the SHA-256 of
	// Value, in the URL-safe base64 without padding. Earlier versions of xdswal used the
	// whole SHA-256 in hexadecimal; a resource keeps its version until it changes.
	Version string
	// Value is the message in deterministic wire format. It may be secret.
	Value []byte
	// TTL is nil for a resource that does not expire.
	TTL *time.Duration
	// Source points to the message that Value was marshaled from, and keeps it in memory,
	// if the caller has promised not to change it. It is not encoded.
	Source *byte
}

// Size returns the size of the resource's value in bytes.
func (r *Resource) Size() int64 { return int64(len(r.Value)) }

// Same reports whether a client cannot distinguish r and o: whether value, type,
// version and TTL are equal. It does not compare names.
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
