package view

import (
	"time"

	"github.com/xdswal/xdswal/internal/catalog"
	"github.com/xdswal/xdswal/internal/format/snapshot"
	"github.com/xdswal/xdswal/internal/restore"
	"github.com/xdswal/xdswal/journal"
)

// Incomplete describes the events that could not be read.
type Incomplete struct {
	// From is the first event that could not be read, or 0 if it is unknown.
	From journal.Sequence `json:"from,omitempty"`
	// Reason is "locked" or "damaged".
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

// DirectoryStatus is the status of a data directory and a backend. Its Restored is
// the result of a restore of the newest state.
type DirectoryStatus struct {
	Status
	// Backend replaces the Backend of Status.
	Backend *HeldBackend `json:"backend,omitempty"`
	// Stale says why the directory is ignored, if it is stale.
	Stale string `json:"stale,omitempty"`
	// Open is true if a process has locked the newest segment of the journal.
	Open bool `json:"open"`
	// Problem is the error of the restore.
	Problem    string      `json:"problem,omitempty"`
	Incomplete *Incomplete `json:"incomplete,omitempty"`
}

// HeldBackend describes the contents of a backend.
type HeldBackend struct {
	Location string `json:"location"`
	// Epoch is the newest epoch, or 0 if none was ever claimed. Host is the
	// machine that claimed it.
	Epoch     uint64     `json:"epoch"`
	Host      string     `json:"host,omitempty"`
	ClaimedAt *time.Time `json:"claimed_at,omitempty"`
	// Shipped is the newest event, and Snapshot the event of the newest snapshot.
	Shipped  journal.Sequence `json:"shipped"`
	Snapshot journal.Sequence `json:"snapshot"`
	// Superseded is the number of objects that are in neither Snapshots nor
	// Batches, because their writer was superseded.
	Snapshots  int `json:"snapshots"`
	Batches    int `json:"batches"`
	Superseded int `json:"superseded"`
}

// NewHeldBackend returns the view of a backend. last is the newest event of its
// batches.
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
	// Time is the time of its newest event. Created is when it was written.
	Time    *time.Time `json:"time,omitempty"`
	Created *time.Time `json:"created,omitempty"`
	StoreID string     `json:"store_id,omitempty"`
	Bytes   int64      `json:"bytes"`
	// Superseded is true if another writer had taken over the backend before the
	// snapshot was written. No restore uses it.
	Superseded bool   `json:"superseded,omitempty"`
	Error      string `json:"error,omitempty"`
}

// Missing is a range of events that are in neither the journal nor a batch.
type Missing struct {
	From journal.Sequence `json:"from"`
	To   journal.Sequence `json:"to"`
}

// Report is the result of a verification.
type Report struct {
	OK      bool             `json:"ok"`
	Seq     journal.Sequence `json:"seq"`
	Journal VerifiedJournal  `json:"journal"`
	// Shipped is nil without a backend.
	Shipped   *VerifiedBatches   `json:"shipped,omitempty"`
	Snapshots []VerifiedSnapshot `json:"snapshots"`
	// Folded is the number of snapshots that equal an older snapshot with the
	// events between applied.
	Folded     int         `json:"folded"`
	Seconds    float64     `json:"seconds"`
	Problems   []string    `json:"problems"`
	Incomplete *Incomplete `json:"incomplete,omitempty"`
}

// VerifiedJournal describes the verified events of a journal.
type VerifiedJournal struct {
	First  journal.Sequence `json:"first"`
	Last   journal.Sequence `json:"last"`
	Events int              `json:"events"`
}

// VerifiedBatches counts the verified batches of a backend, and their events.
type VerifiedBatches struct {
	Batches int `json:"batches"`
	Events  int `json:"events"`
}

// VerifiedSnapshot is a verified snapshot.
type VerifiedSnapshot struct {
	SnapshotFile
	Nodes         int   `json:"nodes"`
	Resources     int   `json:"resources"`
	ResourceBytes int64 `json:"resource_bytes"`
}

// NewReport returns the view of a verification's result.
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

// Restore is the result of the restore command.
type Restore struct {
	// At is the requested moment.
	At string `json:"at"`
	Restored
	// Written is the new data directory, or nil after a dry run.
	Written    *Written    `json:"written,omitempty"`
	Incomplete *Incomplete `json:"incomplete,omitempty"`
}

// Written is a data directory that was written.
type Written struct {
	Dir     string `json:"dir"`
	StoreID string `json:"store_id"`
	Epoch   uint64 `json:"epoch"`
}

// Exported is a node and the file that its resources were written to.
type Exported struct {
	Node
	File       string      `json:"file"`
	Incomplete *Incomplete `json:"incomplete,omitempty"`
}
