package xdswal

import (
	"context"
	"errors"
	"path/filepath"
	"sync"

	"github.com/xdswal/xdswal/internal/compact"
	"github.com/xdswal/xdswal/internal/durable"
	"github.com/xdswal/xdswal/internal/restore"
	"github.com/xdswal/xdswal/internal/ship"
	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/internal/wal"
	"github.com/xdswal/xdswal/journal"
	"github.com/xdswal/xdswal/replay"
)

// writer is what makes a store durable: its directory, the journal, and what
// runs beside the updates.
type writer struct {
	opt      *Options
	log      *eventLog
	lock     *durable.LockFile
	journal  *wal.Journal
	compact  *compact.Compactor // nil where there are no snapshots
	ship     *ship.Shipper      // nil without a backend
	restored replay.Result

	stop context.CancelFunc // of recovery
	work sync.WaitGroup

	metaMu sync.Mutex
	meta   metadata
}

// newWriter returns a writer that the function has brought to take updates. If it
// fails, what it has opened is closed.
func (s *Store) newWriter(take func(*writer) error) (*writer, error) {
	w := &writer{opt: &s.opt, log: s.log, stop: func() {}}
	if err := take(w); err != nil {
		w.abandon()
		return nil, err
	}
	return w, nil
}

// open takes over a data directory, and the backend with it.
func (w *writer) open(ctx context.Context) error {
	last, known, err := w.lockDirectory()
	if err != nil {
		return err
	}
	t := takeover{opt: w.opt}
	if err := t.survey(ctx, last, known); err != nil {
		return err
	}
	var local restore.Journal
	if !empty(filepath.Join(w.opt.Dir, journalDir)) {
		if err := w.openJournal(&state.State{}); err != nil {
			return err
		}
		local = replayJournal{w.journal}
	}
	if err := t.restore(ctx, local); err != nil {
		return err
	}
	if err := t.begin(ctx); err != nil {
		return err
	}
	return w.begin(&t) //nolint:contextcheck // What it starts outlives the opening.
}

// lockDirectory makes the data directory this process's, and reads what it says
// of itself.
func (w *writer) lockDirectory() (metadata, bool, error) {
	dir := w.opt.Dir
	// A directory of a newer format is refused before anything is changed.
	if _, _, err := readMetadata(dir); err != nil {
		return metadata{}, false, err
	}
	if err := durable.MkdirAll(dir); err != nil {
		return metadata{}, false, err
	}
	var err error
	if w.lock, err = durable.Lock(filepath.Join(dir, lockFile)); err != nil {
		return metadata{}, false, err
	}
	// Whoever had the lock may have been a newer xdswal.
	return readMetadata(dir)
}

// openJournal opens the journal, and makes it behind a state if there is none.
func (w *writer) openJournal(st *state.State) (err error) {
	opt := w.opt.journal(w.log)
	opt.First, opt.NotBefore = st.Sequence()+1, st.Time()
	w.journal, err = wal.Open(filepath.Join(w.opt.Dir, journalDir), opt)
	return err
}

// begin takes updates from the end of what was restored on, and starts what runs
// beside them.
func (w *writer) begin(t *takeover) error {
	w.meta, w.restored = t.meta, t.result
	w.log.state.Store(t.state)
	if err := durable.MkdirAll(filepath.Join(w.opt.Dir, snapshotDir)); err != nil {
		return err
	}
	if !t.fresh && t.cameFromBackend() && !w.opt.DisableSnapshots {
		// What the journal holds of it is dropped below.
		d := Directory{Path: w.opt.Dir, Epoch: t.meta.Epoch, StoreID: t.meta.StoreID}
		if err := writeState(context.Background(), d, t.state); err != nil {
			return err
		}
	}
	if w.journal == nil {
		if err := w.openJournal(t.state); err != nil {
			return err
		}
	}
	if err := w.journal.Advance(t.state.Sequence()+1, t.state.Time()); err != nil {
		return err
	}
	w.logRestored()
	if err := w.newCompactor(); err != nil {
		return err
	}
	if err := w.newShipper(t); err != nil {
		return err
	}
	w.log.onCommit = w.onCommit
	w.log.journal.Store(w.journal)
	w.start(t)
	return nil
}

func (w *writer) newCompactor() (err error) {
	if w.opt.DisableSnapshots {
		return nil
	}
	opt := w.opt.compactor(w.meta, w.restored)
	if w.opt.Backend != nil {
		opt.Written = func() { w.ship.SnapshotWritten() }
		opt.Shipped = func() journal.Sequence { return w.ship.Shipped() }
	}
	w.compact, err = compact.New(w.log.State, compactedJournal{w.journal, w.opt.MaxJournalBytes}, opt)
	return err
}

func (w *writer) newShipper(t *takeover) (err error) {
	if w.opt.Backend == nil {
		return nil
	}
	opt := w.opt.shipper(replayJournal{w.journal})
	opt.Epoch, opt.Weak, opt.Shipped = t.meta.claim(), t.weak, t.result.ShippedTo
	if t.claimed {
		opt.Remote = t.remote
		if t.remote.Empty() {
			opt.Shipped = 0 // it has lost what was read of it
		}
	}
	if w.compact != nil {
		opt.Snapshots = w.compact.Snapshots
	}
	opt.Claimed, opt.Fenced = w.claimed, w.fenced
	w.ship, err = ship.New(opt)
	return err
}

// start starts what runs beside the updates.
func (w *writer) start(t *takeover) {
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
		if t.cameFromBackend() && w.compact != nil {
			// It is in no local file yet. If this fails, status and log say so,
			// and the backend has it.
			_, _ = w.compact.Compact(ctx)
		}
		w.log.recoverLoop(ctx, snapshot)
	}()
}

// onCommit passes a durable group to the compactor and the shipper.
func (w *writer) onCommit(events []*journal.Event, bytes int64) {
	if w.compact != nil {
		w.compact.Committed(len(events), bytes)
	}
	if w.ship != nil {
		w.ship.Committed(events[len(events)-1].Sequence)
	}
}

// claimed notes that the backend knows of the epoch.
func (w *writer) claimed() error {
	w.metaMu.Lock()
	defer w.metaMu.Unlock()
	w.meta.Claimed = true
	return writeMetadata(w.opt.Dir, w.meta)
}

func (w *writer) fenced(err error) { w.log.fence(err) }

// superseded is the error about the writer that has taken over, nil if none has.
func (w *writer) superseded() error {
	if w.ship == nil {
		return nil
	}
	return w.ship.Status().Fenced
}

func (w *writer) logRestored() {
	r := w.restored
	for _, skipped := range r.Skipped {
		w.opt.Logger.Warn("a damaged snapshot or batch was passed over; events that are in nothing else are lost", "location", skipped.Location, "name", skipped.Name, "error", skipped.Reason)
	}
	w.opt.Logger.Info("restored", "sequence", uint64(r.Sequence), "snapshot", r.Snapshot, "source", r.Source,
		"events", r.Events, "shipped", r.Shipped, "nodes", r.Nodes, "resources", r.Resources, "bytes", r.Bytes, "duration", r.Duration, "epoch", w.meta.Epoch)
}

// abandon closes what a failed opening had opened.
func (w *writer) abandon() {
	if w.journal != nil {
		_ = w.journal.Close()
	}
	if w.lock != nil {
		_ = w.lock.Unlock()
	}
}

// close closes the writer. The log is closed already.
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
	if errors.Join(errs...) == nil && w.log.health() == nil {
		w.metaMu.Lock()
		w.meta.Sequence = w.log.State().Sequence()
		errs = append(errs, writeMetadata(w.opt.Dir, w.meta))
		w.metaMu.Unlock()
	}
	return errors.Join(append(errs, w.lock.Unlock())...)
}
