package wal

import (
	"errors"
	"fmt"
	"strings"

	"github.com/xdswal/xdswal/internal/durable"
	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/journal"
)

// The identities of errors, for errors.Is.
var (
	// ErrLocked is returned while another process has the journal, or the segment
	// to be read, open for appending.
	ErrLocked = durable.ErrLocked
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("journal is closed")
	// ErrFull is returned by an append that would exceed MaxBytes.
	ErrFull = errors.New("journal is full")
	// ErrTooLarge is returned by an append of an event whose record would exceed
	// MaxRecordBytes.
	ErrTooLarge = errors.New("event is too large")
	// ErrPoisoned is returned by every append after a failed write or sync, until
	// Recover succeeds: what the file contains after the last committed event is
	// unknown.
	ErrPoisoned = errors.New("journal is poisoned by an earlier I/O error")
	// ErrStale is returned for an event of an older Generation.
	ErrStale = errors.New("an earlier append failed")
	// ErrReadOnly is returned by a method that would change a read-only journal.
	ErrReadOnly = errors.New("journal is open for reading only")

	// ErrGap is [event.ErrGap].
	ErrGap = event.ErrGap
	// ErrCorrupt is [event.ErrCorrupt].
	ErrCorrupt = event.ErrCorrupt
	// ErrVersion is [event.ErrVersion].
	ErrVersion = event.ErrVersion
)

// Error is the error of an operation on a journal.
type Error struct {
	// Op is the operation, a verb with its object: "read segment".
	Op string
	// Path is the file or the directory.
	Path string
	// Sequence is the event concerned, or 0.
	Sequence journal.Sequence
	Err      error
}

// Error returns the operation, the path, the event and the cause.
func (e *Error) Error() string {
	if e.Sequence == 0 {
		return fmt.Sprintf("%s %s: %v", e.Op, e.Path, e.Err)
	}
	return fmt.Sprintf("%s %s: event %d: %v", e.Op, e.Path, e.Sequence, e.Err)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// pathless is an error whose text has "segment" in place of the path under which the
// segment was opened. Most segments are opened under a temporary name, which their
// errors contain even after the rename.
type pathless struct {
	err  error
	path string
}

func (e *pathless) Error() string { return strings.ReplaceAll(e.err.Error(), e.path, "segment") }
func (e *pathless) Unwrap() error { return e.err }

func withoutPath(err error, path string) error {
	if err == nil || path == "" { // bbolt has no path after Close
		return err
	}
	return &pathless{err, path}
}
