package compactor

import (
	"time"

	"github.com/xdswal/xdswal/compactor/snapshot"
	"github.com/xdswal/xdswal/journal/event"
)

// Hooks are callbacks about the compactor's work; each may be nil. They are
// called by the goroutine that does the work, one at a time.
type Hooks struct {
	// CompactionStart reports that a compaction begins, CompactionStop that it
	// ended well, with a snapshot or because nothing had changed, and
	// CompactionException that it failed.
	CompactionStart     func(CompactionInfo)
	CompactionStop      func(CompactionInfo)
	CompactionException func(CompactionInfo)
	// SnapshotWriteStart, -Stop and -Exception report the writing of one
	// snapshot into the data directory.
	SnapshotWriteStart     func(snapshot.Info)
	SnapshotWriteStop      func(snapshot.Info)
	SnapshotWriteException func(snapshot.Info)
	// SnapshotDeleted reports a snapshot that retention deleted.
	SnapshotDeleted func(snapshot.Info)
}

// Reason says why a compaction was started.
type Reason string

// The reasons of compactions.
const (
	ReasonInterval Reason = "interval"
	ReasonTail     Reason = "tail"
	ReasonDemand   Reason = "demand"
	ReasonClose    Reason = "close"
)

// CompactionInfo tells of one compaction.
type CompactionInfo struct {
	Reason Reason
	// Sequence is that of the state that is compacted.
	Sequence event.Sequence
	// Unchanged is set if the newest snapshot has that sequence already.
	Unchanged bool
	// Duration and Err are set when the compaction has ended.
	Duration time.Duration
	Err      error
}

func call[T any](fn func(T), v T) {
	if fn != nil {
		fn(v)
	}
}
