package xdswal

import (
	"context"
	"errors"
	"sync"

	"github.com/xdswal/xdswal/internal/catalog"
	"github.com/xdswal/xdswal/internal/compact"
	"github.com/xdswal/xdswal/internal/directory"
	"github.com/xdswal/xdswal/internal/eventlog"
	"github.com/xdswal/xdswal/internal/follow"
	"github.com/xdswal/xdswal/internal/restore"
	"github.com/xdswal/xdswal/internal/ship"
	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/internal/wal"
	"github.com/xdswal/xdswal/journal"
	"github.com/xdswal/xdswal/replay"
)

// writer is what makes a store durable: its directory, the journal, and the compactor and
// the shipper, which run beside the updates.
//
// Data flows one way: the journal calls the log with each durable group, the log calls
// committed, and that notifies the compactor and the shipper.
type writer struct {
	opt      *Options
	log      *eventlog.Log
	dir      *directory.Directory
	journal  *wal.Journal
	compact  *compact.Compactor // nil without snapshots
	ship     *ship.Shipper      // nil without a backend
	restored replay.Result

	stop context.CancelFunc // of the recovery
	work sync.WaitGroup
}

// newWriter returns the writer that open has opened. If open fails, newWriter closes
// what it has opened.
func (s *Store) newWriter(open func(*writer) error) (*writer, error) {
	w := &writer{opt: &s.opt, log: s.log, stop: func() {}}
	if err := open(w); err != nil {
		w.abandon()
		return nil, err
	}
	return w, nil
}

// open takes over the data directory and the backend.
func (w *writer) open(ctx context.Context) (err error) {
	if w.dir, err = directory.Open(w.opt.Dir); err != nil {
		return err
	}
	t := directory.NewTakeover(w.dir, w.opt.takeover())
	if err := t.Survey(ctx); err != nil {
		return err
	}
	var local restore.Journal
	if w.dir.HasJournal() {
		if err := w.openJournal(&state.State{}); err != nil {
			return err
		}
		local = boundedJournal{w.journal}
	}
	if err := t.Restore(ctx, local); err != nil {
		return err
	}
	if err := t.Begin(ctx); err != nil {
		return err
	}
	return w.begin(t) //nolint:contextcheck // What it starts outlives the opening.
}

// promote takes over the data directory and the backend with the state of a follower.
func (w *writer) promote(ctx context.Context, f *follow.Follower) (err error) {
	if w.dir, err = directory.Open(w.opt.Dir); err != nil {
		return err
	}
	t := directory.NewTakeover(w.dir, w.opt.takeover())
	err = t.SurveyFollowed(ctx, func(newest catalog.Epoch) error { return f.CheckStore(newest.StoreID) })
	if err != nil {
		return err
	}
	epoch, storeID := f.Epoch()
	err = t.RestoreFollowed(func(opt restore.Options) (*state.State, replay.Result, error) { return f.Restore(ctx, opt) }, epoch, storeID)
	if err != nil {
		return err
	}
	if err := t.Begin(ctx); err != nil {
		return err
	}
	return w.begin(t) //nolint:contextcheck // What it starts outlives the call.
}

// openJournal opens the journal, or creates it after a state.
func (w *writer) openJournal(st *state.State) (err error) {
	opt := w.opt.journal(w.log)
	opt.First, opt.NotBefore = st.Sequence()+1, st.Time()
	w.journal, err = wal.Open(w.dir.JournalDir(), opt)
	return err
}

// begin accepts updates after the restored state, and starts what runs beside them.
func (w *writer) begin(t *directory.Takeover) error {
	w.restored = t.Result
	w.log.SetState(t.State)
	if err := w.dir.MakeSnapshotDir(); err != nil {
		return err
	}
	if t.FromBackend() && (!t.Fresh() || w.opt.DisableSnapshots) {
		// Advance below drops the events that the journal has. In a fresh directory the
		// compactor writes the first snapshot, if it writes any.
		if err := w.dir.WriteSnapshot(context.Background(), t.State); err != nil {
			return err
		}
	}
	if w.journal == nil {
		if err := w.openJournal(t.State); err != nil {
			return err
		}
	}
	if err := w.journal.Advance(t.State.Sequence()+1, t.State.Time()); err != nil {
		return err
	}
	w.logRestored()
	if err := w.newCompactor(); err != nil {
		return err
	}
	if err := w.newShipper(t); err != nil {
		return err
	}
	w.log.Attach(w.journal, w.committed)
	w.start(t.FromBackend())
	return nil
}

func (w *writer) newCompactor() (err error) {
	if w.opt.DisableSnapshots {
		return nil
	}
	opt := w.opt.compactor(w.dir, w.restored)
	if w.opt.Backend != nil {
		opt.Written = func() { w.ship.SnapshotWritten() }
		opt.Shipped = func() journal.Sequence { return w.ship.Shipped() }
	}
	w.compact, err = compact.New(w.log.State, compactedJournal{w.journal, w.opt.MaxJournalBytes}, opt)
	return err
}

func (w *writer) newShipper(t *directory.Takeover) (err error) {
	if w.opt.Backend == nil {
		return nil
	}
	opt := w.opt.shipper()
	opt.Journal = boundedJournal{w.journal}
	opt.Epoch, opt.Weak, opt.Shipped = w.dir.Metadata().Claim(), t.Weak, t.Result.ShippedTo
	if t.Claimed {
		opt.Remote = t.Remote
		if t.Remote.Empty() {
			opt.Shipped = 0 // the backend has lost what the restore read
		}
	}
	opt.Snapshots = func() ([]catalog.Entry, error) { return nil, nil }
	if w.compact != nil {
		opt.Snapshots = w.compact.Snapshots
	}
	opt.Claimed = func() error { return w.dir.Update(func(m *directory.Metadata) { m.Claimed = true }) }
	opt.Fenced = w.log.Fence
	w.ship, err = ship.New(opt)
	return err
}

// start starts what runs beside the updates.
func (w *writer) start(fromBackend bool) {
	snapshot := func(context.Context) (journal.Sequence, error) { return 0, errors.New("snapshots are disabled") }
	if w.compact != nil {
		snapshot = w.compact.Compact
		w.compact.Start()
	}
	if w.ship != nil {
		w.ship.Start()
	}
	ctx, cancel := context.WithCancel(context.Background())
	w.stop = cancel
	w.work.Add(1)
	go func() {
		defer w.work.Done()
		if fromBackend && w.compact != nil {
			// No local file contains it yet. If this fails, the status and the log say so,
			// and the backend has it.
			_, _ = w.compact.Compact(ctx)
		}
		w.log.RecoverLoop(ctx, snapshot)
	}()
}

// committed notifies the compactor and the shipper of a durable group.
func (w *writer) committed(events []*journal.Event, bytes int64) {
	if w.compact != nil {
		w.compact.Committed(len(events), bytes)
	}
	if w.ship != nil {
		w.ship.Committed(events[len(events)-1].Sequence)
	}
}

// fencedBy returns the error that names the writer that has taken over, or nil.
func (w *writer) fencedBy() error {
	if w.ship == nil {
		return nil
	}
	return w.ship.Status().Fenced
}

func (w *writer) logRestored() {
	r := w.restored
	for _, skipped := range r.Skipped {
		w.opt.Logger.Warn("skipped a damaged snapshot or batch; events that nothing else contains are lost", "location", skipped.Location, "name", skipped.Name, "error", skipped.Reason)
	}
	w.opt.Logger.Info("restored", "sequence", uint64(r.Sequence), "snapshot", r.Snapshot, "source", r.Source,
		"events", r.Events, "shipped", r.Shipped, "nodes", r.Nodes, "resources", r.Resources, "bytes", r.Bytes, "duration", r.Duration, "epoch", w.dir.Metadata().Epoch)
}

// abandon closes what a failed opening had opened.
func (w *writer) abandon() {
	if w.journal != nil {
		_ = w.journal.Close()
	}
	if w.dir != nil {
		_ = w.dir.Close()
	}
}

// close closes the writer after the log was closed.
func (w *writer) close(ctx context.Context) error {
	w.stop()
	if w.compact != nil {
		w.compact.Stop()
	}
	w.work.Wait()
	if w.ship != nil {
		w.ship.Stop()
	}
	errs := []error{w.journal.Close()}
	if w.compact != nil {
		errs = append(errs, w.compact.Close(ctx))
	}
	if w.ship != nil {
		errs = append(errs, w.ship.Close(ctx))
	}
	if errors.Join(errs...) == nil && w.log.Err() == nil {
		errs = append(errs, w.dir.Update(func(m *directory.Metadata) { m.Sequence = w.log.State().Sequence() }))
	}
	return errors.Join(append(errs, w.dir.Close())...)
}

// boundedJournal is the journal as a restore and the shipper use it.
type boundedJournal struct{ *wal.Journal }

// Bounds returns the oldest and the newest sequence.
func (j boundedJournal) Bounds() (first, last journal.Sequence, err error) {
	s, err := j.Stats()
	return s.First, s.Last, err
}

// compactedJournal is the journal as the compactor uses it.
type compactedJournal struct {
	*wal.Journal
	max int64
}

// Pressure reports that the journal is more than half full.
func (j compactedJournal) Pressure() bool {
	s, err := j.Stats()
	return err == nil && s.Bytes > j.max/2
}
