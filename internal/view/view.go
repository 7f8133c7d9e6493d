// Package view is how the admin interface and the commands show a store: as
// JSON with stable names, and without the bodies of resources unless somebody
// asked for them.
package view

import (
	"encoding/json"
	"time"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/journal/event"
	"github.com/xdswal/xdswal/replay"
	"github.com/xdswal/xdswal/replay/state"
)

// Node is a node of a cache.
type Node struct {
	Cache     string          `json:"cache"`
	Node      string          `json:"node"`
	Seq       event.Sequence  `json:"seq"`
	Time      time.Time       `json:"time"`
	Resources int             `json:"resources"`
	Bytes     int64           `json:"bytes"`
	Types     map[string]Type `json:"types"`
}

// Type is one type of a node.
type Type struct {
	Version   string `json:"version"`
	Resources int    `json:"resources"`
}

// NewNode shows a node.
func NewNode(n *state.Node) Node {
	out := Node{
		Cache: n.Cache(), Node: n.Name(), Seq: n.Sequence(), Time: n.Time().UTC(),
		Resources: n.NumResources(), Bytes: n.Bytes(), Types: map[string]Type{},
	}
	for i := range n.Types() {
		t := &n.Types()[i]
		out.Types[t.URL()] = Type{Version: t.Version(), Resources: t.Len()}
	}
	return out
}

// Event is a journaled update.
type Event struct {
	Seq   event.Sequence `json:"seq"`
	Time  time.Time      `json:"time"`
	Kind  string         `json:"kind"`
	Cache string         `json:"cache"`
	Node  string         `json:"node"`
	Types []TypeChange   `json:"types,omitempty"`
}

// TypeChange is what an event does to one type.
type TypeChange struct {
	TypeURL string     `json:"type_url"`
	Version string     `json:"version"`
	Set     []Resource `json:"set,omitempty"`
	Deleted []string   `json:"deleted,omitempty"`
}

// Resource is a resource, without its body unless that was asked for.
type Resource struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	TTL     string `json:"ttl,omitempty"`
	Bytes   int    `json:"bytes"`
	// Body is the resource in the JSON form of a protobuf Any. BodyError is why
	// there is none though it was asked for.
	Body      json.RawMessage `json:"body,omitempty"`
	BodyError string          `json:"body_error,omitempty"`
}

// NewEvent shows an event.
func NewEvent(ev *event.Event) Event {
	out := Event{Seq: ev.Sequence, Time: ev.Time.UTC(), Kind: ev.Kind.String(), Cache: ev.Cache, Node: ev.Node}
	for _, tc := range ev.Types {
		t := TypeChange{TypeURL: tc.TypeURL, Version: tc.Version, Deleted: tc.Deletes}
		for _, r := range tc.Upserts {
			t.Set = append(t.Set, NewResource(r))
		}
		out.Types = append(out.Types, t)
	}
	return out
}

// NewResource shows a resource.
func NewResource(r *event.Resource) Resource {
	out := Resource{Name: r.Name, Version: r.Version, Bytes: len(r.Value)}
	if r.TTL != nil {
		out.TTL = r.TTL.String()
	}
	return out
}

// Status is a store's status.
type Status struct {
	Dir       string         `json:"dir,omitempty"`
	StoreID   string         `json:"store_id,omitempty"`
	Epoch     uint64         `json:"epoch"`
	Seq       event.Sequence `json:"seq"`
	Time      *time.Time     `json:"time,omitempty"`
	Nodes     int            `json:"nodes"`
	Resources int            `json:"resources"`
	Bytes     int64          `json:"bytes"`
	Caches    []string       `json:"caches"`
	Degraded  string         `json:"degraded,omitempty"`
	Journal   Journal        `json:"journal"`
	Snapshot  Snapshot       `json:"snapshot"`
	Backend   *Backend       `json:"backend,omitempty"`
	Restored  Restored       `json:"restored"`
}

// Journal is what a journal holds.
type Journal struct {
	First    event.Sequence `json:"first"`
	Last     event.Sequence `json:"last"`
	Segments int            `json:"segments"`
	Bytes    int64          `json:"bytes"`
	Poisoned string         `json:"poisoned,omitempty"`
}

// Snapshot is the newest local snapshot.
type Snapshot struct {
	Seq   event.Sequence `json:"seq"`
	Time  *time.Time     `json:"time,omitempty"`
	Error string         `json:"error,omitempty"`
}

// Backend is where snapshots are shipped to.
type Backend struct {
	Location string         `json:"location"`
	Shipped  event.Sequence `json:"shipped"`
	Error    string         `json:"error,omitempty"`
}

// Restored is how a state was restored.
type Restored struct {
	Source      string         `json:"source,omitempty"`
	Snapshot    string         `json:"snapshot,omitempty"`
	SnapshotSeq event.Sequence `json:"snapshot_seq"`
	Seq         event.Sequence `json:"seq"`
	Time        *time.Time     `json:"time,omitempty"`
	Events      int            `json:"events"`
	Nodes       int            `json:"nodes"`
	Resources   int            `json:"resources"`
	Bytes       int64          `json:"bytes"`
	Seconds     float64        `json:"seconds"`
	Skipped     []Skipped      `json:"skipped,omitempty"`
}

// Skipped is a snapshot that was passed over.
type Skipped struct {
	Location string `json:"location"`
	Name     string `json:"name"`
	Reason   string `json:"reason"`
}

// NewStatus shows a status.
func NewStatus(s xdswal.Status) Status {
	out := Status{
		Dir: s.Dir, StoreID: s.StoreID, Epoch: s.Epoch, Seq: s.Sequence, Time: when(s.Time),
		Nodes: s.Nodes, Resources: s.Resources, Bytes: s.Bytes, Caches: s.Caches, Degraded: text(s.Degraded),
		Journal: Journal{
			First: s.Journal.First, Last: s.Journal.Last, Segments: s.Journal.Segments,
			Bytes: s.Journal.Bytes, Poisoned: text(s.Journal.Poisoned),
		},
		Snapshot: Snapshot{Seq: s.Compactor.Sequence, Time: when(s.Compactor.Time), Error: text(s.Compactor.Err)},
		Restored: NewRestored(s.Restored),
	}
	if out.Caches == nil {
		out.Caches = []string{}
	}
	if s.Backend != "" {
		out.Backend = &Backend{Location: s.Backend, Shipped: s.Compactor.Shipped, Error: text(s.Compactor.ShipErr)}
	}
	return out
}

// NewRestored shows a restore's result.
func NewRestored(r replay.Result) Restored {
	out := Restored{
		Source: r.Source, Snapshot: r.Snapshot, SnapshotSeq: r.SnapshotSequence, Seq: r.Sequence, Time: when(r.Time),
		Events: r.Events, Nodes: r.Nodes, Resources: r.Resources, Bytes: r.Bytes, Seconds: r.Duration.Seconds(),
	}
	for _, s := range r.Skipped {
		out.Skipped = append(out.Skipped, Skipped{Location: s.Location, Name: s.Name, Reason: text(s.Reason)})
	}
	return out
}

func when(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
