package envoytest

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
)

// Model describes the resources of a node: clusters with their endpoints, and a listener
// with a route to one of the clusters, the target. Markers are changed to change a
// resource and nothing that it does.
type Model struct {
	Clusters        map[string]ModelCluster
	Target          string
	Route, Listener int // markers
}

// ModelCluster is a cluster of a [Model].
type ModelCluster struct {
	Marker    int
	Upstreams []*Upstream
}

// NewModel returns a model with one cluster.
func NewModel(upstreams ...*Upstream) Model {
	return Model{Target: "c0", Clusters: map[string]ModelCluster{"c0": {Upstreams: upstreams}}}
}

// Change returns a copy with one to three random changes. Requests can be answered in all
// of its states: there is an endpoint of the target, and it is one of the upstreams.
func (m Model) Change(r *rand.Rand, upstreams []*Upstream) Model {
	some := func() []*Upstream {
		perm := r.Perm(len(upstreams))[:1+r.IntN(len(upstreams))]
		chosen := make([]*Upstream, len(perm))
		for i, at := range perm {
			chosen[i] = upstreams[at]
		}
		return chosen
	}
	m.Clusters = maps.Clone(m.Clusters)
	for range 1 + r.IntN(3) {
		names := slices.Sorted(maps.Keys(m.Clusters)) // so that the seed decides
		name := names[r.IntN(len(names))]
		c := m.Clusters[name]
		switch r.IntN(8) {
		case 0:
			m.Clusters[name] = ModelCluster{c.Marker + 1, c.Upstreams}
		case 1:
			m.Clusters[name] = ModelCluster{c.Marker, some()}
		case 2:
			m.Clusters[name] = ModelCluster{c.Marker + 1, some()}
		case 3:
			m.Clusters[fmt.Sprint("c", r.IntN(10))] = ModelCluster{Upstreams: some()}
		case 4:
			if name != m.Target {
				delete(m.Clusters, name)
			}
		case 5:
			m = m.Swap(fmt.Sprint("c", r.IntN(10)), some()...)
		case 6:
			m.Target = name
			m.Route++
		case 7:
			m.Listener++
		}
	}
	return m
}

// Swap returns a copy in which another cluster replaces the target.
func (m Model) Swap(name string, upstreams ...*Upstream) Model {
	m.Clusters = maps.Clone(m.Clusters)
	delete(m.Clusters, m.Target)
	m.Target = name
	m.Clusters[name] = ModelCluster{Upstreams: upstreams}
	return m
}

// Resources returns the resources, with a listener at an address.
func (m Model) Resources(b Builder, addr string) []Resource {
	resources := []Resource{
		b.Listener("http", fmt.Sprint(m.Listener), addr, "http"),
		b.Route("http", fmt.Sprint(m.Route), m.Target),
	}
	for _, name := range slices.Sorted(maps.Keys(m.Clusters)) {
		c := m.Clusters[name]
		addrs := make([]string, len(c.Upstreams))
		for i, u := range c.Upstreams {
			addrs[i] = u.Addr
		}
		resources = append(resources, b.Cluster(name, fmt.Sprint(c.Marker)), b.Endpoints(name, addrs...))
	}
	return resources
}

// Answers returns the names of the upstreams that requests are sent to.
func (m Model) Answers() []string {
	var names []string
	for _, u := range m.Clusters[m.Target].Upstreams {
		names = append(names, u.Name)
	}
	return names
}

func (m Model) String() string {
	text := fmt.Sprintf("route %d to %s, listener %d", m.Route, m.Target, m.Listener)
	for _, name := range slices.Sorted(maps.Keys(m.Clusters)) {
		c := m.Clusters[name]
		text += fmt.Sprintf(", %s %d with %d endpoints", name, c.Marker, len(c.Upstreams))
	}
	return text
}
