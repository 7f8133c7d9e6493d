package xdscache

import (
	"context"
	"errors"
	"fmt"

	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"

	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/journal"
)

// LinearCache is a [cachev3.LinearCache] whose updates are durable before an
// Envoy sees them. Its methods are go-control-plane's, and block until the
// update is durable; concurrent ones share commits. It is safe for concurrent
// use.
//
// An update that changes nothing is neither journaled nor published. A resource
// has no TTL here, as in go-control-plane.
type LinearCache struct {
	served  *cachev3.LinearCache
	log     Log
	typeURL string
	opt     options
	entity  *entity
	// current is what the served cache holds, guarded by the entity's
	// publishing.
	current *state.Type
}

var _ cachev3.Cache = (*LinearCache)(nil)

// NewLinearCache returns a cache that holds what the log's state has for it,
// and serves that at once.
func NewLinearCache(l Log, typeURL string, opts ...Option) *LinearCache {
	opt := newOptions(append([]Option{WithName(typeURL)}, opts...))
	c := &LinearCache{log: l, typeURL: typeURL, opt: opt}
	c.entity = &entity{log: l, cache: LinearCacheName(opt.name)}
	initial := map[string]types.Resource{}
	c.current = c.node(l.State())
	if c.current != nil {
		for r := range c.current.All() {
			initial[r.Name] = served(r)
		}
	}
	c.served = cachev3.NewLinearCache(typeURL,
		cachev3.WithInitialResources(initial),
		cachev3.WithVersionPrefix(opt.versionPrefix),
		cachev3.WithLogger(opt.logger))
	return c
}

// Name returns the cache's name among the linear caches of its store.
func (c *LinearCache) Name() string { return c.opt.name }

func (c *LinearCache) node(s *state.State) *state.Type {
	if n := s.Node(c.entity.cache, ""); n != nil {
		return n.Type(c.typeURL)
	}
	return nil
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

// UpdateResources sets and removes resources in one event. A name that is in
// both is removed.
func (c *LinearCache) UpdateResources(toUpdate map[string]types.Resource, toDelete []string) error {
	return c.Update(context.Background(), toUpdate, toDelete)
}

// Update is UpdateResources with a context: one that is done when Update is
// called changes nothing, and one that is done later does not end the wait for
// the commit, which the commit timeout does.
func (c *LinearCache) Update(ctx context.Context, toUpdate map[string]types.Resource, toDelete []string) error {
	upserts := withoutTTL(toUpdate)
	for _, name := range toDelete {
		delete(upserts, name)
	}
	change := &changes{
		urls:    []string{c.typeURL},
		upserts: map[string]map[string]types.ResourceWithTTL{c.typeURL: upserts},
		deletes: map[string][]string{c.typeURL: toDelete},
	}
	return c.update(ctx, "update resources", func(d differ, base *state.Node) (*journal.Event, error) {
		return d.changes(base, change, "")
	})
}

// SetResources replaces all resources. It has no error to return: that is
// reported to the error handler. Replace returns it.
func (c *LinearCache) SetResources(resources map[string]types.Resource) {
	if err := c.Replace(context.Background(), resources); err != nil {
		c.opt.onError(c.entity.cache, "", err)
	}
}

// Replace replaces all resources.
func (c *LinearCache) Replace(ctx context.Context, resources map[string]types.Resource) error {
	want := desired{items: withoutTTL(resources)}
	return c.update(ctx, "set resources", func(d differ, base *state.Node) (*journal.Event, error) {
		return d.snapshot(base, []string{c.typeURL}, func(string) desired { return want })
	})
}

func withoutTTL(in map[string]types.Resource) map[string]types.ResourceWithTTL {
	out := make(map[string]types.ResourceWithTTL, len(in))
	for name, r := range in {
		out[name] = types.ResourceWithTTL{Resource: r}
	}
	return out
}

func (c *LinearCache) update(ctx context.Context, what string, compute func(differ, *state.Node) (*journal.Event, error)) error {
	d := differ{compareContent: c.opt.compareContent, cache: c.entity.cache}
	_, err := c.entity.update(ctx, c.opt.commitTimeout, func(base *state.Node) (*journal.Event, error) {
		ev, err := compute(d, base)
		if ev != nil && len(ev.Types) == 0 {
			ev = nil // a linear cache without resources needs no node
		}
		return ev, err
	}, c.publish, func() {})
	if err != nil {
		return fmt.Errorf("%s of linear cache %q: %w", what, c.opt.name, err)
	}
	return nil
}

// publish brings the served cache to the durable state, which is that of seq or
// later. Updates that were committed together are published together.
func (c *LinearCache) publish(_ context.Context, seq journal.Sequence) error {
	c.entity.publishing.Lock()
	defer c.entity.publishing.Unlock()
	if seq <= c.entity.published {
		return nil
	}
	return c.serve()
}

// Refresh brings the served cache to the log's state, where that did not come by
// way of this cache, as in a store that follows another.
func (c *LinearCache) Refresh(context.Context) error {
	c.entity.publishing.Lock()
	defer c.entity.publishing.Unlock()
	return c.serve()
}

// serve brings the served cache to the state. The caller is the one who
// publishes.
func (c *LinearCache) serve() error {
	st := c.log.State()
	now := c.node(st)
	upserts, deletes := state.Changes(c.current, now)
	toUpdate := make(map[string]types.Resource, len(upserts))
	for _, r := range upserts {
		// A state that was restored anew shares nothing with the one before.
		if c.current == nil || !same(c.current.Get(r.Name), r) {
			toUpdate[r.Name] = served(r)
		}
	}
	c.current, c.entity.published = now, st.Sequence()
	if len(toUpdate)+len(deletes) == 0 {
		return nil
	}
	return c.served.UpdateResources(toUpdate, deletes)
}

// GetResources returns all resources, decoded anew: they are the caller's to
// change.
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

// NumWatches returns the number of watches that a resource has, wildcard ones
// included.
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

// Fetch is not implemented, as in go-control-plane.
func (c *LinearCache) Fetch(ctx context.Context, request *cachev3.Request) (cachev3.Response, error) {
	return c.served.Fetch(ctx, request)
}

func same(old, now *journal.Resource) bool { return old != nil && old.Same(now) }
