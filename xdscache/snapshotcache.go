package xdscache

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync"

	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/log"

	"github.com/xdswal/xdswal/internal/cachelog"
	"github.com/xdswal/xdswal/internal/feed"
	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/journal"
	"github.com/xdswal/xdswal/replay"
)

// SnapshotCache is a [cachev3.SnapshotCache] whose updates are durable before a client
// receives them. It is safe for concurrent use: updates of one node are ordered, and
// updates of different nodes run in parallel.
//
// Set, UpdateResources and Clear return when the update is durable and
// go-control-plane's cache has answered the watches of the node. They return the
// sequence of the event, or, if nothing changes and nothing is journaled, a sequence at
// which the node is as wanted. If the update cannot be made durable, they return an
// error and the node stays as it was, except after a commit timeout. If the update is
// durable, but a watch does not receive its response before ctx is done, they return
// the context's error, as go-control-plane does; the same update again then notifies
// that watch. If ctx is done at the call, nothing changes. If ctx is done later, the
// wait for the commit continues; the store's CommitTimeout bounds it.
type SnapshotCache struct {
	served  cachev3.SnapshotCache
	hash    cachev3.NodeHash
	store   *store
	name    string
	options options
	hub     feed.Hub

	// updating is held for reading by every update, and for writing while discover
	// sets snapshots again, which must not replace later ones.
	updating sync.RWMutex

	updatersMu sync.Mutex
	updaters   map[string]*updater // of the nodes that are being updated

	mu sync.RWMutex
	// current is what served contains, by node.
	current map[string]*servedSnapshot
	// typeURLs are the types that custom snapshots are asked for, sorted.
	typeURLs []string
}

var _ cachev3.SnapshotCache = (*SnapshotCache)(nil)

// ResourceName identifies a resource of a node.
type ResourceName struct {
	TypeURL, Name string
}

// NewSnapshotCache is called by xdswal.Store.SnapshotCache. It returns a cache that
// serves the nodes that the log's state contains for its name. It panics if the log has
// a snapshot cache of that name.
func NewSnapshotCache(l cachelog.Log, cfg cachelog.Config, ads bool, hash cachev3.NodeHash, logger log.Logger, opts ...SnapshotOption) *SnapshotCache {
	c := &SnapshotCache{
		hash:     hash,
		store:    newStore(l, cfg),
		updaters: map[string]*updater{},
		current:  map[string]*servedSnapshot{},
	}
	for _, opt := range opts {
		opt.applyToSnapshot(&c.options)
	}
	c.name = cachelog.SnapshotPrefix + c.options.name
	c.typeURLs = slices.Compact(slices.Sorted(slices.Values(slices.Concat(c.options.typeURLs, knownTypes))))
	// A refresh waits until the cache is complete. The state is read after the cache is
	// subscribed, so that it misses no change.
	c.mu.Lock()
	defer c.mu.Unlock()
	l.Subscribe(c.name, c.refresh)
	if c.options.heartbeat > 0 {
		c.served = cachev3.NewSnapshotCacheWithHeartbeating(c.options.heartbeatCtx, ads, hash, logger, c.options.heartbeat)
	} else {
		c.served = cachev3.NewSnapshotCache(ads, hash, logger)
	}
	for node := range l.State().Cache(c.name) {
		s := newServed(node, nil)
		c.current[node.Name()] = s
		// This cannot fail: no watch is open yet.
		_ = c.served.SetSnapshot(context.Background(), node.Name(), s)
	}
	return c
}

// Name returns the cache's name among the snapshot caches of its store.
func (c *SnapshotCache) Name() string { return c.options.name }

// SetSnapshot is Set with the signature of go-control-plane's interface.
func (c *SnapshotCache) SetSnapshot(ctx context.Context, node string, snapshot cachev3.ResourceSnapshot) error {
	_, err := c.Set(ctx, node, snapshot)
	return err
}

// Set replaces the resources of a node by those of a snapshot. A snapshot that is equal
// to the node's is not journaled.
func (c *SnapshotCache) Set(ctx context.Context, node string, snapshot cachev3.ResourceSnapshot) (journal.Sequence, error) {
	if isNilSnapshot(snapshot) {
		return 0, fmt.Errorf("set snapshot of node %q: the snapshot is nil", node)
	}
	c.updating.RLock()
	defer c.updating.RUnlock()
	return c.set(ctx, node, snapshot, nil)
}

// errSuperseded means that a node has changed in the meantime.
var errSuperseded = errors.New("superseded")

// set sets a snapshot. If instead is not nil and the node has changed since, it returns
// errSuperseded.
func (c *SnapshotCache) set(ctx context.Context, node string, snapshot cachev3.ResourceSnapshot, instead *state.Node) (journal.Sequence, error) {
	want, err := wantSnapshot(snapshot)
	if err != nil {
		return 0, fmt.Errorf("set snapshot of node %q: %w", node, err)
	}
	c.mu.RLock()
	urls, d := c.typeURLs, c.differ(node)
	c.mu.RUnlock()
	return c.update(ctx, "set snapshot of", node, snapshot, func(base *state.Node) (*journal.Event, error) {
		if instead != nil && (base == nil || base.Sequence() != instead.Sequence()) {
			return nil, errSuperseded
		}
		return d.snapshot(base, urls, want)
	})
}

// UpdateResources changes some resources of a node. It sets upserts, which are keyed by
// type URL, removes deletes, and sets the version of the types of both. It creates a
// node that does not exist, even if there are no upserts and no deletes. Its cost grows
// with the change, and not with the node, except for what go-control-plane does for open
// watches.
func (c *SnapshotCache) UpdateResources(ctx context.Context, node string, upserts map[string][]types.ResourceWithTTL, deletes []ResourceName, version string) (journal.Sequence, error) {
	c.updating.RLock()
	defer c.updating.RUnlock()
	changes, err := newChanges(upserts, deletes)
	if err != nil {
		return 0, fmt.Errorf("update resources of node %q: %w", node, err)
	}
	d := c.differ(node)
	return c.update(ctx, "update resources of", node, nil, func(base *state.Node) (*journal.Event, error) {
		return d.changes(base, changes, version)
	})
}

// Clear removes a node's resources, and go-control-plane's status of the node.
func (c *SnapshotCache) Clear(ctx context.Context, node string) (journal.Sequence, error) {
	c.updating.RLock()
	defer c.updating.RUnlock()
	return c.update(ctx, "clear", node, nil, func(base *state.Node) (*journal.Event, error) {
		if base == nil {
			return nil, nil
		}
		return &journal.Event{Kind: journal.Clear, Cache: c.name, Node: node}, nil
	})
}

// ClearSnapshot is Clear with the signature of go-control-plane's interface; an error
// is passed to xdswal.Hooks.CacheError.
func (c *SnapshotCache) ClearSnapshot(node string) {
	if _, err := c.Clear(context.Background(), node); err != nil {
		c.store.OnError(c.name, node, err)
	}
}

func (c *SnapshotCache) differ(node string) differ {
	return differ{compareContent: c.options.compareContent, cache: c.name, node: node}
}

func (c *SnapshotCache) update(ctx context.Context, what, node string, given cachev3.ResourceSnapshot, compute func(*state.Node) (*journal.Event, error)) (journal.Sequence, error) {
	u := c.acquire(node)
	seq, err := u.update(ctx, compute, func(ctx context.Context, seq journal.Sequence) error {
		return c.publish(ctx, u, seq, given)
	}, func() { c.release(u) })
	if errors.Is(err, context.Canceled) && err.Error() == context.Canceled.Error() {
		return 0, err // not wrapped, as in go-control-plane
	}
	if err != nil {
		return 0, fmt.Errorf("%s node %q: %w", what, node, err)
	}
	if seq == 0 {
		return c.store.State().Sequence(), nil
	}
	return seq, nil
}

// publish brings the served cache to the durable state of a node, which is at seq or
// later. Updates that were committed together are published together.
func (c *SnapshotCache) publish(ctx context.Context, u *updater, seq journal.Sequence, given cachev3.ResourceSnapshot) error {
	c.hub.Wake(u.node)
	u.publishing.Lock()
	defer u.publishing.Unlock()
	c.mu.RLock()
	current := c.current[u.node]
	c.mu.RUnlock()

	st := c.store.State()
	node := st.Node(u.cache, u.node)
	if node == nil {
		if seq != 0 && seq <= u.published {
			return nil // keep a watch that was opened after the node was cleared
		}
		c.setCurrent(u.node, nil)
		u.published = st.Sequence()
		c.served.ClearSnapshot(u.node)
		return nil
	}
	isNew := current == nil || current.node != node
	if isNew {
		current = newServed(node, current)
	}
	if given != nil && seq == node.Sequence() {
		current.setOriginal(given)
	}
	if !isNew && !current.undelivered.Load() {
		return nil
	}
	c.setCurrent(u.node, current)
	err := c.served.SetSnapshot(ctx, u.node, current)
	current.undelivered.Store(err != nil)
	u.published = st.Sequence()
	return err
}

// refresh brings the served cache to a state that did not come from this cache. ctx
// bounds the notification of watches. The next refresh notifies those that did not
// receive their response.
func (c *SnapshotCache) refresh(ctx context.Context) error {
	c.hub.WakeAll()
	st := c.store.State()
	var stale []string
	c.mu.RLock()
	for node := range st.Cache(c.name) {
		if s := c.current[node.Name()]; s == nil || s.node != node {
			stale = append(stale, node.Name())
		}
	}
	for name, s := range c.current {
		if st.Node(c.name, name) == nil || s.undelivered.Load() {
			stale = append(stale, name)
		}
	}
	c.mu.RUnlock()
	var errs []error
	for _, name := range stale {
		u := c.acquire(name)
		if err := c.publish(ctx, u, 0, nil); err != nil {
			errs = append(errs, fmt.Errorf("notify watches of node %q: %w", name, err))
		}
		c.release(u)
	}
	return errors.Join(errs...)
}

func (c *SnapshotCache) setCurrent(node string, s *servedSnapshot) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s == nil {
		delete(c.current, node)
		return
	}
	c.current[node] = s
}

// acquire returns the updater of a node, which exists while it has users.
func (c *SnapshotCache) acquire(node string) *updater {
	c.updatersMu.Lock()
	defer c.updatersMu.Unlock()
	u := c.updaters[node]
	if u == nil {
		u = &updater{store: c.store, cache: c.name, node: node}
		c.updaters[node] = u
	}
	u.users++
	return u
}

func (c *SnapshotCache) release(u *updater) {
	c.updatersMu.Lock()
	defer c.updatersMu.Unlock()
	if u.users--; u.users == 0 {
		delete(c.updaters, u.node)
	}
}

// GetSnapshot returns the node's snapshot: the one that was set, while the caller keeps
// it in memory, or one with decoded messages. As in go-control-plane, several callers
// may get the same snapshot, so its messages must not be changed. It is a
// *cachev3.Snapshot, unless a snapshot of another type was set or the node has a type
// that go-control-plane does not know.
func (c *SnapshotCache) GetSnapshot(node string) (cachev3.ResourceSnapshot, error) {
	s := c.servedSnapshot(node)
	if s == nil {
		return nil, fmt.Errorf("no snapshot found for node %s", node)
	}
	return s.get()
}

// GetNode returns what a node is served, with resources as bytes, or nil if the node
// does not exist. It copies and decodes nothing.
func (c *SnapshotCache) GetNode(node string) *replay.Node {
	if s := c.servedSnapshot(node); s != nil {
		return (*replay.Node)(s.node)
	}
	return nil
}

func (c *SnapshotCache) servedSnapshot(node string) *servedSnapshot {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.current[node]
}

// Nodes yields what each node is served, sorted by node.
func (c *SnapshotCache) Nodes() iter.Seq[*replay.Node] {
	return func(yield func(*replay.Node) bool) {
		c.mu.RLock()
		current := maps.Clone(c.current)
		c.mu.RUnlock()
		for _, name := range slices.Sorted(maps.Keys(current)) {
			if !yield((*replay.Node)(current[name].node)) {
				return
			}
		}
	}
}

// GetStatusInfo forwards to go-control-plane's cache.
func (c *SnapshotCache) GetStatusInfo(node string) cachev3.StatusInfo {
	return c.served.GetStatusInfo(node)
}

// GetStatusKeys forwards to go-control-plane's cache.
func (c *SnapshotCache) GetStatusKeys() []string { return c.served.GetStatusKeys() }

// CreateWatch forwards to go-control-plane's cache.
func (c *SnapshotCache) CreateWatch(request *cachev3.Request, sub cachev3.Subscription, value chan cachev3.Response) (func(), error) {
	if err := c.discover(context.Background(), c.hash.ID(request.GetNode()), request.GetTypeUrl()); err != nil {
		return nil, err
	}
	return c.served.CreateWatch(request, sub, value)
}

// CreateDeltaWatch forwards to go-control-plane's cache.
func (c *SnapshotCache) CreateDeltaWatch(request *cachev3.DeltaRequest, sub cachev3.Subscription, value chan cachev3.DeltaResponse) (func(), error) {
	if err := c.discover(context.Background(), c.hash.ID(request.GetNode()), request.GetTypeUrl()); err != nil {
		return nil, err
	}
	return c.served.CreateDeltaWatch(request, sub, value)
}

// Fetch forwards to go-control-plane's cache.
func (c *SnapshotCache) Fetch(ctx context.Context, request *cachev3.Request) (cachev3.Response, error) {
	if err := c.discover(ctx, c.hash.ID(request.GetNode()), request.GetTypeUrl()); err != nil {
		return nil, err
	}
	return c.served.Fetch(ctx, request)
}

// discover adds a type that a client requests to the known types, if the node's custom
// snapshot contains it, and journals it before the client receives it. A
// ResourceSnapshot cannot list its types; it can only be asked for one.
func (c *SnapshotCache) discover(ctx context.Context, node, typeURL string) error {
	c.mu.RLock()
	current := c.current[node]
	_, known := slices.BinarySearch(c.typeURLs, typeURL)
	c.mu.RUnlock()
	if known || current == nil {
		return nil
	}
	custom := current.custom()
	if custom == nil || (custom.GetVersion(typeURL) == "" && len(custom.GetResources(typeURL)) == 0) {
		return nil
	}
	c.updating.Lock()
	defer c.updating.Unlock()
	c.mu.Lock()
	before := c.typeURLs
	if at, known := slices.BinarySearch(before, typeURL); !known {
		c.typeURLs = slices.Insert(slices.Clone(before), at, typeURL)
	}
	snapshots := map[string]*servedSnapshot{}
	for name, s := range c.current {
		if s.custom() != nil {
			snapshots[name] = s
		}
	}
	c.mu.Unlock()
	for name, s := range snapshots {
		_, err := c.set(ctx, name, s.custom(), s.node)
		// An update after a commit timeout may have changed the node, and may not be a
		// custom snapshot.
		if err != nil && !errors.Is(err, errSuperseded) {
			c.mu.Lock()
			c.typeURLs = before // the next watch tries again
			c.mu.Unlock()
			return fmt.Errorf("journal type %s for the request of a client: %w", typeURL, err)
		}
	}
	return nil
}

func isNilSnapshot(s cachev3.ResourceSnapshot) bool {
	own, ok := s.(*cachev3.Snapshot)
	return s == nil || (ok && own == nil)
}
