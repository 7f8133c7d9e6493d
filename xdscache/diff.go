package xdscache

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"

	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/journal"
)

// differ compares what a caller set with what a node holds.
type differ struct {
	compareContent bool
	cache, node    string
}

// desired is one type as a caller wants it.
type desired struct {
	version string
	items   map[string]types.ResourceWithTTL
	// versions are the resources' versions, nil where they are hashes.
	versions map[string]string
}

// snapshot returns the event that makes base hold what want gives for each of
// the types, which are sorted, nil if it does already.
func (d differ) snapshot(base *state.Node, urls []string, want func(url string) desired) (*journal.Event, error) {
	ev := &journal.Event{Kind: journal.Update, Cache: d.cache, Node: d.node}
	if base != nil {
		for i := range base.Types() {
			// Types that the caller's snapshot cannot hold are gone from it.
			url := base.Types()[i].URL()
			if at, found := slices.BinarySearch(urls, url); !found {
				urls = slices.Insert(slices.Clip(urls), at, url)
			}
		}
	}
	for _, url := range urls {
		var have *state.Type
		if base != nil {
			have = base.Type(url)
		}
		tc, changed, err := d.typeChange(have, url, want(url))
		if err != nil {
			return nil, err
		}
		if changed {
			ev.Types = append(ev.Types, tc)
		}
	}
	if len(ev.Types) == 0 && base != nil {
		return nil, nil
	}
	return ev, nil
}

func (d differ) typeChange(have *state.Type, url string, want desired) (journal.TypeChange, bool, error) {
	tc := journal.TypeChange{TypeURL: url, Version: want.version}
	kept := 0
	for name, item := range want.items {
		var old *journal.Resource
		if have != nil {
			old = have.Get(name)
		}
		if old != nil {
			kept++
		}
		r, err := d.changed(old, url, name, item, want.versions)
		if err != nil {
			return tc, false, err
		}
		if r != nil {
			tc.Upserts = append(tc.Upserts, r)
		}
	}
	slices.SortFunc(tc.Upserts, func(a, b *journal.Resource) int { return cmp.Compare(a.Name, b.Name) })
	if have == nil {
		return tc, want.version != "" || len(tc.Upserts) > 0, nil
	}
	if kept < have.Len() {
		for r := range have.All() {
			if _, ok := want.items[r.Name]; !ok {
				tc.Deletes = append(tc.Deletes, r.Name)
			}
		}
	}
	return tc, have.Version() != want.version || len(tc.Upserts) > 0 || len(tc.Deletes) > 0, nil
}

// changed returns the resource that replaces old, nil if old is the same.
func (d differ) changed(old *journal.Resource, url, name string, item types.ResourceWithTTL, versions map[string]string) (*journal.Resource, error) {
	if old != nil && !d.compareContent && !isNil(item.Resource) && isSource(old, address(item.Resource)) &&
		sameTTL(old, item) && (versions == nil || versions[name] == old.Version) {
		return nil, nil
	}
	r, err := newResource(url, name, item)
	if err != nil {
		return nil, err
	}
	if v, ok := versions[name]; ok && v != "" {
		r.Version = v
	}
	if old != nil && old.Same(r) {
		// The next time this message comes, its address tells. Source is used
		// under the entity's lock alone.
		old.Source = r.Source
		return nil, nil
	}
	return r, nil
}

func sameTTL(r *journal.Resource, item types.ResourceWithTTL) bool {
	if r.TTL == nil || item.TTL == nil {
		return r.TTL == item.TTL
	}
	return *r.TTL == *item.TTL
}

// wantSnapshot returns what a caller's snapshot holds, by type.
func wantSnapshot(snapshot cachev3.ResourceSnapshot) (func(url string) desired, error) {
	if own, ok := snapshot.(*cachev3.Snapshot); ok {
		return func(url string) desired {
			// Its VersionMap is not asked for: it is made of the same hashes.
			return desired{version: own.GetVersion(url), items: own.GetResourcesAndTTL(url)}
		}, nil
	}
	if err := snapshot.ConstructVersionMap(); err != nil {
		return nil, fmt.Errorf("construct the snapshot's version map: %w", err)
	}
	return func(url string) desired {
		return desired{
			version:  snapshot.GetVersion(url),
			items:    snapshot.GetResourcesAndTTL(url),
			versions: snapshot.GetVersionMap(url),
		}
	}, nil
}

// changes is an incremental update, by type.
type changes struct {
	urls    []string // sorted
	upserts map[string]map[string]types.ResourceWithTTL
	deletes map[string][]string
}

func newChanges(upserts map[string][]types.ResourceWithTTL, deletes []ResourceName) (*changes, error) {
	c := &changes{upserts: map[string]map[string]types.ResourceWithTTL{}, deletes: map[string][]string{}}
	for url, items := range upserts {
		byName := make(map[string]types.ResourceWithTTL, len(items))
		for _, item := range items {
			if isNil(item.Resource) {
				return nil, fmt.Errorf("a resource of type %s is nil", url)
			}
			name := cachev3.GetResourceName(item.Resource)
			if name == "" {
				return nil, fmt.Errorf("a resource of type %s has no name", url)
			}
			if _, twice := byName[name]; twice {
				return nil, fmt.Errorf("resource %q of type %s is set twice", name, url)
			}
			byName[name] = item
		}
		c.upserts[url] = byName
		c.urls = append(c.urls, url)
	}
	for _, del := range deletes {
		if _, both := c.upserts[del.TypeURL][del.Name]; both {
			return nil, fmt.Errorf("resource %q of type %s is both set and deleted", del.Name, del.TypeURL)
		}
		c.deletes[del.TypeURL] = append(c.deletes[del.TypeURL], del.Name)
		c.urls = append(c.urls, del.TypeURL)
	}
	slices.Sort(c.urls)
	c.urls = slices.Compact(c.urls)
	return c, nil
}

// changes returns the event that makes changes to base, nil if base has them
// already.
func (d differ) changes(base *state.Node, c *changes, version string) (*journal.Event, error) {
	ev := &journal.Event{Kind: journal.Update, Cache: d.cache, Node: d.node}
	for _, url := range c.urls {
		var have *state.Type
		if base != nil {
			have = base.Type(url)
		}
		tc, err := d.typeUpdate(have, url, c)
		if err != nil {
			return nil, err
		}
		tc.Version = version
		if len(tc.Upserts) > 0 || len(tc.Deletes) > 0 || (have != nil && have.Version() != version) {
			ev.Types = append(ev.Types, tc)
		}
	}
	if len(ev.Types) == 0 && base != nil {
		return nil, nil
	}
	return ev, nil
}

func (d differ) typeUpdate(have *state.Type, url string, c *changes) (journal.TypeChange, error) {
	tc := journal.TypeChange{TypeURL: url}
	get := func(name string) *journal.Resource {
		if have == nil {
			return nil
		}
		return have.Get(name)
	}
	for name, item := range c.upserts[url] {
		r, err := d.changed(get(name), url, name, item, nil)
		if err != nil {
			return tc, err
		}
		if r != nil {
			tc.Upserts = append(tc.Upserts, r)
		}
	}
	slices.SortFunc(tc.Upserts, func(a, b *journal.Resource) int { return cmp.Compare(a.Name, b.Name) })
	for _, name := range c.deletes[url] {
		if get(name) != nil {
			tc.Deletes = append(tc.Deletes, name)
		}
	}
	slices.Sort(tc.Deletes)
	tc.Deletes = slices.Compact(tc.Deletes)
	return tc, nil
}
