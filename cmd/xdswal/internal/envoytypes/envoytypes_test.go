package envoytypes_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	_ "github.com/xdswal/xdswal/cmd/xdswal/internal/envoytypes"
)

func TestTypesResolve(t *testing.T) {
	for _, name := range []protoreflect.FullName{
		"envoy.config.cluster.v3.Cluster",
		"envoy.config.listener.v3.Listener",
		"envoy.extensions.filters.http.router.v3.Router",
		"envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
		"envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
		"envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
		"envoy.extensions.wasm.v3.PluginConfig",
		"envoy.service.runtime.v3.Runtime",
		"ratelimit.config.ratelimit.v3.RateLimitConfig",
		"udpa.type.v1.TypedStruct",
		"xds.type.matcher.v3.Matcher",
		"xds.type.v3.TypedStruct",
	} {
		t.Run(string(name), func(t *testing.T) {
			found, err := protoregistry.GlobalTypes.FindMessageByURL("type.googleapis.com/" + string(name))
			require.NoError(t, err)
			require.Equal(t, name, found.Descriptor().FullName())
		})
	}
}
