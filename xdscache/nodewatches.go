package xdscache

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/log"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/xdswal/xdswal/internal/feed"
	"github.com/xdswal/xdswal/internal/state"
)

// watches are the open watches of a cache, and what is known of their clients, by node.
// Nodes share no lock. A node that a client names is kept only while it has open watches
// or exists in the state, so that clients cannot fill the memory with names.
type watches struct {
	source feed.Source
	logger log.Logger
	known  knownStates
	nodes  sync.Map // of *nodeWatches, by key
}

// nodeWatches are the open watches of one node, and its status.
type nodeWatches struct {
	all *watches
	key string

	mu sync.Mutex
	// isGone means that all does not contain it any more.
	isGone bool
	// served is the state of the node that each watch has been compared with, unless it is
	// pending or withheld. It is nil while the node does not exist; all watches are then
	// compared when it does.
	served *state.Node
	// types are the types with open watches, in the order in which they are answered.
	types []*typeWatches
	// heartbeats are the resources with a TTL, by type.
	heartbeats map[string]*expiring

	node                *corev3.Node
	lastSotw, lastDelta time.Time
}

type typeWatches struct {
	typeURL string
	open    map[*watch]struct{}
}

var _ cachev3.StatusInfo = (*nodeWatches)(nil)

// get returns the watches of a node, or nil.
func (ws *watches) get(key string) *nodeWatches {
	if v, ok := ws.nodes.Load(key); ok {
		return v.(*nodeWatches)
	}
	return nil
}

// lock returns the watches of a node, locked. It creates them if there are none.
func (ws *watches) lock(key string) *nodeWatches {
	for {
		v, ok := ws.nodes.Load(key)
		if !ok {
			v, _ = ws.nodes.LoadOrStore(key, &nodeWatches{all: ws, key: key})
		}
		n := v.(*nodeWatches)
		n.mu.Lock()
		if !n.isGone {
			return n
		}
		n.mu.Unlock()
	}
}

// keys returns the nodes that have a status.
func (ws *watches) keys() []string {
	keys := []string{}
	ws.nodes.Range(func(key, _ any) bool {
		keys = append(keys, key.(string))
		return true
	})
	return keys
}

// serve answers the watches of a node from its newest state. It does not wait for a
// client.
func (ws *watches) serve(ctx context.Context, key string) {
	if n := ws.get(key); n != nil {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.serve(ctx)
		n.release()
	}
}

// serveAll answers the watches of all nodes.
func (ws *watches) serveAll(ctx context.Context) {
	for _, key := range ws.keys() {
		ws.serve(ctx, key)
	}
}

// open answers a watch if that is due, and opens it otherwise.
func (ws *watches) open(key string, w *watch) (cancel func()) {
	has := ws.known.request(w.watchRequest)
	// The comparison takes time in proportion to the node, so it is made without a lock.
	node, _ := ws.source.Node(key)
	a, isDue := w.compareFrom(has, node)
	n := ws.lock(key)
	defer n.mu.Unlock()
	n.node = w.node
	if w.delta != nil {
		n.lastDelta = time.Now()
	} else {
		n.lastSotw = time.Now()
	}
	n.serve(context.Background())
	if n.served != node {
		a, isDue = w.compareFrom(has, n.served)
	}
	w.hasLeftover = a.hasLeftover
	if isDue && n.answer(context.Background(), w, a) {
		ws.logger.Debugf("answered watch of node %q for %s with version %q", key, w.typeURL, a.version)
		return w.cancel
	}
	n.add(w)
	ws.logger.Debugf("opened watch of node %q for %s", key, w.typeURL)
	return func() {
		n.remove(w)
		w.cancel()
	}
}

// newest returns the newest state of the node, or nil.
func (n *nodeWatches) newest() *state.Node {
	node, _ := n.all.source.Node(n.key)
	return node
}

// serve is watches.serve. The caller holds mu.
func (n *nodeWatches) serve(ctx context.Context) {
	before, node := n.served, n.newest()
	if node == before {
		return
	}
	n.served = node
	if node == nil {
		return
	}
	for _, t := range slices.Clone(n.types) {
		n.serveType(ctx, t, before)
	}
}

func (n *nodeWatches) serveType(ctx context.Context, t *typeWatches, before *state.Node) {
	var c *change
	if before != nil {
		old, now := state.TypeOf(before, t.typeURL), state.TypeOf(n.served, t.typeURL)
		if old.Shares(now) && old.Version() == now.Version() {
			return
		}
		c = newChange(old, now)
	}
	for w := range t.open {
		if w.isPending() {
			continue
		}
		var a answer
		var isDue bool
		if c == nil || w.isWithheld {
			a, isDue = w.compare(n.served)
			w.isWithheld = false
		} else {
			a, isDue = w.follow(n.served, c)
		}
		if isDue && n.answer(ctx, w, a) {
			n.drop(w)
		}
	}
}

// answer sends an answer that is due, and reports whether the client has it. If not, the
// watch stays open.
func (n *nodeWatches) answer(ctx context.Context, w *watch, a answer) bool {
	if w.isWithheld = w.mustWithhold(a.of); w.isWithheld {
		n.all.logger.Warnf("response withheld from node %q: its request does not name all resources of type %s; see the ads parameter of the cache", n.key, w.typeURL)
		return false
	}
	return w.offer(ctx, a, n)
}

func (n *nodeWatches) add(w *watch) {
	at, found := slices.BinarySearchFunc(n.types, w.typeURL, func(t *typeWatches, url string) int {
		return compareTypes(t.typeURL, url)
	})
	if !found {
		n.types = slices.Insert(n.types, at, &typeWatches{typeURL: w.typeURL, open: map[*watch]struct{}{}})
	}
	n.types[at].open[w] = struct{}{}
}

// remove removes a watch, which may have been removed already.
func (n *nodeWatches) remove(w *watch) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.drop(w)
	n.release()
}

func (n *nodeWatches) drop(w *watch) {
	at, found := slices.BinarySearchFunc(n.types, w.typeURL, func(t *typeWatches, url string) int {
		return compareTypes(t.typeURL, url)
	})
	if !found {
		return
	}
	delete(n.types[at].open, w)
	if len(n.types[at].open) == 0 {
		n.types = slices.Delete(n.types, at, at+1)
		delete(n.heartbeats, w.typeURL)
	}
}

// release forgets a node that has no open watch and does not exist.
func (n *nodeWatches) release() {
	if len(n.types) == 0 && n.newest() == nil && !n.isGone {
		n.isGone = true
		n.all.nodes.CompareAndDelete(n.key, n)
	}
}

// count returns the number of open watches that match.
func (n *nodeWatches) count(match func(w *watch) bool) int {
	if n == nil {
		return 0
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	sum := 0
	for _, t := range n.types {
		for w := range t.open {
			if match(w) {
				sum++
			}
		}
	}
	return sum
}

// typeURLs returns the types with open watches.
func (n *nodeWatches) typeURLs() []string {
	if n == nil {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	var urls []string
	for _, t := range n.types {
		urls = append(urls, t.typeURL)
	}
	return urls
}

// GetNode returns the node of the last request.
func (n *nodeWatches) GetNode() *corev3.Node {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.node
}

// GetNumWatches returns the number of open SotW watches.
func (n *nodeWatches) GetNumWatches() int {
	return n.count(func(w *watch) bool { return w.sotw != nil })
}

// GetNumDeltaWatches returns the number of open delta watches.
func (n *nodeWatches) GetNumDeltaWatches() int {
	return n.count(func(w *watch) bool { return w.delta != nil })
}

// GetLastWatchRequestTime returns the time of the last SotW request.
func (n *nodeWatches) GetLastWatchRequestTime() time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.lastSotw
}

// GetLastDeltaWatchRequestTime returns the time of the last delta request.
func (n *nodeWatches) GetLastDeltaWatchRequestTime() time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.lastDelta
}

// typeOrder is the order in which the types of an update are handed to the server: what a
// resource refers to is not before the resource. A cluster waits for endpoints that
// follow it, and not for those before.
var typeOrder = map[string]int{
	resourcev3.ClusterType:     1,
	resourcev3.EndpointType:    2,
	resourcev3.ListenerType:    3,
	resourcev3.ScopedRouteType: 4,
	resourcev3.RouteType:       5,
	resourcev3.VirtualHostType: 6,
}

// compareTypes compares types by typeOrder. The other types come last, by URL.
func compareTypes(a, b string) int {
	rank := func(url string) int {
		if r, ok := typeOrder[url]; ok {
			return r
		}
		return len(typeOrder) + 1
	}
	return cmp.Or(cmp.Compare(rank(a), rank(b)), strings.Compare(a, b))
}
