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

// differ compares the resources that a caller sets with those of a node.
type differ struct {
	compareContent bool
	cache, node    string
}

// desired is one type as a caller wants it.
type desired struct {
	version string
	items   map[string]types.ResourceWithTTL
	// versions are the versions of the resources that do not have their hash as
	// version.
	versions map[string]string
}

// noType is a type without a version and without resources.
var noType = &state.Type{}

// typeOf returns a type of a node, which may be nil, or noType.
func typeOf(node *state.Node, url string) *state.Type {
	if node != nil {
		if t := node.Type(url); t != nil {
			return t
		}
	}
	return noType
}

// event returns the event that makes changes to base, or nil if there are none and
// base exists.
func (d differ) event(base *state.Node, changes []journal.TypeChange) *journal.Event {
	if len(changes) == 0 && base != nil {
		return nil
	}
	return &journal.Event{Kind: journal.Update, Cache: d.cache, Node: d.node, Types: changes}
}

// snapshot returns the event after which base has what want returns for each of the
// types, which are sorted, and no other types; or nil if base has it already.
func (d differ) snapshot(base *state.Node, urls []string, want func(url string) desired) (*journal.Event, error) {
	if base != nil {
		for i := range base.Types() {
			url := base.Types()[i].URL()
			if at, found := slices.BinarySearch(urls, url); !found {
				urls = slices.Insert(slices.Clip(urls), at, url)
			}
		}
	}
	var out []journal.TypeChange
	for _, url := range urls {
		have, want := typeOf(base, url), want(url)
		upserts, kept, err := d.upserts(have, url, want)
		if err != nil {
			return nil, err
		}
		tc := journal.TypeChange{TypeURL: url, Version: want.version, Upserts: upserts}
		if kept < have.Len() {
			for r := range have.All() {
				if _, ok := want.items[r.Name]; !ok {
					tc.Deletes = append(tc.Deletes, r.Name)
				}
			}
		}
		if have.Version() != want.version || len(tc.Upserts)+len(tc.Deletes) > 0 {
			out = append(out, tc)
		}
	}
	return d.event(base, out), nil
}

// upserts returns the resources that want has and that differ from those of have,
// sorted by name, and the number of resources that both have.
func (d differ) upserts(have *state.Type, url string, want desired) (upserts []*journal.Resource, kept int, err error) {
	for name, item := range want.items {
		old := have.Get(name)
		if old != nil {
			kept++
		}
		r, err := d.changed(old, url, name, item, want.versions)
		if err != nil {
			return nil, 0, err
		}
		if r != nil {
			upserts = append(upserts, r)
		}
	}
	slices.SortFunc(upserts, func(a, b *journal.Resource) int { return cmp.Compare(a.Name, b.Name) })
	return upserts, kept, nil
}

// changed returns the resource that replaces old, or nil if old is the same.
func (d differ) changed(old *journal.Resource, url, name string, item types.ResourceWithTTL, versions map[string]string) (*journal.Resource, error) {
	if old != nil && !d.compareContent && isSource(old, item.Resource) &&
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
		// The next comparison with this message compares addresses only. Source is
		// guarded by the updater.
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

// wantSnapshot returns the contents of a caller's snapshot, by type.
func wantSnapshot(snapshot cachev3.ResourceSnapshot) (func(url string) desired, error) {
	if own, ok := snapshot.(*cachev3.Snapshot); ok {
		return func(url string) desired {
			// Its VersionMap is not needed: it contains the same hashes.
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

// changes returns the event that makes changes to base, or nil if they change
// nothing. Only a type that exists gets a new version without other changes.
func (d differ) changes(base *state.Node, c *changes, version string) (*journal.Event, error) {
	var out []journal.TypeChange
	for _, url := range c.urls {
		have := typeOf(base, url)
		upserts, _, err := d.upserts(have, url, desired{items: c.upserts[url]})
		if err != nil {
			return nil, err
		}
		tc := journal.TypeChange{TypeURL: url, Version: version, Upserts: upserts}
		for _, name := range c.deletes[url] {
			if have.Get(name) != nil {
				tc.Deletes = append(tc.Deletes, name)
			}
		}
		slices.Sort(tc.Deletes)
		tc.Deletes = slices.Compact(tc.Deletes)
		if len(tc.Upserts)+len(tc.Deletes) > 0 || (have != noType && have.Version() != version) {
			out = append(out, tc)
		}
	}
	return d.event(base, out), nil
}
