package xdsserver

import (
	"context"

	clusterservice "github.com/envoyproxy/go-control-plane/envoy/service/cluster/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	endpointservice "github.com/envoyproxy/go-control-plane/envoy/service/endpoint/v3"
	extensionservice "github.com/envoyproxy/go-control-plane/envoy/service/extension/v3"
	listenerservice "github.com/envoyproxy/go-control-plane/envoy/service/listener/v3"
	routeservice "github.com/envoyproxy/go-control-plane/envoy/service/route/v3"
	runtimeservice "github.com/envoyproxy/go-control-plane/envoy/service/runtime/v3"
	secretservice "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	rlsservice "github.com/envoyproxy/go-control-plane/ratelimit/service/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Register registers the server for ADS and for every separate service.
func (s *Server) Register(r *grpc.Server) {
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(r, s)
	clusterservice.RegisterClusterDiscoveryServiceServer(r, s)
	endpointservice.RegisterEndpointDiscoveryServiceServer(r, s)
	endpointservice.RegisterLocalityEndpointDiscoveryServiceServer(r, s)
	listenerservice.RegisterListenerDiscoveryServiceServer(r, s)
	routeservice.RegisterRouteDiscoveryServiceServer(r, s)
	routeservice.RegisterScopedRoutesDiscoveryServiceServer(r, s)
	routeservice.RegisterVirtualHostDiscoveryServiceServer(r, s)
	secretservice.RegisterSecretDiscoveryServiceServer(r, s)
	runtimeservice.RegisterRuntimeDiscoveryServiceServer(r, s)
	extensionservice.RegisterExtensionConfigDiscoveryServiceServer(r, s)
	rlsservice.RegisterRateLimitConfigDiscoveryServiceServer(r, s)
}

// StreamAggregatedResources serves a SotW stream.
func (s *Server) StreamAggregatedResources(str discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	return s.StreamHandler(str, resourcev3.AnyType)
}

// DeltaAggregatedResources serves a delta stream.
func (s *Server) DeltaAggregatedResources(str discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	return s.DeltaStreamHandler(str, resourcev3.AnyType)
}

// StreamClusters serves a SotW stream.
func (s *Server) StreamClusters(str clusterservice.ClusterDiscoveryService_StreamClustersServer) error {
	return s.StreamHandler(str, resourcev3.ClusterType)
}

// DeltaClusters serves a delta stream.
func (s *Server) DeltaClusters(str clusterservice.ClusterDiscoveryService_DeltaClustersServer) error {
	return s.DeltaStreamHandler(str, resourcev3.ClusterType)
}

// FetchClusters answers one request.
func (s *Server) FetchClusters(ctx context.Context, req *discoveryv3.DiscoveryRequest) (*discoveryv3.DiscoveryResponse, error) {
	return s.fetch(ctx, req, resourcev3.ClusterType)
}

// StreamEndpoints serves a SotW stream.
func (s *Server) StreamEndpoints(str endpointservice.EndpointDiscoveryService_StreamEndpointsServer) error {
	return s.StreamHandler(str, resourcev3.EndpointType)
}

// DeltaEndpoints serves a delta stream.
func (s *Server) DeltaEndpoints(str endpointservice.EndpointDiscoveryService_DeltaEndpointsServer) error {
	return s.DeltaStreamHandler(str, resourcev3.EndpointType)
}

// FetchEndpoints answers one request.
func (s *Server) FetchEndpoints(ctx context.Context, req *discoveryv3.DiscoveryRequest) (*discoveryv3.DiscoveryResponse, error) {
	return s.fetch(ctx, req, resourcev3.EndpointType)
}

// StreamListeners serves a SotW stream.
func (s *Server) StreamListeners(str listenerservice.ListenerDiscoveryService_StreamListenersServer) error {
	return s.StreamHandler(str, resourcev3.ListenerType)
}

// DeltaListeners serves a delta stream.
func (s *Server) DeltaListeners(str listenerservice.ListenerDiscoveryService_DeltaListenersServer) error {
	return s.DeltaStreamHandler(str, resourcev3.ListenerType)
}

// FetchListeners answers one request.
func (s *Server) FetchListeners(ctx context.Context, req *discoveryv3.DiscoveryRequest) (*discoveryv3.DiscoveryResponse, error) {
	return s.fetch(ctx, req, resourcev3.ListenerType)
}

// StreamRoutes serves a SotW stream.
func (s *Server) StreamRoutes(str routeservice.RouteDiscoveryService_StreamRoutesServer) error {
	return s.StreamHandler(str, resourcev3.RouteType)
}

// DeltaRoutes serves a delta stream.
func (s *Server) DeltaRoutes(str routeservice.RouteDiscoveryService_DeltaRoutesServer) error {
	return s.DeltaStreamHandler(str, resourcev3.RouteType)
}

// FetchRoutes answers one request.
func (s *Server) FetchRoutes(ctx context.Context, req *discoveryv3.DiscoveryRequest) (*discoveryv3.DiscoveryResponse, error) {
	return s.fetch(ctx, req, resourcev3.RouteType)
}

// StreamScopedRoutes serves a SotW stream.
func (s *Server) StreamScopedRoutes(str routeservice.ScopedRoutesDiscoveryService_StreamScopedRoutesServer) error {
	return s.StreamHandler(str, resourcev3.ScopedRouteType)
}

// DeltaScopedRoutes serves a delta stream.
func (s *Server) DeltaScopedRoutes(str routeservice.ScopedRoutesDiscoveryService_DeltaScopedRoutesServer) error {
	return s.DeltaStreamHandler(str, resourcev3.ScopedRouteType)
}

// FetchScopedRoutes answers one request.
func (s *Server) FetchScopedRoutes(ctx context.Context, req *discoveryv3.DiscoveryRequest) (*discoveryv3.DiscoveryResponse, error) {
	return s.fetch(ctx, req, resourcev3.ScopedRouteType)
}

// DeltaVirtualHosts serves a delta stream.
func (s *Server) DeltaVirtualHosts(str routeservice.VirtualHostDiscoveryService_DeltaVirtualHostsServer) error {
	return s.DeltaStreamHandler(str, resourcev3.VirtualHostType)
}

// StreamSecrets serves a SotW stream.
func (s *Server) StreamSecrets(str secretservice.SecretDiscoveryService_StreamSecretsServer) error {
	return s.StreamHandler(str, resourcev3.SecretType)
}

// DeltaSecrets serves a delta stream.
func (s *Server) DeltaSecrets(str secretservice.SecretDiscoveryService_DeltaSecretsServer) error {
	return s.DeltaStreamHandler(str, resourcev3.SecretType)
}

// FetchSecrets answers one request.
func (s *Server) FetchSecrets(ctx context.Context, req *discoveryv3.DiscoveryRequest) (*discoveryv3.DiscoveryResponse, error) {
	return s.fetch(ctx, req, resourcev3.SecretType)
}

// StreamRuntime serves a SotW stream.
func (s *Server) StreamRuntime(str runtimeservice.RuntimeDiscoveryService_StreamRuntimeServer) error {
	return s.StreamHandler(str, resourcev3.RuntimeType)
}

// DeltaRuntime serves a delta stream.
func (s *Server) DeltaRuntime(str runtimeservice.RuntimeDiscoveryService_DeltaRuntimeServer) error {
	return s.DeltaStreamHandler(str, resourcev3.RuntimeType)
}

// FetchRuntime answers one request.
func (s *Server) FetchRuntime(ctx context.Context, req *discoveryv3.DiscoveryRequest) (*discoveryv3.DiscoveryResponse, error) {
	return s.fetch(ctx, req, resourcev3.RuntimeType)
}

// StreamExtensionConfigs serves a SotW stream.
func (s *Server) StreamExtensionConfigs(str extensionservice.ExtensionConfigDiscoveryService_StreamExtensionConfigsServer) error {
	return s.StreamHandler(str, resourcev3.ExtensionConfigType)
}

// DeltaExtensionConfigs serves a delta stream.
func (s *Server) DeltaExtensionConfigs(str extensionservice.ExtensionConfigDiscoveryService_DeltaExtensionConfigsServer) error {
	return s.DeltaStreamHandler(str, resourcev3.ExtensionConfigType)
}

// FetchExtensionConfigs answers one request.
func (s *Server) FetchExtensionConfigs(ctx context.Context, req *discoveryv3.DiscoveryRequest) (*discoveryv3.DiscoveryResponse, error) {
	return s.fetch(ctx, req, resourcev3.ExtensionConfigType)
}

// StreamRlsConfigs serves a SotW stream.
func (s *Server) StreamRlsConfigs(str rlsservice.RateLimitConfigDiscoveryService_StreamRlsConfigsServer) error {
	return s.StreamHandler(str, resourcev3.RateLimitConfigType)
}

// FetchRlsConfigs answers one request.
func (s *Server) FetchRlsConfigs(ctx context.Context, req *discoveryv3.DiscoveryRequest) (*discoveryv3.DiscoveryResponse, error) {
	return s.fetch(ctx, req, resourcev3.RateLimitConfigType)
}

// DeltaLocalityEndpoints serves a delta stream.
func (s *Server) DeltaLocalityEndpoints(str endpointservice.LocalityEndpointDiscoveryService_DeltaLocalityEndpointsServer) error {
	return s.DeltaStreamHandler(str, lbEndpointType)
}

func (s *Server) fetch(ctx context.Context, req *discoveryv3.DiscoveryRequest, typeURL string) (*discoveryv3.DiscoveryResponse, error) {
	if req == nil {
		return nil, status.Error(codes.InvalidArgument, "empty request")
	}
	req.TypeUrl = typeURL
	return s.Fetch(ctx, req)
}
