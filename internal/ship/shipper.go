// Package ship copies a store to a backend: the journal's events in batches, at most
// one each interval, and each snapshot. It claims the epoch in which it publishes,
// deletes from the backend what retention does not keep, and stops when another writer
// has taken over.
//
//	journal ──records──▶ batch ──▶ events/     then check the epochs
//	snapshot file ───────────────▶ snapshots/  then check the epochs, and prune
//
// Invariants: an object is reported as shipped only if, after it was put, no newer epoch
// existed and this writer's epoch was its own. The next writer claims its epoch first and lists the backend then, so it
// sees every object that was reported. Only a writer that has just found no newer
// epoch deletes objects. In steady state nothing is listed: the backend is listed when
// the epoch is claimed, and the inventory is updated with each change.
package ship

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/compactor"
	"github.com/xdswal/xdswal/internal/bounded"
	"github.com/xdswal/xdswal/internal/catalog"
	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/internal/format/batch"
	"github.com/xdswal/xdswal/internal/hook"
	"github.com/xdswal/xdswal/journal"
)

// Defaults of Options.
const (
	DefaultInterval      = time.Second
	DefaultFenceInterval = 30 * time.Second
	DefaultTimeout       = 30 * time.Minute
)

const (
	// The waits between an attempt to ship that failed and the next one.
	minBackoff = 250 * time.Millisecond
	maxBackoff = 5 * time.Second
	// The waits between an attempt to prune that failed and the next one.
	minPruneBackoff = time.Second
	maxPruneBackoff = time.Minute
	// batchTimeout bounds one attempt to ship a batch, plus the time for its bytes at
	// minRate bytes a second. claimTimeout bounds one attempt to claim the epoch or to
	// sweep, pruneTimeout one to prune.
	batchTimeout = time.Minute
	minRate      = 64 << 10
	claimTimeout = time.Minute
	pruneTimeout = 10 * time.Minute
	// weakPause is the wait between the claim and the first object in a weak backend: more
	// than it takes to create one.
	weakPause = 2 * time.Second
)

// Journal is the part of the journal that the shipper uses. Records may be called after
// the journal was closed.
type Journal interface {
	// Records calls fn with the records from one sequence to another, in order; to = 0
	// is the newest. The error is [event.ErrGap] if the journal does not contain them
	// any more. fn must not keep a record.
	Records(ctx context.Context, from, to journal.Sequence, fn func(seq journal.Sequence, record []byte) error) error
	// Bounds returns the sequences of the oldest and the newest event.
	Bounds() (first, last journal.Sequence, err error)
}

// Options are the settings of a shipper. In each setting 0 is the default.
type Options struct {
	// Backend is the backend to ship to.
	Backend backends.Backend
	// Epoch is the epoch to publish in.
	Epoch catalog.Epoch
	// Remote is the listing of the backend, if Epoch is claimed. If Remote is nil, the
	// shipper claims Epoch as soon as the backend can be reached, and calls Claimed;
	// an error of Claimed repeats the claim.
	Remote  *catalog.Remote
	Claimed func() error
	// Shipped is the newest event that was read from Remote, or 0.
	Shipped journal.Sequence
	// Weak reports that the backend does not create objects conditionally.
	Weak bool
	// Journal contains the events to ship. Snapshots returns the usable snapshots in
	// the data directory, newest first.
	Journal   Journal
	Snapshots func() ([]catalog.Entry, error)
	// Interval is the least time between two batches, unless one is full; default 1
	// second. A negative value ships no batches.
	Interval time.Duration
	// FenceInterval is the time after which an idle shipper checks for a newer epoch;
	// default 30 seconds. A negative value never checks when idle.
	FenceInterval time.Duration
	// KeepSnapshots and KeepFor are the retention; see [catalog.NewRetention].
	KeepSnapshots int
	KeepFor       time.Duration
	// NoPrune deletes nothing.
	NoPrune bool
	// Timeout bounds one attempt to ship a snapshot; default 30 minutes.
	Timeout time.Duration
	// Fenced is called once, when another writer has taken over; it may be nil.
	Fenced func(error)
	// Hooks and Logger report the work. Logger must not be nil.
	Hooks  compactor.Hooks
	Logger *slog.Logger
}

// Shipper copies a store to a backend. Its methods are safe for concurrent use.
type Shipper struct {
	opt       Options
	retention catalog.Retention

	last     atomic.Uint64 // newest event of the journal
	wake     chan struct{} // there are events to ship
	snapshot chan struct{} // there is a snapshot to ship

	// batchSlot and snapshotSlot are full while the backend is used for batches and for
	// snapshots. batchSlot guards pending.
	batchSlot    chan struct{}
	pending      pending
	snapshotSlot chan struct{}
	// settled is set once the epoch was found to be this writer's before the first object
	// was put.
	settled atomic.Bool
	// probed is set once it is known whether the backend is weak. batchSlot guards it.
	probed bool
	// unpruned is set while the backend contains something that retention does not keep.
	unpruned atomic.Bool
	warned   bool // of it; guarded by snapshotSlot

	mu     sync.Mutex
	status compactor.ShipperStatus
	// batchErr and snapshotErr are the errors of the last attempts, or nil.
	batchErr, snapshotErr error
	held                  inventory

	fenced chan struct{} // closed when another writer has taken over
	stop   context.CancelFunc
	done   sync.WaitGroup
}

// New returns a shipper. An error names the option that is out of range. Call Start to
// ship.
func New(opt Options) (*Shipper, error) {
	retention, err := catalog.NewRetention(opt.KeepSnapshots, opt.KeepFor)
	if err != nil {
		return nil, fmt.Errorf("ship: %w", err)
	}
	if opt.Timeout < 0 {
		return nil, fmt.Errorf("ship: Timeout is %s, want a positive duration", opt.Timeout)
	}
	opt.Interval = cmp.Or(opt.Interval, DefaultInterval)
	opt.FenceInterval = cmp.Or(opt.FenceInterval, DefaultFenceInterval)
	opt.Timeout = cmp.Or(opt.Timeout, DefaultTimeout)
	w, err := batch.NewWriter()
	if err != nil {
		return nil, err
	}
	s := &Shipper{
		opt:          opt,
		retention:    retention,
		wake:         make(chan struct{}, 1),
		snapshot:     make(chan struct{}, 1),
		batchSlot:    make(chan struct{}, 1),
		snapshotSlot: make(chan struct{}, 1),
		fenced:       make(chan struct{}),
		pending:      pending{w: w},
	}
	s.status = compactor.ShipperStatus{Epoch: opt.Epoch.Number, Weak: opt.Weak}
	if opt.Remote != nil {
		s.begin(opt.Remote)
	}
	if _, last, err := opt.Journal.Bounds(); err == nil {
		s.Committed(last)
	}
	return s, nil
}

// begin sets what the backend contains when the epoch is claimed.
func (s *Shipper) begin(r *catalog.Remote) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = newInventory(r, s.opt.Shipped)
	s.status.Claimed = true
	if len(r.Snapshots) > 0 {
		s.status.Snapshot = r.Snapshots[0].Sequence
	}
	s.setShipped(max(s.held.batched, s.status.Snapshot))
}

// setShipped advances Shipped. The caller holds mu.
func (s *Shipper) setShipped(seq journal.Sequence) {
	s.status.Shipped = max(s.status.Shipped, seq)
	if uint64(s.status.Shipped) >= s.last.Load() {
		s.status.BehindSince = time.Time{}
	}
}

// Start begins to ship. It is called once, before Stop.
func (s *Shipper) Start() {
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	s.done.Add(1)
	go func() {
		defer s.done.Done()
		s.run(ctx)
	}()
}

// Stop ends what Start began and waits for it. It does not wait for a call of the
// backend that does not return after its context is done.
func (s *Shipper) Stop() {
	if s.stop != nil {
		s.stop()
	}
	s.done.Wait()
}

// Close ships the remaining events, and then the newest snapshot. It is called after
// Stop, when no more events are committed. It returns nil if the shipper is fenced,
// which Fenced has reported.
func (s *Shipper) Close(ctx context.Context) error {
	if s.isFenced() {
		return nil
	}
	if !s.Status().Claimed {
		if err := s.claim(ctx); err != nil {
			return s.unlessFenced(err)
		}
	}
	batchErr := s.shipEvents(ctx)
	err := s.shipSnapshot(ctx)
	if errors.Is(batchErr, event.ErrGap) {
		batchErr = s.shipEvents(ctx) // the snapshot covers the gap
	}
	return s.unlessFenced(errors.Join(batchErr, err))
}

func (s *Shipper) unlessFenced(err error) error {
	if s.isFenced() {
		return nil
	}
	return err
}

// Committed reports the newest durable event of the journal.
func (s *Shipper) Committed(last journal.Sequence) {
	s.last.Store(uint64(last))
	s.mu.Lock()
	if s.status.BehindSince.IsZero() && last > s.status.Shipped {
		s.status.BehindSince = time.Now()
	}
	s.mu.Unlock()
	signal(s.wake)
}

// SnapshotWritten reports that the data directory contains a new snapshot.
func (s *Shipper) SnapshotWritten() { signal(s.snapshot) }

// Shipped returns the newest event that can be restored from the backend.
func (s *Shipper) Shipped() journal.Sequence { return s.Status().Shipped }

// Status returns the state of the shipper.
func (s *Shipper) Status() compactor.ShipperStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.status
	out.Err = errors.Join(s.batchErr, s.snapshotErr)
	return out
}

func (s *Shipper) setStatus(change func(*compactor.ShipperStatus)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.status)
}

func (s *Shipper) run(ctx context.Context) {
	if !s.Status().Claimed && !s.claimLoop(ctx) {
		return
	}
	hook.Call(s.opt.Hooks.Claimed, s.opt.Epoch.Number)
	s.done.Add(1)
	go func() {
		defer s.done.Done()
		s.runSnapshots(ctx)
	}()
	s.runBatches(ctx)
}

// exclusive calls fn, which uses the backend, when the slot is free. It returns soon
// after ctx is done even if fn does not: a write to a network volume that hangs cannot
// be interrupted. The slot stays full until fn returns.
func (s *Shipper) exclusive(ctx context.Context, slot chan struct{}, fn func(context.Context) error) error {
	select {
	case slot <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("%s has not returned from an earlier call: %w", s.opt.Backend, context.Cause(ctx))
	}
	return bounded.Do(ctx, s.opt.Backend, func(ctx context.Context) error {
		defer func() { <-slot }()
		return fn(ctx)
	})
}

// failed sets the error of an attempt, and logs it if the attempt before succeeded.
func (s *Shipper) failed(where *error, message string, err error) {
	s.mu.Lock()
	log, waits := s.opt.Logger.Error, errors.Is(err, errSnapshotFirst)
	if waits {
		log = s.opt.Logger.Info
	}
	first := *where == nil || (errors.Is(*where, errSnapshotFirst) && !waits)
	*where = err
	s.mu.Unlock()
	if first {
		log(message, "backend", s.opt.Backend.String(), "error", err)
	}
}

// succeeded clears the error, and logs the message if there was one.
func (s *Shipper) succeeded(where *error, message string) {
	s.mu.Lock()
	was := *where != nil
	*where = nil
	s.mu.Unlock()
	if was {
		s.opt.Logger.Info(message, "backend", s.opt.Backend.String()) //nolint:sloglint // Callers give constants.
	}
}

func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
