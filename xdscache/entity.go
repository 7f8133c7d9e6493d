package xdscache

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/journal"
)

// lateTimeout bounds how long the served cache may take to tell watches of an
// update whose caller has gone.
const lateTimeout = time.Second

// entity orders the updates of one node of one cache, so that the journal and
// the served cache agree on it, while updates of the same node share commits.
type entity struct {
	log         Log
	cache, node string
	// users counts the updates under way, guarded by who holds the entity.
	users int

	mu sync.Mutex
	// While events are queued, head is what the node will be when they are
	// committed, nil if it will not be there, and last leads to it. It is
	// right only as long as the generation in which it was computed lasts.
	head       *state.Node
	generation uint64
	queued     int
	last       step

	// publishing guards what follows: the served cache is told of one state
	// after the other.
	publishing sync.Mutex
	// published is the sequence up to which the served cache has the node.
	published journal.Sequence
}

// step is what an update of an entity comes to.
type step struct {
	// ev makes the node what the update wants, nil if it is that already, by
	// the event with sequence seq, which is 0 for a node that is not there.
	ev  *journal.Event
	seq journal.Sequence
	// commit is that of ev, nil without.
	commit Commit
	// own is set if the update queued ev, and not one before it.
	own bool
}

// sequence returns the sequence at which the node is as wanted. It may be
// called when the step is durable.
func (s step) sequence() journal.Sequence {
	if s.ev != nil {
		return s.ev.Sequence
	}
	return s.seq
}

// base returns what the node will be when all queued events are committed.
func (e *entity) base(generation uint64) *state.Node {
	if e.pending(generation) {
		return e.head
	}
	return e.log.State().Node(e.cache, e.node)
}

func (e *entity) pending(generation uint64) bool {
	return e.queued > 0 && e.generation == generation
}

// update queues the event that compute derives from the node, nil where
// nothing changes, waits until the node is durable as computed, and has it
// published. It returns the sequence at which the node became so, 0 for one
// that was not there and still is not. It calls release when it needs the
// entity no more, which after a timeout is later than its return.
//
// It heeds ctx at first, and then for publishing: what is queued cannot be
// taken back, and the caller has to know what became of it.
func (e *entity) update(ctx context.Context, timeout time.Duration, compute func(*state.Node) (*journal.Event, error), publish func(context.Context, journal.Sequence) error, release func()) (journal.Sequence, error) {
	if ctx.Err() != nil {
		release()
		return 0, context.Cause(ctx)
	}
	s, err := e.queue(compute)
	if err != nil {
		release()
		return 0, err
	}
	if !s.wait(timeout) {
		go func() {
			defer release()
			<-s.commit.Done()
			e.settle(s)
			if s.commit.Err() == nil {
				_ = publishLate(ctx, s, publish)
			}
		}()
		return 0, fmt.Errorf("%w within %s: it may still be committed, and is published then: look at the disk of the data directory", ErrCommitTimeout, timeout)
	}
	defer release()
	e.settle(s)
	if s.commit != nil && s.commit.Err() != nil {
		return 0, s.commit.Err()
	}
	if ctx.Err() != nil {
		return s.sequence(), publishLate(ctx, s, publish)
	}
	return s.sequence(), publish(ctx, s.sequence())
}

// publishLate publishes a step although ctx is done: it is durable, and watches
// with room for the answer must not miss it.
func publishLate(ctx context.Context, s step, publish func(context.Context, journal.Sequence) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lateTimeout)
	defer cancel()
	return publish(ctx, s.sequence())
}

// wait waits for the commit of a step. It returns false after a timeout.
func (s step) wait(timeout time.Duration) bool {
	if s.commit == nil {
		return true
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-s.commit.Done():
		return true
	case <-timer.C:
		return false
	}
}

// queue computes and queues an event. If nothing changes, the step is the one
// that the node still waits for, or that it has come to.
func (e *entity) queue(compute func(*state.Node) (*journal.Event, error)) (step, error) {
	if err := e.log.RejectErr(); err != nil {
		return step{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for {
		generation := e.log.Generation()
		base := e.base(generation)
		ev, err := compute(base)
		if err != nil {
			return step{}, err
		}
		switch {
		case ev != nil:
		case e.pending(generation):
			return step{ev: e.last.ev, commit: e.last.commit}, nil
		case base == nil:
			return step{}, nil
		default:
			return step{seq: base.Sequence()}, nil
		}
		// Before ev is queued: its sequence and time are the log's to set then.
		after := e.after(base, ev)
		commit, err := e.log.Queue(generation, ev)
		if err != nil {
			if e.log.Generation() != generation {
				continue // what ev was computed from has failed
			}
			return step{}, err
		}
		e.generation, e.head = generation, after
		e.last = step{ev: ev, commit: commit, own: true}
		e.queued++
		return e.last, nil
	}
}

func (e *entity) after(base *state.Node, ev *journal.Event) *state.Node {
	if ev.Kind == journal.Clear {
		return nil
	}
	if base == nil {
		base = state.NewNode(e.cache, e.node)
	}
	return base.Apply(ev)
}

// settle forgets a queued event that has been committed or has failed.
func (e *entity) settle(s step) {
	if !s.own {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.queued--
	if e.queued == 0 {
		e.head, e.last = nil, step{}
	}
}
