package xdscache_test

import (
	"fmt"
	"maps"
	"runtime"
	"testing"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	testresource "github.com/envoyproxy/go-control-plane/pkg/test/resource/v3"
	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/xdscache"
)

const benchResources = 10_000

// assignment returns the endpoints of a service, in about 1.1 KB.
func assignment(i, change int) *endpointv3.ClusterLoadAssignment {
	e := testresource.MakeEndpoint(fmt.Sprintf("service-%05d.team-%02d.svc.cluster.local", i, i%50), 8080)
	e.Endpoints[0].LbEndpoints = nil
	for k := range 36 {
		one := testresource.MakeEndpoint("", uint32(8080+k%3)).Endpoints[0].LbEndpoints[0]
		one.HealthStatus = 1
		one.GetEndpoint().Address.GetSocketAddress().Address = fmt.Sprintf("10.%d.%d.%d", change%250, (i*7+k)%250, (i*31+k*17)%250)
		e.Endpoints[0].LbEndpoints = append(e.Endpoints[0].LbEndpoints, one)
	}
	return e
}

func assignments(n int) map[string]types.ResourceWithTTL {
	out := make(map[string]types.ResourceWithTTL, n)
	for i := range n {
		m := assignment(i, 0)
		out[m.GetClusterName()] = types.ResourceWithTTL{Resource: m}
	}
	return out
}

func snapshotOfAssignments(version string, items map[string]types.ResourceWithTTL) *cachev3.Snapshot {
	s := &cachev3.Snapshot{}
	s.Resources[types.Endpoint] = cachev3.Resources{Version: version, Items: items}
	return s
}

// BenchmarkMarshal is what the comparison of contents is measured against: each of the
// resources is marshaled, on one processor.
func BenchmarkMarshal(b *testing.B) {
	all := assignments(benchResources)
	for b.Loop() {
		for _, item := range all {
			_, err := cachev3.MarshalResource(item.Resource)
			require.NoError(b, err)
		}
	}
}

// BenchmarkSetSnapshot sets a node of 10,000 resources, of which one has changed, in a log
// that commits at once.
func BenchmarkSetSnapshot(b *testing.B) {
	for _, row := range []struct {
		name string
		opts []xdscache.SnapshotOption
	}{
		{name: "content"},
		{name: "immutable", opts: []xdscache.SnapshotOption{xdscache.WithImmutableMessages()}},
	} {
		b.Run(row.name, func(b *testing.B) {
			l := newLog(b)
			l.forget()
			c := newCache(l, row.opts...)
			all := assignments(benchResources)
			set(b, c, "n", snapshotOfAssignments("0", all))
			l.forget()
			i := 0
			for b.Loop() {
				b.StopTimer()
				i++
				all = maps.Clone(all)
				m := assignment((i*7919)%benchResources, i)
				all[m.GetClusterName()] = types.ResourceWithTTL{Resource: m}
				s := snapshotOfAssignments(fmt.Sprint(i), all)
				b.StartTimer()
				set(b, c, "n", s)
			}
			require.Len(b, l.committed(), i)
		})
	}
}

// BenchmarkNodes reports the memory of a node whose resources other nodes have too.
func BenchmarkNodes(b *testing.B) {
	const nodes = 20
	for _, row := range []struct {
		name string
		same bool
	}{{"of one snapshot", true}, {"of snapshots of their own", false}} {
		b.Run(row.name, func(b *testing.B) {
			for b.Loop() {
				l := newLog(b)
				l.forget()
				c := newCache(l)
				all := assignments(benchResources)
				set(b, c, "first", snapshotOfAssignments("0", all))
				l.forget()
				before := heap()
				for i := range nodes {
					given := all
					if !row.same {
						given = assignments(benchResources)
					}
					set(b, c, fmt.Sprint(i), snapshotOfAssignments("0", given))
					l.forget()
				}
				b.ReportMetric(float64(heap()-before)/nodes, "heap-B/node")
				require.Len(b, fetch(b, c, "first", resourcev3.EndpointType), benchResources)
				runtime.KeepAlive(all)
			}
		})
	}
}
