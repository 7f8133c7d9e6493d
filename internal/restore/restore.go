// Package restore restores a state: the newest valid snapshot, then the journal
// from there, or what of it was shipped to a backend.
//
// It never returns less than is known to have been acknowledged. A snapshot
// that is damaged is passed over for an older one only where the journal still
// has every event since that one; where it has not, the result is [ErrGap].
package restore

import (
	"bufio"
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
	// ErrGap is the identity of the error about events that neither a
	// snapshot nor the journal has.
	ErrGap = event.ErrGap
	// ErrTarget is the identity of the error about a point in time that
	// cannot be restored: it is older than what is kept, or yet to come.
	ErrTarget = errors.New("not within what is kept")
)

// Journal is what a restore needs of the journal.
type Journal interface {
	// Bounds returns the sequences of the oldest and the newest event that
	// the journal holds; last is first-1 if it holds none.
	Bounds() (first, last journal.Sequence, err error)
	// Range calls fn for the events from one sequence to another, in order;
	// to = 0 stands for the newest.
	Range(ctx context.Context, from, to journal.Sequence, fn func(*journal.Event) error) error
}

// Target is a moment to restore. The zero value is the newest one.
type Target struct {
	// Sequence asks for the state after that event.
	Sequence journal.Sequence
	// Time asks for the state after the last event that was committed by
	// then. It is heeded if Sequence is 0.
	Time time.Time
}

func (t Target) newest() bool { return t.Sequence == 0 && t.Time.IsZero() }

// String names the moment.
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

// Options say what to restore from.
type Options struct {
	// Dir is the directory of local snapshots, empty for none.
	Dir string
	// Journal is the journal, nil for none.
	Journal Journal
	// Backend holds what was shipped; nil for none. It is asked only if what is
	// local does not suffice.
	Backend backends.Backend
	// Remote is what Backend is known to hold. The newest state is then at least
	// that which it tells of. Nil lists the backend when it is asked.
	Remote *catalog.Remote
	// Patience makes do without the backend where what is local reaches all
	// that is known, and bounds the wait for it. With 0 what the backend holds
	// has to be read: it may be more.
	Patience time.Duration
	// Base is a state to go on from, nil for the empty one.
	Base *state.State
	// Known is an event that is known to have been durable: a newest state
	// that does not reach it is incomplete.
	Known journal.Sequence
	// Target is the moment to restore.
	Target Target
	// Hooks reports the work.
	Hooks replay.Hooks
}

// Restore restores the state that opt asks for. If it fails, the state is what
// could be restored until then, which may be of use to look at and must not be
// served.
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
	// first and last bound the journal.
	first, last journal.Sequence
	// known is the newest event that there is a trace of.
	known journal.Sequence
	// passed is set when events were seen that are later than a target time.
	passed bool
	// remote is what the backend holds, once it was listed.
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
	// A journal that begins later was once written up to there.
	r.known = max(r.last, r.first-1, r.opt.Known)
	if r.remote = r.opt.Remote; r.remote != nil {
		r.known = max(r.known, r.remote.Trace())
	}
	if err := r.checkTarget(); err != nil {
		return err
	}
	if err := r.fromDirectory(ctx); err != nil {
		return err
	}
	asking, cancel := context.WithCancel(ctx)
	if r.opt.Patience > 0 && r.arrived() && !r.nothing() {
		asking, cancel = context.WithTimeout(ctx, r.opt.Patience)
	}
	defer cancel()
	unreachable := r.fromBackend(asking)
	switch {
	case errors.Is(unreachable, event.ErrVersion), ctx.Err() != nil:
		// A newer xdswal's data is no reason to do with less.
		return unreachable
	case r.nothing() && unreachable != nil:
		// Nothing is here, and whether something is there is not known.
		return unreachable
	case !r.arrived():
		return errors.Join(r.gap(), unreachable, r.skipped())
	case unreachable != nil && r.opt.Patience == 0:
		// How far the newest batch goes is known only to who reads it.
		return unreachable
	}
	return nil
}

// fromDirectory restores what is local.
func (r *restore) fromDirectory(ctx context.Context) error {
	if r.opt.Dir != "" {
		// If this fails, what is there is not known, and what else there is
		// may be less.
		if err := r.from(ctx, localPlace(r.opt.Dir)); err != nil {
			return err
		}
	}
	return r.tail(ctx)
}

// nothing reports whether there is no trace of any event.
func (r *restore) nothing() bool { return r.known == 0 && r.state.Sequence() == 0 }

// checkTarget refuses a time that is yet to come. Which sequences are is known
// only when the snapshots are.
func (r *restore) checkTarget() error {
	if r.opt.Target.Time.IsZero() || r.opt.Target.Sequence != 0 {
		return nil
	}
	if r.opt.Target.Time.After(time.Now().Add(time.Minute)) {
		return fmt.Errorf("%w: %s is in the future", ErrTarget, r.opt.Target)
	}
	return nil
}

// from takes the newest usable snapshot of a place as the base, if that brings
// the restore further.
func (r *restore) from(ctx context.Context, p place) error {
	candidates, err := p.list(ctx)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	if len(candidates) > 0 {
		r.known = max(r.known, candidates[0].name.Sequence)
	}
	for _, c := range candidates {
		if c.name.Sequence <= r.state.Sequence() || (r.opt.Target.Sequence != 0 && c.name.Sequence > r.opt.Target.Sequence) {
			continue
		}
		err := r.read(ctx, p, c)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err == nil:
			return nil
		case errors.Is(err, errLater):
			continue
		case errors.Is(err, event.ErrVersion), p.remote && !damaged(err):
			// One that could not be fetched may well be whole.
			return err
		}
		r.result.Skipped = append(r.result.Skipped, replay.Skipped{Location: p.location, Name: c.name.String(), Reason: err})
	}
	return nil
}

// damaged reports whether something was read, and is not what was written.
func damaged(err error) bool {
	return errors.Is(err, event.ErrCorrupt) || errors.Is(err, backends.ErrDamaged)
}

// errLater says that a snapshot is later than the target.
var errLater = errors.New("later than the target")

// read makes a snapshot the base.
func (r *restore) read(ctx context.Context, p place, c candidate) error {
	info := compactor.Snapshot{Location: p.location, Backend: p.remote, Name: c.name.String(), Sequence: c.name.Sequence, Bytes: c.size}
	hook.Call(r.opt.Hooks.SnapshotReadBegin, info)
	start := time.Now()
	st, contents, err := p.read(ctx, c, func(h snapshot.Header) error {
		if t := r.opt.Target; t.Sequence == 0 && !t.Time.IsZero() && h.Time.After(t.Time) {
			return errLater
		}
		if h.Sequence != c.name.Sequence {
			return fmt.Errorf("%w: header has sequence %d, the name %d", event.ErrCorrupt, h.Sequence, c.name.Sequence)
		}
		return nil
	})
	info.Duration = time.Since(start)
	if errors.Is(err, errLater) {
		// It was read as far as it was of use: nothing is wrong with it.
		hook.Call(r.opt.Hooks.SnapshotReadEnd, info)
		return errLater
	}
	if err != nil {
		info.Err = fmt.Errorf("read snapshot %s in %s: %w", c.name, p.location, err)
		hook.Call(r.opt.Hooks.SnapshotReadEnd, info)
		return info.Err
	}
	r.state = st
	r.result.Events, r.result.Shipped, r.result.Batches = 0, 0, 0
	r.result.Source, r.result.Snapshot, r.result.SnapshotSequence = p.location, c.name.String(), c.name.Sequence
	r.result.StoreID, r.result.Epoch = contents.Header.StoreID, contents.Header.Epoch
	info.Nodes, info.Resources, info.ResourceBytes, info.Bytes = st.NumNodes(), st.NumResources(), st.Bytes(), contents.Size
	hook.Call(r.opt.Hooks.SnapshotReadEnd, info)
	return nil
}

// continues reports whether the journal goes on where the state ends.
func (r *restore) continues() bool {
	return r.first <= r.state.Sequence()+1 && r.last > r.state.Sequence()
}

// goal is the event that a restore has to reach. For a target time it need not
// come so far if the journal tells that the events after it are later.
func (r *restore) goal() journal.Sequence {
	if r.opt.Target.Sequence != 0 {
		return r.opt.Target.Sequence
	}
	return r.known
}

// arrived reports whether the state is the one that was asked for.
func (r *restore) arrived() bool { return r.passed || r.state.Sequence() >= r.goal() }

// gap says which events are missing after the state that was reached.
func (r *restore) gap() error {
	have, target := r.state.Sequence(), r.opt.Target
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
	from, to := have+1, r.goal()
	has := "the journal holds no events"
	if r.last >= r.first {
		has = fmt.Sprintf("the journal holds events %d to %d", r.first, r.last)
		if r.first > from {
			to = min(to, r.first-1)
		}
	}
	identity := ErrGap
	if !target.newest() && len(r.result.Skipped) == 0 {
		identity = fmt.Errorf("%w: %w", ErrTarget, ErrGap)
	}
	return fmt.Errorf("%w: %d to %d: %s and %s: restore from a backend or a copy of the directory that has them, or a snapshot of event %d or later",
		identity, from, to, base, has, to)
}

// skipped returns why snapshots were passed over.
func (r *restore) skipped() error {
	var reasons []error
	for _, s := range r.result.Skipped {
		reasons = append(reasons, s.Reason)
	}
	return errors.Join(reasons...)
}

// tail applies the journal to the base, if it goes on where that ends.
func (r *restore) tail(ctx context.Context) error {
	if !r.continues() {
		return nil
	}
	next, to := r.state.Sequence()+1, min(r.opt.Target.Sequence, r.last)
	if to != 0 && to < next {
		return nil
	}
	err := r.opt.Journal.Range(ctx, next, to, r.apply)
	if errors.Is(err, errLater) {
		return nil
	}
	return err
}

// apply applies the next event, unless it is later than the target time.
func (r *restore) apply(ev *journal.Event) error {
	if t := r.opt.Target; t.Sequence == 0 && !t.Time.IsZero() && ev.Time.After(t.Time) {
		r.passed = true
		return errLater
	}
	st, err := r.state.Apply(ev)
	if err != nil {
		return err
	}
	r.state = st
	r.result.Events++
	return nil
}

// place is where snapshots are.
type place struct {
	location string
	remote   bool
	list     func(context.Context) ([]candidate, error)
	read     func(context.Context, candidate, func(snapshot.Header) error) (*state.State, snapshot.Contents, error)
}

type candidate struct {
	name snapshot.Name
	key  string
	size int64
}

func localPlace(dir string) place {
	return place{
		location: dir,
		list: func(context.Context) ([]candidate, error) {
			local, err := catalog.Local(dir)
			out := make([]candidate, len(local))
			for i, l := range local {
				out[i] = candidate{name: l.Name, key: l.Path, size: l.Size}
			}
			return out, err
		},
		read: func(ctx context.Context, c candidate, check func(snapshot.Header) error) (*state.State, snapshot.Contents, error) {
			f, err := os.Open(c.key)
			if err != nil {
				return nil, snapshot.Contents{}, err
			}
			defer f.Close()
			return Decode(ctx, f, check)
		},
	}
}

// Decode reads a snapshot into a state. The check, if it is not nil, may refuse
// it by its header.
func Decode(ctx context.Context, r io.Reader, check func(snapshot.Header) error) (*state.State, snapshot.Contents, error) {
	var b *state.Builder
	contents, err := snapshot.Read(ctx, bufio.NewReaderSize(r, 1<<18), func(h snapshot.Header) (snapshot.Sink, error) {
		b = state.NewBuilder(h.Sequence, h.Time)
		if check == nil {
			return b, nil
		}
		return b, check(h)
	})
	if err != nil {
		return nil, contents, err
	}
	return b.Build(), contents, nil
}
