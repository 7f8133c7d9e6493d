// Package follow is the follower: it keeps a state at what another store ships to a
// backend.
//
// It reads the batch that begins after the last event, whose name it knows. If there is
// none, it checks whether there is a newer epoch. It lists the backend where neither
// leads further, and where a batch is damaged or missing, since a snapshot may cover it.
//
// Invariants: the state never contains an event that a later epoch superseded, nor an
// event of another store; each state that is served contains whole batches.
package follow

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/internal/bounded"
	"github.com/xdswal/xdswal/internal/catalog"
	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/internal/format/batch"
	"github.com/xdswal/xdswal/internal/restore"
	"github.com/xdswal/xdswal/internal/retry"
	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/journal"
	"github.com/xdswal/xdswal/replay"
)

// Defaults of settings.
const (
	DefaultInterval       = time.Second
	DefaultRelistInterval = time.Minute
)

const (
	// pollTimeout bounds the reading of a batch, and a restore.
	pollTimeout = 10 * time.Minute
	// minRetry and maxRetry bound the wait after an error, which is else two intervals.
	minRetry = time.Second
	maxRetry = 15 * time.Second
)

// Options are the settings of a follower.
type Options struct {
	Backend backends.Backend
	// Interval is the time between two looks for a new batch.
	Interval time.Duration
	// RelistInterval is the time between two listings of the backend while no batch
	// appears: a batch may have been pruned, or events may be in a snapshot alone. While
	// batches appear, the epoch is checked that often.
	RelistInterval time.Duration
	// SnapshotsOnly is set if the writer ships snapshots alone: the backend is listed
	// every Interval.
	SnapshotsOnly bool
	// State returns the current state. Serve replaces it and serves it.
	State func() *state.State
	Serve func(*state.State)
	// Hooks report the first restore. Logger must not be nil.
	Hooks  replay.Hooks
	Logger *slog.Logger
}

// Follower follows a store. Status may be called concurrently; the other methods are
// called by one goroutine.
type Follower struct {
	opt    Options
	cancel context.CancelFunc
	done   chan struct{} // closed when the goroutine has ended

	// epoch is that of the last event, or that of the writer after it. verified is when
	// its object was last read and had the known token; it is zero if the object is
	// another store's.
	epoch    catalog.Epoch
	verified time.Time
	// starts are the sequences at which the next batch may begin, beside the one after
	// the state: after the last batch, which a snapshot may have overtaken, and where
	// the first batch of a new epoch may begin.
	starts []journal.Sequence
	// listed is when a batch was last read or the backend was last listed. batches is
	// set once a batch was read: the next events come as a batch too, unless the writer
	// had to skip some, which the next listing shows.
	listed  time.Time
	batches bool

	mu       sync.Mutex
	status   replay.FollowerStatus
	storeID  string
	restored replay.Result
}

// Open restores what the backend contains, serves it, and starts to follow.
func Open(ctx context.Context, opt Options) (*Follower, error) {
	f := &Follower{opt: opt}
	begun := time.Now()
	if err := f.resync(ctx); err != nil {
		return nil, err
	}
	f.report(begun, nil)
	if f.epoch.Number == 0 && opt.State().Sequence() == 0 {
		return nil, errors.New("backend is empty: start the writer first, or correct the URL")
	}
	opt.Logger.Info("following", "backend", opt.Backend.String(), "epoch", f.epoch.Number, "sequence", uint64(opt.State().Sequence()))
	f.Start() //nolint:contextcheck // It outlives the opening.
	return f, nil
}

// Start follows until Stop. Open calls it; it is called again after a Stop.
func (f *Follower) Start() {
	ctx, cancel := context.WithCancel(context.Background())
	f.cancel, f.done = cancel, make(chan struct{})
	go func() {
		defer close(f.done)
		f.run(ctx)
	}()
}

// Stop ends the following and waits for it, for at most [bounded.Grace] where the
// backend does not return. After an error nothing is served any more.
func (f *Follower) Stop() error {
	f.cancel()
	select {
	case <-f.done:
		return nil
	case <-time.After(bounded.Grace):
		return fmt.Errorf("%s does not return from an earlier call", f.opt.Backend)
	}
}

// Status returns the follower's status, the followed store and the last whole restore.
func (f *Follower) Status() (status replay.FollowerStatus, storeID string, restored replay.Result) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.status, f.storeID, f.restored
}

func (f *Follower) run(ctx context.Context) {
	pause := jittered(f.opt.Interval)
	for retry.Sleep(ctx, pause) {
		begun := time.Now()
		err := f.poll(ctx)
		if ctx.Err() != nil {
			return
		}
		f.report(begun, err)
		if pause = jittered(f.opt.Interval); err != nil {
			pause = jittered(min(max(2*f.opt.Interval, minRetry), maxRetry))
		}
	}
}

// jittered returns 3/4 to 5/4 of d, so that followers do not ask at the same time.
func jittered(d time.Duration) time.Duration { return d*3/4 + rand.N(d/2+1) }

// report records the outcome of a poll that began at a time, and logs a change of it.
func (f *Follower) report(begun time.Time, err error) {
	f.mu.Lock()
	before := f.status.Err
	f.status.Err, f.status.Epoch = err, f.epoch.Number
	if err == nil && (f.batches || f.listed.After(begun)) {
		f.status.CurrentAt = begun
	}
	f.mu.Unlock()
	switch {
	case err != nil && (before == nil || (errors.Is(err, catalog.ErrForeign) && !errors.Is(before, catalog.ErrForeign))):
		f.opt.Logger.Error("backend cannot be followed; serving what was read, and trying again", "backend", f.opt.Backend.String(), "error", err)
	case err == nil && before != nil:
		f.opt.Logger.Info("backend is followed again", "backend", f.opt.Backend.String())
	}
}

// poll applies what was shipped since the last poll.
func (f *Follower) poll(ctx context.Context) error {
	if f.verified.IsZero() {
		return f.resync(ctx)
	}
	for applied := false; ; applied = true {
		found, err := f.next(ctx)
		switch {
		case errors.Is(err, event.ErrCorrupt), errors.Is(err, backends.ErrDamaged), errors.Is(err, state.ErrOrder), errors.Is(err, errReplaced):
			// A snapshot may cover what is damaged or missing. If none does, or another
			// store ships here now, resync returns that.
			return f.resync(ctx)
		case err != nil:
			return err
		}
		if !found && applied {
			return nil
		}
		if !found {
			break
		}
	}
	_, err := catalog.ReadEpoch(ctx, f.opt.Backend, f.epoch.Number+1)
	if err == nil {
		return f.resync(ctx)
	}
	if !errors.Is(err, backends.ErrNotFound) {
		return err
	}
	if f.opt.SnapshotsOnly || time.Since(f.listed) >= f.opt.RelistInterval {
		return f.resync(ctx)
	}
	return nil
}

// next applies the batch that begins after the last event. It returns false if there is
// none.
func (f *Follower) next(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, pollTimeout)
	defer cancel()
	firsts := []journal.Sequence{f.opt.State().Sequence() + 1}
	for _, first := range f.starts {
		if !slices.Contains(firsts, first) {
			firsts = append(firsts, first)
		}
	}
	for _, first := range firsts {
		b := catalog.Batch{Name: batch.Name{Epoch: f.epoch.Number, First: first}}
		data, err := f.get(ctx, b.Key())
		if errors.Is(err, backends.ErrNotFound) {
			continue
		}
		if err != nil {
			return false, err
		}
		// After reading the batch, so that the check holds for it.
		if err := f.verify(ctx); err != nil {
			return false, err
		}
		return true, f.apply(ctx, b.Name, data)
	}
	return false, nil
}

// errReplaced is the error about an epoch whose object is missing or another writer's.
var errReplaced = errors.New("the epoch is not that of the followed writer")

// verify checks once in RelistInterval that the epoch is still that of the followed
// writer. After a prefix was emptied and another store has begun there, nothing else
// shows it: its batches have the same names.
func (f *Follower) verify(ctx context.Context) error {
	begun := time.Now()
	if begun.Sub(f.verified) < f.opt.RelistInterval {
		return nil
	}
	e, err := catalog.ReadEpoch(ctx, f.opt.Backend, f.epoch.Number)
	if errors.Is(err, backends.ErrNotFound) || (err == nil && e.Token != f.epoch.Token) {
		return errReplaced
	}
	if err == nil {
		f.verified = begun
	}
	return err
}

// CheckStore returns ErrForeign for the id of another store than the followed one.
func (f *Follower) CheckStore(id string) error {
	if id == "" || f.storeID == "" || id == f.storeID {
		return nil
	}
	f.verified = time.Time{}
	return fmt.Errorf("%s %w: got store %s, want store %s: to follow the other store, start a new follower",
		f.opt.Backend, catalog.ErrForeign, id, f.storeID)
}

func (f *Follower) get(ctx context.Context, key string) ([]byte, error) {
	r, err := f.opt.Backend.Get(ctx, key, 0, -1)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	var buf bytes.Buffer
	if _, err := io.Copy(&buf, r); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

// apply applies a whole batch and serves the state.
func (f *Follower) apply(ctx context.Context, name batch.Name, data []byte) error {
	st, last := f.opt.State(), journal.Sequence(0)
	err := batch.Decode(data, name, func(ev *journal.Event) (err error) {
		last = ev.Sequence
		if ev.Sequence > st.Sequence() {
			st, err = st.Apply(ev)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("apply batch %s in %s: %w", name, f.opt.Backend, err)
	}
	f.starts, f.listed, f.batches = []journal.Sequence{last + 1}, time.Now(), true
	return f.serve(ctx, st)
}

// resync lists the backend and restores what it contains after the state, or all of it
// if another writer has superseded the state.
func (f *Follower) resync(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, pollTimeout)
	defer cancel()
	begun := time.Now()
	remote, err := catalog.List(ctx, f.opt.Backend)
	if err != nil {
		return err
	}
	newest, claimed := remote.Newest()
	if err := f.CheckStore(newest.StoreID); err != nil {
		return err
	}
	opt := restore.Options{Backend: f.opt.Backend, Remote: remote, Hooks: f.opt.Hooks}
	if f.base(remote) != nil {
		opt.Hooks = replay.Hooks{} // continuing from a state is not reported as a restore
	}
	st, result, err := f.Restore(ctx, opt)
	if err != nil {
		return err
	}
	f.listed, f.verified, f.starts = time.Now(), begun, []journal.Sequence{result.ShippedTo + 1}
	f.batches = f.batches || result.ShippedTo > 0
	if claimed && (newest.Number != f.epoch.Number || newest.Token != f.epoch.Token) {
		// Its writer begins after the last event that it knew to be complete.
		f.epoch, f.starts = newest, append(f.starts, newest.Sequence+1, remote.ShipAfter()+1)
	}
	f.mu.Lock()
	f.storeID = cmp.Or(newest.StoreID, result.StoreID, f.storeID)
	if f.restored.Sequence == 0 || result.Snapshot != "" {
		f.restored = result
	}
	f.mu.Unlock()
	return f.serve(ctx, st)
}

// Restore restores what a listing contains, from the current state where that is still
// valid. It returns an error for another store's data, and for a backend that has lost
// its events.
func (f *Follower) Restore(ctx context.Context, opt restore.Options) (*state.State, replay.Result, error) {
	opt.Base = f.base(opt.Remote)
	st, result, err := restore.Restore(ctx, opt)
	if err == nil {
		// Where no epoch names the store, a snapshot does.
		err = f.CheckStore(result.StoreID)
	}
	if err == nil {
		err = opt.Remote.CheckEmpty(opt.Backend, st.Sequence())
	}
	return st, result, err
}

// base returns the state to continue from, or nil if there is none or if another writer
// may have superseded it.
func (f *Follower) base(remote *catalog.Remote) *state.State {
	st := f.opt.State()
	if st.Sequence() == 0 || !remote.Includes(f.epoch, st.Sequence()) {
		return nil
	}
	return st
}

// Epoch returns the followed epoch and store, for a promotion after Stop.
func (f *Follower) Epoch() (number uint64, storeID string) { return f.epoch.Number, f.storeID }

func (f *Follower) serve(ctx context.Context, st *state.State) error {
	if ctx.Err() != nil {
		return context.Cause(ctx) // Stop may have abandoned this call
	}
	f.opt.Serve(st)
	return nil
}
