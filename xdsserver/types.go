package xdsserver

import (
	"iter"
	"strings"

	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/journal"
)

// lbEndpointType is the type of LEDS, which go-control-plane has no constant for yet.
const lbEndpointType = resourcev3.APITypePrefix + "envoy.config.endpoint.v3.LbEndpoint"

// typeTraits say how the resources of a type depend on those of others.
type typeTraits struct {
	// rank is the position of the type's answers among those of one change.
	rank int
	// fullState types must be complete in each SotW response: a resource that is missing
	// is removed by the client.
	fullState bool
	// refersToClusters types are sent after the client has acknowledged the clusters.
	refersToClusters bool
	// namesRoutes types name routes, which a client asks for when it has acknowledged them.
	namesRoutes bool
	// removedLast types are removed after the client has acknowledged what no longer
	// refers to them.
	removedLast bool
}

const (
	clusterRank  = 0
	endpointRank = 1
	// otherRank is the rank of types that refer to no other and that no other refers to.
	otherRank = 100
)

// knownTypes are the types that Envoy knows.
var knownTypes = map[string]typeTraits{
	resourcev3.ClusterType:         {rank: clusterRank, fullState: true, removedLast: true},
	resourcev3.EndpointType:        {rank: endpointRank, removedLast: true},
	lbEndpointType:                 {rank: 2, removedLast: true},
	resourcev3.ListenerType:        {rank: 3, fullState: true, refersToClusters: true, namesRoutes: true},
	resourcev3.RouteType:           {rank: 4, refersToClusters: true, removedLast: true},
	resourcev3.ScopedRouteType:     {rank: 5, refersToClusters: true, removedLast: true, namesRoutes: true},
	resourcev3.VirtualHostType:     {rank: 6, refersToClusters: true, removedLast: true},
	resourcev3.ExtensionConfigType: {rank: 7, refersToClusters: true, removedLast: true},
	resourcev3.SecretType:          {rank: 8, removedLast: true},
	resourcev3.RuntimeType:         {rank: 9},
	resourcev3.RateLimitConfigType: {rank: 10},
	resourcev3.ThriftRouteType:     {rank: 11, refersToClusters: true, removedLast: true},
}

func traitsOf(typeURL string) typeTraits {
	if t, ok := knownTypes[typeURL]; ok {
		return t
	}
	return typeTraits{rank: otherRank}
}

// A glob is a name of the xdstp scheme that ends in "/*", before any context parameters.
// It subscribes to all resources whose names begin and end as it does.
type glob struct{ prefix, suffix string }

func parseGlob(name string) (glob, bool) {
	if !strings.HasPrefix(name, "xdstp://") {
		return glob{}, false
	}
	path, params, found := strings.Cut(name, "?")
	if !strings.HasSuffix(path, "/*") {
		return glob{}, false
	}
	g := glob{prefix: strings.TrimSuffix(path, "*")}
	if found {
		g.suffix = "?" + params
	}
	return g, true
}

func (g glob) matches(name string) bool {
	rest, ok := strings.CutPrefix(name, g.prefix)
	if !ok {
		return false
	}
	rest, ok = strings.CutSuffix(rest, g.suffix)
	return ok && rest != "" && (g.suffix != "" || !strings.Contains(rest, "?"))
}

// resources yields the resources of a type that the glob matches.
func (g glob) resources(t *state.Type) iter.Seq[*journal.Resource] {
	return func(yield func(*journal.Resource) bool) {
		for r := range t.From(g.prefix) {
			if !strings.HasPrefix(r.Name, g.prefix) || (g.matches(r.Name) && !yield(r)) {
				return
			}
		}
	}
}
