package xdscache

import (
	"fmt"
	"sync"
	"sync/atomic"
	"weak"

	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"

	"github.com/xdswal/xdswal/internal/state"
)

// servedSnapshot presents a node to go-control-plane's cache. Its creation is cheap:
// the maps of a type are made when a watch requests that type.
type servedSnapshot struct {
	node     *state.Node
	maps     []*typeMaps // as node.Types
	original atomic.Pointer[original]
	// undelivered is set if not every watch has received this snapshot.
	undelivered atomic.Bool
}

// original is the snapshot in the caller's form: the one that SetSnapshot got, or the
// one that GetSnapshot returned last.
type original struct {
	// snapshot stays in memory only as long as the caller keeps it.
	snapshot weak.Pointer[cachev3.Snapshot]
	// custom is a ResourceSnapshot that the caller implements.
	custom cachev3.ResourceSnapshot
}

type typeMaps struct {
	once      sync.Once
	resources map[string]types.Resource
	versions  map[string]string
	withTTL   sync.Once
	ttls      map[string]types.ResourceWithTTL
}

var _ cachev3.ResourceSnapshot = (*servedSnapshot)(nil)

// newServed returns the servedSnapshot of a node after before, which may be nil. It
// keeps the maps of the types that have not changed.
func newServed(node *state.Node, before *servedSnapshot) *servedSnapshot {
	s := &servedSnapshot{node: node, maps: make([]*typeMaps, len(node.Types()))}
	if before == nil {
		// One allocation for all types: a restore creates very many.
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
	return typeOf(s.node, typeURL).Version()
}

func (s *servedSnapshot) GetResourcesAndTTL(typeURL string) map[string]types.ResourceWithTTL {
	t, m := s.find(typeURL)
	if t == nil {
		return nil
	}
	m.withTTL.Do(func() {
		m.ttls = make(map[string]types.ResourceWithTTL, t.Len())
		for r := range t.All() {
			m.ttls[r.Name] = types.ResourceWithTTL{Resource: (*Resource)(r), TTL: r.TTL}
		}
	})
	return m.ttls
}

func (s *servedSnapshot) GetResources(typeURL string) map[string]types.Resource {
	return s.filled(typeURL).resources
}

// ConstructVersionMap does nothing, because the state contains the versions.
func (s *servedSnapshot) ConstructVersionMap() error { return nil }

func (s *servedSnapshot) GetVersionMap(typeURL string) map[string]string {
	return s.filled(typeURL).versions
}

// noMaps are the maps of a type that the node does not have.
var noMaps = &typeMaps{}

// filled returns the maps of a type with resources and versions.
func (s *servedSnapshot) filled(typeURL string) *typeMaps {
	t, m := s.find(typeURL)
	if t == nil {
		return noMaps
	}
	m.once.Do(func() {
		m.resources = make(map[string]types.Resource, t.Len())
		m.versions = make(map[string]string, t.Len())
		for r := range t.All() {
			m.resources[r.Name] = (*Resource)(r)
			m.versions[r.Name] = r.Version
		}
	})
	return m
}

// setOriginal records the snapshot that the caller set. GetSnapshot returns it while
// the caller keeps it, as go-control-plane's does.
func (s *servedSnapshot) setOriginal(snapshot cachev3.ResourceSnapshot) {
	switch snapshot := snapshot.(type) {
	case *servedSnapshot: // from GetSnapshot
	case *cachev3.Snapshot:
		s.original.Store(&original{snapshot: weak.Make(snapshot)})
	default:
		s.original.Store(&original{custom: snapshot})
	}
}

// custom returns the ResourceSnapshot that the caller implements, or nil if the node
// was set by other means.
func (s *servedSnapshot) custom() cachev3.ResourceSnapshot {
	if o := s.original.Load(); o != nil {
		return o.custom
	}
	return nil
}

// get returns the result of GetSnapshot: the snapshot that was set, or one with
// decoded messages.
func (s *servedSnapshot) get() (cachev3.ResourceSnapshot, error) {
	if o := s.original.Load(); o != nil {
		if o.custom != nil {
			return o.custom, nil
		}
		if snapshot := o.snapshot.Value(); snapshot != nil {
			return snapshot, nil
		}
	}
	snapshot := &cachev3.Snapshot{}
	for i := range s.node.Types() {
		t := &s.node.Types()[i]
		at := cachev3.GetResponseType(t.URL())
		if at == types.UnknownType {
			// A cachev3.Snapshot cannot contain it.
			return s, nil
		}
		resources, err := decodeType(t)
		if err != nil {
			return nil, fmt.Errorf("get snapshot of node %q: %w", s.node.Name(), err)
		}
		snapshot.Resources[at] = resources
	}
	s.setOriginal(snapshot)
	return snapshot, nil
}

func decodeType(t *state.Type) (cachev3.Resources, error) {
	out := cachev3.Resources{Version: t.Version(), Items: make(map[string]types.ResourceWithTTL, t.Len())}
	for r := range t.All() {
		m, err := (*Resource)(r).Decoded()
		if err != nil {
			return out, err
		}
		out.Items[r.Name] = types.ResourceWithTTL{Resource: m, TTL: r.TTL}
	}
	return out, nil
}

// knownTypes are the URLs of the types that a cachev3.Snapshot contains.
var knownTypes = func() []string {
	var urls []string
	for t := range types.UnknownType {
		if url, err := cachev3.GetResponseTypeURL(t); err == nil {
			urls = append(urls, url)
		}
	}
	return urls
}()
