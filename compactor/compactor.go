// Package compactor defines what a control plane reads of a store's snapshots and
// of what the store ships to its backend: the status and the hooks.
//
// The compactor writes a snapshot of the state into the data directory each
// interval, and earlier when the events since the last snapshot take much space.
// The shipper brings each snapshot, and the events between snapshots in batches,
// to the backend. Their settings are fields of the store's options.
//
// This package has no I/O. The compactor itself is internal/compact, the shipper
// internal/ship.
package compactor

import (
	"time"

	"github.com/xdswal/xdswal/journal"
)

// Status is the state of a compactor.
type Status struct {
	// Sequence and Time are those of the newest snapshot in the data directory;
	// Time is when it was written. They are zero if there is none.
	Sequence journal.Sequence
	Time     time.Time
	// Err is the error of the last attempt to write a snapshot, or nil.
	Err error
}

// ShipperStatus is the state of a shipper.
type ShipperStatus struct {
	// Epoch is the epoch in which the store publishes. Claimed reports whether the
	// backend has recorded it.
	Epoch   uint64
	Claimed bool
	// Weak reports that the backend does not always create objects conditionally: of two
	// writers that take over in the same instant both succeed, and one of them
	// learns of the other when it ships next.
	Weak bool
	// Shipped is the newest event that can be restored from the backend, Snapshot
	// the sequence of the newest snapshot there.
	Shipped  journal.Sequence
	Snapshot journal.Sequence
	// SnapshotTime is when this process shipped that snapshot, or zero.
	SnapshotTime time.Time
	// BehindSince is when the oldest event that is not shipped was committed, or
	// zero if all events are shipped.
	BehindSince time.Time
	// Err is the error of the last attempt to ship, or nil.
	Err error
	// Fenced is the error that names the writer that has taken over, or nil.
	Fenced error
}

// Hooks are callbacks about snapshots and shipping; each may be nil. The goroutine
// that does the work calls them: one writes snapshots, one ships them, and one
// ships batches.
//
// The End hook of a pair is called once for each call of its Begin hook. Its Err
// is nil if the work succeeded.
type Hooks struct {
	// A compaction writes a snapshot, unless nothing has changed.
	CompactionBegin func(Compaction)
	CompactionEnd   func(Compaction)
	// A snapshot is written to the data directory, or shipped to the backend.
	SnapshotWriteBegin func(Snapshot)
	SnapshotWriteEnd   func(Snapshot)
	// SnapshotDeleted is called with each snapshot that retention deleted.
	SnapshotDeleted func(Snapshot)
	// A batch of events is shipped to the backend.
	BatchWriteBegin func(Batch)
	BatchWriteEnd   func(Batch)
	// BatchDeleted is called with each batch that retention deleted.
	BatchDeleted func(Batch)
	// Claimed is called with the store's epoch once the backend has recorded it.
	Claimed func(epoch uint64)
	// Fenced is called once, when another writer has taken over the backend, in a
	// goroutine of its own: it may close the store.
	Fenced func(error)
}

// Reason is why a compaction was started.
type Reason string

// The reasons of compactions.
const (
	ReasonInterval Reason = "interval" // the interval has passed
	ReasonTail     Reason = "tail"     // the events since the last snapshot take too much space
	ReasonDemand   Reason = "demand"   // a caller asked for it
	ReasonClose    Reason = "close"    // the store is being closed
)

// Compaction is one compaction.
type Compaction struct {
	Reason Reason
	// Sequence is that of the state to be written.
	Sequence journal.Sequence
	// Unchanged reports that the newest snapshot has that sequence already.
	Unchanged bool
	// Duration and Err are set when the compaction has ended.
	Duration time.Duration
	Err      error
}

// Snapshot is one snapshot in one place.
type Snapshot struct {
	// Location is the directory or the backend, Name the snapshot's name. Backend
	// reports whether Location is a backend.
	Location string
	Backend  bool
	Name     string
	Sequence journal.Sequence
	// Nodes, Resources and ResourceBytes count the contents; they are 0 where the
	// contents were not read.
	Nodes         int
	Resources     int
	ResourceBytes int64
	// Bytes is the size of the file.
	Bytes int64
	// Duration and Err are set when the work has ended.
	Duration time.Duration
	Err      error
}

// Batch is one shipped object of consecutive events.
type Batch struct {
	// Location is the backend, Name the batch's name.
	Location string
	Name     string
	// First and Last are its first and last event; Last is 0 where it is not known.
	First, Last journal.Sequence
	// Bytes is the size of the object.
	Bytes int64
	// Duration and Err are set when the work has ended.
	Duration time.Duration
	Err      error
}
