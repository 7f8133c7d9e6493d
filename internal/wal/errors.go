package wal

import (
	"errors"
	"fmt"

	"github.com/xdswal/xdswal/internal/durable"
	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/journal"
)

var (
	// ErrLocked is the identity of the error about a journal, or one of its
	// segments, that another process has open.
	ErrLocked = durable.ErrLocked
	// ErrClosed is the identity of the error about use after Close.
	ErrClosed = errors.New("journal is closed")
	// ErrFull is the identity of the error about an append that would exceed
	// the journal's size bound.
	ErrFull = errors.New("journal is full")
	// ErrTooLarge is the identity of the error about an event whose record
	// exceeds the bound for one record.
	ErrTooLarge = errors.New("event is too large")
	// ErrPoisoned is the identity of every append's error after a write or
	// an fsync failed, until Recover succeeds: what the file holds past the
	// last acknowledged event is not known then.
	ErrPoisoned = errors.New("journal is poisoned by an earlier I/O error")
	// ErrStale is the identity of the error about an event that was computed
	// before a failure: see Generation.
	ErrStale = errors.New("an earlier append failed")
	// ErrReadOnly is the identity of the error about a change to a journal
	// that is open for reading.
	ErrReadOnly = errors.New("journal is open for reading only")

	// ErrGap is [event.ErrGap].
	ErrGap = event.ErrGap
	// ErrCorrupt is [event.ErrCorrupt].
	ErrCorrupt = event.ErrCorrupt
	// ErrVersion is [event.ErrVersion].
	ErrVersion = event.ErrVersion
)

// Error tells where in a journal something went wrong.
type Error struct {
	// Op is what was being done, a verb phrase: "open segment".
	Op string
	// Path is the file or the directory.
	Path string
	// Sequence is the event in question, 0 where there is none.
	Sequence journal.Sequence
	Err      error
}

// Error returns what was being done, where, to which event, and why it failed.
func (e *Error) Error() string {
	if e.Sequence == 0 {
		return fmt.Sprintf("%s %s: %v", e.Op, e.Path, e.Err)
	}
	return fmt.Sprintf("%s %s: event %d: %v", e.Op, e.Path, e.Sequence, e.Err)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }
