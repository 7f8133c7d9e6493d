// Package corpus generates the resources of the workloads: those of a service mesh, in
// the proportions and sizes that control planes send to Envoys. The same node and number
// always give the same resource.
package corpus

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
)

// Shape is the number of nodes, and of resources of each node.
type Shape struct {
	Nodes, PerNode int
}

// Total returns the number of resources.
func (s Shape) Total() int { return s.Nodes * s.PerNode }

// String returns for example "100x1000".
func (s Shape) String() string { return fmt.Sprintf("%dx%d", s.Nodes, s.PerNode) }

// Node returns the name of a node.
func (s Shape) Node(i int) string { return fmt.Sprintf("edge-proxy-%05d.eu-west-1", i) }

// Resources returns the resources of a node, by type.
func (s Shape) Resources(node int) map[resourcev3.Type][]types.Resource {
	out := map[resourcev3.Type][]types.Resource{}
	for i := range s.PerNode {
		url, r := Resource(node, i)
		out[url] = append(out[url], r)
	}
	return out
}

// Snapshot returns the snapshot of a node.
func (s Shape) Snapshot(node int, version string) (*cachev3.Snapshot, error) {
	snapshot, err := cachev3.NewSnapshot(version, s.Resources(node))
	if err != nil {
		return nil, fmt.Errorf("create snapshot: %w", err)
	}
	return snapshot, nil
}

// Types are the types of the resources of a node.
var Types = []resourcev3.Type{
	resourcev3.ClusterType, resourcev3.EndpointType, resourcev3.RouteType, resourcev3.ListenerType, resourcev3.SecretType,
}

// kinds are the constructors of every twenty resources of a node: a cluster and its
// endpoints for most services, routes for some, one listener and one certificate.
var kinds = [20]func(service) (resourcev3.Type, types.Resource){
	cluster, endpoints, routes, cluster, endpoints, cluster, endpoints, routes, cluster, endpoints,
	cluster, endpoints, listener, cluster, endpoints, routes, cluster, endpoints, cluster, secret,
}

// Resource returns the i-th resource of a node, and its type.
func Resource(node, i int) (resourcev3.Type, types.Resource) {
	return kinds[i%len(kinds)](service{
		rand: rand.New(rand.NewPCG(uint64(node), uint64(i))),
		node: node, number: i,
	})
}

// Endpoints returns an assignment as control planes update it most often: one locality
// of five endpoints. Its event is about 500 bytes long. The revision changes addresses.
func Endpoints(number, revision int) types.Resource {
	s := service{rand: rand.New(rand.NewPCG(uint64(number), uint64(revision))), number: number}
	return s.assignment(1, 5)
}

// service is the service that a resource configures.
type service struct {
	rand         *rand.Rand
	node, number int
}

func (s service) name() string { return s.other(s.number) }

func (s service) other(number int) string {
	return fmt.Sprintf("service-%06d.team-%02d.svc.cluster.local", number, number%37)
}

// Opaque returns a secret of size bytes that do not compress.
func Opaque(node, number, size int) (resourcev3.Type, types.Resource) {
	var seed [32]byte
	binary.LittleEndian.PutUint64(seed[:], uint64(node))
	binary.LittleEndian.PutUint64(seed[8:], uint64(number))
	content := make([]byte, size)
	_, _ = rand.NewChaCha8(seed).Read(content) // Read returns no error.
	return resourcev3.SecretType, &tlsv3.Secret{
		Name: service{node: node, number: number}.name(),
		Type: &tlsv3.Secret_GenericSecret{GenericSecret: &tlsv3.GenericSecret{Secret: inline(content)}},
	}
}
