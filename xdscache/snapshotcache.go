package xdscache

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"

	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/log"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/stream/v3"

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
// Set, UpdateResources and Clear return when the update is durable and each open watch
// that it concerns has its response. They return the sequence of the event, or, if
// nothing changes and nothing is journaled, a sequence at which the node is as wanted. If
// the update cannot be made durable, they return an error and the node stays as it was,
// except after a commit timeout. If ctx is done at the call, nothing changes. If ctx is
// done later, the wait for the commit continues; the store's CommitTimeout bounds it.
//
// No update waits for a client. If the channel of a watch has no room, the response is
// sent when there is room, and is made from the newest state then.
//
// # Differences from go-control-plane's cache
//
//   - Contents decide what a client is due, besides the version of the type: new contents
//     under the same version are sent, and what a client has rejected is not sent again
//     until it changes.
//   - A watch stays open until it is answered or canceled: also if its node is cleared,
//     and if its response is withheld.
//   - The status of a node is kept while it has open watches or exists, and GetNode of a
//     status is the node of the last request.
//   - The responses of an update are ordered: clusters, endpoints, listeners, scoped
//     routes, routes, and then the rest.
//   - TTLs are sent in the delta protocol too. A SotW heartbeat of clusters, listeners or
//     scoped routes contains all resources, because Envoy deletes those that it does not
//     contain.
//   - Responses are not of the types [cachev3.RawResponse] and [cachev3.RawDeltaResponse].
//     They have the same methods.
//
// go-control-plane's server opens a watch for one type of a stream, and tells the cache
// nothing of the stream's other types. So no cache behind it can send a changed cluster's
// endpoints after the cluster, send an Envoy that was warming when its stream ended what
// it waits for, hold back one type until the client has acknowledged another, or add
// before it removes. Package xdsserver does.
type SnapshotCache struct {
	hash    cachev3.NodeHash
	store   *store
	name    string
	options options
	ads     bool
	hub     feed.Hub
	watches watches
	// warnTTL warns once.
	warnTTL sync.Once
	// snapshots are the nodes in the caller's form.
	snapshots snapshots

	// updating is held for reading by every update, and for writing while discover
	// sets snapshots again, which must not replace later ones.
	updating sync.RWMutex

	updatersMu sync.Mutex
	updaters   map[string]*updater // of the nodes that are being updated

	mu sync.RWMutex
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
	if logger == nil {
		logger = log.NewDefaultLogger()
	}
	c := &SnapshotCache{
		hash:     hash,
		store:    newStore(l, cfg),
		ads:      ads,
		updaters: map[string]*updater{},
	}
	for _, opt := range opts {
		opt.applyToSnapshot(&c.options)
	}
	c.name = cachelog.SnapshotPrefix + c.options.name
	c.typeURLs = slices.Compact(slices.Sorted(slices.Values(slices.Concat(c.options.typeURLs, knownTypes))))
	c.watches.source, c.watches.logger = c.Feed(), logger
	c.snapshots.newest = c.node
	l.Subscribe(c.name, c.refresh)
	if c.options.heartbeat > 0 {
		go c.watches.heartbeatLoop(c.options.heartbeatCtx, c.options.heartbeat)
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
	urls, d := c.typesOf(node, snapshot), c.differ(node)
	return c.update(ctx, "set snapshot of", node, snapshot, func(base *state.Node) (*journal.Event, error) {
		if instead != nil && (base == nil || base.Sequence() != instead.Sequence()) {
			return nil, errSuperseded
		}
		return d.snapshot(base, urls, want)
	})
}

// typesOf returns the types that a snapshot of a node is asked for, sorted. A
// ResourceSnapshot cannot list its types, so it is also asked for those that the clients
// of the node wait for.
func (c *SnapshotCache) typesOf(node string, snapshot cachev3.ResourceSnapshot) []string {
	c.mu.RLock()
	urls := c.typeURLs
	c.mu.RUnlock()
	if _, ok := snapshot.(*cachev3.Snapshot); ok {
		return urls
	}
	for _, url := range c.watches.get(node).typeURLs() {
		if at, known := slices.BinarySearch(urls, url); !known {
			urls = slices.Insert(slices.Clip(urls), at, url)
		}
	}
	return urls
}

// UpdateResources changes some resources of a node. It sets upserts, which are keyed by
// type URL, removes deletes, and sets the version of the types of both. It creates a
// node that does not exist, even if there are no upserts and no deletes. Its cost grows
// with the change and with the number of the node's open watches, and not with the node.
// What a response then costs is the client's: it is made when the client reads it.
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

// Clear removes a node's resources. Its clients are sent nothing, and their watches stay
// open: when the node is set again, they are sent what differs from what they have.
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
	return differ{sources: c.options.sources, cache: c.name, node: node}
}

func (c *SnapshotCache) update(ctx context.Context, what, node string, given cachev3.ResourceSnapshot, compute func(*state.Node) (*journal.Event, error)) (journal.Sequence, error) {
	u := c.acquire(node)
	seq, err := u.update(ctx, compute, func(ctx context.Context, seq journal.Sequence) {
		c.publish(ctx, u.node, seq, given)
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

// publish answers the watches of a node from its durable state, which is at seq or later.
func (c *SnapshotCache) publish(ctx context.Context, name string, seq journal.Sequence, given cachev3.ResourceSnapshot) {
	if node := c.node(name); given != nil && node != nil && node.Sequence() == seq {
		c.snapshots.set(node, given)
	}
	c.snapshots.clean(name)
	c.watches.serve(ctx, name)
	c.hub.Wake(name)
}

// refresh answers the watches from a state that did not come from this cache.
func (c *SnapshotCache) refresh() {
	c.snapshots.cleanAll()
	c.watches.serveAll(context.Background())
	c.hub.WakeAll()
}

// node returns the newest state of a node, or nil.
func (c *SnapshotCache) node(name string) *state.Node { return c.store.State().Node(c.name, name) }

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
// it in memory, or one with decoded messages. What it returns stays in memory for some
// minutes after the last call. As in go-control-plane, several callers may get the same
// snapshot, so its messages must not be changed. It is a *cachev3.Snapshot, unless a
// snapshot of another type was set or the node has a type that go-control-plane does not
// know.
func (c *SnapshotCache) GetSnapshot(node string) (cachev3.ResourceSnapshot, error) {
	n := c.node(node)
	if n == nil {
		return nil, fmt.Errorf("no snapshot found for node %s", node)
	}
	return c.snapshots.get(n)
}

// GetNode returns what a node is served, with resources as bytes, or nil if the node
// does not exist. It copies and decodes nothing.
func (c *SnapshotCache) GetNode(node string) *replay.Node { return (*replay.Node)(c.node(node)) }

// Nodes yields what each node is served, sorted by node.
func (c *SnapshotCache) Nodes() iter.Seq[*replay.Node] {
	return (*replay.State)(c.store.State()).Cache(c.name)
}

// GetStatusInfo returns the status of a node, or nil if it has none. A node has a status
// from its first request until it has no open watch and does not exist.
func (c *SnapshotCache) GetStatusInfo(node string) cachev3.StatusInfo {
	if n := c.watches.get(node); n != nil {
		return n
	}
	return nil
}

// GetStatusKeys returns the nodes that have a status.
func (c *SnapshotCache) GetStatusKeys() []string { return c.watches.keys() }

// CreateWatch opens a SotW watch: value receives one response when the client is due one.
func (c *SnapshotCache) CreateWatch(request *cachev3.Request, sub cachev3.Subscription, value chan cachev3.Response) (func(), error) {
	q := newSotwRequest(request, sub)
	q.isWhole, q.comparesVersion = true, true
	q.withholds = c.ads && !q.isWildcard
	if q.typeURL == resourcev3.EndpointType || q.typeURL == resourcev3.RouteType {
		q.onTTL = func() {
			c.warnTTL.Do(func() {
				c.watches.logger.Warnf("resources of type %s with a TTL are sent in the SotW protocol: Envoy 1.40 crashes when they expire; use the delta protocol", q.typeURL)
			})
		}
	}
	return c.open(q, sender(value, newSotwResponse))
}

// CreateDeltaWatch opens a delta watch: value receives one response when the client is
// due one.
func (c *SnapshotCache) CreateDeltaWatch(request *cachev3.DeltaRequest, sub cachev3.Subscription, value chan cachev3.DeltaResponse) (func(), error) {
	return c.open(newDeltaRequest(request, sub), sender(value, newDeltaResponse))
}

func (c *SnapshotCache) open(q *watchRequest, send func(*response, <-chan struct{}) bool) (func(), error) {
	key := c.hash.ID(q.node)
	if err := c.discover(context.Background(), key, q.typeURL); err != nil {
		return nil, err
	}
	q.remember = c.watches.known.remember
	return c.watches.open(key, &watch{watchRequest: q, send: send, version: c.watches.source.Version}), nil
}

// Fetch returns the resources that a request names, or all. The error is a
// [types.SkipFetchError] if the version of the request is that of the type: a request
// without a stream tells nothing else of what the client has.
func (c *SnapshotCache) Fetch(ctx context.Context, request *cachev3.Request) (cachev3.Response, error) {
	key := c.hash.ID(request.GetNode())
	if err := c.discover(ctx, key, request.GetTypeUrl()); err != nil {
		return nil, err
	}
	node := c.node(key)
	if node == nil {
		return nil, fmt.Errorf("missing snapshot for %q", key)
	}
	names := request.GetResourceNames()
	sub := stream.NewSotwSubscription(names, true)
	w := &watch{watchRequest: newSotwRequest(request, sub), version: c.watches.source.Version}
	a := answer{of: state.TypeOf(node, w.typeURL), version: w.version(node, w.typeURL), isWhole: true}
	if request.GetVersionInfo() == a.version {
		return nil, &types.SkipFetchError{}
	}
	return newSotwResponse(newResponse(ctx, w, a, nil)), nil
}

// discover adds a type that a client requests to the known types, if the node's custom
// snapshot contains it, and journals it before the client receives it. A
// ResourceSnapshot cannot list its types; it can only be asked for one.
func (c *SnapshotCache) discover(ctx context.Context, node, typeURL string) error {
	c.mu.RLock()
	_, known := slices.BinarySearch(c.typeURLs, typeURL)
	c.mu.RUnlock()
	if known {
		return nil
	}
	custom := c.snapshots.custom(c.node(node))
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
	c.mu.Unlock()
	for node := range c.store.State().Cache(c.name) {
		custom := c.snapshots.custom(node)
		if custom == nil {
			continue
		}
		_, err := c.set(ctx, node.Name(), custom, node)
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
