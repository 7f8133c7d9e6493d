package inspect

import (
	"context"
	"errors"
	"fmt"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/cmd/xdswal/internal/view"
	"github.com/xdswal/xdswal/internal/catalog"
	"github.com/xdswal/xdswal/internal/download"
	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/journal"
)

// history reads the events of a source: those of the journal, and from batches
// those that the journal does not contain or that a daemon has locked.
type history struct {
	s *source
	// last is the newest event that was read.
	last journal.Sequence
	// missing are the gaps between the events that were read.
	missing []view.Missing
}

// first returns the oldest event, or 1 if there is none.
func (h *history) first() journal.Sequence {
	first := journal.Sequence(0)
	if h.s.journal != nil {
		first = h.s.journal.stats.First
	}
	if h.s.remote != nil && len(h.s.remote.Batches) > 0 {
		if shipped := h.s.remote.Batches[0].First; first == 0 || shipped < first {
			first = shipped
		}
	}
	return max(first, 1)
}

// refresh reads the bounds of the journal and lists the backend again.
func (h *history) refresh(ctx context.Context) (err error) {
	h.missing = nil
	if h.s.journal != nil {
		h.s.journal.refresh()
	}
	if h.s.backend != nil {
		h.s.remote, err = catalog.List(ctx, h.s.backend)
	}
	return err
}

// Range calls fn for each event from a sequence on, in order.
func (h *history) Range(ctx context.Context, from journal.Sequence, fn func(*journal.Event) error) error {
	next := max(from, 1)
	each := func(ev *journal.Event) error {
		if ev.Sequence > next {
			h.missing = append(h.missing, view.Missing{From: next, To: ev.Sequence - 1})
		}
		next, h.last = ev.Sequence+1, ev.Sequence
		return fn(ev)
	}
	if j := h.s.journal; j != nil {
		if first := j.stats.First; next < first {
			if err := h.shipped(ctx, next, first-1, each); err != nil {
				return err
			}
		}
		if err := j.Range(ctx, max(next, j.stats.First), 0, each); err != nil {
			return err
		}
	}
	return h.shipped(ctx, next, 0, each)
}

// parallelBatches is the number of batches that are downloaded at a time.
const parallelBatches = 4

// errPast ends the decoding of a batch.
var errPast = errors.New("past the end")

// shipped calls fn for the shipped events from one sequence to another, where to
// = 0 is the newest.
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
		err = h.s.remote.Decode(list[i], data, func(ev *journal.Event) error {
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
			return fmt.Errorf("read batch %s in %s: %w", list[i].Name, h.s.backend, err)
		}
		return err
	})
}

// compacted reports whether err is about events that were compacted away after
// they were listed.
func compacted(err error) bool {
	return errors.Is(err, event.ErrGap) || errors.Is(err, backends.ErrNotFound)
}
