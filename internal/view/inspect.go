package view

import (
	"time"

	"github.com/xdswal/xdswal/internal/catalog"
	"github.com/xdswal/xdswal/internal/format/snapshot"
	"github.com/xdswal/xdswal/internal/restore"
	"github.com/xdswal/xdswal/journal"
)

// Incomplete tells that what is shown is not all there is.
type Incomplete struct {
	// From is the first event that could not be read; 0 where it is not known.
	From journal.Sequence `json:"from,omitempty"`
	// Reason is "locked" or "damaged".
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

// DirectoryStatus is what a data directory and a backend hold, seen from
// outside. Restored is what a restore of the newest state gives.
type DirectoryStatus struct {
	Status
	// Backend stands in the place of a running store's, with names of its own
	// where it tells something else.
	Backend *HeldBackend `json:"backend,omitempty"`
	// Stale is why the directory does not count beside the backend.
	Stale string `json:"stale,omitempty"`
	// Open is set if a process has the directory open, as far as the newest
	// segment of the journal tells.
	Open bool `json:"open"`
	// Problem is why the newest state cannot be restored.
	Problem    string      `json:"problem,omitempty"`
	Incomplete *Incomplete `json:"incomplete,omitempty"`
}

// HeldBackend is what a backend holds.
type HeldBackend struct {
	Location string `json:"location"`
	// Epoch is the newest one, 0 if none was ever claimed; Host is the machine
	// that claimed it, at ClaimedAt.
	Epoch     uint64     `json:"epoch"`
	Host      string     `json:"host,omitempty"`
	ClaimedAt *time.Time `json:"claimed_at,omitempty"`
	// Shipped is the newest event there, Snapshot that of the newest snapshot.
	Shipped  journal.Sequence `json:"shipped"`
	Snapshot journal.Sequence `json:"snapshot"`
	// Snapshots and Batches count what counts, Superseded what does not.
	Snapshots  int `json:"snapshots"`
	Batches    int `json:"batches"`
	Superseded int `json:"superseded"`
}

// NewHeldBackend shows what a backend holds, whose batches end with an event.
func NewHeldBackend(location string, r *catalog.Remote, last journal.Sequence) *HeldBackend {
	newest, _ := r.Newest()
	out := &HeldBackend{
		Location: location, Epoch: newest.Number, Host: newest.Host, ClaimedAt: when(newest.Claimed),
		Shipped: last, Snapshots: len(r.Snapshots), Batches: len(r.Batches), Superseded: len(r.Superseded),
	}
	if len(r.Snapshots) > 0 {
		out.Snapshot = r.Snapshots[0].Sequence
		out.Shipped = max(out.Shipped, out.Snapshot)
	}
	return out
}

// SnapshotFile is a snapshot in a directory or a backend.
type SnapshotFile struct {
	Location string           `json:"location"`
	Name     string           `json:"name"`
	Seq      journal.Sequence `json:"seq"`
	Epoch    uint64           `json:"epoch"`
	// Time is that of the newest event in it, Created when it was written.
	Time    *time.Time `json:"time,omitempty"`
	Created *time.Time `json:"created,omitempty"`
	StoreID string     `json:"store_id,omitempty"`
	Bytes   int64      `json:"bytes"`
	// Superseded is set if it does not count: its writer wrote it after another
	// had taken the backend over.
	Superseded bool   `json:"superseded,omitempty"`
	Error      string `json:"error,omitempty"`
}

// Missing are events of which it is known that they are nowhere to be read.
type Missing struct {
	From journal.Sequence `json:"from"`
	To   journal.Sequence `json:"to"`
}

// Report is what a verification found.
type Report struct {
	OK      bool             `json:"ok"`
	Seq     journal.Sequence `json:"seq"`
	Journal VerifiedJournal  `json:"journal"`
	// Shipped is nil without a backend.
	Shipped   *VerifiedBatches   `json:"shipped,omitempty"`
	Snapshots []VerifiedSnapshot `json:"snapshots"`
	// Folded is how many snapshots were proved to be what the journal or the
	// batches make of an older one.
	Folded     int         `json:"folded"`
	Seconds    float64     `json:"seconds"`
	Problems   []string    `json:"problems"`
	Incomplete *Incomplete `json:"incomplete,omitempty"`
}

// VerifiedJournal is what was verified of a journal.
type VerifiedJournal struct {
	First  journal.Sequence `json:"first"`
	Last   journal.Sequence `json:"last"`
	Events int              `json:"events"`
}

// VerifiedBatches is what was verified of the batches in a backend.
type VerifiedBatches struct {
	Batches int `json:"batches"`
	Events  int `json:"events"`
}

// VerifiedSnapshot is what was verified of a snapshot.
type VerifiedSnapshot struct {
	SnapshotFile
	Nodes         int   `json:"nodes"`
	Resources     int   `json:"resources"`
	ResourceBytes int64 `json:"resource_bytes"`
}

// NewReport shows what a verification found.
func NewReport(r restore.Report) Report {
	out := Report{
		OK: len(r.Problems) == 0, Seq: r.Sequence, Folded: r.Folded, Seconds: r.Duration.Seconds(),
		Journal:   VerifiedJournal{First: r.First, Last: r.Last, Events: r.Events},
		Snapshots: []VerifiedSnapshot{}, Problems: []string{},
	}
	for _, s := range r.Snapshots {
		name, _ := snapshot.ParseName(s.Name)
		out.Snapshots = append(out.Snapshots, VerifiedSnapshot{
			SnapshotFile: SnapshotFile{
				Location: s.Location, Name: s.Name, Seq: s.Sequence, Epoch: name.Epoch, Time: when(s.Time), Created: when(s.Created),
				Bytes: s.Bytes, Error: text(s.Err),
			},
			Nodes: s.Nodes, Resources: s.Resources, ResourceBytes: s.ResourceBytes,
		})
	}
	for _, p := range r.Problems {
		out.Problems = append(out.Problems, p.Error())
	}
	return out
}

// Restore is what a restore gives, and where it was written to.
type Restore struct {
	// At is what was asked for.
	At string `json:"at"`
	Restored
	// Written is the new data directory; a dry run has none.
	Written    *Written    `json:"written,omitempty"`
	Incomplete *Incomplete `json:"incomplete,omitempty"`
}

// Written is a data directory that was made.
type Written struct {
	Dir     string `json:"dir"`
	StoreID string `json:"store_id"`
	Epoch   uint64 `json:"epoch"`
}

// Exported is a node whose resources were written to a file.
type Exported struct {
	Node
	File       string      `json:"file"`
	Incomplete *Incomplete `json:"incomplete,omitempty"`
}
