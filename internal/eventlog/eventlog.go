// Package eventlog makes the caches' events durable and folds them into the state:
// it is the journal with the state beside it, or the state alone where nothing
// persists.
//
// Invariants: the state is the fold of all durable events, in the order of their
// sequences, and is replaced before an update returns. Only the journal's committer
// replaces it, or, without a journal, the goroutine that holds mu. An event that the
// journal could not take changes the state only with FailOpen, and is then in the
// list of unjournaled events until a snapshot covers it.
package eventlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/xdswal/xdswal/internal/cachelog"
	"github.com/xdswal/xdswal/internal/hook"
	"github.com/xdswal/xdswal/internal/retry"
	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/internal/wal"
	"github.com/xdswal/xdswal/journal"
)

// Bounds of the waits between attempts to recover the journal.
const (
	minRecoverBackoff = 100 * time.Millisecond
	maxRecoverBackoff = 10 * time.Second
)

// Options are the settings of a log.
type Options struct {
	// FailOpen applies events that the journal cannot take.
	FailOpen bool
	// Degraded is called with the error when the journal no longer takes events, and
	// Recovered when it takes them again; each may be nil.
	Degraded  func(error)
	Recovered func()
	Logger    *slog.Logger
}

// Log is an event log. Its methods are safe for concurrent use.
type Log struct {
	cachelog.Subscribers

	opt     Options
	journal atomic.Pointer[wal.Journal] // nil in memory and in a follower
	// onCommit is called with each durable group. Attach sets it, before the first
	// append.
	onCommit  func(events []*journal.Event, bytes int64)
	rejectErr atomic.Pointer[error]
	state     atomic.Pointer[state.State]

	// reporting is held while degraded changes and the change is reported, so that
	// reports are in order. It is locked before mu.
	reporting sync.Mutex

	mu sync.Mutex
	// unjournaled are the events that were applied though the journal could not take
	// them, and that no snapshot was begun after.
	unjournaled []*journal.Event
	degraded    error
	failures    uint64 // number of groups that failed
	closed      bool
	wake        chan struct{} // the journal has to be recovered
}

var (
	_ cachelog.Log = (*Log)(nil)
	_ wal.Receiver = (*Log)(nil)
)

// New returns a log with the empty state and without a journal.
func New(opt Options) *Log {
	l := &Log{opt: opt, wake: make(chan struct{}, 1)}
	l.state.Store(&state.State{})
	return l
}

// Attach makes the log append to a journal, whose receiver it is, from now on.
// onCommit is called with each group after it has become durable.
func (l *Log) Attach(j *wal.Journal, onCommit func(events []*journal.Event, bytes int64)) {
	l.onCommit = onCommit
	l.journal.Store(j)
}

// Journal returns the attached journal, or nil.
func (l *Log) Journal() *wal.Journal { return l.journal.Load() }

// State returns the fold of all durable events.
func (l *Log) State() *state.State { return l.state.Load() }

// SetState replaces the state. It is called before a journal is attached.
func (l *Log) SetState(st *state.State) { l.state.Store(st) }

// RejectErr returns the error that updates return, or nil while the log accepts
// updates.
func (l *Log) RejectErr() error {
	if err := l.rejectErr.Load(); err != nil {
		return *err
	}
	return nil
}

// Reject makes updates return err from now on. It returns a function that ends that,
// unless Reject was called again in between.
func (l *Log) Reject(err error) (accept func()) {
	p := &err
	l.rejectErr.Store(p)
	return func() { l.rejectErr.CompareAndSwap(p, nil) }
}

// Fence makes updates return err from now on, because another writer has taken over:
// the next restore would not return them. With FailOpen they are still journaled,
// here alone.
func (l *Log) Fence(err error) {
	if !l.opt.FailOpen {
		l.Reject(err)
	}
}

// Generation returns the journal's generation.
func (l *Log) Generation() uint64 {
	j := l.journal.Load()
	if j == nil {
		return 0
	}
	return uint64(j.Generation())
}

// Queue queues an event that was computed in a generation.
func (l *Log) Queue(generation uint64, ev *journal.Event) (cachelog.Commit, error) {
	if err := l.RejectErr(); err != nil {
		return nil, err
	}
	j := l.journal.Load()
	if j == nil {
		return l.applyInMemory(ev)
	}
	commit, err := j.Queue(wal.Generation(generation), ev)
	if errors.Is(err, wal.ErrClosed) {
		return nil, cachelog.ErrClosed
	}
	return commit, err
}

func (l *Log) applyInMemory(ev *journal.Event) (cachelog.Commit, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, cachelog.ErrClosed
	}
	ev.Sequence, ev.Time = l.State().Sequence()+1, time.Now().Round(0)
	l.apply([]*journal.Event{ev})
	return committed, nil
}

// committed is the commit of an event that is in memory alone.
var committed = func() doneCommit {
	done := make(chan struct{})
	close(done)
	return done
}()

type doneCommit chan struct{}

func (c doneCommit) Done() <-chan struct{} { return c }
func (c doneCommit) Err() error            { return nil }

// apply folds events, which have the next sequences.
func (l *Log) apply(events []*journal.Event) {
	st := l.State()
	for _, ev := range events {
		next, err := st.Apply(ev)
		if err != nil {
			// A state that skips an event would be served though no restore returns it.
			panic(fmt.Sprintf("xdswal: the journal's sequences have a gap: %v", err))
		}
		st = next
	}
	l.state.Store(st)
}

// Committed folds a durable group.
func (l *Log) Committed(events []*journal.Event, bytes int64) {
	l.apply(events)
	if l.onCommit != nil {
		l.onCommit(events, bytes)
	}
	// A journal that was full has room again.
	l.changeHealth(func() bool {
		recovered := errors.Is(l.degraded, wal.ErrFull) && len(l.unjournaled) == 0
		if recovered {
			l.degraded = nil
		}
		return recovered
	})
}

// Failed applies a group that the journal could not make durable, with FailOpen, or
// else returns the cause for its updates. It starts a recovery of the journal.
func (l *Log) Failed(events []*journal.Event, cause error) error {
	l.reporting.Lock()
	defer l.reporting.Unlock()
	l.mu.Lock()
	first := l.degraded == nil
	l.degraded = cause
	l.failures++
	apply := l.opt.FailOpen && !l.closed
	if apply {
		l.unjournaled = append(l.unjournaled, events...)
		l.apply(events)
	}
	l.mu.Unlock()
	if first {
		l.opt.Logger.Error("journal does not take updates; trying to recover it", "applied", apply, "error", cause)
		hook.Call(l.opt.Degraded, cause)
	}
	select {
	case l.wake <- struct{}{}:
	default:
	}
	if apply {
		return nil
	}
	return cause
}

// changeHealth calls change, which reports whether the log has recovered, and reports
// that.
func (l *Log) changeHealth(change func() (recovered bool)) {
	l.reporting.Lock()
	defer l.reporting.Unlock()
	l.mu.Lock()
	recovered := change()
	l.mu.Unlock()
	if !recovered {
		return
	}
	l.opt.Logger.Info("journal takes updates again")
	if l.opt.Recovered != nil {
		l.opt.Recovered()
	}
}

// RecoverLoop recovers the journal after each failure until ctx is done. The snapshot
// function writes a snapshot and returns its sequence.
func (l *Log) RecoverLoop(ctx context.Context, snapshot func(context.Context) (journal.Sequence, error)) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.wake:
		}
		wait := retry.Backoff(minRecoverBackoff, maxRecoverBackoff)
		for l.recover(ctx, snapshot) != nil {
			if !retry.Sleep(ctx, wait.NextBackOff()) {
				return
			}
		}
	}
}

// recover makes the unjournaled events durable by a snapshot, and then lets the journal
// continue after it.
func (l *Log) recover(ctx context.Context, snapshot func(context.Context) (journal.Sequence, error)) error {
	l.mu.Lock()
	failures, cause := l.failures, l.degraded
	l.mu.Unlock()
	if cause == nil {
		return nil
	}
	var covered journal.Sequence
	var err error
	if l.takeUnjournaled() {
		covered, err = snapshot(ctx)
	} else if errors.Is(cause, wal.ErrFull) {
		err = l.makeRoom(ctx, snapshot)
	}
	if err != nil {
		return err
	}
	if err := l.Journal().Recover(ctx, func() []*journal.Event { return l.unjournaledAfter(covered) }); err != nil {
		return err
	}
	l.changeHealth(func() bool {
		// A failure since then has woken the loop again, and may not be covered.
		recovered := l.degraded != nil && l.failures == failures
		if recovered {
			l.degraded, l.unjournaled = nil, nil
		}
		return recovered
	})
	return nil
}

// makeRoom makes the journal drop what a snapshot covers.
func (l *Log) makeRoom(ctx context.Context, snapshot func(context.Context) (journal.Sequence, error)) error {
	before, err := l.Journal().Stats()
	if err != nil {
		return err
	}
	if _, err := snapshot(ctx); err != nil {
		return err
	}
	after, err := l.Journal().Stats()
	if err == nil && after.Bytes >= before.Bytes {
		return wal.ErrFull
	}
	return err
}

// takeUnjournaled reports whether there are events that only a snapshot can make
// durable, and forgets those that the next snapshot covers. If that snapshot fails, the
// one after it covers them too.
func (l *Log) takeUnjournaled() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unjournaled = nil
	return l.opt.FailOpen && l.degraded != nil
}

// unjournaledAfter returns the unjournaled events after a sequence. The committer waits
// for it, so none is added meanwhile.
func (l *Log) unjournaledAfter(seq journal.Sequence) []*journal.Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, ev := range l.unjournaled {
		if ev.Sequence > seq {
			return l.unjournaled[i:]
		}
	}
	return nil
}

// Err returns the error of the journal while updates are not durable, or nil.
func (l *Log) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.degraded
}

// Closed reports whether Close was called.
func (l *Log) Closed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

// Close makes later updates in memory return ErrClosed. It does not close the journal.
func (l *Log) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
}
