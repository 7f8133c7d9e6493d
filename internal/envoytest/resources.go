package envoytest

import (
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	// Links the messages that the resources and Envoy's config_dump contain.
	_ "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
)

// Resource is an xDS resource, or a part of one, as a JSON object in the form that the
// daemon's admin interface accepts.
type Resource = map[string]any

const (
	typePrefix  = "type.googleapis.com/"
	clusterType = typePrefix + "envoy.config.cluster.v3.Cluster"
	loadType    = typePrefix + "envoy.config.endpoint.v3.ClusterLoadAssignment"
	listenType  = typePrefix + "envoy.config.listener.v3.Listener"
	routeType   = typePrefix + "envoy.config.route.v3.RouteConfiguration"
)

// Builder makes resources. A marker is a text that only distinguishes the content.
type Builder struct {
	// Protocol is how Envoy fetches endpoints and routes.
	Protocol Protocol
	// FetchTimeout is the initial_fetch_timeout of a cluster's endpoints; 0 makes Envoy
	// wait for ever.
	FetchTimeout time.Duration
}

// Cluster returns a cluster with endpoints of EDS.
func (b Builder) Cluster(name, marker string) Resource {
	source := b.Protocol.configSource()
	source["initial_fetch_timeout"] = duration(b.FetchTimeout)
	return Resource{
		"@type": clusterType, "name": name, "type": "EDS", "connect_timeout": "1s",
		"eds_cluster_config": Resource{"eds_config": source},
		"metadata":           metadata(marker),
	}
}

// Endpoints returns the endpoints of a cluster.
func (b Builder) Endpoints(cluster string, addrs ...string) Resource {
	return Resource{"@type": loadType, "cluster_name": cluster, "endpoints": lbEndpoints(addrs...)}
}

// Route returns a route configuration that sends all requests to one cluster, and each of
// them once, so that every failure is seen.
func (b Builder) Route(name, marker, cluster string) Resource {
	return Resource{
		"@type": routeType, "name": name,
		"virtual_hosts": []any{Resource{
			"name": "all", "domains": []any{"*"},
			"routes": []any{Resource{
				"match":    Resource{"prefix": "/"},
				"route":    Resource{"cluster": cluster},
				"metadata": metadata(marker),
			}},
		}},
	}
}

// Listener returns a listener for HTTP whose routes are those of RDS. The body of a
// response that Envoy makes by itself says why.
func (b Builder) Listener(name, marker, addr, route string) Resource {
	return Resource{
		"@type": listenType, "name": name, "address": socketAddress(addr), "metadata": metadata(marker),
		"filter_chains": []any{Resource{"filters": []any{Resource{
			"name": "envoy.filters.network.http_connection_manager",
			"typed_config": Resource{
				"@type":       typePrefix + "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
				"stat_prefix": name,
				"rds":         Resource{"route_config_name": route, "config_source": b.Protocol.configSource()},
				"local_reply_config": Resource{"body_format": Resource{"text_format_source": Resource{
					"inline_string": "%RESPONSE_CODE_DETAILS% (%RESPONSE_FLAGS%)",
				}}},
				"http_filters": []any{Resource{
					"name":         "envoy.filters.http.router",
					"typed_config": Resource{"@type": typePrefix + "envoy.extensions.filters.http.router.v3.Router"},
				}},
			},
		}}}},
	}
}

// BadListener returns a listener that is a valid message, and that Envoy rejects: two of
// its filter chains match the same connections.
func (b Builder) BadListener(name, marker, addr, route string) Resource {
	l := b.Listener(name, marker, addr, route)
	chains := l["filter_chains"].([]any)
	l["filter_chains"] = append(chains, chains[0])
	return l
}

func metadata(marker string) Resource {
	return Resource{"filter_metadata": Resource{"envoytest": Resource{"marker": marker}}}
}

// Message returns a resource as its protobuf message.
func Message(r Resource) (proto.Message, error) {
	data, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("marshal the resource: %w", err)
	}
	var a anypb.Any
	if err := protojson.Unmarshal(data, &a); err != nil {
		return nil, fmt.Errorf("decode the resource: %w", err)
	}
	return a.UnmarshalNew()
}

// Addresses returns the sorted addresses of a cluster's endpoints.
func Addresses(endpoints Resource) []string {
	var addrs []string
	groups, _ := endpoints["endpoints"].([]any)
	for _, group := range groups {
		members, _ := group.(Resource)["lb_endpoints"].([]any)
		for _, member := range members {
			data, err := json.Marshal(member)
			if err != nil {
				panic(err) // it was decoded from JSON
			}
			var m struct {
				Endpoint struct {
					Address struct {
						Socket struct {
							Address string
							Port    int `json:"port_value"`
						} `json:"socket_address"`
					}
				}
			}
			if err := json.Unmarshal(data, &m); err != nil {
				panic(err)
			}
			socket := m.Endpoint.Address.Socket
			addrs = append(addrs, net.JoinHostPort(socket.Address, strconv.Itoa(socket.Port)))
		}
	}
	slices.Sort(addrs)
	return addrs
}
