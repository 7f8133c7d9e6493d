package xdswal

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/internal/bounded"
	"github.com/xdswal/xdswal/internal/catalog"
	"github.com/xdswal/xdswal/internal/format/batch"
	"github.com/xdswal/xdswal/internal/restore"
	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/journal"
	"github.com/xdswal/xdswal/replay"
)

// relistEvery is how often a follower lists the backend while nothing comes: what
// it waits for may have been pruned, or never have been shipped but in a snapshot.
// While batches come, it looks that often whether they are of the same store
// still. Tests make it shorter.
var relistEvery = time.Minute

const (
	// followTimeout bounds the reading of a batch, and a restore; tellTimeout
	// the telling of clients.
	followTimeout = 10 * time.Minute
	tellTimeout   = 10 * time.Second
	maxPollPause  = 15 * time.Second
)

// follower keeps a store's state at what another one ships: it asks for the
// batch that begins after the last event, whose name it knows; where there is
// none, whether there is a new writer; and lists where neither leads on.
type follower struct {
	store  *Store
	cancel context.CancelFunc
	done   chan struct{} // closed when the following has ended

	// epoch is that of the last event, or of the writer behind it. verified is when
	// its object was last known to be there with its token; zero if what is there
	// is another store's.
	epoch       catalog.Epoch
	verified    time.Time
	relistEvery time.Duration
	// starts are where the next batch may begin, other than behind the state:
	// where the last one ended, which a snapshot may have overtaken, and where
	// the first of a new epoch may begin.
	starts []journal.Sequence
	// listed is when something last came or the backend was listed. live is set
	// once a batch was read: what comes next is one too, unless the writer had to
	// skip events, which the next listing shows.
	listed time.Time
	live   bool

	mu       sync.Mutex
	status   replay.FollowerStatus
	storeID  string
	restored replay.Result
}

// following is why a follower takes no updates.
var following error = ErrFollower

// follow restores what a backend holds and begins to follow it.
func (s *Store) follow(ctx context.Context) error {
	s.log.refusal.Store(&following)
	s.follower = &follower{store: s, relistEvery: relistEvery}
	begun := time.Now()
	if err := s.follower.resync(ctx); err != nil {
		return err
	}
	s.follower.report(begun, nil)
	if s.follower.epoch.Number == 0 && s.State().Sequence() == 0 {
		return errors.New("nothing was ever shipped there: start the writer first, or correct the URL")
	}
	s.opt.Logger.Info("following", "backend", s.opt.Backend.String(), "epoch", s.follower.epoch.Number, "sequence", uint64(s.State().Sequence()))
	s.follower.start() //nolint:contextcheck // It outlives the opening.
	return nil
}

func (f *follower) start() {
	ctx, cancel := context.WithCancel(context.Background())
	f.cancel, f.done = cancel, make(chan struct{})
	go func() {
		defer close(f.done)
		f.run(ctx)
	}()
}

// stop ends the following and waits for it, though not for long where a backend
// does not heed its context.
func (f *follower) stop() error {
	f.cancel()
	select {
	case <-f.done:
		return nil
	case <-time.After(bounded.Grace):
		return fmt.Errorf("%s does not return from an earlier call", f.store.opt.Backend)
	}
}

func (f *follower) run(ctx context.Context) {
	pause := f.store.opt.FollowInterval
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause*3/4 + rand.N(pause/2+1)):
		}
		begun := time.Now()
		err := f.poll(ctx)
		if ctx.Err() != nil {
			return
		}
		f.report(begun, err)
		pause = f.store.opt.FollowInterval
		if err != nil {
			pause = min(max(2*pause, time.Second), maxPollPause)
		}
	}
}

// report notes what came of a look at the backend that began at a time.
func (f *follower) report(begun time.Time, err error) {
	f.mu.Lock()
	was := f.status.Err
	f.status.Err, f.status.Epoch = err, f.epoch.Number
	if err == nil && (f.live || f.listed.After(begun)) {
		f.status.CurrentAt = begun
	}
	f.mu.Unlock()
	logger := f.store.opt.Logger
	switch {
	case err != nil && (was == nil || (errors.Is(err, ErrForeign) && !errors.Is(was, ErrForeign))):
		logger.Error("the backend cannot be followed; what is there is served, and it is tried again", "backend", f.store.opt.Backend.String(), "error", err)
	case err == nil && was != nil:
		logger.Info("the backend is followed again", "backend", f.store.opt.Backend.String())
	}
}

// poll applies what was shipped since the last time.
func (f *follower) poll(ctx context.Context) error {
	if f.verified.IsZero() {
		return f.resync(ctx)
	}
	for any := false; ; any = true {
		found, err := f.next(ctx)
		switch {
		case errors.Is(err, ErrCorrupt), errors.Is(err, backends.ErrDamaged), errors.Is(err, state.ErrOrder), errors.Is(err, errReplaced):
			// A snapshot may cover what is damaged or missing. If none does, this
			// says so, as it does where another store has come.
			return f.resync(ctx)
		case err != nil:
			return err
		}
		if !found && any {
			return nil
		}
		if !found {
			break
		}
	}
	_, err := catalog.ReadEpoch(ctx, f.store.opt.Backend, f.epoch.Number+1)
	if err == nil {
		return f.resync(ctx)
	}
	if !errors.Is(err, backends.ErrNotFound) {
		return err
	}
	every := f.relistEvery
	if f.store.opt.ShipInterval < 0 {
		every = 0 // snapshots are all that comes
	}
	if time.Since(f.listed) >= every {
		return f.resync(ctx)
	}
	return nil
}

// next applies the batch that begins after the last event. It returns false if
// there is none.
func (f *follower) next(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, followTimeout)
	defer cancel()
	firsts := []journal.Sequence{f.store.State().Sequence() + 1}
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
		// After the reading, for which it then tells too.
		if err := f.verify(ctx); err != nil {
			return false, err
		}
		return true, f.apply(ctx, b.Name, data)
	}
	return false, nil
}

// errReplaced says that the object of the epoch is gone, or is another writer's.
var errReplaced = errors.New("the epoch is not that of the writer that was followed")

// verify looks, once in a while, whether the epoch is that of the writer that is
// followed still. Where a prefix was emptied and another store has begun there,
// nothing else may tell: the names of its batches are the same.
func (f *follower) verify(ctx context.Context) error {
	begun := time.Now()
	if begun.Sub(f.verified) < f.relistEvery {
		return nil
	}
	e, err := catalog.ReadEpoch(ctx, f.store.opt.Backend, f.epoch.Number)
	if errors.Is(err, backends.ErrNotFound) || (err == nil && e.Token != f.epoch.Token) {
		return errReplaced
	}
	if err == nil {
		f.verified = begun
	}
	return err
}

// checkStore refuses another store's data.
func (f *follower) checkStore(id string) error {
	if id == "" || f.storeID == "" || id == f.storeID {
		return nil
	}
	f.verified = time.Time{}
	return fmt.Errorf("%s %w: it holds store %s, and this follower serves store %s: to follow the other one, start it anew",
		f.store.opt.Backend, ErrForeign, id, f.storeID)
}

func (f *follower) get(ctx context.Context, key string) ([]byte, error) {
	r, err := f.store.opt.Backend.Get(ctx, key, 0, -1)
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

// apply applies a batch whole and has it served.
func (f *follower) apply(ctx context.Context, name batch.Name, data []byte) error {
	st, last := f.store.State(), journal.Sequence(0)
	err := batch.Decode(data, name, func(ev *journal.Event) (err error) {
		last = ev.Sequence
		if ev.Sequence > st.Sequence() {
			st, err = st.Apply(ev)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("follow batch %s in %s: %w", name, f.store.opt.Backend, err)
	}
	f.starts, f.listed, f.live = []journal.Sequence{last + 1}, time.Now(), true
	return f.serve(ctx, st)
}

// resync lists the backend and restores what it holds beyond the state, or all
// of it, if the state has gone a way that another writer has superseded.
func (f *follower) resync(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, followTimeout)
	defer cancel()
	begun := time.Now()
	remote, err := catalog.List(ctx, f.store.opt.Backend)
	if err != nil {
		return err
	}
	newest, claimed := remote.Newest()
	if err := f.checkStore(newest.StoreID); err != nil {
		return err
	}
	opt := restore.Options{Base: f.base(remote), Backend: f.store.opt.Backend, Remote: remote}
	if opt.Base == nil {
		// What goes on from a state is no restore to report.
		opt.Hooks = f.store.opt.Hooks.Replay
	}
	st, result, err := f.restore(ctx, opt)
	if err != nil {
		return err
	}
	f.listed, f.verified, f.starts = time.Now(), begun, []journal.Sequence{result.ShippedTo + 1}
	f.live = f.live || result.ShippedTo > 0
	if claimed && (newest.Number != f.epoch.Number || newest.Token != f.epoch.Token) {
		// Its writer begins behind what it knew to be complete.
		f.epoch, f.starts = newest, append(f.starts, newest.Sequence+1, remote.Tail()+1)
	}
	f.mu.Lock()
	f.storeID = cmp.Or(newest.StoreID, result.StoreID, f.storeID)
	if f.restored.Sequence == 0 || result.Snapshot != "" {
		f.restored = result
	}
	f.mu.Unlock()
	return f.serve(ctx, st)
}

// restore restores what a listing tells of, and refuses what is another store's, or
// nothing though there were events.
func (f *follower) restore(ctx context.Context, opt restore.Options) (*state.State, replay.Result, error) {
	st, result, err := restore.Restore(ctx, opt)
	if err == nil {
		// Where no epoch tells whose it is, a snapshot does.
		err = f.checkStore(result.StoreID)
	}
	if err == nil {
		err = opt.Remote.CheckEmpty(opt.Backend, st.Sequence())
	}
	return st, result, err
}

// base returns the state to go on from, nil if there is none yet, or if it may have
// gone a way that another writer has superseded.
func (f *follower) base(remote *catalog.Remote) *state.State {
	st := f.store.State()
	if st.Sequence() == 0 || !remote.GoesOnFrom(f.epoch, st.Sequence()) {
		return nil
	}
	return st
}

// serve makes a state the store's and tells the clients of it.
func (f *follower) serve(ctx context.Context, st *state.State) error {
	ctx, cancel := context.WithTimeout(ctx, tellTimeout)
	defer cancel()
	f.store.log.state.Store(st)
	return f.store.refresh(ctx)
}

// refresh brings the caches to the state.
func (s *Store) refresh(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, c := range s.snapshots {
		errs = append(errs, c.Refresh(ctx))
	}
	for _, c := range s.linears {
		errs = append(errs, c.Refresh(ctx))
	}
	return errors.Join(errs...)
}

// Promote makes a follower the writer: it takes the backend over, which fences
// the writer before, and then takes updates, which go to the data directory.
// What the directory held is set aside. Clients go on being served all the time.
// If Promote fails, the store goes on following. The writer before may have been
// fenced by then: try again. Promoting a store that is a writer does nothing, and
// one that was superseded is [ErrFenced]: it takes over when it is opened anew.
func (s *Store) Promote(ctx context.Context) error {
	if err := s.begin(ctx); err != nil {
		return fmt.Errorf("promote %s: %w", s.opt.Backend, err)
	}
	defer s.end()
	switch {
	case s.writer.Load() != nil:
		return s.writer.Load().superseded() // its state is not what the backend's is
	case s.follower == nil:
		return fmt.Errorf("promote: %w: the store is in memory only", ErrDisabled)
	case s.opt.Dir == "":
		return errors.New("promote: Options.Dir is empty: a writer needs a data directory")
	case s.log.isClosed():
		return ErrClosed
	}
	if err := s.follower.stop(); err != nil {
		return fmt.Errorf("promote: %w; the store does not follow any more: open it anew", err)
	}
	w, err := s.newWriter(func(w *writer) error { return w.promote(ctx, s.follower) })
	if err != nil {
		s.follower.start() //nolint:contextcheck // As at Open.
		return fmt.Errorf("promote %s: %w", s.opt.Backend, err)
	}
	s.writer.Store(w)
	// Not a fence that came since.
	s.log.refusal.CompareAndSwap(&following, nil)
	s.opt.Logger.Info("promoted", "backend", s.opt.Backend.String(), "epoch", w.meta.Epoch, "sequence", uint64(s.State().Sequence()))
	if err := s.refresh(ctx); err != nil {
		s.opt.Logger.Warn("some clients were not told of the last updates before the promotion; the next update of their node tells them", "error", err)
	}
	return nil
}

// promote takes over the data directory and the backend with what the follower
// has come to.
func (w *writer) promote(ctx context.Context, f *follower) error {
	if _, _, err := w.lockDirectory(); err != nil {
		return err
	}
	t := takeover{opt: w.opt, fresh: true}
	if err := t.reach(ctx); err != nil {
		return err
	}
	newest, _ := t.remote.Newest()
	if err := f.checkStore(newest.StoreID); err != nil {
		return err
	}
	if err := t.setAside(newest); err != nil {
		return err
	}
	var err error
	t.state, t.result, err = f.restore(ctx, restore.Options{
		Base: f.base(t.remote), Dir: filepath.Join(w.opt.Dir, snapshotDir), Backend: w.opt.Backend, Remote: t.remote, Hooks: w.opt.Hooks.Replay,
	})
	if err != nil {
		return err
	}
	if newest.Number == 0 {
		// The backend has lost what tells of the store, which stays the same.
		t.result.Epoch, t.result.StoreID = max(t.result.Epoch, f.epoch.Number), cmp.Or(f.storeID, t.result.StoreID)
	}
	t.result.ShippedTo = t.state.Sequence()
	if err := t.begin(ctx); err != nil {
		return err
	}
	return w.begin(&t) //nolint:contextcheck // What it starts outlives the call.
}
