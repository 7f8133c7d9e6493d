package xdscache

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"

	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/journal"
)

// differ compares the resources that a caller sets with those of a node.
type differ struct {
	// sources are set for callers that never change a message that they have set. Else
	// every message is marshaled, and compared by its content.
	sources     *sources
	cache, node string
}

// desired is one type as a caller wants it.
type desired struct {
	version string
	items   map[string]types.ResourceWithTTL
	// versions are the versions that the caller chose for resources.
	versions map[string]string
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
		have, want := state.TypeOf(base, url), want(url)
		tc, err := d.replace(have, url, want)
		if err != nil {
			return nil, err
		}
		if have.Version() != want.version || len(tc.Upserts)+len(tc.Deletes) > 0 {
			out = append(out, tc)
		}
	}
	return d.event(base, out), nil
}

// item is a resource that a caller sets.
type item struct {
	name string
	types.ResourceWithTTL
	old   *journal.Resource // the node's, or nil
	known *journal.Resource // the one that was last made from the same message, or nil
}

// replace returns the change after which a type has the resources of want and no others.
func (d differ) replace(have *state.Type, url string, want desired) (journal.TypeChange, error) {
	type part struct {
		upserts []*journal.Resource
		deletes []string
		kept    int
	}
	tc := journal.TypeChange{TypeURL: url, Version: want.version}
	pages := have.Pages()
	parts, err := inParallel(len(pages), chunkPages, func(s *scratch, lo, hi int) (p part, err error) {
		for _, page := range pages[lo:hi] {
			for name, old := range page.All() {
				res, ok := want.items[name]
				switch {
				case !ok:
					p.deletes = append(p.deletes, name)
				case d.isUnchanged(old, res, want.versions):
					p.kept++
				default:
					p.kept++
					s.items = append(s.items, item{name: name, ResourceWithTTL: res, old: old})
				}
			}
		}
		p.upserts, err = d.changed(url, want.versions, s)
		return p, err
	})
	if err != nil {
		return tc, err
	}
	kept := 0
	for _, p := range parts {
		tc.Upserts = append(tc.Upserts, p.upserts...)
		tc.Deletes = append(tc.Deletes, p.deletes...)
		kept += p.kept
	}
	if kept == len(want.items) {
		return tc, nil
	}
	added := make([]string, 0, len(want.items)-kept)
	for name := range want.items {
		if have.Get(name) == nil {
			added = append(added, name)
		}
	}
	upserts, err := d.upserts(state.NoType, url, want, added)
	tc.Upserts = append(tc.Upserts, upserts...)
	slices.SortFunc(tc.Upserts, func(a, b *journal.Resource) int { return cmp.Compare(a.Name, b.Name) })
	return tc, err
}

// isUnchanged reports whether a resource is known to be the same as the node's, by the
// address of the message: for nearly all resources of a large node, nothing else is done.
func (d differ) isUnchanged(old *journal.Resource, res types.ResourceWithTTL, versions map[string]string) bool {
	if d.sources == nil || !sameTTL(old, res.TTL) {
		return false
	}
	if p := address(res.Resource); p == nil || old.Source != p {
		return false
	}
	version := versions[old.Name]
	return version == "" || version == old.Version
}

// upserts returns the resources of want that have these names and that differ from those
// of have, sorted by name. It sorts names.
func (d differ) upserts(have *state.Type, url string, want desired, names []string) ([]*journal.Resource, error) {
	slices.Sort(names)
	parts, err := inParallel(len(names), chunkSize, func(s *scratch, lo, hi int) ([]*journal.Resource, error) {
		for _, name := range names[lo:hi] {
			s.items = append(s.items, item{name: name, ResourceWithTTL: want.items[name], old: have.Get(name)})
		}
		return d.changed(url, want.versions, s)
	})
	return slices.Concat(parts...), err
}

// changed returns the resources that replace those of s.items which differ.
func (d differ) changed(url string, versions map[string]string, s *scratch) (out []*journal.Resource, err error) {
	d.sources.find(s.items)
	for i := range s.items {
		it := &s.items[i]
		r, err := d.resource(url, it, versions[it.name], s)
		if err != nil {
			return nil, err
		}
		if r != nil {
			out = append(out, r)
		}
	}
	return out, nil
}

// resource returns the resource that replaces the old one of an item, or nil if that is
// the same. version is the one that the caller chose, or empty.
func (d differ) resource(url string, it *item, version string, s *scratch) (*journal.Resource, error) {
	old := it.old
	if old != nil && old == it.known && sameTTL(old, it.TTL) && (version == "" || version == old.Version) {
		return nil, nil
	}
	c, err := s.content(url, it)
	if err != nil {
		return nil, err
	}
	same := old != nil && old.TypeURL == c.typeURL && bytes.Equal(old.Value, c.value)
	r := &journal.Resource{
		Name: it.name, TypeURL: c.typeURL, Value: c.value,
		Version: chooseVersion(cmp.Or(version, c.version), c.value, old, same),
	}
	if it.TTL != nil {
		ttl := *it.TTL // the caller may change it
		r.TTL = &ttl
	}
	switch {
	case same && old.Same(r):
		d.sources.add(it.Resource, old)
		return nil, nil
	case it.known != nil && it.known.Name == r.Name && it.known.Same(r):
		return it.known, nil // it was made for another node
	case same:
		r.Value = old.Value
	case !c.shared:
		r.Value = bytes.Clone(c.value)
	}
	if d.sources != nil {
		r.Source = address(it.Resource)
		d.sources.add(it.Resource, r)
	}
	return r, nil
}

// chooseVersion returns the version of a resource with this content. given is the one that
// the caller chose, or empty. If old has the same content, and the caller chose no version,
// it keeps the version that it has: clients that know it need not receive it again.
func chooseVersion(given string, value []byte, old *journal.Resource, same bool) string {
	switch {
	case same && (given == "" || given == old.Version):
		return old.Version
	case given != "" && !mayBeHash(given):
		return given
	}
	hash := sha256.Sum256(value)
	switch {
	case given != "" && !isHash(given, hash):
		return given
	case same:
		return old.Version
	default:
		return hashVersion(hash)
	}
}

func sameTTL(r *journal.Resource, ttl *time.Duration) bool {
	if r.TTL == nil || ttl == nil {
		return r.TTL == ttl
	}
	return *r.TTL == *ttl
}

// wantSnapshot returns the contents of a caller's snapshot, by type.
func wantSnapshot(snapshot cachev3.ResourceSnapshot) (func(url string) desired, error) {
	// The version map of a cachev3.Snapshot is not constructed: that would marshal
	// everything, and write to what the caller may set for several nodes at once.
	if _, ok := snapshot.(*cachev3.Snapshot); !ok {
		if err := snapshot.ConstructVersionMap(); err != nil {
			return nil, fmt.Errorf("construct the snapshot's version map: %w", err)
		}
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
		have := state.TypeOf(base, url)
		upserts, err := d.upserts(have, url, desired{items: c.upserts[url]}, slices.Collect(maps.Keys(c.upserts[url])))
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
		if len(tc.Upserts)+len(tc.Deletes) > 0 || (have != state.NoType && have.Version() != version) {
			out = append(out, tc)
		}
	}
	return d.event(base, out), nil
}
