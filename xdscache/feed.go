package xdscache

import (
	"context"
	"slices"
	"strconv"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/xdswal/xdswal/internal/feed"
	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/journal"
)

var (
	_ feed.Cache = (*SnapshotCache)(nil)
	_ feed.Cache = (*LinearCache)(nil)
)

// Feed is called by package xdsserver.
func (c *SnapshotCache) Feed() feed.Source { return snapshotFeed{c} }

type snapshotFeed struct{ *SnapshotCache }

func (f snapshotFeed) Key(node *corev3.Node) string { return f.hash.ID(node) }

func (f snapshotFeed) Node(key string) (*state.Node, journal.Sequence) {
	st := f.store.State()
	return st.Node(f.name, key), st.Sequence()
}

func (f snapshotFeed) Watch(key string, wake func()) (stop func()) { return f.hub.Watch(key, wake) }

func (f snapshotFeed) Serves(typeURL string) bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	_, found := slices.BinarySearch(f.typeURLs, typeURL)
	return found
}

func (f snapshotFeed) Prepare(ctx context.Context, key, typeURL string) error {
	if err := f.discover(ctx, key, typeURL); err != nil {
		return err
	}
	// A snapshot that is set later is asked for the type too. The server admits few types.
	f.mu.Lock()
	defer f.mu.Unlock()
	if at, known := slices.BinarySearch(f.typeURLs, typeURL); !known {
		f.typeURLs = slices.Insert(slices.Clone(f.typeURLs), at, typeURL)
	}
	return nil
}

func (f snapshotFeed) Version(node *state.Node, typeURL string) string {
	if v := state.TypeOf(node, typeURL).Version(); v != "" {
		return v
	}
	return sequenceVersion(f.store, node)
}

// Feed is called by package xdsserver.
func (c *LinearCache) Feed() feed.Source { return linearFeed{c} }

type linearFeed struct{ *LinearCache }

// Key returns the empty key: a linear cache has the same resources for all clients.
func (f linearFeed) Key(*corev3.Node) string { return "" }

func (f linearFeed) Node(string) (*state.Node, journal.Sequence) {
	st := f.store.State()
	node := st.Node(f.differ.cache, "")
	if node == nil {
		node = emptyLinear // a linear cache without resources exists
	}
	return node, st.Sequence()
}

var emptyLinear = state.NewNode("", "")

func (f linearFeed) Watch(_ string, wake func()) (stop func()) { return f.hub.Watch("", wake) }

func (f linearFeed) Serves(typeURL string) bool { return typeURL == f.typeURL }

func (f linearFeed) Prepare(context.Context, string, string) error { return nil }

func (f linearFeed) Version(node *state.Node, _ string) string { return sequenceVersion(f.store, node) }

// sequenceVersion returns a version that changes with each event of a node.
func sequenceVersion(s *store, node *state.Node) string {
	return s.VersionPrefix + strconv.FormatUint(uint64(node.Sequence()), 10)
}
