package xdscache

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"weak"

	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"

	"github.com/xdswal/xdswal/internal/state"
)

// servedSnapshot is a node as go-control-plane's cache asks for it. Making one
// costs nothing: the maps of a type are made when a watch asks for that type.
type servedSnapshot struct {
	node   *state.Node
	maps   []*typeMaps // as node.Types
	source atomic.Pointer[source]
	// untold is set while the served cache could not tell every watch.
	untold atomic.Bool
}

// source is a snapshot in the caller's own form: what SetSnapshot was given,
// or what GetSnapshot returned last.
type source struct {
	// own is kept in memory by the caller alone.
	own weak.Pointer[cachev3.Snapshot]
	// foreign is a ResourceSnapshot of the user's own making.
	foreign cachev3.ResourceSnapshot
}

type typeMaps struct {
	once      sync.Once
	resources map[string]types.Resource
	versions  map[string]string
	withTTL   sync.Once
	ttls      map[string]types.ResourceWithTTL
}

var _ cachev3.ResourceSnapshot = (*servedSnapshot)(nil)

// newServed returns a node as it is served after before, which may be nil. What
// was made for types that did not change is taken over.
func newServed(node *state.Node, before *servedSnapshot) *servedSnapshot {
	s := &servedSnapshot{node: node, maps: make([]*typeMaps, len(node.Types()))}
	if before == nil {
		// A restore makes very many of them.
		for i, m := 0, make([]typeMaps, len(s.maps)); i < len(m); i++ {
			s.maps[i] = &m[i]
		}
		return s
	}
	for i := range node.Types() {
		t := &node.Types()[i]
		if old, maps := before.find(t.URL()); old != nil && old.Shares(t) {
			s.maps[i] = maps
		} else {
			s.maps[i] = &typeMaps{}
		}
	}
	return s
}

func (s *servedSnapshot) find(typeURL string) (*state.Type, *typeMaps) {
	for i := range s.node.Types() {
		if t := &s.node.Types()[i]; t.URL() == typeURL {
			return t, s.maps[i]
		}
	}
	return nil, nil
}

func (s *servedSnapshot) GetVersion(typeURL string) string {
	if t, _ := s.find(typeURL); t != nil {
		return t.Version()
	}
	return ""
}

func (s *servedSnapshot) GetResourcesAndTTL(typeURL string) map[string]types.ResourceWithTTL {
	t, m := s.find(typeURL)
	if t == nil {
		return nil
	}
	m.withTTL.Do(func() {
		m.ttls = make(map[string]types.ResourceWithTTL, t.Len())
		for r := range t.All() {
			m.ttls[r.Name] = types.ResourceWithTTL{Resource: served(r), TTL: r.TTL}
		}
	})
	return m.ttls
}

func (s *servedSnapshot) GetResources(typeURL string) map[string]types.Resource {
	t, m := s.find(typeURL)
	if t == nil {
		return nil
	}
	m.fill(t)
	return m.resources
}

// ConstructVersionMap has nothing to do: versions are stored.
func (s *servedSnapshot) ConstructVersionMap() error { return nil }

func (s *servedSnapshot) GetVersionMap(typeURL string) map[string]string {
	t, m := s.find(typeURL)
	if t == nil {
		return nil
	}
	m.fill(t)
	return m.versions
}

func (m *typeMaps) fill(t *state.Type) {
	m.once.Do(func() {
		m.resources = make(map[string]types.Resource, t.Len())
		m.versions = make(map[string]string, t.Len())
		for r := range t.All() {
			m.resources[r.Name] = served(r)
			m.versions[r.Name] = r.Version
		}
	})
}

// given notes the snapshot that the caller set: GetSnapshot returns the same,
// as go-control-plane's does, while the caller holds it.
func (s *servedSnapshot) given(snapshot cachev3.ResourceSnapshot) {
	switch given := snapshot.(type) {
	case *servedSnapshot: // came from our GetSnapshot
	case *cachev3.Snapshot:
		s.source.Store(&source{own: weak.Make(given)})
	default:
		s.source.Store(&source{foreign: given})
	}
}

// foreign returns the live ResourceSnapshot of the user's own making, nil if
// the node was set otherwise.
func (s *servedSnapshot) foreign() cachev3.ResourceSnapshot {
	if src := s.source.Load(); src != nil {
		return src.foreign
	}
	return nil
}

// original returns what a caller of GetSnapshot gets: what was set, or the
// same decoded.
func (s *servedSnapshot) original() (cachev3.ResourceSnapshot, error) {
	if src := s.source.Load(); src != nil {
		if src.foreign != nil {
			return src.foreign, nil
		}
		if own := src.own.Value(); own != nil {
			return own, nil
		}
	}
	snapshot := &cachev3.Snapshot{}
	for i := range s.node.Types() {
		t := &s.node.Types()[i]
		at := cachev3.GetResponseType(t.URL())
		if at == types.UnknownType {
			// No *Snapshot can hold it.
			return s, nil
		}
		group, err := decodeType(t)
		if err != nil {
			return nil, fmt.Errorf("get snapshot of node %q: %w", s.node.Name(), err)
		}
		snapshot.Resources[at] = group
	}
	s.given(snapshot)
	return snapshot, nil
}

func decodeType(t *state.Type) (cachev3.Resources, error) {
	out := cachev3.Resources{Version: t.Version(), Items: make(map[string]types.ResourceWithTTL, t.Len())}
	for r := range t.All() {
		m, err := served(r).Decoded()
		if err != nil {
			return out, err
		}
		out.Items[r.Name] = types.ResourceWithTTL{Resource: m, TTL: r.TTL}
	}
	return out, nil
}

// knownTypes are the types that a *cachev3.Snapshot holds, sorted by URL.
var knownTypes = func() []string {
	var urls []string
	for t := range types.UnknownType {
		url, err := cachev3.GetResponseTypeURL(t)
		if err == nil {
			urls = append(urls, url)
		}
	}
	slices.Sort(urls)
	return urls
}()
