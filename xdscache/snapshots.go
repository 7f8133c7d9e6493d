package xdscache

import (
	"fmt"
	"sync"
	"time"
	"weak"

	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"

	"github.com/xdswal/xdswal/internal/state"
)

// holdSnapshot is how long a snapshot with decoded messages stays in memory after its
// last use. A control plane that reads its nodes on each tick is not made to decode them
// again, and one that has stopped pays nothing.
var holdSnapshot = 5 * time.Minute

// snapshots returns the nodes of a cache in the form in which the caller sets them. The
// state contains bytes alone: the messages are the caller's, or are decoded here.
type snapshots struct {
	newest func(name string) *state.Node
	nodes  sync.Map // of *snapshot, by node
}

// snapshot is one state of a node in the caller's form.
type snapshot struct {
	all  *snapshots
	node *state.Node
	// custom is the ResourceSnapshot that the caller implements and has set, or nil.
	custom cachev3.ResourceSnapshot

	mu sync.Mutex
	// given is the snapshot that the caller has set, while the caller keeps it.
	given weak.Pointer[cachev3.Snapshot]
	// held is the result of get while it is in use, used the time of its last use, and
	// expiry the timer that drops it.
	held   cachev3.ResourceSnapshot
	used   time.Time
	expiry *time.Timer
	// messages are those of held, by type and name, if they were decoded here. The caller
	// does not have these maps.
	messages map[string]map[string]types.Resource
	// before is an earlier snapshot, until its messages are used for this one.
	before *snapshot
}

// set records the object by which the caller has set a state of a node.
func (ss *snapshots) set(node *state.Node, given cachev3.ResourceSnapshot) {
	s := &snapshot{all: ss, node: node}
	switch given := given.(type) {
	case *anySnapshot: // from get
	case *cachev3.Snapshot:
		s.given = weak.Make(given)
	default:
		s.custom = given
	}
	ss.put(s, func(old *snapshot) {
		// A caller that reads the node reads its next snapshot too.
		if used, isHeld := old.lastUse(); isHeld && s.held == nil && s.custom == nil {
			s.hold(given)
			s.used = used
		}
	})
}

// put stores a snapshot, unless there is one of a later state. It calls replace with the
// one before, perhaps several times.
func (ss *snapshots) put(s *snapshot, replace func(old *snapshot)) {
	for {
		v, ok := ss.nodes.LoadOrStore(s.node.Name(), s)
		if !ok {
			return
		}
		old := v.(*snapshot)
		if old.node.Sequence() > s.node.Sequence() {
			return
		}
		replace(old)
		if ss.nodes.CompareAndSwap(s.node.Name(), old, s) {
			return
		}
	}
}

// clean drops what is kept for earlier states of a node, except for messages that are in
// use: get takes them for the present state.
func (ss *snapshots) clean(name string) {
	v, ok := ss.nodes.Load(name)
	if !ok {
		return
	}
	s, node := v.(*snapshot), ss.newest(name)
	if _, isHeld := s.lastUse(); node == nil || (s.node != node && !isHeld) {
		ss.nodes.CompareAndDelete(name, s)
	}
}

// cleanAll is clean for all nodes.
func (ss *snapshots) cleanAll() {
	ss.nodes.Range(func(name, _ any) bool {
		ss.clean(name.(string))
		return true
	})
}

// custom returns the caller's own ResourceSnapshot that the present state of a node was
// set by, or nil.
func (ss *snapshots) custom(node *state.Node) cachev3.ResourceSnapshot {
	if node == nil {
		return nil
	}
	if v, ok := ss.nodes.Load(node.Name()); ok {
		if s := v.(*snapshot); s.node == node {
			return s.custom
		}
	}
	return nil
}

// get returns the snapshot of a state of a node.
func (ss *snapshots) get(node *state.Node) (cachev3.ResourceSnapshot, error) {
	v, ok := ss.nodes.Load(node.Name())
	if ok {
		if s := v.(*snapshot); s.node == node {
			return s.get()
		}
	}
	s := &snapshot{all: ss, node: node}
	ss.put(s, func(old *snapshot) { s.before = old })
	return s.get()
}

// lastUse returns the time at which the held snapshot was last used, and whether there is
// one.
func (s *snapshot) lastUse() (used time.Time, isHeld bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.used, s.held != nil
}

// get returns the snapshot that was set, or one with decoded messages, and keeps it for
// the next call.
func (s *snapshot) get() (cachev3.ResourceSnapshot, error) {
	if s.custom != nil {
		return s.custom, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held == nil {
		if given := s.given.Value(); given != nil {
			s.hold(given)
		} else if err := s.decode(); err != nil {
			return nil, fmt.Errorf("get snapshot of node %q: %w", s.node.Name(), err)
		}
	}
	s.used = time.Now()
	return s.held, nil
}

func (s *snapshot) hold(held cachev3.ResourceSnapshot) {
	s.held = held
	s.expiry = time.AfterFunc(holdSnapshot, s.expire)
}

// expire drops the held snapshot if it is not in use any more.
func (s *snapshot) expire() {
	s.mu.Lock()
	if left := holdSnapshot - time.Since(s.used); left > 0 {
		s.expiry.Reset(left)
		s.mu.Unlock()
		return
	}
	s.held, s.messages = nil, nil
	s.mu.Unlock()
	s.all.clean(s.node.Name())
}

// decode sets held. It decodes only what has changed since the snapshot before.
func (s *snapshot) decode() error {
	earlier, messages := s.takeBefore()
	own := &cachev3.Snapshot{}
	foreign := &anySnapshot{node: s.node, types: map[string]cachev3.Resources{}}
	isOwn := true
	s.messages = map[string]map[string]types.Resource{}
	for i := range s.node.Types() {
		t := &s.node.Types()[i]
		decoded, err := decodeType(t, state.TypeOf(earlier, t.URL()), messages[t.URL()])
		if err != nil {
			return err
		}
		s.messages[t.URL()] = decoded
		resources := cachev3.Resources{Version: t.Version(), Items: make(map[string]types.ResourceWithTTL, t.Len())}
		for r := range t.All() {
			resources.Items[r.Name] = types.ResourceWithTTL{Resource: decoded[r.Name], TTL: r.TTL}
		}
		foreign.types[t.URL()] = resources
		if at := cachev3.GetResponseType(t.URL()); at != types.UnknownType {
			own.Resources[at] = resources
		} else {
			isOwn = false
		}
	}
	if isOwn {
		s.hold(own)
	} else {
		s.hold(foreign)
	}
	return nil
}

// takeBefore returns the state of the snapshot before and its decoded messages, or nil.
func (s *snapshot) takeBefore() (*state.Node, map[string]map[string]types.Resource) {
	before := s.before
	s.before = nil
	if before == nil {
		return nil, nil
	}
	before.mu.Lock()
	defer before.mu.Unlock()
	return before.node, before.messages
}

// decodeType returns the messages of a type, by name. Those of resources that an earlier
// type contains too are taken from its messages.
func decodeType(t, earlier *state.Type, messages map[string]types.Resource) (map[string]types.Resource, error) {
	out := make(map[string]types.Resource, t.Len())
	for r := range t.All() {
		if m, ok := messages[r.Name]; ok && earlier.Get(r.Name) == r {
			out[r.Name] = m
			continue
		}
		m, err := (*Resource)(r).Decoded()
		if err != nil {
			return nil, err
		}
		out[r.Name] = m
	}
	return out, nil
}

// anySnapshot is a snapshot of a node that has a type that a cachev3.Snapshot cannot
// contain.
type anySnapshot struct {
	node  *state.Node
	types map[string]cachev3.Resources
}

var _ cachev3.ResourceSnapshot = (*anySnapshot)(nil)

func (s *anySnapshot) GetVersion(typeURL string) string { return s.types[typeURL].Version }

func (s *anySnapshot) GetResourcesAndTTL(typeURL string) map[string]types.ResourceWithTTL {
	return s.types[typeURL].Items
}

func (s *anySnapshot) GetResources(typeURL string) map[string]types.Resource {
	items := s.types[typeURL].Items
	if items == nil {
		return nil
	}
	out := make(map[string]types.Resource, len(items))
	for name, item := range items {
		out[name] = item.Resource
	}
	return out
}

// ConstructVersionMap does nothing, because the state contains the versions.
func (s *anySnapshot) ConstructVersionMap() error { return nil }

func (s *anySnapshot) GetVersionMap(typeURL string) map[string]string {
	t := state.TypeOf(s.node, typeURL)
	out := make(map[string]string, t.Len())
	for r := range t.All() {
		out[r.Name] = r.Version
	}
	return out
}

// knownTypes are the URLs of the types that a cachev3.Snapshot contains.
var knownTypes = func() []string {
	var urls []string
	for t := range types.UnknownType {
		if url, err := cachev3.GetResponseTypeURL(t); err == nil {
			urls = append(urls, url)
		}
	}
	return urls
}()
