package xdscache

import (
	"context"
	"slices"
	"time"

	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/journal"
)

// expiring are the resources of a type that have a TTL.
type expiring struct {
	of        *state.Type
	resources []*journal.Resource
}

// heartbeatLoop sends heartbeats every interval until ctx is done.
func (ws *watches) heartbeatLoop(ctx context.Context, interval time.Duration) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		for _, key := range ws.keys() {
			if n := ws.get(key); n != nil {
				n.sendHeartbeats(ctx)
			}
		}
	}
}

// sendHeartbeats renews the TTL of the resources that the clients of a node have. A client
// without room for a response gets none: it is behind, and not idle.
func (n *nodeWatches) sendHeartbeats(ctx context.Context) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.serve(ctx)
	if n.served == nil {
		return
	}
	for _, t := range slices.Clone(n.types) {
		resources := n.expiring(t.typeURL)
		if len(resources) == 0 {
			continue
		}
		for w := range t.open {
			if a, ok := w.heartbeat(n.served, resources); ok && w.send(newResponse(ctx, w, a, nil), nil) {
				n.drop(w)
			}
		}
	}
}

// expiring returns the resources of a type that have a TTL.
func (n *nodeWatches) expiring(typeURL string) []*journal.Resource {
	t := state.TypeOf(n.served, typeURL)
	e := n.heartbeats[typeURL]
	if e == nil || !e.of.Shares(t) {
		e = &expiring{of: t}
		for r := range t.All() {
			if r.TTL != nil {
				e.resources = append(e.resources, r)
			}
		}
		if n.heartbeats == nil {
			n.heartbeats = map[string]*expiring{}
		}
		n.heartbeats[typeURL] = e
	}
	return e.resources
}

// heartbeat returns the answer that renews the TTL of those of the resources that the
// client has, and whether there are any.
func (w *watch) heartbeat(node *state.Node, resources []*journal.Resource) (answer, bool) {
	if w.isPending() || w.isWithheld || w.isRejection() {
		return answer{}, false
	}
	a := answer{
		of:          state.TypeOf(node, w.typeURL),
		version:     w.version(node, w.typeURL),
		isHeartbeat: true,
		hasLeftover: w.hasLeftover,
	}
	for _, r := range resources {
		if w.requests(r.Name) {
			a.resources = append(a.resources, r)
		}
	}
	if w.needsBodies() {
		a.isHeartbeat = false
		a.isWhole = w.sotw != nil
	}
	return a, len(a.resources) > 0
}

// needsBodies reports whether a heartbeat contains the resources. In the SotW protocol,
// Envoy deletes all clusters, listeners and scoped routes that a response does not
// contain, and a resource without a body counts as not contained. In the delta protocol
// it knows no heartbeats of virtual hosts.
func (w *watch) needsBodies() bool {
	switch w.typeURL {
	case resourcev3.ClusterType, resourcev3.ListenerType, resourcev3.ScopedRouteType:
		return w.sotw != nil
	case resourcev3.VirtualHostType:
		return w.delta != nil
	default:
		return false
	}
}
