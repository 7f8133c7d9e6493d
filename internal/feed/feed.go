// Package feed is the seam between the caches and the xDS server: what a cache gives to
// a server that answers clients from the immutable state.
//
// A server reads the newest state of a client's node, and is woken after each change of
// it. It compares that state with the one that it sent last. So no cache waits for a
// client, and a client that reads slowly is answered from the newest state.
//
// Invariants:
//   - [Source].Node returns only durable events, and a state that never goes back.
//   - After each change of a node, its watchers are woken, whatever made the change.
package feed

import (
	"context"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/journal"
)

// Cache is a cache that a server can answer from.
type Cache interface {
	// Feed returns the cache's source.
	Feed() Source
}

// Source is the state of one cache. Its methods are safe for concurrent use.
type Source interface {
	// Key returns the key of a client's node.
	Key(node *corev3.Node) string
	// Node returns the newest state of a node, or nil if the node does not exist, and the
	// sequence of the newest event of the log.
	Node(key string) (*state.Node, journal.Sequence)
	// Watch calls wake after each change of a node, until stop is called. wake must not
	// block. A change during the call of Watch may not be reported, so the caller reads
	// the node afterwards.
	Watch(key string, wake func()) (stop func())
	// Serves reports whether the cache has resources of a type, or could have them.
	Serves(typeURL string) bool
	// Prepare makes the resources of a type that a client requests part of the node's state,
	// now and when it is set, if the caller of the cache sets them in a form that cannot list
	// its types. It waits for their commit.
	Prepare(ctx context.Context, key, typeURL string) error
	// Version returns the version of a type of a node. It is never empty: if the caller of
	// the cache set none, it is made of the sequence of the node's last event.
	Version(node *state.Node, typeURL string) string
}
