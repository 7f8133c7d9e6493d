package workload

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/bench/corpus"
	"github.com/xdswal/xdswal/bench/fleet"
	"github.com/xdswal/xdswal/bench/harness"
	"github.com/xdswal/xdswal/xdscache"
)

const (
	rawSendName        = "send marshaled bytes"
	upstreamSetName    = "go-control-plane SetSnapshot"
	upstreamLinearName = "go-control-plane LinearCache"
	ownUpdateName      = "xdswal UpdateResources"
	ownDurableName     = "xdswal UpdateResources, durable"
	ownSetName         = "xdswal SetSnapshot"
	// Of xdswal's cache behind go-control-plane's server.
	ownBehindName = "xdswal UpdateResources, go-control-plane's server"
)

// All clients have the same node. Its size is that of the workloads with one size.
const (
	deliverNode = "edge-proxy-00000.eu-west-1"
	deliverSize = 10_000
)

var metricCPU = harness.Metric{Name: "cpu", Unit: "ms"}

const countedCPU = "cpu is the processor time of the server's process for one update: it includes the cache, the server, gRPC, the ACKs and the garbage collector, and not the clients, which run in a process of their own. "

// deliverWorkload measures an update until it has reached all clients.
func deliverWorkload(clients int) harness.Workload {
	w := harness.Workload{
		Name: "deliver/1-of-10000/" + count(clients, "client"),
		About: fmt.Sprintf("One assignment of a node of %d changes, and all %d clients of the node receive it before the next one changes: delta clients of the EDS service with a wildcard, through gRPC on loopback. ", deliverSize, clients) +
			countedCPU + "Floor: the same responses, marshaled before and sent to each stream.",
		Metrics: []harness.Metric{metricCPU, metricP50},
		Comparisons: []harness.Comparison{
			{Metric: "cpu", To: rawSendName}, {Metric: "cpu", To: upstreamLinearName}, {Metric: "cpu", To: upstreamSetName},
		},
		Claims: deliverClaims(clients),
	}
	w.Open = func(ctx context.Context, env harness.Env) (harness.Prepared, error) {
		return openDelivery(ctx, w.Name, clients, func(ctx context.Context) ([]publisher, error) {
			n := newEndpointNode(deliverSize, false)
			upstream, err := upstreamSetPublisher(ctx, n)
			if err != nil {
				return nil, err
			}
			all := []publisher{upstream}
			// In a short run, the state of so many streams would take most of the time.
			if !env.Short || clients < 100 {
				all = append(all, upstreamLinearPublisher(n))
			}
			if clients > 0 {
				all = append(all, &rawPublisher{})
			}
			own := []string{ownBehindName, ownSetName, ownUpdateName, ownDurableName}
			if env.Short {
				own = []string{ownUpdateName}
			}
			for _, name := range own {
				p, err := newOwnPublisher(ctx, env.Dir, name, n)
				if err != nil {
					return all, err
				}
				all = append(all, p)
			}
			return all, nil
		})
	}
	return w
}

func deliverClaims(clients int) []harness.Claim {
	atMost := map[int]float64{1: 1.0 / 50, 100: 1.0 / 100}[clients]
	if atMost == 0 {
		return nil
	}
	return []harness.Claim{{Candidate: ownUpdateName, Metric: "cpu", To: upstreamSetName, AtMost: atMost}}
}

// flatWorkload measures updates of nodes of different sizes. The clients subscribe to a
// wildcard, or to all assignments by name, as an Envoy does.
func flatWorkload(clients int, sizes []int, byName bool) harness.Workload {
	name, subscribed := "deliver/flat/", "a wildcard"
	if byName {
		name, subscribed = "deliver/flat-by-name/", "all assignments by name"
	}
	w := harness.Workload{
		Name: name + count(clients, "client"),
		About: "As deliver/1-of-10000, with nodes of different sizes and UpdateResources of xdswal, in memory. The clients subscribe to " + subscribed + ". The cost of an update should grow with the change and the clients, not with the node. " +
			countedCPU,
		Metrics:     []harness.Metric{metricCPU, metricP50},
		Comparisons: []harness.Comparison{{Metric: "cpu", To: updateName(sizes[0])}},
	}
	for _, size := range sizes[1:] {
		w.Claims = append(w.Claims, harness.Claim{Candidate: updateName(size), Metric: "cpu", To: updateName(sizes[0]), AtMost: 1.5})
	}
	w.Open = func(ctx context.Context, env harness.Env) (harness.Prepared, error) {
		return openDelivery(ctx, w.Name, clients, func(ctx context.Context) (all []publisher, err error) {
			for _, size := range sizes {
				own, err := newOwnPublisher(ctx, env.Dir, updateName(size), newEndpointNode(size, byName))
				if err != nil {
					return all, err
				}
				all = append(all, own)
			}
			return all, nil
		})
	}
	return w
}

func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return strconv.Itoa(n) + "-" + what
}

// publisher is one way to change a resource of a node that clients watch.
type publisher interface {
	name() string
	// size returns the number of resources of the node.
	size() int
	// serve starts a server, and returns its address and the clients' first request.
	serve(ctx context.Context, workload string) (address string, request []byte, err error)
	// calls returns the number of updates in a round.
	calls(clients int) int
	// prepare returns a function that publishes the i-th resource of those given.
	prepare(resources []types.Resource) (publish func(ctx context.Context, i int) error, err error)
	// check checks that the last published resource is in the node.
	check(last types.Resource) error
	close(ctx context.Context) error
}

// openDelivery connects clients to each publisher.
func openDelivery(ctx context.Context, workload string, clients int, open func(context.Context) ([]publisher, error)) (_ harness.Prepared, err error) {
	d := &delivery{clients: clients}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.close(ctx))
		}
	}()
	if clients > 0 {
		if d.fleet, err = fleet.Start(ctx); err != nil {
			return harness.Prepared{}, err
		}
	}
	d.publishers, err = open(ctx)
	if err != nil {
		return harness.Prepared{}, err
	}
	var p harness.Prepared
	for _, pub := range d.publishers {
		c := &deliverer{publisher: pub, clients: clients}
		if clients > 0 {
			if c.group, err = d.connect(ctx, workload, pub); err != nil {
				return harness.Prepared{}, fmt.Errorf("%s: %w", pub.name(), err)
			}
		}
		p.Candidates = append(p.Candidates, harness.Candidate{Name: pub.name(), Round: c.round})
	}
	p.Close = d.close
	return p, nil
}

// delivery is what the candidates share.
type delivery struct {
	clients    int
	fleet      *fleet.Fleet
	publishers []publisher
}

func (d *delivery) connect(ctx context.Context, workload string, pub publisher) (*fleet.Group, error) {
	address, request, err := pub.serve(ctx, workload)
	if err != nil {
		return nil, err
	}
	group, err := d.fleet.Connect(fleet.Plan{
		Address: address, Method: deltaEDS, Delta: true, Clients: d.clients,
		Requests: []fleet.Request{{TypeURL: resourcev3.EndpointType, Message: request}},
	})
	if raw, ok := pub.(*rawPublisher); ok && err == nil {
		err = raw.server.awaitStreams(ctx, d.clients)
	}
	return group, err
}

func (d *delivery) close(ctx context.Context) error {
	var errs []error
	if d.fleet != nil {
		errs = append(errs, d.fleet.Stop())
	}
	for _, pub := range d.publishers {
		if err := pub.close(ctx); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", pub.name(), err))
		}
	}
	return errors.Join(errs...)
}

// deliverer is a candidate: a publisher and its clients.
type deliverer struct {
	publisher
	clients  int
	group    *fleet.Group // nil without clients
	revision int
}

func (d *deliverer) round(ctx context.Context, r *harness.Round) error {
	resources := make([]types.Resource, d.calls(d.clients))
	bodies := make([][]byte, len(resources))
	for i := range resources {
		d.revision++
		resources[i] = corpus.Endpoints(d.revision*7919%d.size(), d.revision)
		var err error
		if bodies[i], err = cachev3.MarshalResource(resources[i]); err != nil {
			return err
		}
	}
	publish, err := d.prepare(resources)
	if err != nil {
		return err
	}
	if d.group != nil {
		if err := d.group.Expect(bodies); err != nil {
			return err
		}
	}
	before, err := settle(ctx)
	if err != nil {
		return err
	}
	l, err := timed(len(resources), func(i int) error {
		if err := publish(ctx, i); err != nil || d.group == nil {
			return err
		}
		return d.group.Wait()
	})
	if err != nil {
		return err
	}
	after, err := settle(ctx)
	if err != nil {
		return err
	}
	r.ReportTime("cpu", (after-before)/time.Duration(len(resources)))
	r.Report("p50", l.Quantile(0.50))
	return d.check(resources[len(resources)-1])
}

// endpointNode are the assignments of a node.
type endpointNode struct {
	resources []types.Resource
	names     []string // that a client subscribes to; none is a wildcard
}

func newEndpointNode(size int, byName bool) *endpointNode {
	n := &endpointNode{resources: make([]types.Resource, size)}
	for i := range n.resources {
		m := corpus.Endpoints(i, 0)
		n.resources[i] = m
		if byName {
			n.names = append(n.names, cachev3.GetResourceName(m))
		}
	}
	return n
}

// request returns a client's first request: it has all resources, as an Envoy that
// reconnects, with the versions that its server gives to their values.
func (n *endpointNode) request(version func(value []byte) string) []byte {
	versions := make(map[string]string, len(n.resources))
	for _, m := range n.resources {
		versions[cachev3.GetResourceName(m)] = version(mustMarshal(m))
	}
	return mustMarshal(&discoveryv3.DeltaDiscoveryRequest{
		Node: &corev3.Node{Id: deliverNode}, TypeUrl: resourcev3.EndpointType, ResourceNamesSubscribe: n.names, InitialResourceVersions: versions,
	})
}

// ownVersion is the version that xdswal's caches give to a resource.
func ownVersion(value []byte) string {
	hash := sha256.Sum256(value)
	return base64.RawURLEncoding.EncodeToString(hash[:12])
}

// upstreamVersion is the version that go-control-plane's caches give to a resource.
func upstreamVersion(value []byte) string { return cachev3.HashResource(value) }

// mustMarshal marshals a message of the corpus, which is valid.
func mustMarshal(m proto.Message) []byte {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		panic(err)
	}
	return b
}

func (n *endpointNode) snapshot() (*cachev3.Snapshot, error) {
	s, err := cachev3.NewSnapshot("1", map[resourcev3.Type][]types.Resource{resourcev3.EndpointType: n.resources})
	if err != nil {
		return nil, fmt.Errorf("create snapshot: %w", err)
	}
	return s, nil
}

// cachePublisher publishes through a cache and its server.
type cachePublisher struct {
	label     string
	cache     cachev3.Cache
	newServer serverOf
	version   func(value []byte) string // of a resource
	node      *endpointNode
	server    *served // nil without clients
}

func (p *cachePublisher) name() string { return p.label }

func (p *cachePublisher) size() int { return len(p.node.resources) }

func (p *cachePublisher) serve(ctx context.Context, workload string) (string, []byte, error) {
	var err error
	p.server, err = serveCache(ctx, workload, p.label, p.cache, p.newServer)
	if err != nil {
		return "", nil, err
	}
	return p.server.address, p.node.request(p.version), nil
}

func (p *cachePublisher) close(context.Context) error {
	if p.server == nil {
		return nil
	}
	return p.server.close()
}

// setPublisher sets snapshots in a snapshot cache.
type setPublisher struct {
	cachePublisher
	series *series
	setter interface {
		SetSnapshot(ctx context.Context, node string, snapshot cachev3.ResourceSnapshot) error
		GetSnapshot(node string) (cachev3.ResourceSnapshot, error)
	}
}

func upstreamSetPublisher(ctx context.Context, n *endpointNode) (*setPublisher, error) {
	first, err := n.snapshot()
	if err != nil {
		return nil, err
	}
	cache := cachev3.NewSnapshotCache(false, cachev3.IDHash{}, nil)
	p := &setPublisher{
		cachePublisher: cachePublisher{label: upstreamSetName, cache: cache, newServer: upstreamServer, version: upstreamVersion, node: n},
		series:         newSeries(first), setter: cache,
	}
	return p, cache.SetSnapshot(ctx, deliverNode, first)
}

func (p *setPublisher) calls(clients int) int {
	switch clients {
	case 0:
		return 20
	case 1:
		return 5
	default:
		return 2
	}
}

func (p *setPublisher) prepare(resources []types.Resource) (func(context.Context, int) error, error) {
	all := make([]*cachev3.Snapshot, len(resources))
	for i, m := range resources {
		all[i] = p.series.with(m)
	}
	return func(ctx context.Context, i int) error {
		return p.setter.SetSnapshot(ctx, deliverNode, all[i])
	}, nil
}

func (p *setPublisher) check(last types.Resource) error {
	have, err := p.setter.GetSnapshot(deliverNode)
	if err != nil {
		return err
	}
	return sameBytes(have.GetResources(resourcev3.EndpointType)[cachev3.GetResourceName(last)], last)
}

// upstreamLinear publishes through go-control-plane's linear cache.
type upstreamLinear struct {
	cachePublisher
	linear *cachev3.LinearCache
}

func upstreamLinearPublisher(n *endpointNode) *upstreamLinear {
	initial := make(map[string]types.Resource, len(n.resources))
	for _, m := range n.resources {
		initial[cachev3.GetResourceName(m)] = m
	}
	cache := cachev3.NewLinearCache(resourcev3.EndpointType, cachev3.WithInitialResources(initial))
	return &upstreamLinear{
		cachePublisher: cachePublisher{label: upstreamLinearName, cache: cache, newServer: upstreamServer, version: upstreamVersion, node: n},
		linear:         cache,
	}
}

func (p *upstreamLinear) calls(clients int) int {
	switch clients {
	case 0:
		return 1000
	case 1:
		return 50
	default:
		return 2
	}
}

func (p *upstreamLinear) prepare(resources []types.Resource) (func(context.Context, int) error, error) {
	return func(_ context.Context, i int) error {
		return p.linear.UpdateResource(cachev3.GetResourceName(resources[i]), resources[i])
	}, nil
}

func (p *upstreamLinear) check(last types.Resource) error {
	return sameBytes(p.linear.GetResources()[cachev3.GetResourceName(last)], last)
}

// ownPublisher publishes through xdswal's snapshot cache.
type ownPublisher struct {
	setPublisher
	store *opened
	whole bool // by SetSnapshot
	// updates is the number of calls of UpdateResources.
	updates int
}

func newOwnPublisher(ctx context.Context, dir, name string, n *endpointNode) (*ownPublisher, error) {
	first, err := n.snapshot()
	if err != nil {
		return nil, err
	}
	store, err := open(ctx, xdswal.Options{Dir: filepath.Join(dir, name), MemoryOnly: name != ownDurableName}, immutable)
	if err != nil {
		return nil, err
	}
	server := serverOf(ownServer)
	if name == ownBehindName {
		server = upstreamServer
	}
	p := &ownPublisher{
		setPublisher: setPublisher{
			cachePublisher: cachePublisher{label: name, cache: store.cache, newServer: server, version: ownVersion, node: n},
			series:         newSeries(first), setter: store.cache,
		},
		store: store, whole: name == ownSetName,
	}
	return p, store.cache.SetSnapshot(ctx, deliverNode, first)
}

func (p *ownPublisher) calls(clients int) int {
	switch {
	case p.whole:
		return p.setPublisher.calls(clients)
	case clients == 0:
		return 1000
	case clients == 1:
		return 100
	default:
		return 20
	}
}

func (p *ownPublisher) prepare(resources []types.Resource) (func(context.Context, int) error, error) {
	if p.whole {
		return p.setPublisher.prepare(resources)
	}
	return func(ctx context.Context, i int) error {
		p.updates++
		return setOne(ctx, p.store.cache, deliverNode, resources[i], version(p.updates))
	}, nil
}

func (p *ownPublisher) check(last types.Resource) error {
	node := p.store.cache.GetNode(deliverNode)
	if n := node.NumResources(); n != p.size() {
		return fmt.Errorf("got %d resources in the node, want %d", n, p.size())
	}
	return sameBytes((*xdscache.Resource)(node.Type(resourcev3.EndpointType).Get(cachev3.GetResourceName(last))), last)
}

func (p *ownPublisher) close(ctx context.Context) error {
	return errors.Join(p.cachePublisher.close(ctx), p.store.closeChecked(ctx))
}

// rawPublisher sends the response to each update, marshaled before, to all streams.
type rawPublisher struct{ server *rawServer }

func (p *rawPublisher) name() string { return rawSendName }

func (p *rawPublisher) size() int { return deliverSize }

func (p *rawPublisher) serve(ctx context.Context, workload string) (string, []byte, error) {
	var err error
	p.server, err = serveRaw(ctx, workload, nil)
	if err != nil {
		return "", nil, err
	}
	return p.server.address, nil, nil
}

func (p *rawPublisher) calls(clients int) int {
	if clients == 1 {
		return 100
	}
	return 20
}

func (p *rawPublisher) prepare(resources []types.Resource) (func(context.Context, int) error, error) {
	responses := make([][]byte, len(resources))
	for i, m := range resources {
		body := mustMarshal(m)
		responses[i] = mustMarshal(&discoveryv3.DeltaDiscoveryResponse{
			SystemVersionInfo: strconv.Itoa(i), TypeUrl: resourcev3.EndpointType, Nonce: strconv.Itoa(i),
			Resources: []*discoveryv3.Resource{{
				Name: cachev3.GetResourceName(m), Version: cachev3.HashResource(body),
				Resource: &anypb.Any{TypeUrl: resourcev3.EndpointType, Value: body},
			}},
		})
	}
	return func(_ context.Context, i int) error {
		p.server.broadcast(responses[i])
		return nil
	}, nil
}

// check checks nothing more: the clients have received all resources.
func (p *rawPublisher) check(types.Resource) error { return nil }

func (p *rawPublisher) close(context.Context) error {
	if p.server == nil {
		return nil
	}
	return p.server.close()
}
