// Package ship keeps a backend as close behind a store as its interval says:
// it ships the journal's tail in batches and each snapshot, deletes what
// retention does not keep, and stops when another writer has taken the backend
// over.
//
//	journal ──records──▶ batch ──▶ events/    then: is there a newer epoch?
//	snapshot file ───────────────▶ snapshots/ then: is there a newer epoch? prune
//
// What was put counts only if no newer epoch was there after it: the next
// writer first claims its epoch and then looks what there is. So what is
// reported as shipped is in the backend for good, whoever takes over.
//
// In steady state nothing is listed. What the backend holds was listed once,
// when the epoch was claimed, and is kept account of since.
package ship

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
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

// Bounds of the shipper's waits.
const (
	minBackoff = 250 * time.Millisecond
	maxBackoff = 5 * time.Second
	// batchTimeout bounds one attempt to ship a batch, with what that takes at
	// the slowest, in bytes a second; claimTimeout one to claim the epoch.
	batchTimeout = time.Minute
	slowest      = 64 << 10
	claimTimeout = time.Minute
	pruneTimeout = 10 * time.Minute
)

// Journal is what the shipper needs of the journal. Records may be called after
// the journal was closed.
type Journal interface {
	// Records calls fn for the records from one sequence to another, in order;
	// to = 0 stands for the newest. What the journal does not hold any more is
	// [event.ErrGap].
	Records(ctx context.Context, from, to journal.Sequence, fn func(seq journal.Sequence, record []byte) error) error
	// Bounds returns the sequences of the oldest and the newest event.
	Bounds() (first, last journal.Sequence, err error)
}

// Options are the settings of a shipper.
type Options struct {
	// Backend is where to ship to.
	Backend backends.Backend
	// Epoch is the epoch to publish in.
	Epoch catalog.Epoch
	// Remote is what the backend holds now that the epoch is claimed. If it is
	// nil the shipper claims the epoch, which may take as long as the backend
	// cannot be reached, and calls Claimed.
	Remote  *catalog.Remote
	Claimed func() error
	// Shipped is the newest event that Remote was seen to hold, 0 if it was not
	// looked into.
	Shipped journal.Sequence
	// Weak says that the backend does not create conditionally.
	Weak bool
	// Journal holds the tail; Snapshots returns the local snapshots that can
	// be relied on, newest first.
	Journal   Journal
	Snapshots func() ([]catalog.Entry, error)
	// Interval is the least time between two batches, as long as each takes
	// what there is; default a second. A negative one ships no batches.
	Interval time.Duration
	// FenceInterval is how often an idle shipper looks for a newer epoch;
	// default 30 seconds, a negative one never.
	FenceInterval time.Duration
	// KeepSnapshots and KeepFor are the retention; see compact.Options. There
	// are no defaults but that at least two snapshots are kept, so that there
	// is one to fall back to.
	KeepSnapshots int
	KeepFor       time.Duration
	// NoPrune deletes nothing.
	NoPrune bool
	// Timeout bounds one attempt to ship a snapshot; default 30 minutes.
	Timeout time.Duration
	// Fenced is called once, when another writer has taken over.
	Fenced func(error)
	// Hooks and Logger report the work. Logger must not be nil.
	Hooks  compactor.Hooks
	Logger *slog.Logger
}

// Shipper ships what others write. Its methods are safe for concurrent use.
type Shipper struct {
	opt Options

	last     atomic.Uint64 // newest event of the journal
	wake     chan struct{} // there are events to ship
	snapshot chan struct{} // there is a snapshot to ship

	// tailing and shipping are full while the backend is used for batches and
	// for snapshots; who fills them may use what is named after them.
	tailing  chan struct{}
	tail     tail
	shipping chan struct{}

	mu     sync.Mutex
	status compactor.ShipperStatus
	// tailErr and snapshotErr are why the last attempts failed.
	tailErr, snapshotErr error
	held                 inventory

	// sweepAt is when uploads that crashed with the last process are old enough
	// to be known as such, zero once they were looked for.
	sweepAt time.Time

	fenced chan struct{} // closed when another writer has taken over
	stop   context.CancelFunc
	done   sync.WaitGroup
}

// New returns a shipper; Start makes it work.
func New(opt Options) (*Shipper, error) {
	opt.Interval = cmp.Or(opt.Interval, DefaultInterval)
	opt.FenceInterval = cmp.Or(opt.FenceInterval, DefaultFenceInterval)
	opt.Timeout = cmp.Or(opt.Timeout, DefaultTimeout)
	opt.KeepSnapshots = max(2, opt.KeepSnapshots)
	w, err := batch.NewWriter()
	if err != nil {
		return nil, err
	}
	s := &Shipper{
		opt:      opt,
		wake:     make(chan struct{}, 1),
		snapshot: make(chan struct{}, 1),
		tailing:  make(chan struct{}, 1),
		shipping: make(chan struct{}, 1),
		fenced:   make(chan struct{}),
		tail:     tail{w: w},
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

// begin takes up what the backend holds now that the epoch is claimed.
func (s *Shipper) begin(r *catalog.Remote) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = newInventory(r, s.opt.Shipped)
	s.status.Claimed = true
	s.status.Shipped = s.held.tail
	if len(r.Snapshots) > 0 {
		s.status.Snapshot = r.Snapshots[0].Sequence
		s.status.Shipped = max(s.status.Shipped, s.status.Snapshot)
	}
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

// Stop ends what Start began and waits for it, though not for a backend that
// does not heed its context.
func (s *Shipper) Stop() {
	if s.stop != nil {
		s.stop()
	}
	s.done.Wait()
}

// Close ships what is left: the tail, and then the newest snapshot. It is called
// after Stop, when nothing is committed any more.
func (s *Shipper) Close(ctx context.Context) error {
	if s.isFenced() {
		return nil // nobody waits for it: it was reported
	}
	if !s.Status().Claimed {
		if err := s.claim(ctx); err != nil {
			return s.ended(err)
		}
	}
	tailErr := s.shipTail(ctx)
	err := s.shipSnapshot(ctx)
	if errors.Is(tailErr, event.ErrGap) {
		tailErr = s.shipTail(ctx) // it waited for the snapshot
	}
	return s.ended(errors.Join(tailErr, err))
}

// ended leaves out that another writer has taken over.
func (s *Shipper) ended(err error) error {
	if s.isFenced() {
		return nil
	}
	return err
}

// Committed tells the shipper of the newest event of the journal.
func (s *Shipper) Committed(last journal.Sequence) {
	s.last.Store(uint64(last))
	s.mu.Lock()
	if s.status.BehindSince.IsZero() && last > s.status.Shipped {
		s.status.BehindSince = time.Now()
	}
	s.mu.Unlock()
	signal(s.wake)
}

// SnapshotWritten tells the shipper that there is a new local snapshot.
func (s *Shipper) SnapshotWritten() { signal(s.snapshot) }

// Shipped returns the newest event that can be restored from the backend.
func (s *Shipper) Shipped() journal.Sequence { return s.Status().Shipped }

// Status returns what the shipper has done.
func (s *Shipper) Status() compactor.ShipperStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.status
	out.Err = errors.Join(s.tailErr, s.snapshotErr)
	return out
}

func (s *Shipper) run(ctx context.Context) {
	if !s.Status().Claimed && !s.claimLoop(ctx) {
		return
	}
	hook.Call(s.opt.Hooks.Claimed, s.opt.Epoch.Number)
	s.sweep(ctx)
	s.sweepAt = time.Now().Add(s.sweepAge())
	s.done.Add(1)
	go func() {
		defer s.done.Done()
		s.runSnapshots(ctx)
	}()
	s.runTail(ctx)
}

// bounded calls fn, which uses the backend, once the slot is free. It returns
// soon after ctx is done, even if the backend does not: a write to a network
// volume that hangs cannot be interrupted. Until that has returned, no other
// begins.
func (s *Shipper) bounded(ctx context.Context, slot chan struct{}, fn func(context.Context) error) error {
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

// backoff waits ever longer, with jitter.
type backoff struct{ next time.Duration }

func (b *backoff) reset() { b.next = 0 }

// wait returns what a timer is to be set to before the next attempt.
func (b *backoff) wait() time.Duration {
	b.next = min(max(2*b.next, minBackoff), maxBackoff)
	return b.next/2 + rand.N(b.next/2)
}

func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
