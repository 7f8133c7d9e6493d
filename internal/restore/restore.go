// Package restore rebuilds a state from the newest usable snapshot and the events after
// it. It reads the data directory first, and the backend for what the directory does
// not contain. [Verify] checks everything in both.
//
// Invariants: a restore never returns less than is known to have been durable, which
// the names of snapshots and batches, the bounds of the journal and [Options] say. A
// damaged snapshot is skipped for an older one only if all events since that one can be
// read; otherwise the error is [ErrGap]. Nothing here writes.
package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/compactor"
	"github.com/xdswal/xdswal/internal/catalog"
	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/internal/format/snapshot"
	"github.com/xdswal/xdswal/internal/hook"
	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/journal"
	"github.com/xdswal/xdswal/replay"
)

var (
	// ErrGap is the identity of the error about events that neither a snapshot nor the
	// journal nor a batch contains.
	ErrGap = event.ErrGap
	// ErrTarget is the identity of the error about a target that cannot be restored:
	// it is older than what is kept, or in the future.
	ErrTarget = errors.New("not within what is kept")
)

// Journal is the part of the journal that a restore uses.
type Journal interface {
	// Bounds returns the sequences of the oldest and the newest event in the journal;
	// last is first-1 if it is empty.
	Bounds() (first, last journal.Sequence, err error)
	// Range calls fn with the events from one sequence to another, in order; to = 0 is
	// the newest.
	Range(ctx context.Context, from, to journal.Sequence, fn func(*journal.Event) error) error
}

// Target selects the state to restore. The zero value is the newest one.
type Target struct {
	// Sequence selects the state after that event.
	Sequence journal.Sequence
	// Time selects the state after the last event that was committed by then. It is
	// ignored if Sequence is not 0.
	Time time.Time
}

func (t Target) newest() bool { return t.Sequence == 0 && t.Time.IsZero() }

// before reports whether the target is a time before at.
func (t Target) before(at time.Time) bool {
	return t.Sequence == 0 && !t.Time.IsZero() && at.After(t.Time)
}

// String returns for example "sequence 17".
func (t Target) String() string {
	switch {
	case t.Sequence != 0:
		return fmt.Sprintf("sequence %d", uint64(t.Sequence))
	case !t.Time.IsZero():
		return "time " + t.Time.Format(time.RFC3339Nano)
	default:
		return "the newest state"
	}
}

// Options are the data to restore from and the state to restore.
type Options struct {
	// Dir is the directory of snapshots, empty for none.
	Dir string
	// Journal is the journal, nil for none.
	Journal Journal
	// Backend is the backend, nil for none. It is read only if Dir and Journal do not
	// suffice, or if Remote is set.
	Backend backends.Backend
	// Remote is a listing of Backend: the newest state must then reach all that is
	// known from it. If it is nil, Backend is listed when it is needed.
	Remote *catalog.Remote
	// BackendTimeout bounds the wait for the backend. When it passes and the local data
	// is complete, the restore continues without the backend. With 0 the backend must
	// be read, as its newest batch may contain more events than are known.
	BackendTimeout time.Duration
	// Base is the state to start from, nil for the empty state.
	Base *state.State
	// Known is an event that is known to have been durable: the newest state must reach
	// it.
	Known journal.Sequence
	// Target is the state to restore.
	Target Target
	// Hooks report the work.
	Hooks replay.Hooks
}

// Restore restores the state that opt selects. If it returns an error, the state is
// what could be restored before: it may be shown to an operator, but not served.
func Restore(ctx context.Context, opt Options) (*state.State, replay.Result, error) {
	r := &restore{opt: opt, state: opt.Base}
	if r.state == nil {
		r.state = &state.State{}
	}
	start := time.Now()
	if opt.Hooks.RestoreBegin != nil {
		opt.Hooks.RestoreBegin()
	}
	err := r.run(ctx)
	r.result.Sequence, r.result.Time = r.state.Sequence(), r.state.Time()
	r.result.Nodes, r.result.Resources, r.result.Bytes = r.state.NumNodes(), r.state.NumResources(), r.state.Bytes()
	r.result.Duration = time.Since(start)
	if err != nil {
		r.result.Err = fmt.Errorf("restore %s: %w", opt.Target, err)
	}
	hook.Call(opt.Hooks.RestoreEnd, r.result)
	return r.state, r.result, r.result.Err
}

type restore struct {
	opt    Options
	state  *state.State
	result replay.Result
	// first and last are the bounds of the journal.
	first, last journal.Sequence
	// known is the newest event that is known to exist.
	known journal.Sequence
	// pastTarget is set when an event after the target time was read.
	pastTarget bool
	// remote is the listing of the backend, nil before it is listed.
	remote *catalog.Remote
}

func (r *restore) run(ctx context.Context) error {
	r.first, r.last = 1, 0
	if r.opt.Journal != nil {
		first, last, err := r.opt.Journal.Bounds()
		if err != nil {
			return err
		}
		r.first, r.last = first, last
	}
	// A journal that begins later contained all events before.
	r.known = max(r.last, r.first-1, r.opt.Known)
	if r.opt.Remote != nil {
		r.setRemote(r.opt.Remote)
	}
	if t := r.opt.Target; t.Sequence == 0 && t.Time.After(time.Now().Add(time.Minute)) {
		return fmt.Errorf("%w: %s is in the future", ErrTarget, t)
	}
	if r.opt.Dir != "" {
		// If this fails, the other data may reach less far, so it is no substitute.
		if err := r.loadSnapshot(ctx, localPlace(r.opt.Dir)); err != nil {
			return err
		}
	}
	if err := r.replayJournal(ctx); err != nil {
		return err
	}
	return r.finish(ctx, r.readBackend(ctx))
}

// finish decides whether the restored state is the target, if reading the backend
// returned an error, or nil.
func (r *restore) finish(ctx context.Context, backendErr error) error {
	switch {
	case errors.Is(backendErr, event.ErrVersion):
		// The data of a newer xdswal must not be ignored.
		return backendErr
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case r.nothingKnown() && backendErr != nil:
		// The backend may have everything.
		return backendErr
	case !r.complete():
		return errors.Join(r.gap(), backendErr, r.skipped())
	case r.opt.BackendTimeout == 0:
		return backendErr // the newest batch may contain more events than are known
	}
	return nil
}

// nothingKnown reports whether no event is known to exist.
func (r *restore) nothingKnown() bool { return r.known == 0 && r.state.Sequence() == 0 }

// required is the event that the restored state must reach. A state before a target
// time need not, if the event after it is later than the target.
func (r *restore) required() journal.Sequence {
	if r.opt.Target.Sequence != 0 {
		return r.opt.Target.Sequence
	}
	return r.known
}

// complete reports whether the state is the target.
func (r *restore) complete() bool { return r.pastTarget || r.state.Sequence() >= r.required() }

// loadSnapshot sets the state to the newest usable snapshot of a place, if that is newer
// than the state and no newer than the target.
func (r *restore) loadSnapshot(ctx context.Context, p place) error {
	entries, err := p.list()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	if len(entries) > 0 {
		r.known = max(r.known, entries[0].Sequence)
	}
	for _, e := range entries {
		if e.Sequence <= r.state.Sequence() || (r.opt.Target.Sequence != 0 && e.Sequence > r.opt.Target.Sequence) {
			continue
		}
		err := r.readSnapshot(ctx, p, e)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err == nil:
			return nil
		case errors.Is(err, errPastTarget):
			continue
		case errors.Is(err, event.ErrVersion), p.remote && !damaged(err):
			// A snapshot that could not be downloaded may be intact.
			return err
		}
		r.result.Skipped = append(r.result.Skipped, replay.Skipped{Location: p.location, Name: e.String(), Reason: err})
	}
	return nil
}

// damaged reports whether an error is about contents, not about reading them.
func damaged(err error) bool {
	return errors.Is(err, event.ErrCorrupt) || errors.Is(err, backends.ErrDamaged)
}

// errPastTarget ends the reading at a snapshot or an event after the target.
var errPastTarget = errors.New("later than the target")

// readSnapshot sets the state to a snapshot.
func (r *restore) readSnapshot(ctx context.Context, p place, e catalog.Entry) error {
	info := compactor.Snapshot{Location: p.location, Backend: p.remote, Name: e.String(), Sequence: e.Sequence, Bytes: e.Size}
	hook.Call(r.opt.Hooks.SnapshotReadBegin, info)
	start := time.Now()
	st, contents, err := p.decode(ctx, e, func(h snapshot.Header) error {
		if r.opt.Target.before(h.Time) {
			return errPastTarget
		}
		return checkName(e.Name, h)
	})
	info.Duration = time.Since(start)
	switch {
	case errors.Is(err, errPastTarget):
		err = errPastTarget // the snapshot is intact as far as it was read
	case err != nil:
		err = fmt.Errorf("read snapshot %s in %s: %w", e.Name, p.location, err)
		info.Err = err
	default:
		r.state = st
		r.result.Events, r.result.Shipped, r.result.Batches = 0, 0, 0
		r.result.Source, r.result.Snapshot, r.result.SnapshotSequence = p.location, e.String(), e.Sequence
		r.result.StoreID, r.result.Epoch = contents.Header.StoreID, contents.Header.Epoch
		info.Nodes, info.Resources, info.ResourceBytes, info.Bytes = st.NumNodes(), st.NumResources(), st.Bytes(), contents.Size
	}
	hook.Call(r.opt.Hooks.SnapshotReadEnd, info)
	return err
}

// checkName returns an error if a snapshot's header does not match its name.
func checkName(name snapshot.Name, h snapshot.Header) error {
	if h.Sequence != name.Sequence {
		return fmt.Errorf("%w: header has sequence %d, want %d as in the name", event.ErrCorrupt, h.Sequence, name.Sequence)
	}
	return nil
}

// replayJournal applies the journal's events to the state, if the journal contains the
// one after it.
func (r *restore) replayJournal(ctx context.Context) error {
	next, to := r.state.Sequence()+1, min(r.opt.Target.Sequence, r.last)
	if r.first > next || r.last < next || (to != 0 && to < next) {
		return nil
	}
	err := r.opt.Journal.Range(ctx, next, to, r.apply)
	if errors.Is(err, errPastTarget) {
		return nil
	}
	return err
}

// apply applies the next event, unless it is after the target time.
func (r *restore) apply(ev *journal.Event) error {
	if r.opt.Target.before(ev.Time) {
		r.pastTarget = true
		return errPastTarget
	}
	st, err := r.state.Apply(ev)
	if err != nil {
		return err
	}
	r.state = st
	r.result.Events++
	return nil
}

// gapError is the error about a range of missing events.
type gapError struct {
	first, last journal.Sequence
	reason      string
}

func (e *gapError) Error() string {
	return fmt.Sprintf("events %d to %d are missing: %s", e.first, e.last, e.reason)
}

// Is makes [ErrGap] the identity of the error.
func (e *gapError) Is(target error) bool { return target == ErrGap }

// gap returns the error about the events that are missing after the state.
func (r *restore) gap() error {
	target := r.opt.Target
	if target.Sequence > r.known {
		return fmt.Errorf("%w: %s is yet to come, the newest event is %d", ErrTarget, target, r.known)
	}
	base := "no snapshot can be used"
	switch {
	case r.result.Snapshot != "":
		base = fmt.Sprintf("the newest usable snapshot is of event %d", r.result.SnapshotSequence)
	case !target.newest():
		base = "no snapshot so old can be used"
	}
	gap := &gapError{first: r.state.Sequence() + 1, last: r.required()}
	contents := "the journal holds no events"
	if r.last >= r.first {
		contents = fmt.Sprintf("the journal holds events %d to %d", r.first, r.last)
		if r.first > gap.first {
			gap.last = min(gap.last, r.first-1)
		}
	}
	gap.reason = fmt.Sprintf("%s and %s; restore from a backend or a copy of the directory that has them, or a snapshot of event %d or later", base, contents, gap.last)
	if !target.newest() && len(r.result.Skipped) == 0 {
		return fmt.Errorf("%w: %w", ErrTarget, gap)
	}
	return gap
}

// skipped returns why snapshots and batches were skipped, joined.
func (r *restore) skipped() error {
	var reasons []error
	for _, s := range r.result.Skipped {
		reasons = append(reasons, s.Reason)
	}
	return errors.Join(reasons...)
}

// place is a directory or a backend that contains snapshots.
type place struct {
	location string
	remote   bool
	list     func() ([]catalog.Entry, error) // newest first
	open     func(context.Context, catalog.Entry) (io.ReadCloser, error)
}

func localPlace(dir string) place {
	return place{
		location: dir,
		list:     func() ([]catalog.Entry, error) { return catalog.Local(dir) },
		open:     func(_ context.Context, e catalog.Entry) (io.ReadCloser, error) { return os.Open(e.Path) },
	}
}

// decode reads a snapshot; see [snapshot.Decode].
func (p place) decode(ctx context.Context, e catalog.Entry, check func(snapshot.Header) error) (*state.State, snapshot.Contents, error) {
	f, err := p.open(ctx, e)
	if err != nil {
		return nil, snapshot.Contents{}, err
	}
	defer f.Close()
	return snapshot.Decode(ctx, f, check)
}
