package wal

import (
	"context"
	"fmt"
	"time"

	"github.com/xdswal/xdswal/journal"
)

// Advance makes next the sequence of the next event, and notBefore the earliest time
// of an event. It is for a journal that ends before the snapshot that it continues:
// a new journal beside a snapshot from elsewhere, or a journal whose last events
// were lost in a crash of the machine. The snapshot covers the events of the
// journal, so Advance deletes them. If next is the next sequence already, Advance
// deletes nothing; if next is smaller, it returns an error. Call it before the first
// append.
func (j *Journal) Advance(next journal.Sequence, notBefore time.Time) error {
	advanced, err := j.advanceTo(next, notBefore)
	if err != nil {
		return &Error{Op: "advance journal", Path: j.dir, Sequence: next, Err: err}
	}
	if !advanced {
		return nil // the sealed segments may not be covered by a snapshot
	}
	return j.TruncateBefore(context.Background(), next)
}

// advanceTo reports whether next was larger than the next sequence.
func (j *Journal) advanceTo(next journal.Sequence, notBefore time.Time) (bool, error) {
	j.commitMu.Lock()
	defer j.commitMu.Unlock()
	switch {
	case j.opt.ReadOnly:
		return false, ErrReadOnly
	case j.active == nil:
		return false, ErrClosed
	case j.poison != nil:
		return false, fmt.Errorf("%w: %w", ErrPoisoned, j.poison)
	}
	if notBefore.After(j.lastTime) {
		j.lastTime = notBefore
	}
	switch {
	case next == j.last+1:
		return false, nil
	case next <= j.last:
		return false, fmt.Errorf("the journal is at event %d already", j.last)
	}
	a, err := j.newActive(next, nil)
	if err != nil {
		return false, err
	}
	j.setActive(a)
	j.mu.Lock()
	j.last = next - 1
	j.mu.Unlock()
	if j.log != nil {
		return true, j.emptyLog()
	}
	return true, nil
}
