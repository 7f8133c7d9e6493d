package corpus

import (
	"encoding/base64"
	"fmt"
	"strings"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// cluster is an EDS cluster with mutual TLS, a health check, circuit breakers
// and outlier detection.
func cluster(s service) (resourcev3.Type, types.Resource) {
	return resourcev3.ClusterType, &clusterv3.Cluster{
		Name:                 s.name(),
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig:     &clusterv3.Cluster_EdsClusterConfig{EdsConfig: adsSource(), ServiceName: s.name()},
		ConnectTimeout:       durationpb.New(time.Duration(1+s.rand.IntN(5)) * time.Second),
		LbPolicy:             clusterv3.Cluster_LEAST_REQUEST,
		CircuitBreakers: &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{
			{MaxConnections: number(s.rand.IntN(4096)), MaxPendingRequests: number(s.rand.IntN(4096)), MaxRequests: number(8192), MaxRetries: number(3)},
			{Priority: corev3.RoutingPriority_HIGH, MaxConnections: number(8192), MaxRequests: number(16384)},
		}},
		HealthChecks: []*corev3.HealthCheck{{
			Timeout: durationpb.New(time.Second), Interval: durationpb.New(10 * time.Second),
			HealthyThreshold: number(2), UnhealthyThreshold: number(3),
			HealthChecker: &corev3.HealthCheck_HttpHealthCheck_{HttpHealthCheck: &corev3.HealthCheck_HttpHealthCheck{
				Host: s.name(), Path: "/healthz", ExpectedStatuses: []*typev3.Int64Range{{Start: 200, End: 300}},
			}},
		}},
		OutlierDetection: &clusterv3.OutlierDetection{
			Consecutive_5Xx: number(5), Interval: durationpb.New(10 * time.Second),
			BaseEjectionTime: durationpb.New(30 * time.Second), MaxEjectionPercent: number(10),
		},
		TransportSocket: &corev3.TransportSocket{
			Name: "envoy.transport_sockets.tls",
			ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: packed(&tlsv3.UpstreamTlsContext{
				Sni: s.name(), CommonTlsContext: commonTLS(s, "h2", "http/1.1"),
			})},
		},
		Metadata: metadata(map[string]any{
			"service": s.name(), "team": fmt.Sprint("team-", s.number%37), "revision": s.hex(12), "canary": s.number%7 == 0,
		}),
	}
}

// endpoints is the assignment of a service that runs in three zones.
func endpoints(s service) (resourcev3.Type, types.Resource) {
	return resourcev3.EndpointType, s.assignment(3, 2+s.rand.IntN(7))
}

func (s service) assignment(localities, each int) types.Resource {
	a := &endpointv3.ClusterLoadAssignment{ClusterName: s.name()}
	for zone := range localities {
		l := &endpointv3.LocalityLbEndpoints{
			Locality:            &corev3.Locality{Region: "eu-west-1", Zone: "eu-west-1" + string(rune('a'+zone))},
			LoadBalancingWeight: number(1 + s.rand.IntN(100)),
			Priority:            uint32(zone),
		}
		for range each {
			l.LbEndpoints = append(l.LbEndpoints, s.lbEndpoint())
		}
		a.Endpoints = append(a.Endpoints, l)
	}
	return a
}

func (s service) lbEndpoint() *endpointv3.LbEndpoint {
	return &endpointv3.LbEndpoint{
		HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{
			Address: address(fmt.Sprintf("10.%d.%d.%d", s.rand.IntN(256), s.rand.IntN(256), s.rand.IntN(256)), uint32(8080+s.rand.IntN(4))),
		}},
		HealthStatus:        corev3.HealthStatus_HEALTHY,
		LoadBalancingWeight: number(1 + s.rand.IntN(100)),
	}
}

// routes is a route configuration of four virtual hosts of four routes.
func routes(s service) (resourcev3.Type, types.Resource) {
	r := &routev3.RouteConfiguration{
		Name:                   s.name(),
		ResponseHeadersToAdd:   []*corev3.HeaderValueOption{header("x-served-by", s.name())},
		RequestHeadersToRemove: []string{"x-internal-debug"},
	}
	for range 4 {
		v := &routev3.VirtualHost{
			Name:    s.other(s.number) + "-" + s.hex(6),
			Domains: []string{s.hex(8) + ".example.com", s.hex(8) + ".example.com:443"},
		}
		for k := range 4 {
			v.Routes = append(v.Routes, s.route(k))
		}
		r.VirtualHosts = append(r.VirtualHosts, v)
	}
	return resourcev3.RouteType, r
}

func (s service) route(k int) *routev3.Route {
	return &routev3.Route{
		Name: fmt.Sprintf("route-%d", k),
		Match: &routev3.RouteMatch{
			PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: fmt.Sprintf("/v%d/%s", k, s.hex(6))},
			Headers: []*routev3.HeaderMatcher{{
				Name: "x-tenant",
				HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: &matcherv3.StringMatcher{
					MatchPattern: &matcherv3.StringMatcher_Exact{Exact: "tenant-" + s.hex(4)},
				}},
			}},
		},
		Action: &routev3.Route_Route{Route: &routev3.RouteAction{
			ClusterSpecifier: &routev3.RouteAction_WeightedClusters{WeightedClusters: &routev3.WeightedCluster{
				Clusters: []*routev3.WeightedCluster_ClusterWeight{
					{Name: s.other(s.rand.IntN(1000)), Weight: number(90)},
					{Name: s.other(s.rand.IntN(1000)), Weight: number(10)},
				},
			}},
			Timeout: durationpb.New(15 * time.Second),
			RetryPolicy: &routev3.RetryPolicy{
				RetryOn: "connect-failure,refused-stream,unavailable", NumRetries: number(2), PerTryTimeout: durationpb.New(5 * time.Second),
			},
		}},
	}
}

// listener is a listener with TLS and an HTTP connection manager.
func listener(s service) (resourcev3.Type, types.Resource) {
	manager := &hcmv3.HttpConnectionManager{
		StatPrefix: s.name(),
		RouteSpecifier: &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{
			ConfigSource: adsSource(), RouteConfigName: s.name(),
		}},
		HttpFilters: []*hcmv3.HttpFilter{
			{Name: "envoy.filters.http.fault", ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: packed(&faultv3.HTTPFault{MaxActiveFaults: number(100)})}},
			{Name: "envoy.filters.http.router", ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: packed(&routerv3.Router{})}},
		},
		CommonHttpProtocolOptions: &corev3.HttpProtocolOptions{IdleTimeout: durationpb.New(time.Hour)},
		Http2ProtocolOptions:      &corev3.Http2ProtocolOptions{MaxConcurrentStreams: number(100), InitialStreamWindowSize: number(65536)},
		StreamIdleTimeout:         durationpb.New(5 * time.Minute),
		RequestTimeout:            durationpb.New(5 * time.Minute),
		UseRemoteAddress:          wrapperspb.Bool(true),
		ServerName:                "envoy",
	}
	return resourcev3.ListenerType, &listenerv3.Listener{
		Name:    s.name(),
		Address: address("0.0.0.0", uint32(10000+s.number%20000)),
		FilterChains: []*listenerv3.FilterChain{{
			FilterChainMatch: &listenerv3.FilterChainMatch{ServerNames: []string{s.hex(8) + ".example.com"}, TransportProtocol: "tls"},
			TransportSocket: &corev3.TransportSocket{
				Name: "envoy.transport_sockets.tls",
				ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: packed(&tlsv3.DownstreamTlsContext{
					CommonTlsContext: commonTLS(s, "h2"), RequireClientCertificate: wrapperspb.Bool(true),
				})},
			},
			Filters: []*listenerv3.Filter{{
				Name:       "envoy.filters.network.http_connection_manager",
				ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: packed(manager)},
			}},
		}},
		PerConnectionBufferLimitBytes: number(1 << 20),
		TrafficDirection:              corev3.TrafficDirection_INBOUND,
		Metadata:                      metadata(map[string]any{"revision": s.hex(12), "team": fmt.Sprint("team-", s.number%37)}),
	}
}

// secret is a certificate and its key, which hardly compress.
func secret(s service) (resourcev3.Type, types.Resource) {
	return resourcev3.SecretType, &tlsv3.Secret{
		Name: s.name(),
		Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{
			CertificateChain: inline(s.pem("CERTIFICATE", 900)),
			PrivateKey:       inline(s.pem("PRIVATE KEY", 240)),
		}},
	}
}

func (s service) pem(kind string, size int) []byte {
	body := base64.StdEncoding.EncodeToString(s.bytes(size))
	var b strings.Builder
	fmt.Fprintf(&b, "-----BEGIN %s-----\n", kind)
	for len(body) > 64 {
		b.WriteString(body[:64] + "\n")
		body = body[64:]
	}
	fmt.Fprintf(&b, "%s\n-----END %s-----\n", body, kind)
	return []byte(b.String())
}

func (s service) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(s.rand.Uint32())
	}
	return b
}

func (s service) hex(digits int) string { return fmt.Sprintf("%0*x", digits, s.bytes(digits/2)) }

func commonTLS(s service, protocols ...string) *tlsv3.CommonTlsContext {
	return &tlsv3.CommonTlsContext{
		AlpnProtocols:                  protocols,
		TlsCertificateSdsSecretConfigs: []*tlsv3.SdsSecretConfig{{Name: s.other(s.number - s.number%20 + 19), SdsConfig: adsSource()}},
	}
}

func adsSource() *corev3.ConfigSource {
	return &corev3.ConfigSource{
		ResourceApiVersion:    corev3.ApiVersion_V3,
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
	}
}

func address(host string, port uint32) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: host, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port},
	}}}
}

func header(key, value string) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{Header: &corev3.HeaderValue{Key: key, Value: value}}
}

func inline(b []byte) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: b}}
}

func number(n int) *wrapperspb.UInt32Value { return wrapperspb.UInt32(uint32(n)) }

func metadata(fields map[string]any) *corev3.Metadata {
	s, err := structpb.NewStruct(fields)
	if err != nil {
		panic(err) // the callers pass valid fields
	}
	return &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{"com.example.mesh": s}}
}

// packed marshals deterministically, so that the corpus is the same on every run.
func packed(m proto.Message) *anypb.Any {
	a := new(anypb.Any)
	if err := anypb.MarshalFrom(a, m, proto.MarshalOptions{Deterministic: true}); err != nil {
		panic(err) // the callers pass valid messages
	}
	return a
}
