package xdswal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/internal/wal"
	"github.com/xdswal/xdswal/journal"
	"github.com/xdswal/xdswal/xdscache"
)

// eventLog makes the caches' events durable and folds them. It is the journal
// with the state beside it, or the state alone where nothing persists.
type eventLog struct {
	journal  atomic.Pointer[wal.Journal] // nil in memory and in a follower
	failOpen bool
	hooks    *Hooks
	logger   *slog.Logger
	// onCommit is called with each durable group and the size of its records. Set
	// it before the first append.
	onCommit func(events []*journal.Event, bytes int64)
	// refusal is why no update is taken, nil if they are.
	refusal atomic.Pointer[error]

	// state is replaced by the journal's committer alone, or under mu in
	// memory.
	state atomic.Pointer[state.State]

	// reporting is held while degraded changes and the change is reported, so
	// that reports come in order. It comes before mu.
	reporting sync.Mutex

	mu sync.Mutex
	// unjournaled are the events that were applied though the journal could
	// not take them, and that no snapshot was begun after.
	unjournaled []*journal.Event
	degraded    error
	failures    uint64 // counts the batches that failed
	closed      bool
	wake        chan struct{} // the journal is in need of recovery
}

var (
	_ xdscache.Log = (*eventLog)(nil)
	_ wal.Receiver = (*eventLog)(nil)
)

func newEventLog(opt *Options) *eventLog {
	l := &eventLog{
		failOpen: opt.FailOpen, hooks: &opt.Hooks, logger: opt.Logger,
		onCommit: func([]*journal.Event, int64) {}, wake: make(chan struct{}, 1),
	}
	l.state.Store(&state.State{})
	return l
}

// State returns the fold of all durable events.
func (l *eventLog) State() *state.State { return l.state.Load() }

// Refusal returns why no update is taken.
func (l *eventLog) Refusal() error {
	if refusal := l.refusal.Load(); refusal != nil {
		return *refusal
	}
	return nil
}

// Generation returns the journal's generation.
func (l *eventLog) Generation() uint64 {
	j := l.journal.Load()
	if j == nil {
		return 0
	}
	return uint64(j.Generation())
}

// Queue hands an event to the journal.
func (l *eventLog) Queue(generation uint64, ev *journal.Event) (xdscache.Commit, error) {
	if err := l.Refusal(); err != nil {
		return nil, err
	}
	j := l.journal.Load()
	if j == nil {
		return l.keep(ev)
	}
	commit, err := j.Queue(wal.Generation(generation), ev)
	if errors.Is(err, wal.ErrClosed) {
		return nil, ErrClosed
	}
	return commit, err
}

// fence refuses updates from now on, because another writer has taken over:
// what would be acknowledged is not what the next restore yields. With FailOpen
// they go on to be journaled, here alone.
func (l *eventLog) fence(err error) {
	if !l.failOpen {
		l.refusal.Store(&err)
	}
}

// keep applies an event in memory.
func (l *eventLog) keep(ev *journal.Event) (xdscache.Commit, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, ErrClosed
	}
	st := l.State()
	ev.Sequence, ev.Time = st.Sequence()+1, time.Now().Round(0)
	l.apply([]*journal.Event{ev})
	return kept, nil
}

// kept is the commit of what is not journaled.
var kept = func() commitDone {
	done := make(chan struct{})
	close(done)
	return done
}()

type commitDone chan struct{}

func (c commitDone) Done() <-chan struct{} { return c }
func (c commitDone) Err() error            { return nil }

// apply folds events. They have consecutive sequences: whoever calls it gave
// them.
func (l *eventLog) apply(events []*journal.Event) {
	st := l.State()
	for _, ev := range events {
		next, err := st.Apply(ev)
		if err != nil {
			// Going on would serve what is not in the journal.
			panic(fmt.Sprintf("xdswal: the journal's sequences have a hole: %v", err))
		}
		st = next
	}
	l.state.Store(st)
}

// Committed applies a durable group to the state, and passes it to onCommit.
func (l *eventLog) Committed(events []*journal.Event, bytes int64) {
	l.apply(events)
	l.onCommit(events, bytes)
	l.committed()
}

// committed notes that the journal has taken events: if it was full, it has room
// again.
func (l *eventLog) committed() {
	l.reporting.Lock()
	defer l.reporting.Unlock()
	l.mu.Lock()
	was := errors.Is(l.degraded, wal.ErrFull) && len(l.unjournaled) == 0
	if was {
		l.degraded = nil
	}
	l.mu.Unlock()
	if was {
		l.recovered()
	}
}

func (l *eventLog) recovered() {
	l.logger.Info("the journal takes updates again")
	if l.hooks.Recovered != nil {
		l.hooks.Recovered()
	}
}

// Failed marks the log as degraded, and with FailOpen accepts the events of a group
// that the journal could not make durable.
func (l *eventLog) Failed(events []*journal.Event, cause error) error {
	l.reporting.Lock()
	defer l.reporting.Unlock()
	l.mu.Lock()
	first := l.degraded == nil
	l.degraded = cause
	l.failures++
	takeOn := l.failOpen && !l.closed
	if takeOn {
		l.unjournaled = append(l.unjournaled, events...)
		l.apply(events)
	}
	l.mu.Unlock()
	if first {
		l.logger.Error("the journal cannot take updates; it is tried again", "applied", takeOn, "error", cause)
		if l.hooks.Degraded != nil {
			l.hooks.Degraded(cause)
		}
	}
	select {
	case l.wake <- struct{}{}:
	default:
	}
	if takeOn {
		return nil
	}
	return cause
}

// Bounds of the waits between attempts to recover.
const (
	minRecoverBackoff = 100 * time.Millisecond
	maxRecoverBackoff = 10 * time.Second
)

// recoverLoop brings the journal back after a failure, for as long as ctx
// lasts. The snapshot function writes one and returns its sequence.
func (l *eventLog) recoverLoop(ctx context.Context, snapshot func(context.Context) (journal.Sequence, error)) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.wake:
		}
		for backoff := minRecoverBackoff; ; backoff = min(2*backoff, maxRecoverBackoff) {
			if l.recover(ctx, snapshot) == nil {
				break
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(backoff/2 + rand.N(backoff/2)):
			}
		}
	}
}

// recover makes durable by a snapshot what the journal missed, and then lets
// the journal go on behind it.
func (l *eventLog) recover(ctx context.Context, snapshot func(context.Context) (journal.Sequence, error)) error {
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
	if err := l.journal.Load().Recover(ctx, func() []*journal.Event { return l.after(covered) }); err != nil {
		return err
	}
	l.reporting.Lock()
	defer l.reporting.Unlock()
	l.mu.Lock()
	// What failed since has woken the loop again, and may not be covered.
	was := l.degraded != nil && l.failures == failures
	if was {
		l.degraded, l.unjournaled = nil, nil
	}
	l.mu.Unlock()
	if was {
		l.recovered()
	}
	return nil
}

// makeRoom has the journal drop what a snapshot covers.
func (l *eventLog) makeRoom(ctx context.Context, snapshot func(context.Context) (journal.Sequence, error)) error {
	j := l.journal.Load()
	before, err := j.Stats()
	if err != nil {
		return err
	}
	if _, err := snapshot(ctx); err != nil {
		return err
	}
	after, err := j.Stats()
	if err == nil && after.Bytes >= before.Bytes {
		return wal.ErrFull
	}
	return err
}

// takeUnjournaled reports whether there are events that only a snapshot can
// make durable, and forgets those that the next snapshot will cover: if that
// one fails, the one after it covers them all the same.
func (l *eventLog) takeUnjournaled() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unjournaled = nil
	return l.failOpen && l.degraded != nil
}

// after returns the unjournaled events after a sequence. The journal's
// committer waits meanwhile, so none is added.
func (l *eventLog) after(seq journal.Sequence) []*journal.Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, ev := range l.unjournaled {
		if ev.Sequence > seq {
			return l.unjournaled[i:]
		}
	}
	return nil
}

// health returns why updates are not durable, nil if they are.
func (l *eventLog) health() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.degraded
}

func (l *eventLog) isClosed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

// close refuses what comes after.
func (l *eventLog) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
}

// replayJournal is the journal as a restore sees it.
type replayJournal struct {
	*wal.Journal
}

// Bounds returns the oldest and the newest sequence.
func (j replayJournal) Bounds() (first, last journal.Sequence, err error) {
	s, err := j.Stats()
	return s.First, s.Last, err
}

// compactedJournal is the journal as the compactor sees it.
type compactedJournal struct {
	*wal.Journal
	max int64
}

// Pressure reports that the journal is more than half full.
func (j compactedJournal) Pressure() bool {
	s, err := j.Stats()
	return err == nil && s.Bytes > j.max/2
}
