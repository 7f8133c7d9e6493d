package xdscache

import (
	"context"
	"errors"
	"fmt"

	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/log"

	"github.com/xdswal/xdswal/internal/cachelog"
	"github.com/xdswal/xdswal/internal/feed"
	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/journal"
)

// LinearCache is a [cachev3.LinearCache] whose updates are durable before a client
// receives them. Its methods are go-control-plane's. Those that change resources
// return when the update is durable and served; an error means that nothing changed,
// except after a commit timeout. It is safe for concurrent use, and concurrent updates
// share commits.
//
// An update that changes nothing is neither journaled nor served. As in
// go-control-plane, the resources have no TTL.
type LinearCache struct {
	served  *cachev3.LinearCache
	store   *store
	typeURL string
	name    string
	differ  differ
	updater *updater
	hub     feed.Hub
	// current is what served contains. The updater's publishing guards it.
	current *state.Type
}

var _ cachev3.Cache = (*LinearCache)(nil)

// NewLinearCache is called by xdswal.Store.LinearCache. It returns a cache that serves
// the resources that the log's state contains for its name. It panics if the type URL
// is invalid, or if the log has a linear cache of that name.
func NewLinearCache(l cachelog.Log, cfg cachelog.Config, typeURL string, opts ...LinearOption) *LinearCache {
	checkTypeURL(typeURL)
	o := options{name: typeURL, logger: log.NewDefaultLogger()}
	for _, opt := range opts {
		opt.applyToLinear(&o)
	}
	c := &LinearCache{store: newStore(l, cfg), typeURL: typeURL, name: o.name}
	c.differ = differ{compareContent: o.compareContent, cache: cachelog.LinearPrefix + o.name}
	c.updater = &updater{store: c.store, cache: c.differ.cache}
	// A refresh waits until the cache is complete. Its state is read after it is
	// subscribed, so that it misses no change.
	c.updater.publishing.Lock()
	defer c.updater.publishing.Unlock()
	l.Subscribe(c.differ.cache, c.refresh)
	c.current = c.resources(l.State())
	initial := make(map[string]types.Resource, c.current.Len())
	for r := range c.current.All() {
		initial[r.Name] = (*Resource)(r)
	}
	c.served = cachev3.NewLinearCache(typeURL,
		cachev3.WithInitialResources(initial),
		cachev3.WithVersionPrefix(cfg.VersionPrefix),
		cachev3.WithLogger(o.logger))
	return c
}

// Name returns the cache's name among the linear caches of its store.
func (c *LinearCache) Name() string { return c.name }

func (c *LinearCache) resources(s *state.State) *state.Type {
	return typeOf(s.Node(c.differ.cache, ""), c.typeURL)
}

// UpdateResource sets a resource.
func (c *LinearCache) UpdateResource(name string, res types.Resource) error {
	if isNil(res) {
		return errors.New("nil resource")
	}
	return c.UpdateResources(map[string]types.Resource{name: res}, nil)
}

// DeleteResource removes a resource.
func (c *LinearCache) DeleteResource(name string) error {
	return c.UpdateResources(nil, []string{name})
}

// UpdateResources sets and removes resources in one event. It removes a resource that
// is in both arguments.
func (c *LinearCache) UpdateResources(toUpdate map[string]types.Resource, toDelete []string) error {
	upserts := withoutTTL(toUpdate)
	for _, name := range toDelete {
		delete(upserts, name)
	}
	change := &changes{
		urls:    []string{c.typeURL},
		upserts: map[string]map[string]types.ResourceWithTTL{c.typeURL: upserts},
		deletes: map[string][]string{c.typeURL: toDelete},
	}
	return c.update("update resources", func(base *state.Node) (*journal.Event, error) {
		return c.differ.changes(base, change, "")
	})
}

// SetResources replaces all resources in one event. Its error is also passed to
// xdswal.Hooks.CacheError, because go-control-plane's SetResources returns none and
// existing callers ignore it.
func (c *LinearCache) SetResources(resources map[string]types.Resource) error {
	want := desired{items: withoutTTL(resources)}
	err := c.update("set resources", func(base *state.Node) (*journal.Event, error) {
		return c.differ.snapshot(base, []string{c.typeURL}, func(string) desired { return want })
	})
	if err != nil {
		c.store.OnError(c.differ.cache, "", err)
	}
	return err
}

func withoutTTL(in map[string]types.Resource) map[string]types.ResourceWithTTL {
	out := make(map[string]types.ResourceWithTTL, len(in))
	for name, r := range in {
		out[name] = types.ResourceWithTTL{Resource: r}
	}
	return out
}

func (c *LinearCache) update(what string, compute func(*state.Node) (*journal.Event, error)) error {
	_, err := c.updater.update(context.Background(), func(base *state.Node) (*journal.Event, error) {
		ev, err := compute(base)
		if ev != nil && len(ev.Types) == 0 {
			ev = nil // a linear cache without resources needs no node
		}
		return ev, err
	}, c.publish, func() {})
	if err != nil {
		return fmt.Errorf("%s of linear cache %q: %w", what, c.name, err)
	}
	return nil
}

// publish brings the served cache to the durable state, which is at seq or later.
// Updates that were committed together are published together.
func (c *LinearCache) publish(_ context.Context, seq journal.Sequence) error {
	c.hub.Wake("")
	c.updater.publishing.Lock()
	defer c.updater.publishing.Unlock()
	if seq <= c.updater.published {
		return nil
	}
	return c.serve()
}

// refresh brings the served cache to a state that did not come from this cache.
func (c *LinearCache) refresh(context.Context) error {
	c.hub.Wake("")
	c.updater.publishing.Lock()
	defer c.updater.publishing.Unlock()
	return c.serve()
}

// serve brings the served cache to the state. The caller holds publishing.
func (c *LinearCache) serve() error {
	st := c.store.State()
	now := c.resources(st)
	upserts, deletes := state.Changes(c.current, now)
	toUpdate := make(map[string]types.Resource, len(upserts))
	for _, r := range upserts {
		// After a new restore, equal resources have other addresses.
		if old := c.current.Get(r.Name); old == nil || !old.Same(r) {
			toUpdate[r.Name] = (*Resource)(r)
		}
	}
	c.current, c.updater.published = now, st.Sequence()
	if len(toUpdate)+len(deletes) == 0 {
		return nil
	}
	return c.served.UpdateResources(toUpdate, deletes)
}

// GetResources returns all resources. They are newly decoded copies, which the caller
// may change.
func (c *LinearCache) GetResources() map[string]types.Resource {
	out := c.served.GetResources()
	for name, res := range out {
		if r, ok := res.(*Resource); ok {
			if m, err := r.Decoded(); err == nil {
				out[name] = m
			}
		}
	}
	return out
}

// NumResources returns the number of resources.
func (c *LinearCache) NumResources() int { return c.served.NumResources() }

// NumWatches returns the number of watches of a resource, including wildcard watches.
func (c *LinearCache) NumWatches(name string) int { return c.served.NumWatches(name) }

// NumWildcardWatches returns the number of wildcard watches.
func (c *LinearCache) NumWildcardWatches() int { return c.served.NumWildcardWatches() }

// NumCacheWatches returns the number of watches.
func (c *LinearCache) NumCacheWatches() int { return c.served.NumCacheWatches() }

// CreateWatch forwards to go-control-plane's cache.
func (c *LinearCache) CreateWatch(request *cachev3.Request, sub cachev3.Subscription, value chan cachev3.Response) (func(), error) {
	return c.served.CreateWatch(request, sub, value)
}

// CreateDeltaWatch forwards to go-control-plane's cache.
func (c *LinearCache) CreateDeltaWatch(request *cachev3.DeltaRequest, sub cachev3.Subscription, value chan cachev3.DeltaResponse) (func(), error) {
	return c.served.CreateDeltaWatch(request, sub, value)
}

// Fetch returns an error, because go-control-plane does not implement it.
func (c *LinearCache) Fetch(ctx context.Context, request *cachev3.Request) (cachev3.Response, error) {
	return c.served.Fetch(ctx, request)
}
