// Package view is how the admin interface and the commands show a store: as
// JSON with stable names, and without the bodies of resources unless somebody
// asked for them.
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
	Seq   journal.Sequence `json:"seq"`
	Time  time.Time        `json:"time"`
	Kind  string           `json:"kind"`
	Cache string           `json:"cache"`
	Node  string           `json:"node"`
	Types []TypeChange     `json:"types,omitempty"`
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
func NewEvent(ev *journal.Event) Event {
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
func NewResource(r *journal.Resource) Resource {
	out := Resource{Name: r.Name, Version: r.Version, Bytes: len(r.Value)}
	if r.TTL != nil {
		out.TTL = r.TTL.String()
	}
	return out
}

// Status is a store's status.
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

// Journal is what a journal holds.
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

// Backend is where a store ships to.
type Backend struct {
	Location string `json:"location"`
	// Epoch is the one in which the store ships; Claimed is set once the
	// backend knows of it.
	Epoch   uint64 `json:"epoch"`
	Claimed bool   `json:"claimed"`
	// Weak is set if the backend does not create conditionally.
	Weak bool `json:"weak,omitempty"`
	// Shipped is the newest event that can be restored from the backend,
	// Snapshot that of the newest snapshot there.
	Shipped  journal.Sequence `json:"shipped"`
	Snapshot journal.Sequence `json:"snapshot"`
	// BehindSeconds is how long there has been an event that is not shipped, 0
	// if there is none.
	BehindSeconds float64 `json:"behind_seconds"`
	Error         string  `json:"error,omitempty"`
	// Fenced is why nothing is shipped any more.
	Fenced string `json:"fenced,omitempty"`
}

// Follower is how far a follower has come.
type Follower struct {
	// Location is what is followed, Epoch that of its writer.
	Location string `json:"location"`
	Epoch    uint64 `json:"epoch"`
	// LagSeconds is how long ago, at CurrentAt, everything that was shipped was
	// served.
	LagSeconds float64    `json:"lag_seconds"`
	CurrentAt  *time.Time `json:"current_at,omitempty"`
	Error      string     `json:"error,omitempty"`
}

// Restored is how a state was restored.
type Restored struct {
	Source      string           `json:"source,omitempty"`
	Snapshot    string           `json:"snapshot,omitempty"`
	SnapshotSeq journal.Sequence `json:"snapshot_seq"`
	Seq         journal.Sequence `json:"seq"`
	Time        *time.Time       `json:"time,omitempty"`
	// Events is how many events were applied to the snapshot, Shipped how many
	// of them came from a backend, in Batches batches.
	Events    int       `json:"events"`
	Shipped   int       `json:"shipped"`
	Batches   int       `json:"batches"`
	Nodes     int       `json:"nodes"`
	Resources int       `json:"resources"`
	Bytes     int64     `json:"bytes"`
	Seconds   float64   `json:"seconds"`
	Skipped   []Skipped `json:"skipped,omitempty"`
}

// Skipped is a snapshot or a batch that was passed over.
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

// NewRestored shows a restore's result.
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
