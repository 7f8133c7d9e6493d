package wal

import (
	"context"
	"fmt"
	"time"

	"github.com/xdswal/xdswal/journal"
)

// Advance makes next the sequence of the next event, for a journal that is
// behind the snapshot it continues: a new one beside a snapshot from elsewhere,
// or one whose tail a crash of the machine took. What it holds is dropped, as
// the snapshot covers it. notBefore is the earliest time an event may get. To
// advance to where the journal is does nothing; to go back is an error.
//
// It is called before the first append.
func (j *Journal) Advance(next journal.Sequence, notBefore time.Time) error {
	advanced, err := j.advanceTo(next, notBefore)
	if err != nil {
		return &Error{Op: "advance journal", Path: j.dir, Sequence: next, Err: err}
	}
	if !advanced {
		// Nothing says that a snapshot covers the sealed segments.
		return nil
	}
	return j.TruncateBefore(context.Background(), next)
}

// advanceTo reports whether the journal was behind.
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
	if j.staged != nil {
		return true, j.resetStaged()
	}
	return true, nil
}
