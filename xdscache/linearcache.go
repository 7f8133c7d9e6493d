package xdscache

import (
	"context"
	"errors"
	"fmt"
	"strings"

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
// go-control-plane, the resources have no TTL, a SotW response contains only the
// resources that the client does not have, except for clusters and listeners, and a
// removal of other types is not sent in the SotW protocol. A response's version is that
// of the last event; it does not return with other resources, after a restart either.
// What a client has rejected is not sent again until it changes. No update waits for a
// client.
type LinearCache struct {
	store   *store
	typeURL string
	name    string
	differ  differ
	updater *updater
	hub     feed.Hub
	watches watches
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
	c.differ = differ{sources: o.sources, cache: cachelog.LinearPrefix + o.name}
	c.updater = &updater{store: c.store, cache: c.differ.cache}
	c.watches.source, c.watches.logger = c.Feed(), o.logger
	l.Subscribe(c.differ.cache, c.refresh)
	return c
}

// Name returns the cache's name among the linear caches of its store.
func (c *LinearCache) Name() string { return c.name }

func (c *LinearCache) resources() *state.Type {
	return state.TypeOf(c.store.State().Node(c.differ.cache, ""), c.typeURL)
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

// publish answers the watches from the durable state.
func (c *LinearCache) publish(ctx context.Context, _ journal.Sequence) {
	c.watches.serve(ctx, "")
	c.hub.Wake("")
}

// refresh answers the watches from a state that did not come from this cache.
func (c *LinearCache) refresh() { c.publish(context.Background(), 0) }

// GetResources returns all resources. They are newly decoded copies, which the caller
// may change.
func (c *LinearCache) GetResources() map[string]types.Resource {
	t := c.resources()
	out := make(map[string]types.Resource, t.Len())
	for r := range t.All() {
		out[r.Name] = (*Resource)(r)
		if m, err := (*Resource)(r).Decoded(); err == nil {
			out[r.Name] = m
		}
	}
	return out
}

// NumResources returns the number of resources.
func (c *LinearCache) NumResources() int { return c.resources().Len() }

// NumWatches returns the number of watches of a resource, including wildcard watches.
func (c *LinearCache) NumWatches(name string) int {
	return c.watches.get("").count(func(w *watch) bool { return w.requests(name) })
}

// NumWildcardWatches returns the number of wildcard watches.
func (c *LinearCache) NumWildcardWatches() int {
	return c.watches.get("").count(func(w *watch) bool { return w.isWildcard })
}

// NumCacheWatches returns the number of watches.
func (c *LinearCache) NumCacheWatches() int {
	return c.watches.get("").count(func(*watch) bool { return true })
}

// CreateWatch opens a SotW watch: value receives one response when the client is due one.
// It returns an error if the request is for another type.
func (c *LinearCache) CreateWatch(request *cachev3.Request, sub cachev3.Subscription, value chan cachev3.Response) (func(), error) {
	q := newSotwRequest(request, sub)
	q.isWhole = cachev3.ResourceRequiresFullStateInSotw(c.typeURL)
	if version := request.GetVersionInfo(); request.GetResponseNonce() == "" {
		// A client that has nothing of this cache waits for its first response, and one that
		// has an earlier version may have resources that are gone.
		q.isDueAlways = version == "" || !strings.HasPrefix(version, c.store.VersionPrefix) ||
			(q.isWhole && len(q.known) == 0 && version != c.version())
	}
	return c.open(q, sender(value, newSotwResponse))
}

// CreateDeltaWatch opens a delta watch: value receives one response when the client is
// due one. It returns an error if the request is for another type.
func (c *LinearCache) CreateDeltaWatch(request *cachev3.DeltaRequest, sub cachev3.Subscription, value chan cachev3.DeltaResponse) (func(), error) {
	return c.open(newDeltaRequest(request, sub), sender(value, newDeltaResponse))
}

func (c *LinearCache) open(q *watchRequest, send func(*response, <-chan struct{}) bool) (func(), error) {
	if q.typeURL != c.typeURL {
		return nil, fmt.Errorf("request type %s does not match cache type %s", q.typeURL, c.typeURL)
	}
	q.remember = c.watches.known.remember
	return c.watches.open("", &watch{watchRequest: q, send: send, version: c.watches.source.Version}), nil
}

// version returns the version of a response.
func (c *LinearCache) version() string {
	node, _ := c.watches.source.Node("")
	return c.watches.source.Version(node, c.typeURL)
}

// Fetch returns an error, as go-control-plane's does.
func (c *LinearCache) Fetch(context.Context, *cachev3.Request) (cachev3.Response, error) {
	return nil, errors.New("fetch is not implemented by LinearCache")
}
