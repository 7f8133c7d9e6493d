package inspect

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/xdswal/xdswal/cmd/xdswal/internal/view"
	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/internal/restore"
	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/replay"
)

// parseTarget parses a sequence or a time. An empty text is the newest event.
func parseTarget(text string) (restore.Target, error) {
	if text == "" {
		return restore.Target{}, nil
	}
	if strings.Trim(text, "0123456789") == "" {
		seq, err := event.ParseSequence(text)
		if err != nil || seq == 0 {
			return restore.Target{}, fmt.Errorf("--at is %q: a sequence is at least 1 and has at most 20 digits", text)
		}
		return restore.Target{Sequence: seq}, nil
	}
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return restore.Target{}, fmt.Errorf("--at is %q: want a sequence such as 1234, or a time such as 2026-01-02T15:04:05Z", text)
	}
	return restore.Target{Time: at}, nil
}

// moment is a restored state.
type moment struct {
	target     restore.Target
	state      *state.State
	result     replay.Result
	incomplete *view.Incomplete // nil if the state is complete
}

func (m moment) noteIncomplete(p *printer) {
	if m.incomplete != nil {
		p.note("%s", m.incomplete.Message)
	}
}

// moment opens the source and restores the moment that --at names. If events
// may be missing from it, that is an error without --allow-partial.
func (f *flags) moment(ctx context.Context, p *printer) (moment, error) {
	target, err := parseTarget(f.at)
	if err != nil {
		return moment{}, err
	}
	s, err := f.open(ctx, p)
	if err != nil {
		return moment{}, err
	}
	s.noteStale(p)
	if s.journal != nil && unreadable(s.journal.err) && (f.partial || !newest(target)) {
		if err := s.journal.salvage(ctx); err != nil {
			return moment{}, err
		}
	}
	m := moment{target: target}
	err = s.retry(ctx, func() (err error) {
		m.state, m.result, err = restore.Restore(ctx, s.options(target))
		return err
	})
	if err != nil {
		return s.partialMoment(ctx, m, f.partial, err)
	}
	if m.incomplete = s.missingAfter(m); m.incomplete != nil && !f.partial {
		err = &incompleteError{fmt.Errorf("restore %s: %s; --allow-partial restores event %d", target, m.incomplete.Message, m.state.Sequence())}
	}
	return m, err
}

func newest(t restore.Target) bool { return t.Sequence == 0 && t.Time.IsZero() }

// partialMoment returns m without an error if the restore failed with err and
// partial permits its state.
func (s *source) partialMoment(ctx context.Context, m moment, partial bool, err error) (moment, error) {
	m.incomplete = s.journal.incomplete(m.state.Sequence())
	switch {
	case ctx.Err() != nil, m.target.Time.After(time.Now()):
		return m, err
	case errors.Is(err, restore.ErrTarget) && m.incomplete != nil:
		// The target may be one of the events that cannot be read.
		return m, &incompleteError{fmt.Errorf("%w; %s", err, m.incomplete.Message)}
	case !newest(m.target) || !unreadable(err):
		return m, err
	case !partial:
		return m, fmt.Errorf("%w; --allow-partial restores the events that can be read", err)
	case m.state.Sequence() == 0:
		return m, err
	}
	if m.incomplete == nil {
		m.incomplete = &view.Incomplete{From: m.state.Sequence() + 1, Reason: "damaged", Message: oneLine(err)}
	}
	return m, nil
}

// missingAfter describes the events that cannot be read and may belong to a
// restored moment. It returns nil if there are none.
func (s *source) missingAfter(m moment) *view.Incomplete {
	switch {
	case m.target.Sequence != 0:
		return nil
	case m.target.Time.IsZero():
	case s.journal != nil && s.journal.newest.After(m.target.Time), m.result.ShippedTo > m.result.Sequence:
		// Events after the target time were read.
		return nil
	}
	return s.journal.incomplete(m.result.Sequence)
}
