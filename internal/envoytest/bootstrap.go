package envoytest

import (
	"net"
	"strconv"
	"time"
)

// Protocol is how Envoy fetches its configuration.
type Protocol struct {
	// Delta selects the incremental protocol instead of the state of the world.
	Delta bool
	// Separate opens a stream for each type, and for each cluster's endpoints, instead of
	// one aggregated stream.
	Separate bool
}

// Protocols are all protocols.
func Protocols() []Protocol {
	return []Protocol{{Delta: true}, {}, {Delta: true, Separate: true}, {Separate: true}}
}

func (p Protocol) String() string {
	streams, protocol := "ADS", "SotW"
	if p.Separate {
		streams = "separate streams"
	}
	if p.Delta {
		protocol = "delta"
	}
	return protocol + " " + streams
}

// xdsCluster is the name of the cluster of the xDS server.
const xdsCluster = "xds"

// apiSource returns the api_config_source of the xDS server.
func (p Protocol) apiSource() Resource {
	api := "GRPC"
	if p.Delta {
		api = "DELTA_GRPC"
	}
	return Resource{
		"api_type":              api,
		"transport_api_version": "V3",
		"grpc_services": []any{Resource{"envoy_grpc": Resource{
			"cluster_name": xdsCluster,
			// By default Envoy waits for up to 30 s before it connects again.
			"retry_policy": Resource{"retry_back_off": Resource{"base_interval": "0.02s", "max_interval": "0.1s"}},
		}}},
	}
}

// configSource returns the config_source for one type.
func (p Protocol) configSource() Resource {
	source := Resource{"resource_api_version": "V3"}
	if p.Separate {
		source["api_config_source"] = p.apiSource()
	} else {
		source["ads"] = Resource{}
	}
	return source
}

// bootstrap returns the configuration that Envoy is started with.
func (o Options) bootstrap() Resource {
	dynamic := Resource{"cds_config": o.Protocol.configSource(), "lds_config": o.Protocol.configSource()}
	if !o.Protocol.Separate {
		dynamic["ads_config"] = o.Protocol.apiSource()
	}
	http2 := Resource{}
	if o.Keepalive > 0 {
		http2["connection_keepalive"] = Resource{
			"interval": duration(o.Keepalive), "interval_jitter": Resource{"value": 0}, "timeout": "5s",
		}
	}
	return Resource{
		"node":              Resource{"id": o.Node, "cluster": "envoytest"},
		"admin":             Resource{"address": socketAddress("127.0.0.1:0")},
		"dynamic_resources": dynamic,
		"static_resources": Resource{"clusters": []any{Resource{
			"name": xdsCluster, "type": "STATIC", "connect_timeout": "1s",
			"load_assignment": Resource{"cluster_name": xdsCluster, "endpoints": lbEndpoints(o.Server)},
			"typed_extension_protocol_options": Resource{
				"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": Resource{
					"@type":                "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
					"explicit_http_config": Resource{"http2_protocol_options": http2},
				},
			},
		}}},
	}
}

func duration(d time.Duration) string {
	return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) + "s"
}

func socketAddress(addr string) Resource {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		panic(err) // a bug of the caller
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		panic(err)
	}
	return Resource{"socket_address": Resource{"address": host, "port_value": n}}
}

func lbEndpoints(addrs ...string) []any {
	endpoints := make([]any, len(addrs))
	for i, addr := range addrs {
		endpoints[i] = Resource{"endpoint": Resource{"address": socketAddress(addr)}}
	}
	return []any{Resource{"lb_endpoints": endpoints}}
}
