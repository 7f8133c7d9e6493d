// Package journal defines what a control plane sets and reads of the journal, the
// write-ahead log of a store: the sync policy, events, the status and the hooks.
//
// Every update of a store's caches is one [Event]. Events have consecutive
// sequences from 1, in the order in which they became durable. [SyncPolicy] is
// when an update that has returned is on stable storage. After a crash the journal
// contains the events 1 to N for some N, never an event without those before it.
//
// This package has no I/O and imports no other package of this module. The journal
// itself is internal/wal, and the encoding of an event internal/event.
package journal

import "time"

// Status describes the contents of a journal.
type Status struct {
	// First is the oldest event that can be read, Last the newest; the journal is
	// empty if Last is First-1.
	First, Last Sequence
	Segments    int
	// Bytes is the size that the maximum size of the journal limits.
	Bytes int64
	// Poisoned is the error that appends return after an I/O error, or nil.
	Poisoned error
}

// Hooks are callbacks of a journal; each may be nil. The goroutine that commits calls
// them, so they must return quickly.
type Hooks struct {
	// Commit is called with each group of events that became durable or failed.
	Commit func(Commit)
	// SegmentCreated is called with each new segment, and SegmentDropped with each
	// one that was deleted because a snapshot covers it.
	SegmentCreated func(Segment)
	SegmentDropped func(Segment)
}

// Commit is the outcome of one group of events that one sync made durable.
type Commit struct {
	// First and Last are the sequences of the group.
	First, Last Sequence
	// Events and Bytes are the number and the size of the group's records.
	Events int
	Bytes  int64
	// Duration is the time from the first write of the group until it was durable.
	Duration time.Duration
	// Err is the error of the commit, or nil if the group is durable.
	Err error
}

// Segment is one file of the journal.
type Segment struct {
	Path  string
	First Sequence
}
