package workload

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/bench/corpus"
	"github.com/xdswal/xdswal/bench/fleet"
	"github.com/xdswal/xdswal/bench/harness"
)

// Names of xdswal's cache behind its own server and behind go-control-plane's.
const (
	connectedName = "xdswal"
	behindName    = "xdswal, go-control-plane's server"
)

// connectWorkload measures clients that connect at once and have nothing yet.
func connectWorkload(clients, resources int, delta bool) harness.Workload {
	protocol := "sotw"
	if delta {
		protocol = "delta"
	}
	shape := corpus.Shape{Nodes: 1, PerNode: resources}
	return harness.Workload{
		Name: fmt.Sprintf("connect/%d-clients-of-%d/%s", clients, resources, protocol),
		About: fmt.Sprintf("%d clients connect at once to a node of %d resources, and each receives and acknowledges all, over one ADS stream: all clusters and listeners, and endpoints, routes and secrets by name, as an Envoy does. ", clients, resources) +
			"cpu is the processor time of the server's process for one client, and sent what a client has received. The clients run in a process of their own, which is not counted, and shares the processors, so that time is not the server's alone. " +
			"Floor: the same responses, marshaled before and sent to each stream.",
		Metrics:     []harness.Metric{metricCPU, metricTime, {Name: "sent", Unit: "MB"}},
		Comparisons: []harness.Comparison{{Metric: "cpu", To: rawSendName}, {Metric: "cpu", To: upstreamName}},
		Claims:      []harness.Claim{{Candidate: connectedName, Metric: "cpu", To: upstreamName, AtMost: 1.0 / 10}},
		Open: func(ctx context.Context, env harness.Env) (_ harness.Prepared, err error) {
			c := &connection{clients: clients, delta: delta}
			defer func() {
				if err != nil {
					err = errors.Join(err, c.close(ctx))
				}
			}()
			if c.fleet, err = fleet.Start(ctx); err != nil {
				return harness.Prepared{}, err
			}
			if err := c.open(ctx, env.Short, shape); err != nil {
				return harness.Prepared{}, err
			}
			p := harness.Prepared{Close: c.close}
			for _, s := range c.servers {
				p.Candidates = append(p.Candidates, harness.Candidate{Name: s.name, Round: c.round(s.address)})
			}
			return p, nil
		},
	}
}

// connection is what the candidates share.
type connection struct {
	clients  int
	delta    bool
	fleet    *fleet.Fleet
	requests []fleet.Request
	store    *opened
	servers  []connectServer
}

type connectServer struct {
	name, address string
	close         func() error
}

// open starts the servers.
func (c *connection) open(ctx context.Context, short bool, shape corpus.Shape) error {
	const workload = "connect"
	snapshot, err := shape.Snapshot(0, "1")
	if err != nil {
		return err
	}
	var responses [][]byte
	for _, url := range typesOf(snapshot) {
		request, response := c.exchange(shape.Node(0), url, snapshot.GetResources(url))
		c.requests = append(c.requests, request)
		responses = append(responses, response)
	}
	raw, err := serveRaw(ctx, workload, responses)
	if err != nil {
		return err
	}
	c.add(rawSendName, raw.served)
	upstream := cachev3.NewSnapshotCache(true, cachev3.IDHash{}, nil)
	if err := upstream.SetSnapshot(ctx, shape.Node(0), snapshot); err != nil {
		return err
	}
	if c.store, err = open(ctx, xdswal.Options{MemoryOnly: true}); err != nil {
		return err
	}
	if err := c.store.cache.SetSnapshot(ctx, shape.Node(0), snapshot); err != nil {
		return err
	}
	for _, s := range []struct {
		name      string
		cache     cachev3.Cache
		newServer serverOf
	}{
		{upstreamName, upstream, upstreamServer},
		{behindName, c.store.cache, upstreamServer},
		{connectedName, c.store.cache, ownServer},
	} {
		if short && s.name == behindName {
			continue
		}
		server, err := serveCache(ctx, workload, s.name, s.cache, s.newServer)
		if err != nil {
			return err
		}
		c.add(s.name, server)
	}
	return nil
}

func (c *connection) add(name string, s *served) {
	c.servers = append(c.servers, connectServer{name: name, address: s.address, close: s.close})
}

// typesOf returns the types of a snapshot, in the order in which an Envoy requests them.
func typesOf(snapshot *cachev3.Snapshot) []resourcev3.Type {
	order := []resourcev3.Type{
		resourcev3.ClusterType, resourcev3.EndpointType, resourcev3.ListenerType, resourcev3.RouteType, resourcev3.SecretType,
	}
	return slices.DeleteFunc(order, func(url resourcev3.Type) bool { return len(snapshot.GetResources(url)) == 0 })
}

// exchange returns the request for a type, and the response that contains all resources.
func (c *connection) exchange(node, url string, resources map[string]types.Resource) (fleet.Request, []byte) {
	var names []string // none is all
	if url != resourcev3.ClusterType && url != resourcev3.ListenerType {
		for name := range resources {
			names = append(names, name)
		}
		slices.Sort(names)
	}
	request := fleet.Request{TypeURL: url, Resources: len(resources)}
	if c.delta {
		request.Message = mustMarshal(&discoveryv3.DeltaDiscoveryRequest{
			Node: &corev3.Node{Id: node}, TypeUrl: url, ResourceNamesSubscribe: names,
		})
		response := &discoveryv3.DeltaDiscoveryResponse{SystemVersionInfo: "1", TypeUrl: url, Nonce: "1"}
		for name, m := range resources {
			body := mustMarshal(m)
			response.Resources = append(response.Resources, &discoveryv3.Resource{
				Name: name, Version: cachev3.HashResource(body), Resource: &anypb.Any{TypeUrl: url, Value: body},
			})
		}
		return request, mustMarshal(response)
	}
	request.Message = mustMarshal(&discoveryv3.DiscoveryRequest{
		Node: &corev3.Node{Id: node}, TypeUrl: url, ResourceNames: names,
	})
	response := &discoveryv3.DiscoveryResponse{VersionInfo: "1", TypeUrl: url, Nonce: "1"}
	for _, m := range resources {
		response.Resources = append(response.Resources, &anypb.Any{TypeUrl: url, Value: mustMarshal(m)})
	}
	return request, mustMarshal(response)
}

func (c *connection) round(address string) func(context.Context, *harness.Round) error {
	method := sotwADS
	if c.delta {
		method = deltaADS
	}
	return func(ctx context.Context, r *harness.Round) error {
		before, err := settle(ctx)
		if err != nil {
			return err
		}
		start := time.Now()
		group, err := c.fleet.Connect(fleet.Plan{
			Address: address, Method: method, Delta: c.delta, Clients: c.clients, Requests: c.requests,
		})
		if err != nil {
			return err
		}
		r.ReportTime("time", time.Since(start))
		after, err := settle(ctx)
		if err != nil {
			return err
		}
		r.ReportTime("cpu", (after-before)/time.Duration(c.clients))
		traffic, err := group.Close()
		r.Report("sent", float64(traffic.Bytes)/float64(c.clients)/1e6)
		return err
	}
}

func (c *connection) close(ctx context.Context) error {
	var errs []error
	if c.fleet != nil {
		errs = append(errs, c.fleet.Stop())
	}
	for _, s := range c.servers {
		errs = append(errs, s.close())
	}
	if c.store != nil {
		errs = append(errs, c.store.Close(ctx))
	}
	return errors.Join(errs...)
}
