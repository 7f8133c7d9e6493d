// Package view contains the JSON of the admin interface and of the commands. The
// names of its fields are stable. It contains the bodies of resources only on
// request.
package view

import (
	"encoding/json"
	"time"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/compactor"
	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/journal"
	"github.com/xdswal/xdswal/replay"
)

// Node is a node of a cache.
type Node struct {
	Cache     string           `json:"cache"`
	Node      string           `json:"node"`
	Seq       journal.Sequence `json:"seq"`
	Time      time.Time        `json:"time"`
	Resources int              `json:"resources"`
	Bytes     int64            `json:"bytes"`
	Types     map[string]Type  `json:"types"`
}

// Type is one type of a node.
type Type struct {
	Version   string `json:"version"`
	Resources int    `json:"resources"`
}

// NewNode returns the view of a node.
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

// Event is an event of the journal.
type Event struct {
	Seq   journal.Sequence `json:"seq"`
	Time  time.Time        `json:"time"`
	Kind  string           `json:"kind"`
	Cache string           `json:"cache"`
	Node  string           `json:"node"`
	Types []TypeChange     `json:"types,omitempty"`
}

// TypeChange is the change of one type by an event.
type TypeChange struct {
	TypeURL string     `json:"type_url"`
	Version string     `json:"version"`
	Set     []Resource `json:"set,omitempty"`
	Deleted []string   `json:"deleted,omitempty"`
}

// Resource is a resource.
type Resource struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	TTL     string `json:"ttl,omitempty"`
	Bytes   int    `json:"bytes"`
	// Body is the resource in the JSON form of a protobuf Any, and BodyError the
	// error of marshaling it. Both are empty unless the body was requested.
	Body      json.RawMessage `json:"body,omitempty"`
	BodyError string          `json:"body_error,omitempty"`
}

// NewEvent returns the view of an event, without bodies.
func NewEvent(ev *journal.Event) Event {
	out := Event{Seq: ev.Sequence, Time: ev.Time.UTC(), Kind: ev.Kind.String(), Cache: ev.Cache, Node: ev.Node}
	for _, tc := range ev.Types {
		t := TypeChange{TypeURL: tc.TypeURL, Version: tc.Version, Deleted: tc.Deletes}
		for _, r := range tc.Upserts {
			v := Resource{Name: r.Name, Version: r.Version, Bytes: len(r.Value)}
			if r.TTL != nil {
				v.TTL = r.TTL.String()
			}
			t.Set = append(t.Set, v)
		}
		out.Types = append(out.Types, t)
	}
	return out
}

// Status is the status of a store.
type Status struct {
	Dir       string           `json:"dir,omitempty"`
	StoreID   string           `json:"store_id,omitempty"`
	Epoch     uint64           `json:"epoch"`
	Seq       journal.Sequence `json:"seq"`
	Time      *time.Time       `json:"time,omitempty"`
	Nodes     int              `json:"nodes"`
	Resources int              `json:"resources"`
	Bytes     int64            `json:"bytes"`
	Caches    []string         `json:"caches"`
	Degraded  string           `json:"degraded,omitempty"`
	Journal   Journal          `json:"journal"`
	Snapshot  Snapshot         `json:"snapshot"`
	Backend   *Backend         `json:"backend,omitempty"`
	Follower  *Follower        `json:"follower,omitempty"`
	Restored  Restored         `json:"restored"`
}

// Journal describes the contents of a journal.
type Journal struct {
	First    journal.Sequence `json:"first"`
	Last     journal.Sequence `json:"last"`
	Segments int              `json:"segments"`
	Bytes    int64            `json:"bytes"`
	Poisoned string           `json:"poisoned,omitempty"`
}

// Snapshot is the newest local snapshot.
type Snapshot struct {
	Seq   journal.Sequence `json:"seq"`
	Time  *time.Time       `json:"time,omitempty"`
	Error string           `json:"error,omitempty"`
}

// Backend is the status of shipping to a backend.
type Backend struct {
	Location string `json:"location"`
	// Epoch is the store's epoch. Claimed is true once it is recorded in the
	// backend.
	Epoch   uint64 `json:"epoch"`
	Claimed bool   `json:"claimed"`
	// Weak is true if the backend does not always create objects conditionally.
	Weak bool `json:"weak,omitempty"`
	// Shipped is the newest event that can be restored from the backend, and
	// Snapshot the event of its newest snapshot.
	Shipped  journal.Sequence `json:"shipped"`
	Snapshot journal.Sequence `json:"snapshot"`
	// BehindSeconds is how long at least one event has not been shipped, or 0.
	BehindSeconds float64 `json:"behind_seconds"`
	Error         string  `json:"error,omitempty"`
	// Fenced is the error of a fenced store, which ships nothing.
	Fenced string `json:"fenced,omitempty"`
}

// Follower is the status of a follower.
type Follower struct {
	// Location is the backend, and Epoch the epoch of its writer.
	Location string `json:"location"`
	Epoch    uint64 `json:"epoch"`
	// CurrentAt is the last time at which the follower served all shipped events,
	// and LagSeconds the time since.
	LagSeconds float64    `json:"lag_seconds"`
	CurrentAt  *time.Time `json:"current_at,omitempty"`
	Error      string     `json:"error,omitempty"`
}

// Restored is the result of a restore.
type Restored struct {
	Source      string           `json:"source,omitempty"`
	Snapshot    string           `json:"snapshot,omitempty"`
	SnapshotSeq journal.Sequence `json:"snapshot_seq"`
	Seq         journal.Sequence `json:"seq"`
	Time        *time.Time       `json:"time,omitempty"`
	// Events is the number of events applied to the snapshot. Shipped of them
	// were read from Batches batches of a backend.
	Events    int       `json:"events"`
	Shipped   int       `json:"shipped"`
	Batches   int       `json:"batches"`
	Nodes     int       `json:"nodes"`
	Resources int       `json:"resources"`
	Bytes     int64     `json:"bytes"`
	Seconds   float64   `json:"seconds"`
	Skipped   []Skipped `json:"skipped,omitempty"`
}

// Skipped is a snapshot or a batch that could not be used.
type Skipped struct {
	Location string `json:"location"`
	Name     string `json:"name"`
	Reason   string `json:"reason"`
}

// NewStatus returns the view of a status.
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
	if s.Shipper != nil {
		out.Backend = newBackend(s.Backend, *s.Shipper)
	}
	if s.Follower != nil {
		out.Follower = newFollower(s.Backend, *s.Follower)
	}
	return out
}

func newBackend(location string, s compactor.ShipperStatus) *Backend {
	out := &Backend{
		Location: location, Epoch: s.Epoch, Claimed: s.Claimed, Weak: s.Weak, Shipped: s.Shipped, Snapshot: s.Snapshot,
		Error: text(s.Err), Fenced: text(s.Fenced),
	}
	if !s.BehindSince.IsZero() {
		out.BehindSeconds = time.Since(s.BehindSince).Seconds()
	}
	return out
}

func newFollower(location string, s replay.FollowerStatus) *Follower {
	return &Follower{Location: location, Epoch: s.Epoch, LagSeconds: s.Lag().Seconds(), CurrentAt: when(s.CurrentAt), Error: text(s.Err)}
}

// NewRestored returns the view of a restore's result.
func NewRestored(r replay.Result) Restored {
	out := Restored{
		Source: r.Source, Snapshot: r.Snapshot, SnapshotSeq: r.SnapshotSequence, Seq: r.Sequence, Time: when(r.Time),
		Events: r.Events, Shipped: r.Shipped, Batches: r.Batches, Nodes: r.Nodes, Resources: r.Resources, Bytes: r.Bytes, Seconds: r.Duration.Seconds(),
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
