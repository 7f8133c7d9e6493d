package feed

import "sync"

// Hub implements [Source].Watch. Nodes share no lock. The zero value has no watchers.
type Hub struct {
	nodes sync.Map // of *watchers, by key; only nodes that are watched
}

type watchers struct {
	mu  sync.Mutex
	set map[*watcher]struct{} // nil after the last one has been removed
}

type watcher struct{ wake func() }

// Watch calls wake on each [Hub.Wake] of a key until stop is called. wake must not block.
// It may be called once more while stop runs.
func (h *Hub) Watch(key string, wake func()) (stop func()) {
	w := &watcher{wake}
	for {
		v, _ := h.nodes.LoadOrStore(key, &watchers{set: map[*watcher]struct{}{}})
		ws := v.(*watchers)
		ws.mu.Lock()
		if ws.set == nil {
			ws.mu.Unlock()
			continue // its last watcher is leaving, and it with it
		}
		ws.set[w] = struct{}{}
		ws.mu.Unlock()
		return func() { h.remove(key, ws, w) }
	}
}

func (h *Hub) remove(key string, ws *watchers, w *watcher) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	delete(ws.set, w)
	if len(ws.set) == 0 && ws.set != nil {
		ws.set = nil
		h.nodes.Delete(key)
	}
}

// Wake wakes the watchers of a node.
func (h *Hub) Wake(key string) {
	if v, ok := h.nodes.Load(key); ok {
		v.(*watchers).wake()
	}
}

// WakeAll wakes the watchers of all nodes.
func (h *Hub) WakeAll() {
	h.nodes.Range(func(_, v any) bool {
		v.(*watchers).wake()
		return true
	})
}

func (ws *watchers) wake() {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for w := range ws.set {
		w.wake()
	}
}
