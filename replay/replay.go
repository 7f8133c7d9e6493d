// Package replay defines what a control plane reads of a restore: its result, the
// restored [State], and the hooks.
//
// A restore reads the newest usable snapshot, and applies the events after it, from
// the journal or from the backend. It never returns less than is known to have been
// durable: a damaged snapshot is skipped for an older one only where all events
// since that one can be read.
//
// This package has no I/O. The restore itself is internal/restore, the follower,
// which restores again and again, internal/follow, and the fold internal/state.
package replay

import (
	"time"

	"github.com/xdswal/xdswal/compactor"
	"github.com/xdswal/xdswal/journal"
)

// Result is the outcome of a restore.
type Result struct {
	// Source is the directory or the backend that the snapshot was read from, or empty
	// if there was no snapshot.
	Source string
	// Snapshot is the snapshot's name, SnapshotSequence its sequence; they are zero
	// if there was none.
	Snapshot         string
	SnapshotSequence journal.Sequence
	// StoreID and Epoch are those of the snapshot's writer.
	StoreID string
	Epoch   uint64
	// Sequence is that of the restored state, Time the time of its last event.
	Sequence journal.Sequence
	Time     time.Time
	// Events is the number of events applied to the snapshot, and Shipped the number
	// of those that came from a backend, in Batches batches.
	Events  int
	Shipped int
	Batches int
	// ShippedTo is the newest event that was read from a batch, or 0.
	ShippedTo journal.Sequence
	// Nodes, Resources and Bytes count the contents of the state; Bytes is the sum
	// of the sizes of the resources' values.
	Nodes     int
	Resources int
	Bytes     int64
	// Duration is the time that the restore took.
	Duration time.Duration
	// Skipped are the snapshots, newest first, and the batches that were damaged.
	Skipped []Skipped
	// Err is the error of the restore, or nil.
	Err error
}

// Skipped is a snapshot or a batch that a restore could not use.
type Skipped struct {
	Location string
	Name     string
	Reason   error
}

// Hooks are callbacks of a restore; each may be nil.
type Hooks struct {
	// SnapshotReadBegin and SnapshotReadEnd are called before and after a snapshot is
	// read. At the end, Err is the error, or nil.
	SnapshotReadBegin func(compactor.Snapshot)
	SnapshotReadEnd   func(compactor.Snapshot)
	// RestoreBegin and RestoreEnd are called before and after the whole restore. At the
	// end, Err is the error, or nil.
	RestoreBegin func()
	RestoreEnd   func(Result)
	// Progress is called about 20 times a second while a snapshot, and then the
	// batches after it, are read from a backend.
	Progress func(Progress)
}

// Progress is how much of a download has been read.
type Progress struct {
	// Location is the backend, Name the snapshot; it is empty for batches.
	Location string
	Name     string
	// Read and Total are in bytes.
	Read, Total int64
}

// FollowerStatus is the state of a follower.
type FollowerStatus struct {
	// Epoch is that of the followed writer.
	Epoch uint64
	// CurrentAt is a time at which the follower served everything that was shipped. If
	// the writer ships only snapshots, it is the time of the last listing of the
	// backend; if it ships batches, the follower lists the backend once a minute.
	CurrentAt time.Time
	// Err is the error of the last attempt to read the backend, or nil. It is ErrForeign
	// if another store ships to the backend now. The follower serves nothing of it.
	Err error
}

// Lag returns the time since CurrentAt.
func (s FollowerStatus) Lag() time.Duration { return time.Since(s.CurrentAt) }
