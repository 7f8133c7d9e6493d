package snapshot_test

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	testresource "github.com/envoyproxy/go-control-plane/pkg/test/resource/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/journal"
)

const (
	benchNodes   = 100
	benchPerNode = 1000
	benchPerType = benchPerNode / 4
)

// typical is a state of 100,000 resources of about 1 KB: clusters, their
// endpoints, and routes to them.
var typical = sync.OnceValue(func() *state.State {
	at := time.Unix(1_700_000_000, 0)
	b := state.NewBuilder(benchNodes, at)
	for n := range benchNodes {
		must(b.Node("snapshot/default", fmt.Sprintf("edge-proxy-%04d.eu-west-1", n), journal.Sequence(n+1), at))
		for _, kind := range []struct {
			url  string
			size int
			make func(node, i int) types.Resource
		}{
			{resourcev3.ClusterType, benchPerType, makeCluster},
			{resourcev3.EndpointType, 2 * benchPerType, makeEndpoints},
			{resourcev3.RouteType, benchPerType, makeRoutes},
		} {
			must(b.Type(kind.url, "v17"))
			for i := range kind.size {
				must(b.Resources([]*journal.Resource{marshaled(kind.url, kind.make(n, i))}))
			}
		}
	}
	return b.Build()
})

func service(node, i int) string {
	return fmt.Sprintf("service-%05d.team-%02d.svc.cluster.local", i, node)
}

func makeCluster(node, i int) types.Resource {
	c := testresource.MakeCluster(testresource.Ads, service(node, i))
	for k, path := range []string{"/healthz", "/ready"} {
		c.HealthChecks = append(c.HealthChecks, &core.HealthCheck{
			Timeout:             durationpb.New(time.Second),
			Interval:            durationpb.New(time.Duration(10+(i+k)%7) * time.Second),
			HealthChecker:       &core.HealthCheck_HttpHealthCheck_{HttpHealthCheck: &core.HealthCheck_HttpHealthCheck{Host: service(node, i), Path: path}},
			EventLogPath:        fmt.Sprintf("/var/log/envoy/health/%s.log", service(node, i)),
			NoTrafficInterval:   durationpb.New(60 * time.Second),
			HealthyEdgeInterval: durationpb.New(3 * time.Second),
		})
	}
	for k := range 8 {
		c.Filters = append(c.Filters, &cluster.Filter{Name: fmt.Sprintf("envoy.filters.upstream.%s.%d", service(node, i), k)})
	}
	return c
}

func makeEndpoints(node, i int) types.Resource {
	e := testresource.MakeEndpoint(service(node, i), 8080)
	lb := e.Endpoints[0].LbEndpoints[0]
	e.Endpoints[0].LbEndpoints = nil
	for k := range 30 {
		one := testresource.MakeEndpoint("", uint32(8080+k%3)).Endpoints[0].LbEndpoints[0]
		one.HealthStatus = lb.HealthStatus
		one.GetEndpoint().Address.GetSocketAddress().Address = fmt.Sprintf("10.%d.%d.%d", node, (i*7+k)%250, (i*31+k*17)%250)
		e.Endpoints[0].LbEndpoints = append(e.Endpoints[0].LbEndpoints, one)
	}
	return e
}

func makeRoutes(node, i int) types.Resource {
	r := testresource.MakeRouteConfig(service(node, i), service(node, i))
	for k := range 6 {
		vh := testresource.MakeVirtualHost(fmt.Sprintf("%s-%d", service(node, i), k), service(node, (i*13+k)%benchPerType))
		vh.Domains = []string{fmt.Sprintf("host-%d-%d.example.com", i, k)}
		r.VirtualHosts = append(r.VirtualHosts, vh)
	}
	return r
}

func marshaled(url string, m types.Resource) *journal.Resource {
	b, err := cachev3.MarshalResource(m)
	must(err)
	return &journal.Resource{Name: cachev3.GetResourceName(m), TypeURL: url, Version: cachev3.HashResource(b), Value: b}
}

func BenchmarkWriter(b *testing.B) {
	st := typical()
	b.SetBytes(st.Bytes())
	b.ReportAllocs()
	var size countWriter
	for b.Loop() {
		size = 0
		_, err := writeState(&size, headerOf(st), st)
		require.NoError(b, err)
	}
	b.ReportMetric(float64(size)/float64(st.NumResources()), "file-B/resource")
}

func BenchmarkDigest(b *testing.B) {
	st := typical()
	b.SetBytes(st.Bytes())
	b.ReportAllocs()
	for b.Loop() {
		st.Digest()
	}
}

type countWriter int64

func (w *countWriter) Write(p []byte) (int, error) {
	*w += countWriter(len(p))
	return len(p), nil
}

func BenchmarkRead(b *testing.B) { benchmarkRead(b, typical()) }

// BenchmarkReadSmallNodes reads 10,000 nodes of 3 types of 1 small resource.
func BenchmarkReadSmallNodes(b *testing.B) {
	sb := state.NewBuilder(1, time.Unix(1, 0))
	for n := range 10_000 {
		require.NoError(b, sb.Node("snapshot/default", fmt.Sprintf("sidecar-%06d.eu-west-1", n), journal.Sequence(n+1), time.Unix(1_700_000_000, int64(n))))
		for _, url := range []string{resourcev3.ClusterType, resourcev3.EndpointType, resourcev3.ListenerType} {
			require.NoError(b, sb.Type(url, fmt.Sprintf("v%d", n)))
			require.NoError(b, sb.Resources([]*journal.Resource{{Name: service(n, 1), TypeURL: url, Version: "1", Value: []byte(service(n, 2))}}))
		}
	}
	benchmarkRead(b, sb.Build())
}

func benchmarkRead(b *testing.B, st *state.State) {
	b.Helper()
	file := file(b, st)
	b.SetBytes(st.Bytes())
	b.ReportAllocs()
	var got *state.State
	for b.Loop() {
		var err error
		got, _, err = readState(context.Background(), bytes.NewReader(file))
		require.NoError(b, err)
	}
	b.StopTimer()
	b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N), "ms/read")
	heap := heapInUse()
	require.Equal(b, st.NumResources(), got.NumResources())
	got = nil
	retained := float64(heap-heapInUse()) / float64(st.NumResources())
	b.ReportMetric(retained, "heap-B/resource")
	b.ReportMetric(retained*float64(st.NumResources())/float64(st.Bytes()), "heap/wire")
}

func heapInUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
