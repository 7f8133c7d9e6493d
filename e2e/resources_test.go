package e2e

import (
	"fmt"

	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
)

// allTypes are the types that the daemon serves.
var allTypes = []string{
	resourcev3.ClusterType, resourcev3.EndpointType, resourcev3.ListenerType, resourcev3.RouteType,
	resourcev3.ScopedRouteType, resourcev3.VirtualHostType, resourcev3.SecretType, resourcev3.RuntimeType,
	resourcev3.ExtensionConfigType, resourcev3.RateLimitConfigType,
}

// newResource returns a valid resource of a type, as the daemon writes it. Its body
// contains content.
func newResource(typeURL, name, content string) object {
	out := object{"@type": typeURL, "name": name}
	switch typeURL {
	case resourcev3.ClusterType:
		out["alt_stat_name"] = content
	case resourcev3.EndpointType:
		delete(out, "name")
		out["cluster_name"] = name
		out["endpoints"] = []any{object{"locality": object{"zone": content}}}
	case resourcev3.ListenerType:
		out["stat_prefix"] = content
		out["address"] = object{"socket_address": object{"address": "127.0.0.1", "port_value": 80}}
	case resourcev3.RouteType:
		out["virtual_hosts"] = []any{object{"name": content, "domains": []any{"*"}}}
	case resourcev3.ScopedRouteType:
		out["route_configuration_name"] = "r"
		out["key"] = object{"fragments": []any{object{"string_key": content}}}
	case resourcev3.VirtualHostType:
		out["domains"] = []any{content}
	case resourcev3.SecretType:
		out["generic_secret"] = object{"secret": object{"inline_string": content}}
	case resourcev3.RuntimeType:
		// The body must not depend on the order of the keys.
		layer := object{"content": content}
		for i := range 20 {
			layer[fmt.Sprint("key-", i)] = i
		}
		out["layer"] = layer
	case resourcev3.ExtensionConfigType:
		out["typed_config"] = object{
			"@type":       "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
			"path":        "/dev/null",
			"json_format": object{"content": content, "b": "%PROTOCOL%", "a": "%RESPONSE_CODE%"},
		}
	case resourcev3.RateLimitConfigType:
		out["domain"] = content
	default:
		panic("unknown type: " + typeURL)
	}
	return out
}

// withTTL wraps a resource with a TTL.
func withTTL(resource object, ttl string) object {
	return object{"@type": "type.googleapis.com/envoy.service.discovery.v3.Resource", "ttl": ttl, "resource": resource}
}

// nameOf returns the name of a resource of newResource.
func nameOf(resource object) string {
	if resource["@type"] == resourcev3.EndpointType {
		return resource["cluster_name"].(string)
	}
	return resource["name"].(string)
}
