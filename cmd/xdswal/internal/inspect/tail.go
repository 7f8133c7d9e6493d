package inspect

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/internal/restore"
	"github.com/xdswal/xdswal/internal/view"
	"github.com/xdswal/xdswal/internal/wal"
	"github.com/xdswal/xdswal/journal"
)

// tail is a journal as far as it can be read: up to the segment that a daemon
// has open, or, if it is told to make do, up to where it is damaged.
type tail struct {
	dir     string
	journal *wal.Journal
	stats   journal.Status
	// locked is the first event of the segment that a process has open, 0 if
	// none has.
	locked journal.Sequence
	// damage is why events from damaged on cannot be read.
	damage  error
	damaged journal.Sequence
	// err is why the bounds are not known.
	err error
	// newest is the time of the newest event that was read.
	newest time.Time
	// moved is set when less could be read than the bounds said.
	moved bool
}

var _ restore.Journal = (*tail)(nil)

// openTail opens the journal in a directory, nil if there is none.
func openTail(dir string) (*tail, error) {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	j, err := wal.Open(dir, wal.Options{ReadOnly: true})
	if err != nil {
		return nil, err
	}
	t := &tail{dir: dir, journal: j}
	t.look()
	return t, nil
}

// look finds the journal's bounds.
func (t *tail) look() {
	t.stats, t.err = t.journal.Stats()
	t.locked, t.moved = 0, false
	if errors.Is(t.err, wal.ErrLocked) {
		t.err = t.hide(t.err)
	}
}

// hide notes that events from a segment on are not to be read.
func (t *tail) hide(err error) error {
	var place *wal.Error
	if !errors.As(err, &place) {
		return err
	}
	digits, _ := strings.CutSuffix(filepath.Base(place.Path), ".journal")
	first, parseErr := event.ParseSequence(digits)
	if parseErr != nil {
		return err
	}
	t.locked = first
	t.stats.Last = first - 1
	return nil
}

// open reports whether a process has the journal open.
func (t *tail) open() bool { return t != nil && t.locked != 0 }

// incomplete tells what cannot be read of the events after a sequence, nil if
// all can.
func (t *tail) incomplete(after journal.Sequence) *view.Incomplete {
	switch {
	case t == nil:
		return nil
	case t.damage != nil:
		from := max(t.damaged, after+1)
		return &view.Incomplete{From: from, Reason: "damaged", Message: fmt.Sprintf(
			"the journal is damaged: events from %d on are not shown: %s", uint64(from), oneLine(t.damage))}
	case t.locked != 0:
		from := max(t.locked, after+1)
		return &view.Incomplete{From: from, Reason: "locked", Message: fmt.Sprintf(
			"the daemon has the newest segment open; events from %[1]d on are not shown: ask it: curl 'http://127.0.0.1:19000/v1/events?from=%[1]d' (at its --admin-addr)",
			uint64(from))}
	}
	return nil
}

// Bounds returns the sequences of the oldest and the newest event that can be
// read.
func (t *tail) Bounds() (first, last journal.Sequence, err error) {
	return t.stats.First, t.stats.Last, t.err
}

// Bounds of what is read in one go.
const (
	chunkEvents = 16384
	chunkBytes  = 16 << 20
)

// Range calls fn for events as [wal.Journal.Range] does, up to what can be
// read. While fn runs, no segment is held: a daemon that starts meanwhile would
// wait for it in vain, and fn may wait for a reader at a terminal.
func (t *tail) Range(ctx context.Context, from, to journal.Sequence, fn func(*journal.Event) error) error {
	next := max(from, 1)
	for {
		if end, bounded := t.end(); bounded && (to == 0 || to > end) {
			to = end
			if next > to {
				return nil
			}
		}
		chunk, more, err := t.chunk(ctx, next, to)
		if errors.Is(err, wal.ErrGap) && t.covered(next) {
			// Who has seen none of them can begin later.
			return err
		}
		for _, ev := range chunk {
			t.newest = ev.Time
			if err := fn(ev); err != nil {
				return err
			}
			next = ev.Sequence + 1
		}
		switch {
		case errors.Is(err, wal.ErrLocked):
			// A daemon was started meanwhile, or has not yet closed a segment
			// that it has just sealed.
			if err := t.hide(err); err != nil {
				return err
			}
			t.moved = true
		case err != nil || !more:
			return err
		}
	}
}

// end returns the newest event to read, unless there is no bound.
func (t *tail) end() (last journal.Sequence, bounded bool) {
	switch {
	case t.damage != nil:
		return t.damaged - 1, true
	case t.locked != 0:
		return t.locked - 1, true
	}
	return 0, false
}

// covered reports whether an event has left the journal since its bounds were
// found, because a snapshot covers it.
func (t *tail) covered(seq journal.Sequence) bool {
	now, err := t.journal.Stats()
	return (err == nil || errors.Is(err, wal.ErrLocked)) && now.First > seq
}

// chunk reads events until there are many. It reports whether there are more.
func (t *tail) chunk(ctx context.Context, from, to journal.Sequence) (chunk []*journal.Event, more bool, err error) {
	var bytes int64
	err = t.journal.Range(ctx, from, to, func(ev *journal.Event) error {
		if len(chunk) >= chunkEvents || bytes >= chunkBytes {
			return errEnough
		}
		chunk = append(chunk, ev)
		for i := range ev.Types {
			for _, r := range ev.Types[i].Upserts {
				bytes += r.Size()
			}
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		return chunk, true, nil
	}
	return chunk, false, err
}

// salvage makes do with a damaged journal: it reads on from what is intact at
// its beginning.
func (t *tail) salvage(ctx context.Context) error {
	next := t.stats.First
	err := t.Range(ctx, next, 0, func(ev *journal.Event) error {
		next = ev.Sequence + 1
		return nil
	})
	if err == nil || ctx.Err() != nil || !unreadable(err) {
		return err
	}
	t.damage, t.damaged, t.err = err, next, nil
	t.stats.Last = next - 1
	return nil
}

// unreadable reports whether an error is about bytes that are damaged or gone.
func unreadable(err error) bool {
	return !errors.Is(err, event.ErrVersion) && (errors.Is(err, event.ErrCorrupt) || errors.Is(err, event.ErrGap))
}
