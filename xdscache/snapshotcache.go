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

	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/journal"
)

// SnapshotCache is a [cachev3.SnapshotCache] whose updates are durable before
// an Envoy sees them. It is safe for concurrent use; updates of one node are
// ordered among themselves, those of different nodes run in parallel.
type SnapshotCache struct {
	served cachev3.SnapshotCache
	hash   cachev3.NodeHash
	log    Log
	name   string
	opt    options

	// updating is held for reading by every update, and for writing while
	// discover sets snapshots again, which must not replace later ones.
	updating sync.RWMutex

	entityMu sync.Mutex
	entities map[string]*entity // of the nodes that are being updated

	mu sync.RWMutex
	// current is what the served cache holds, by node.
	current map[string]*servedSnapshot
	// typeURLs are the types that foreign snapshots are asked for, sorted.
	typeURLs []string
}

var _ cachev3.SnapshotCache = (*SnapshotCache)(nil)

// NewSnapshotCache returns a cache that holds what the log's state has for it,
// and serves that at once. Its first parameters are those of
// cachev3.NewSnapshotCache.
func NewSnapshotCache(l Log, ads bool, hash cachev3.NodeHash, opts ...Option) *SnapshotCache {
	opt := newOptions(opts)
	c := &SnapshotCache{
		hash:     hash,
		log:      l,
		name:     SnapshotCacheName(opt.name),
		opt:      opt,
		entities: map[string]*entity{},
		current:  map[string]*servedSnapshot{},
	}
	c.typeURLs = slices.Compact(slices.Sorted(slices.Values(append(slices.Clone(opt.typeURLs), knownTypes...))))
	if opt.heartbeat > 0 {
		c.served = cachev3.NewSnapshotCacheWithHeartbeating(opt.heartbeatCtx, ads, hash, opt.logger, opt.heartbeat)
	} else {
		c.served = cachev3.NewSnapshotCache(ads, hash, opt.logger)
	}
	for node := range l.State().Cache(c.name) {
		s := newServed(node, nil)
		c.current[node.Name()] = s
		// No watch is open yet: this cannot fail.
		_ = c.served.SetSnapshot(context.Background(), node.Name(), s)
	}
	return c
}

// Name returns the cache's name among the snapshot caches of its store.
func (c *SnapshotCache) Name() string { return c.opt.name }

// SetSnapshot makes snapshot the node's configuration. It returns when that is
// durable and go-control-plane's cache has answered the watches for it.
//
// If it could not be made durable, the error says why and the node keeps the
// configuration it had. If it is durable but a watch did not take its answer
// until ctx was done, the error is the context's, as go-control-plane's;
// setting the same snapshot again then tells that watch. A ctx that is done
// when SetSnapshot is called changes nothing. One that is done later does not
// end the wait for the commit, which the commit timeout does.
//
// A snapshot that equals the one before is not journaled again.
func (c *SnapshotCache) SetSnapshot(ctx context.Context, node string, snapshot cachev3.ResourceSnapshot) error {
	_, err := c.Set(ctx, node, snapshot)
	return err
}

// Set is SetSnapshot and returns the sequence at which the node became as set.
func (c *SnapshotCache) Set(ctx context.Context, node string, snapshot cachev3.ResourceSnapshot) (journal.Sequence, error) {
	if isNilSnapshot(snapshot) {
		return 0, fmt.Errorf("set snapshot of node %q: the snapshot is nil", node)
	}
	c.updating.RLock()
	defer c.updating.RUnlock()
	return c.set(ctx, node, snapshot, nil)
}

// errSuperseded says that a node is not any more what it was.
var errSuperseded = errors.New("superseded")

// set sets a snapshot. If instead is not nil and the node is another by now, the
// error is errSuperseded.
func (c *SnapshotCache) set(ctx context.Context, node string, snapshot cachev3.ResourceSnapshot, instead *state.Node) (journal.Sequence, error) {
	want, err := wantSnapshot(snapshot)
	if err != nil {
		return 0, fmt.Errorf("set snapshot of node %q: %w", node, err)
	}
	urls := c.types()
	d := differ{compareContent: c.opt.compareContent, cache: c.name, node: node}
	return c.update(ctx, "set snapshot of", node, snapshot, func(base *state.Node) (*journal.Event, error) {
		if instead != nil && (base == nil || base.Sequence() != instead.Sequence()) {
			return nil, errSuperseded
		}
		return d.snapshot(base, urls, want)
	})
}

// ResourceName names a resource of a node.
type ResourceName struct {
	TypeURL, Name string
}

// UpdateResources changes some resources of a node and leaves the others: it
// sets upserts, which are keyed by type URL, removes deletes, and gives the
// types that it touches the version. Its cost grows with the change and not
// with the node, apart from what go-control-plane does for open watches. It
// returns and fails as SetSnapshot does, with the event's sequence. A node that
// is not there is made.
//
// With neither upserts nor deletes only a node that is not there is made.
func (c *SnapshotCache) UpdateResources(ctx context.Context, node string, upserts map[string][]types.ResourceWithTTL, deletes []ResourceName, version string) (journal.Sequence, error) {
	c.updating.RLock()
	defer c.updating.RUnlock()
	changes, err := newChanges(upserts, deletes)
	if err != nil {
		return 0, fmt.Errorf("update resources of node %q: %w", node, err)
	}
	d := differ{compareContent: c.opt.compareContent, cache: c.name, node: node}
	return c.update(ctx, "update resources of", node, nil, func(base *state.Node) (*journal.Event, error) {
		return d.changes(base, changes, version)
	})
}

// Clear removes a node's snapshot and go-control-plane's status of the node.
func (c *SnapshotCache) Clear(ctx context.Context, node string) error {
	_, err := c.Delete(ctx, node)
	return err
}

// Delete is Clear and returns a sequence at which the node is gone.
func (c *SnapshotCache) Delete(ctx context.Context, node string) (journal.Sequence, error) {
	c.updating.RLock()
	defer c.updating.RUnlock()
	return c.update(ctx, "clear", node, nil, func(base *state.Node) (*journal.Event, error) {
		if base == nil {
			return nil, nil
		}
		return &journal.Event{Kind: journal.Clear, Cache: c.name, Node: node}, nil
	})
}

// ClearSnapshot is Clear for callers of go-control-plane's interface, which
// has no error to return: it is reported to the error handler.
func (c *SnapshotCache) ClearSnapshot(node string) {
	if err := c.Clear(context.Background(), node); err != nil {
		c.opt.onError(c.name, node, err)
	}
}

func (c *SnapshotCache) update(ctx context.Context, what, node string, given cachev3.ResourceSnapshot, compute func(*state.Node) (*journal.Event, error)) (journal.Sequence, error) {
	e := c.acquire(node)
	seq, err := e.update(ctx, c.opt.commitTimeout, compute, func(ctx context.Context, seq journal.Sequence) error {
		return c.publish(ctx, e, seq, given)
	}, func() { c.release(e) })
	if errors.Is(err, context.Canceled) && err.Error() == context.Canceled.Error() {
		return 0, err // as go-control-plane's own
	}
	if err != nil {
		return 0, fmt.Errorf("%s node %q: %w", what, node, err)
	}
	if seq == 0 {
		return c.log.State().Sequence(), nil
	}
	return seq, nil
}

// publish brings the served cache to the durable state of a node, which is that
// of seq or later. Updates that were committed together are published together.
func (c *SnapshotCache) publish(ctx context.Context, e *entity, seq journal.Sequence, given cachev3.ResourceSnapshot) error {
	e.publishing.Lock()
	defer e.publishing.Unlock()
	c.mu.RLock()
	current := c.current[e.node]
	c.mu.RUnlock()

	st := c.log.State()
	node := st.Node(e.cache, e.node)
	if node == nil {
		if seq != 0 && seq <= e.published {
			return nil // and a watch that was opened since stays
		}
		c.setCurrent(e.node, nil)
		e.published = st.Sequence()
		c.served.ClearSnapshot(e.node)
		return nil
	}
	isNew := current == nil || current.node != node
	if isNew {
		current = newServed(node, current)
	}
	if given != nil && seq == node.Sequence() {
		current.given(given)
	}
	if !isNew && !current.untold.Load() {
		return nil
	}
	c.setCurrent(e.node, current)
	err := c.served.SetSnapshot(ctx, e.node, current)
	current.untold.Store(err != nil)
	e.published = st.Sequence()
	return err
}

// Refresh brings the served cache to the log's state, where that did not come by
// way of this cache, as in a store that follows another. ctx bounds the telling
// of watches; those that did not take their answer are told by the next Refresh.
func (c *SnapshotCache) Refresh(ctx context.Context) error {
	st := c.log.State()
	var stale []string
	c.mu.RLock()
	for node := range st.Cache(c.name) {
		if s := c.current[node.Name()]; s == nil || s.node != node {
			stale = append(stale, node.Name())
		}
	}
	for name, s := range c.current {
		if st.Node(c.name, name) == nil || s.untold.Load() {
			stale = append(stale, name)
		}
	}
	c.mu.RUnlock()
	var errs []error
	for _, name := range stale {
		e := c.acquire(name)
		if err := c.publish(ctx, e, 0, nil); err != nil {
			errs = append(errs, fmt.Errorf("tell the clients of node %q: %w", name, err))
		}
		c.release(e)
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

// acquire returns the entity of a node, which is there while it has users.
func (c *SnapshotCache) acquire(node string) *entity {
	c.entityMu.Lock()
	defer c.entityMu.Unlock()
	e := c.entities[node]
	if e == nil {
		e = &entity{log: c.log, cache: c.name, node: node}
		c.entities[node] = e
	}
	e.users++
	return e
}

func (c *SnapshotCache) release(e *entity) {
	c.entityMu.Lock()
	defer c.entityMu.Unlock()
	if e.users--; e.users == 0 {
		delete(c.entities, e.node)
	}
}

// GetSnapshot returns the node's snapshot: the one that was set, while somebody
// holds it, or one with decoded messages. As in go-control-plane, others may get
// the same one, so its messages must not be changed. It is a *cachev3.Snapshot
// unless a snapshot of another kind was set or the node has a type that
// go-control-plane does not know.
func (c *SnapshotCache) GetSnapshot(node string) (cachev3.ResourceSnapshot, error) {
	c.mu.RLock()
	s := c.current[node]
	c.mu.RUnlock()
	if s == nil {
		return nil, fmt.Errorf("no snapshot found for node %s", node)
	}
	return s.original()
}

// GetNode returns what is served to a node, with its resources as bytes, nil
// if the node has no snapshot. It costs nothing.
func (c *SnapshotCache) GetNode(node string) *state.Node {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if s := c.current[node]; s != nil {
		return s.node
	}
	return nil
}

// Nodes yields what is served to each node, sorted by node.
func (c *SnapshotCache) Nodes() iter.Seq[*state.Node] {
	return func(yield func(*state.Node) bool) {
		c.mu.RLock()
		current := maps.Clone(c.current)
		c.mu.RUnlock()
		for _, name := range slices.Sorted(maps.Keys(current)) {
			if !yield(current[name].node) {
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

func (c *SnapshotCache) types() []string {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.typeURLs
}

// discover learns of a type that a client asks for and that the node's
// foreign snapshot has, and journals it before the client sees it. A
// ResourceSnapshot tells of a type only when it is asked for it.
func (c *SnapshotCache) discover(ctx context.Context, node, typeURL string) error {
	c.mu.RLock()
	current := c.current[node]
	_, known := slices.BinarySearch(c.typeURLs, typeURL)
	c.mu.RUnlock()
	if known || current == nil {
		return nil
	}
	foreign := current.foreign()
	if foreign == nil || (foreign.GetVersion(typeURL) == "" && len(foreign.GetResources(typeURL)) == 0) {
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
		if s.foreign() != nil {
			snapshots[name] = s
		}
	}
	c.mu.Unlock()
	for name, s := range snapshots {
		_, err := c.set(ctx, name, s.foreign(), s.node)
		// What came since, whose commit is late, may be of another kind.
		if err != nil && !errors.Is(err, errSuperseded) {
			c.mu.Lock()
			c.typeURLs = before // the next watch tries again
			c.mu.Unlock()
			return fmt.Errorf("journal type %s, which a client asks for: %w", typeURL, err)
		}
	}
	return nil
}

func isNilSnapshot(s cachev3.ResourceSnapshot) bool {
	own, ok := s.(*cachev3.Snapshot)
	return s == nil || (ok && own == nil)
}
