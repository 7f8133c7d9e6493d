package xdsserver_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/xdswal/xdswal/journal"
)

// The types of the model, in the order in which one change is sent (R4).
var modelTypes = []string{
	resourcev3.ClusterType, resourcev3.EndpointType, resourcev3.ListenerType, resourcev3.RouteType, resourcev3.SecretType,
}

const modelPool = "xdstp://a/envoy.config.endpoint.v3.ClusterLoadAssignment/pool/"

// modelNames are the names that resources of a type can have.
var modelNames = map[string][]string{
	resourcev3.ClusterType:  {"c0", "c1", "c2", "c3", "c4", "c5"},
	resourcev3.EndpointType: {"c0", "c5", "s1", "s2", "orphan", modelPool + "0", modelPool + "1"},
	resourcev3.ListenerType: {"l0", "l1", "l2"},
	resourcev3.RouteType:    {"r0", "r1", "r2"},
	resourcev3.SecretType:   {"k0", "k1", "k2"},
}

// modelShort are the types' names in a history.
var modelShort = map[string]string{
	resourcev3.ClusterType:  "CDS",
	resourcev3.EndpointType: "EDS",
	resourcev3.ListenerType: "LDS",
	resourcev3.RouteType:    "RDS",
	resourcev3.SecretType:   "SDS",
}

// isFull reports whether a SotW response of a type contains all resources, so that a
// client removes what is missing.
func isFull(typeURL string) bool {
	return typeURL == resourcev3.ClusterType || typeURL == resourcev3.ListenerType
}

// modelItem is one content of one resource. An item is shared by the consecutive states
// of its node that contain it.
type modelItem struct {
	name    string
	variant int
	message types.Resource
	bytes   string
	service string // the name of the cluster's assignment; empty if it has none
	since   int    // index of the first state with this content
}

func newModelItem(typeURL, name string, variant int) *modelItem {
	it := &modelItem{name: name, variant: variant}
	switch typeURL {
	case resourcev3.ClusterType:
		it.message, it.service = modelCluster(name, variant)
	case resourcev3.EndpointType:
		it.message = modelAssignment(name, variant)
	case resourcev3.ListenerType:
		it.message = &listenerv3.Listener{Name: name, StatPrefix: fmt.Sprint("v", variant)}
	case resourcev3.RouteType:
		it.message = &routev3.RouteConfiguration{Name: name, MaxDirectResponseBodySizeBytes: wrapperspb.UInt32(uint32(variant + 1))}
	case resourcev3.SecretType:
		it.message = &tlsv3.Secret{Name: name, Type: &tlsv3.Secret_GenericSecret{GenericSecret: &tlsv3.GenericSecret{
			Secret: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: fmt.Sprint("v", variant)}},
		}}}
	}
	data, err := cachev3.MarshalResource(it.message)
	if err != nil {
		panic(err)
	}
	it.bytes = string(data)
	return it
}

// modelCluster returns a cluster and the name of its assignment. c3 is static; c1 and c4
// may share an assignment; c2 has a name of the new form, or none that exists.
func modelCluster(name string, variant int) (*clusterv3.Cluster, string) {
	c := &clusterv3.Cluster{Name: name, ConnectTimeout: durationpb.New(time.Duration(variant+1) * time.Millisecond)}
	if name == "c3" {
		return c, ""
	}
	c.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS}
	c.EdsClusterConfig = &clusterv3.Cluster_EdsClusterConfig{EdsConfig: &corev3.ConfigSource{
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
	}}
	service := ""
	switch name {
	case "c1":
		service = "s1"
	case "c2":
		service = modelPool + fmt.Sprint(variant%3) // pool/2 never exists
	case "c4":
		service = fmt.Sprint("s", 1+variant%2)
	}
	c.EdsClusterConfig.ServiceName = service
	if service == "" {
		service = name
	}
	return c, service
}

func modelAssignment(name string, variant int) *endpointv3.ClusterLoadAssignment {
	return &endpointv3.ClusterLoadAssignment{ClusterName: name, Endpoints: []*endpointv3.LocalityLbEndpoints{{
		LbEndpoints: []*endpointv3.LbEndpoint{{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{
			Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
				Address: "127.0.0.1", PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(1000 + variant)},
			}}},
		}}}},
	}}}
}

// emptyAssignment is the content of the assignment that stands for one that does not
// exist.
func emptyAssignment(name string) string {
	data, err := cachev3.MarshalResource(&endpointv3.ClusterLoadAssignment{ClusterName: name})
	if err != nil {
		panic(err)
	}
	return string(data)
}

// modelState is the content of a node, by type and name. It is nil if the node does not
// exist.
type modelState map[string]map[string]*modelItem

func (s modelState) get(typeURL, name string) *modelItem { return s[typeURL][name] }

func (s modelState) String() string {
	if s == nil {
		return "absent"
	}
	var b strings.Builder
	for _, typeURL := range modelTypes {
		for _, name := range slices.Sorted(maps.Keys(s[typeURL])) {
			fmt.Fprintf(&b, " %s=%d", shortName(name), s[typeURL][name].variant)
		}
	}
	return "{" + strings.TrimSpace(b.String()) + "}"
}

func shortName(name string) string { return strings.Replace(name, modelPool, "pool/", 1) }

// modelNode is a node of the cache, and its history as the test made it.
type modelNode struct {
	id      string
	history []modelState
	times   []time.Time
	seq     journal.Sequence // of the last update
	// The server can have seen the states up to begun, and the update to completed has
	// returned.
	begun, completed atomic.Int64
}

func newModelNode(id string) *modelNode {
	return &modelNode{id: id, history: []modelState{nil}, times: []time.Time{time.Now()}}
}

func (n *modelNode) state() modelState { return n.history[len(n.history)-1] }

// begin adds a state. want has variants, by type and name; nil means that the node is
// cleared.
func (n *modelNode) begin(want map[string]map[string]int) {
	var next modelState
	index := len(n.history)
	if want != nil {
		next = modelState{}
		for _, typeURL := range modelTypes {
			next[typeURL] = map[string]*modelItem{}
			for name, variant := range want[typeURL] {
				it := newModelItem(typeURL, name, variant)
				it.since = index
				if before := n.state().get(typeURL, name); before != nil && before.bytes == it.bytes {
					it = before
				}
				next[typeURL][name] = it
			}
		}
	}
	n.history = append(n.history, next)
	n.times = append(n.times, time.Now())
	n.begun.Store(int64(index))
}

func (n *modelNode) done(seq journal.Sequence) {
	n.seq = seq
	n.completed.Store(n.begun.Load())
}

// variants returns the present state in the form that begin takes.
func (n *modelNode) variants() map[string]map[string]int {
	out := map[string]map[string]int{}
	for _, typeURL := range modelTypes {
		out[typeURL] = map[string]int{}
		for name, it := range n.state()[typeURL] {
			out[typeURL][name] = it.variant
		}
	}
	return out
}

// find returns the item with a content in one of the states from through until.
func (n *modelNode) find(typeURL, name, bytes string, from, until int) *modelItem {
	for i := until; i >= from; i-- {
		if it := n.history[i].get(typeURL, name); it != nil && it.bytes == bytes {
			return it
		}
	}
	return nil
}

// lacks reports whether the node existed in one of the states from through until, and
// did not have a resource.
func (n *modelNode) lacks(typeURL, name string, from, until int) bool {
	for i := from; i <= until; i++ {
		if n.history[i] != nil && n.history[i].get(typeURL, name) == nil {
			return true
		}
	}
	return false
}

// removedAt returns the index of the state since which a resource is missing in the
// state at index, or -1 if it never existed before.
func (n *modelNode) removedAt(typeURL, name string, index int) int {
	for i := index; i > 0; i-- {
		if n.history[i-1].get(typeURL, name) != nil {
			return i
		}
	}
	return -1
}

// pinned returns the items of a type whose content came with the state at index and is
// unchanged until the state at until.
func (n *modelNode) pinned(typeURL string, index, until int) []*modelItem {
	var out []*modelItem
	for _, name := range slices.Sorted(maps.Keys(n.history[index][typeURL])) {
		if it := n.history[index][typeURL][name]; it.since == index && n.history[until].get(typeURL, name) == it {
			out = append(out, it)
		}
	}
	return out
}

// modelVersions learns the versions of contents: equal contents have equal versions,
// and different ones different versions.
type modelVersions struct {
	byBytes   map[string]string
	byVersion map[string]string
}

func (v *modelVersions) learn(bytes, version string) error {
	if version == "" {
		return fmt.Errorf("a resource has no version")
	}
	if known, ok := v.byBytes[bytes]; ok && known != version {
		return fmt.Errorf("one content has the versions %q and %q", known, version)
	}
	if known, ok := v.byVersion[version]; ok && known != bytes {
		return fmt.Errorf("two contents have the version %q", version)
	}
	v.byBytes[bytes], v.byVersion[version] = version, bytes
	return nil
}
