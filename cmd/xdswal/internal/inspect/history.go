package inspect

import (
	"context"
	"errors"
	"fmt"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/internal/catalog"
	"github.com/xdswal/xdswal/internal/download"
	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/internal/view"
	"github.com/xdswal/xdswal/journal"
)

// history is the events of a source: those of its journal, and those that were
// shipped where the journal does not have them, or not yet for this process.
type history struct {
	s *source
	// last is the newest event that was read.
	last journal.Sequence
	// missing are events between others that are nowhere.
	missing []view.Missing
}

// first returns the oldest event that there is, or that comes next.
func (h *history) first() journal.Sequence {
	first := journal.Sequence(0)
	if h.s.tail != nil {
		first = h.s.tail.stats.First
	}
	if h.s.remote != nil && len(h.s.remote.Batches) > 0 {
		if shipped := h.s.remote.Batches[0].First; first == 0 || shipped < first {
			first = shipped
		}
	}
	return max(first, 1)
}

// look finds out anew what there is.
func (h *history) look(ctx context.Context) (err error) {
	if h.s.tail != nil {
		h.s.tail.look()
	}
	if h.s.backend != nil {
		h.s.remote, err = catalog.List(ctx, h.s.backend)
	}
	return err
}

// Range calls fn for the events from one sequence on, in order.
func (h *history) Range(ctx context.Context, from journal.Sequence, fn func(*journal.Event) error) error {
	next := max(from, 1)
	each := func(ev *journal.Event) error {
		if ev.Sequence > next {
			h.missing = append(h.missing, view.Missing{From: next, To: ev.Sequence - 1})
		}
		next, h.last = ev.Sequence+1, ev.Sequence
		return fn(ev)
	}
	tail := h.s.tail
	if tail == nil {
		return h.shipped(ctx, next, 0, each)
	}
	if first := tail.stats.First; next < first {
		if err := h.shipped(ctx, next, first-1, each); err != nil {
			return err
		}
	}
	if err := tail.Range(ctx, max(next, tail.stats.First), 0, each); err != nil {
		return err
	}
	return h.shipped(ctx, next, 0, each)
}

// parallelBatches is how many batches are fetched ahead.
const parallelBatches = 4

// errPast says that the rest of a batch is not wanted.
var errPast = errors.New("past the end")

// shipped calls fn for the events that were shipped, from one sequence to
// another; to = 0 stands for the newest.
func (h *history) shipped(ctx context.Context, from, to journal.Sequence, fn func(*journal.Event) error) error {
	if h.s.remote == nil {
		return nil
	}
	var objects []download.Object
	list := h.s.remote.After(from - 1)
	for _, b := range list {
		if to == 0 || b.First <= to {
			objects = append(objects, download.Object{Key: b.Key(), Size: b.Size})
		}
	}
	next := from
	return download.Each(ctx, h.s.backend, objects, parallelBatches, func(i int, data []byte, err error) error {
		if err != nil {
			return err
		}
		b := list[i]
		err = h.s.remote.Decode(b, data, func(ev *journal.Event) error {
			switch {
			case to != 0 && ev.Sequence > to:
				return errPast
			case ev.Sequence < next:
				return nil
			}
			next = ev.Sequence + 1
			return fn(ev)
		})
		switch {
		case errors.Is(err, errPast):
			return nil
		case errors.Is(err, event.ErrCorrupt), errors.Is(err, event.ErrVersion):
			return fmt.Errorf("read batch %s in %s: %w", b.Name, h.s.backend, err)
		}
		return err
	})
}

// gone reports whether an error is about something that was there when it was
// listed, and that a snapshot has come to cover.
func gone(err error) bool {
	return errors.Is(err, event.ErrGap) || errors.Is(err, backends.ErrNotFound)
}
