package xdscache

import (
	"context"
	"maps"
	"sync"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/journal"
)

// response is an answer in the form that go-control-plane's server takes. It is made
// when the server reads it, on the goroutine of the client's stream, so that an update
// does not wait for it.
type response struct {
	ctx     context.Context //nolint:containedctx // go-control-plane passes it to callbacks.
	request *watchRequest
	answer  func() answer
	// returned is the result of GetReturnedResources.
	returned func() map[string]string
}

// newResponse returns the response of a watch. If newest is not nil, the client may read
// it much later: the answer is then made from the newest state, unless the node does not
// exist any more.
func newResponse(ctx context.Context, w *watch, a answer, newest func() *state.Node) *response {
	r := &response{ctx: ctx, request: w.watchRequest}
	r.answer = sync.OnceValue(func() answer {
		if w.delta != nil && w.isCanceled.Load() {
			// The client has changed its subscription before it was sent this. The next
			// response is made from what it had before, so this one changes nothing.
			return answer{of: a.of, version: a.version, isStale: true}
		}
		if newest == nil {
			return a
		}
		if node := newest(); node != nil {
			if later, _ := w.compare(node); !w.mustWithhold(later.of) {
				return later
			}
		}
		return a
	})
	r.returned = sync.OnceValue(func() map[string]string {
		if r.answer().isStale {
			return r.request.known // the server keeps what it has
		}
		known := r.returnedResources()
		if r.request.remember != nil {
			r.request.remember(r.request, known, r.answer().of)
		}
		return known
	})
	return r
}

// resources returns the resources that the response contains.
func (r *response) resources() []*journal.Resource {
	a := r.answer()
	if !a.isWhole {
		return a.resources
	}
	out := make([]*journal.Resource, 0, a.of.Len())
	for res := range r.request.requested(a.of) {
		out = append(out, res)
	}
	return out
}

// returnedResources returns what the client knows after the response. The server changes
// the map when the client changes its subscription, so each response has its own.
func (r *response) returnedResources() map[string]string {
	a := r.answer()
	if a.isWhole {
		out := make(map[string]string, a.of.Len())
		for res := range r.request.requested(a.of) {
			out[res.Name] = knownVersion(res)
		}
		return out
	}
	out := maps.Clone(r.request.known)
	if out == nil {
		out = make(map[string]string, len(a.resources))
	}
	if !a.isHeartbeat {
		for _, res := range a.resources {
			out[res.Name] = knownVersion(res)
		}
	}
	for _, name := range a.removed {
		delete(out, name)
	}
	if a.hasLeftover {
		maps.DeleteFunc(out, func(name, _ string) bool { return !r.request.requests(name) })
	}
	return out
}

func (r *response) GetContext() context.Context             { return r.ctx }
func (r *response) GetReturnedResources() map[string]string { return r.returned() }
func (r *response) GetResponseVersion() string              { return r.answer().version }

// GetRawResources returns the resources as go-control-plane's own responses do.
func (r *response) GetRawResources() []types.ResourceWithTTL {
	resources := r.resources()
	out := make([]types.ResourceWithTTL, len(resources))
	for i, res := range resources {
		out[i] = types.ResourceWithTTL{Resource: (*Resource)(res), TTL: res.TTL}
	}
	return out
}

// sotwResponse is a response of the SotW protocol.
type sotwResponse struct {
	*response
	wire func() (*discoveryv3.DiscoveryResponse, error)
}

var _ cachev3.Response = sotwResponse{}

func newSotwResponse(r *response) cachev3.Response {
	return sotwResponse{r, sync.OnceValues(r.sotw)}
}

func (r sotwResponse) GetRequest() *cachev3.Request { return r.request.sotw }

func (r sotwResponse) GetVersion() (string, error) { return r.GetResponseVersion(), nil }

// GetDiscoveryResponse returns the message that is sent, each time the same one. The
// server sets its nonce.
func (r sotwResponse) GetDiscoveryResponse() (*discoveryv3.DiscoveryResponse, error) {
	return r.wire()
}

func (r *response) sotw() (*discoveryv3.DiscoveryResponse, error) {
	resources := r.resources()
	out := &discoveryv3.DiscoveryResponse{
		VersionInfo: r.GetResponseVersion(),
		TypeUrl:     r.request.typeURL,
		Resources:   make([]*anypb.Any, len(resources)),
	}
	for i, res := range resources {
		packed, err := r.sotwResource(res)
		if err != nil {
			return nil, err
		}
		out.Resources[i] = packed
	}
	return out, nil
}

// sotwResource returns a resource as the SotW protocol has it: in a wrapper if it has a
// TTL.
func (r *response) sotwResource(res *journal.Resource) (*anypb.Any, error) {
	if res.TTL == nil {
		return r.body(res), nil
	}
	if r.request.onTTL != nil {
		r.request.onTTL()
	}
	wrapper := &discoveryv3.Resource{Name: res.Name, Ttl: durationpb.New(*res.TTL)}
	if !r.answer().isHeartbeat {
		wrapper.Resource = r.body(res)
	}
	value, err := cachev3.MarshalResource(wrapper)
	if err != nil {
		return nil, err
	}
	return &anypb.Any{TypeUrl: wrapperURL, Value: value}, nil
}

var wrapperURL = resourcev3.APITypePrefix + string(proto.MessageName(&discoveryv3.Resource{}))

func (r *response) body(res *journal.Resource) *anypb.Any {
	return &anypb.Any{TypeUrl: r.request.typeURL, Value: res.Value}
}

// deltaResponse is a response of the delta protocol.
type deltaResponse struct {
	*response
	wire func() *discoveryv3.DeltaDiscoveryResponse
}

var _ cachev3.DeltaResponse = deltaResponse{}

func newDeltaResponse(r *response) cachev3.DeltaResponse {
	return deltaResponse{r, sync.OnceValue(r.delta)}
}

func (r deltaResponse) GetDeltaRequest() *cachev3.DeltaRequest { return r.request.delta }

func (r deltaResponse) GetSystemVersion() (string, error) { return r.GetResponseVersion(), nil }

func (r deltaResponse) GetNextVersionMap() map[string]string { return r.GetReturnedResources() }

// GetDeltaDiscoveryResponse returns the message that is sent, each time the same one. The
// server sets its nonce.
func (r deltaResponse) GetDeltaDiscoveryResponse() (*discoveryv3.DeltaDiscoveryResponse, error) {
	return r.wire(), nil
}

func (r *response) delta() *discoveryv3.DeltaDiscoveryResponse {
	a := r.answer()
	out := &discoveryv3.DeltaDiscoveryResponse{
		SystemVersionInfo: a.version,
		TypeUrl:           r.request.typeURL,
		Resources:         make([]*discoveryv3.Resource, len(a.resources)),
		RemovedResources:  a.removed,
	}
	for i, res := range a.resources {
		m := &discoveryv3.Resource{Name: res.Name, Version: res.Version}
		if res.TTL != nil {
			m.Ttl = durationpb.New(*res.TTL)
		}
		if !a.isHeartbeat {
			m.Resource = r.body(res)
		}
		out.Resources[i] = m
	}
	return out
}
