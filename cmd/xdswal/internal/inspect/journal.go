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

	"github.com/xdswal/xdswal/cmd/xdswal/internal/view"
	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/internal/restore"
	"github.com/xdswal/xdswal/internal/wal"
	"github.com/xdswal/xdswal/journal"
)

// localJournal is the readable part of a journal. It ends before the segment that
// a daemon has locked or, after salvage, before the first damaged event.
type localJournal struct {
	journal *wal.Journal
	stats   journal.Status
	err     error // the error of reading stats
	// locked is the first event of the segment that a process has locked, or 0.
	locked journal.Sequence
	// damaged is the first event that cannot be read because of damage.
	damage  error
	damaged journal.Sequence
	// newest is the time of the newest event that was read.
	newest time.Time
	// shrunk is set if Range found a lock before the end of stats.
	shrunk bool
}

var _ restore.Journal = (*localJournal)(nil)

// openJournal opens the journal in a directory. It returns nil if there is none.
func openJournal(dir string) (*localJournal, error) {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	j, err := wal.Open(dir, wal.Options{ReadOnly: true})
	if err != nil {
		return nil, err
	}
	l := &localJournal{journal: j}
	l.refresh()
	return l, nil
}

// refresh reads the journal's bounds.
func (l *localJournal) refresh() {
	l.stats, l.err = l.journal.Stats()
	l.locked, l.shrunk = 0, false
	if errors.Is(l.err, wal.ErrLocked) {
		l.err = l.lockedAt(l.err)
	}
}

// lockedAt sets locked to the first event of the segment that err, a
// wal.ErrLocked, names. It returns err if err names none.
func (l *localJournal) lockedAt(err error) error {
	var place *wal.Error
	if !errors.As(err, &place) {
		return err
	}
	first, parseErr := event.ParseSequence(strings.TrimSuffix(filepath.Base(place.Path), ".journal"))
	if parseErr != nil {
		return err
	}
	l.locked, l.stats.Last = first, first-1
	return nil
}

// open reports whether a process has the journal open.
func (l *localJournal) open() bool { return l != nil && l.locked != 0 }

// incomplete describes the events after a sequence that cannot be read. It
// returns nil if all can be read.
func (l *localJournal) incomplete(after journal.Sequence) *view.Incomplete {
	switch {
	case l == nil:
		return nil
	case l.damage != nil:
		from := max(l.damaged, after+1)
		return &view.Incomplete{From: from, Reason: "damaged", Message: fmt.Sprintf(
			"the journal is damaged: events from %d on are not shown: %s", from, oneLine(l.damage))}
	case l.locked != 0:
		from := max(l.locked, after+1)
		return &view.Incomplete{From: from, Reason: "locked", Message: fmt.Sprintf(
			"the daemon has the newest segment open; events from %[1]d on are not shown; ask the daemon: curl 'http://127.0.0.1:19000/v1/events?from=%[1]d' (the address is its --admin-addr)",
			from)}
	}
	return nil
}

// Bounds returns the oldest and the newest event that can be read.
func (l *localJournal) Bounds() (first, last journal.Sequence, err error) {
	return l.stats.First, l.stats.Last, l.err
}

// Bounds of the events in memory.
const (
	chunkEvents = 16384
	chunkBytes  = 16 << 20
)

// Range calls fn for each readable event, as [wal.Journal.Range] does. It
// holds no lock on a segment while fn runs, because a daemon that starts would
// fail to lock it, and fn may wait for a terminal.
func (l *localJournal) Range(ctx context.Context, from, to journal.Sequence, fn func(*journal.Event) error) error {
	next := max(from, 1)
	for {
		if end, bounded := l.end(); bounded && (to == 0 || to > end) {
			to = end
			if next > to {
				return nil
			}
		}
		chunk, more, err := l.chunk(ctx, next, to)
		if errors.Is(err, wal.ErrGap) && l.compacted(next) {
			return err // the caller can begin later
		}
		for _, ev := range chunk {
			l.newest = ev.Time
			if err := fn(ev); err != nil {
				return err
			}
			next = ev.Sequence + 1
		}
		switch {
		case errors.Is(err, wal.ErrLocked):
			// A daemon was started meanwhile, or still has a segment open that
			// it has sealed.
			if err := l.lockedAt(err); err != nil {
				return err
			}
			l.shrunk = true
		case err != nil || !more:
			return err
		}
	}
}

// end returns the newest readable event, if locked or damage bounds it.
func (l *localJournal) end() (last journal.Sequence, bounded bool) {
	switch {
	case l.damage != nil:
		return l.damaged - 1, true
	case l.locked != 0:
		return l.locked - 1, true
	}
	return 0, false
}

// compacted reports whether an event was compacted away after refresh.
func (l *localJournal) compacted(seq journal.Sequence) bool {
	now, err := l.journal.Stats()
	return (err == nil || errors.Is(err, wal.ErrLocked)) && now.First > seq
}

// errStop ends a Range early.
var errStop = errors.New("stop")

// chunk reads a bounded number of events. It reports whether there are more.
func (l *localJournal) chunk(ctx context.Context, from, to journal.Sequence) (chunk []*journal.Event, more bool, err error) {
	var bytes int64
	err = l.journal.Range(ctx, from, to, func(ev *journal.Event) error {
		if len(chunk) >= chunkEvents || bytes >= chunkBytes {
			return errStop
		}
		chunk = append(chunk, ev)
		for i := range ev.Types {
			for _, r := range ev.Types[i].Upserts {
				bytes += r.Size()
			}
		}
		return nil
	})
	if errors.Is(err, errStop) {
		return chunk, true, nil
	}
	return chunk, false, err
}

// salvage reads the journal up to the first damaged event, and limits it to the
// events before.
func (l *localJournal) salvage(ctx context.Context) error {
	next := l.stats.First
	err := l.Range(ctx, next, 0, func(ev *journal.Event) error {
		next = ev.Sequence + 1
		return nil
	})
	if err == nil || ctx.Err() != nil || !unreadable(err) {
		return err
	}
	l.damage, l.damaged, l.err = err, next, nil
	l.stats.Last = next - 1
	return nil
}

// unreadable reports whether err is about damaged or missing bytes.
func unreadable(err error) bool {
	return !errors.Is(err, event.ErrVersion) && (errors.Is(err, event.ErrCorrupt) || errors.Is(err, event.ErrGap))
}
