package xdscache

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/xdswal/xdswal/journal/event"
	"github.com/xdswal/xdswal/replay/state"
)

// entity orders the updates of one node of one cache, so that the journal and
// the served cache agree on it, while updates of the same node share commits.
type entity struct {
	log         Log
	cache, node string

	mu sync.Mutex
	// While events are queued, head is what the node will be when they are
	// committed, nil if it will not be there. It is right only as long as
	// the generation in which it was computed lasts.
	head       *state.Node
	generation uint64
	queued     int
	last       Commit

	// publishing guards what follows: the served cache is told of one state
	// after the other.
	publishing sync.Mutex
	// published is the sequence up to which the served cache has the node.
	published event.Sequence
	// untold is set while the served cache could not tell every watch.
	untold bool
}

// base returns what the node will be when all queued events are committed.
func (e *entity) base(generation uint64) *state.Node {
	if e.queued > 0 && e.generation == generation {
		return e.head
	}
	return e.log.State().Node(e.cache, e.node)
}

// update queues the event that compute derives from the node, nil where
// nothing changes, waits until the node is durable as computed, and publishes
// it. It returns the event, or nil.
func (e *entity) update(ctx context.Context, timeout time.Duration, compute func(*state.Node) (*event.Event, error), publish func(context.Context, *event.Event) error) (*event.Event, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	ev, commit, err := e.queue(compute)
	if err != nil {
		return nil, err
	}
	if commit != nil {
		late := func() { _ = publish(context.WithoutCancel(ctx), ev) }
		if err := e.wait(timeout, commit, ev, late); err != nil {
			return nil, err
		}
	}
	return ev, publish(ctx, ev)
}

// queue computes and queues an event. It returns no event if nothing changes,
// and then the commit that the node still waits for, if there is one.
func (e *entity) queue(compute func(*state.Node) (*event.Event, error)) (*event.Event, Commit, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for {
		generation := e.log.Generation()
		base := e.base(generation)
		ev, err := compute(base)
		if err != nil {
			return nil, nil, err
		}
		if ev == nil {
			if e.queued > 0 && e.generation == generation {
				return nil, e.last, nil
			}
			return nil, nil, nil
		}
		// Before ev is queued: its sequence and time are the log's to set then.
		after := e.after(base, ev)
		commit, err := e.log.Queue(generation, ev)
		if err != nil {
			if e.log.Generation() != generation {
				continue // what ev was computed from has failed
			}
			return nil, nil, err
		}
		e.generation, e.last = generation, commit
		e.head = after
		e.queued++
		return ev, commit, nil
	}
}

func (e *entity) after(base *state.Node, ev *event.Event) *state.Node {
	if ev.Kind == event.Clear {
		return nil
	}
	if base == nil {
		base = state.NewNode(e.cache, e.node)
	}
	return base.Apply(ev)
}

// wait waits for a commit. It heeds no context: what is queued cannot be taken
// back, and the caller has to know what became of it. If the commit comes too
// late for the caller, late is called then.
func (e *entity) wait(timeout time.Duration, commit Commit, ev *event.Event, late func()) error {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-commit.Done():
		e.settle(ev)
		return commit.Err()
	case <-timer.C:
		go func() {
			<-commit.Done()
			e.settle(ev)
			if commit.Err() == nil {
				late()
			}
		}()
		return fmt.Errorf("%w within %s: it may still be committed, and is published then: look at the disk of the data directory", ErrCommitTimeout, timeout)
	}
}

// settle forgets a queued event that has been committed or has failed.
func (e *entity) settle(ev *event.Event) {
	if ev == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.queued--
	if e.queued == 0 {
		e.head, e.last = nil, nil
	}
}
