package inspect

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/internal/restore"
	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/internal/view"
	"github.com/xdswal/xdswal/replay"
)

// parseTarget parses SEQ or TIME; nothing is the newest moment.
func parseTarget(text string) (restore.Target, error) {
	if text == "" {
		return restore.Target{}, nil
	}
	if strings.Trim(text, "0123456789") == "" {
		seq, err := event.ParseSequence(text)
		if err != nil || seq == 0 {
			return restore.Target{}, fmt.Errorf("--at is %q: the first event is 1, and a sequence has at most 20 digits", text)
		}
		return restore.Target{Sequence: seq}, nil
	}
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return restore.Target{}, fmt.Errorf("--at is %q: say a sequence such as 1234, or a time such as 2026-01-02T15:04:05Z", text)
	}
	return restore.Target{Time: at}, nil
}

// moment is a state that was restored for a command.
type moment struct {
	target     restore.Target
	state      *state.State
	result     replay.Result
	incomplete *view.Incomplete // nil if the state is all that was asked for
}

// moment opens what the flags name and restores the moment that at names.
func (c *common) moment(ctx context.Context, p *printer, at string, partial bool) (moment, error) {
	target, err := parseTarget(at)
	if err != nil {
		return moment{}, err
	}
	s, err := c.open(ctx, p)
	if err != nil {
		return moment{}, err
	}
	s.warn(p)
	m, err := s.restore(ctx, target, partial)
	m.target = target
	return m, err
}

// restore restores a moment. If it cannot be known to be all that was asked
// for, that is an error, unless partial says that it will do; see the help.
func (s *source) restore(ctx context.Context, t restore.Target, partial bool) (moment, error) {
	newest := t.Sequence == 0 && t.Time.IsZero()
	if s.tail != nil && unreadable(s.tail.err) && (partial || !newest) {
		if err := s.tail.salvage(ctx); err != nil {
			return moment{}, err
		}
	}
	var m moment
	err := s.steadily(ctx, func() (err error) {
		m.state, m.result, err = restore.Restore(ctx, s.options(t))
		return err
	})
	if err != nil {
		return s.makeDo(ctx, m, t, partial, err)
	}
	if m.incomplete = s.doubt(t, m.result); m.incomplete != nil && !partial {
		return m, &incompleteError{fmt.Errorf("restore %s: %s; --allow-partial makes do with event %d", t, m.incomplete.Message, uint64(m.state.Sequence()))}
	}
	return m, nil
}

// makeDo decides what becomes of a restore that failed.
func (s *source) makeDo(ctx context.Context, m moment, t restore.Target, partial bool, err error) (moment, error) {
	m.incomplete = s.tail.incomplete(m.state.Sequence())
	newest := t.Sequence == 0 && t.Time.IsZero()
	switch {
	case ctx.Err() != nil, t.Time.After(time.Now()):
		return m, err
	case errors.Is(err, restore.ErrTarget) && m.incomplete != nil:
		// It may be among what cannot be read.
		return m, &incompleteError{fmt.Errorf("%w; %s", err, m.incomplete.Message)}
	case !newest || !unreadable(err):
		return m, err
	case !partial:
		return m, fmt.Errorf("%w; --allow-partial makes do with what can be read", err)
	case m.state.Sequence() == 0:
		return m, err
	}
	if m.incomplete == nil {
		m.incomplete = &view.Incomplete{From: m.state.Sequence() + 1, Reason: "damaged", Message: oneLine(err)}
	}
	return m, nil
}

// doubt tells what a restored moment may lack: events that cannot be read, and
// that are not known to come after it.
func (s *source) doubt(t restore.Target, r replay.Result) *view.Incomplete {
	switch {
	case t.Sequence != 0:
		return nil
	case t.Time.IsZero():
	case s.tail != nil && s.tail.newest.After(t.Time), r.ShippedTo > r.Sequence:
		// The journal, or what was shipped, was read beyond the moment.
		return nil
	}
	return s.tail.incomplete(r.Sequence)
}
