package xdscache

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/xdswal/xdswal/internal/cachelog"
	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/journal"
)

// updater orders the updates of one node of one cache. Updates that are queued together
// share commits.
type updater struct {
	store       *store
	cache, node string
	// users is the number of running updates. The cache guards it.
	users int

	mu sync.Mutex
	// While events are queued, head is the node after their commit, or nil if it is
	// cleared, and last is the outcome of the last update. They are valid only in the
	// generation in which they were computed.
	head       *state.Node
	generation uint64
	queued     int
	last       outcome
}

// outcome is what an update results in.
type outcome struct {
	// ev is the event that makes the node as wanted, and commit its commit. Both are
	// nil if the node is so already.
	ev     *journal.Event
	commit cachelog.Commit
	// seq is the sequence of the node without ev, or 0 if there is no node.
	seq journal.Sequence
	// own reports that this update queued ev; else an earlier update did.
	own bool
}

// base returns the node after all queued events.
func (u *updater) base(generation uint64) *state.Node {
	if u.pending(generation) {
		return u.head
	}
	return u.store.State().Node(u.cache, u.node)
}

func (u *updater) pending(generation uint64) bool {
	return u.queued > 0 && u.generation == generation
}

// update queues the event that compute derives from the node, which is nil if nothing
// changes, waits until the node is durable as computed, and publishes it. It returns
// the sequence at which the node became so, or 0 if there was and is no node. It calls
// release when it no longer uses the updater; after a timeout this is later than its
// return.
//
// It checks ctx at the start, and passes it to publish. It does not cancel the wait for
// the commit, because a queued event cannot be withdrawn.
func (u *updater) update(ctx context.Context, compute func(*state.Node) (*journal.Event, error), publish func(context.Context, journal.Sequence), release func()) (journal.Sequence, error) {
	if ctx.Err() != nil {
		release()
		return 0, context.Cause(ctx)
	}
	o, err := u.queue(compute)
	if err != nil {
		release()
		return 0, err
	}
	if o.commit != nil {
		select {
		case <-o.commit.Done():
		case <-time.After(u.store.CommitTimeout):
			go func() {
				defer release()
				<-o.commit.Done()
				_, _ = u.finish(ctx, o, publish)
			}()
			return 0, fmt.Errorf("%w after %s; the update may still become durable: check the disk of the data directory", cachelog.ErrCommitTimeout, u.store.CommitTimeout)
		}
	}
	defer release()
	return u.finish(ctx, o, publish)
}

// finish publishes an outcome whose commit is done. It is durable even if the caller has
// stopped waiting.
func (u *updater) finish(ctx context.Context, o outcome, publish func(context.Context, journal.Sequence)) (journal.Sequence, error) {
	if o.own {
		u.settle()
	}
	if o.commit != nil && o.commit.Err() != nil {
		return 0, o.commit.Err()
	}
	seq := o.seq
	if o.ev != nil {
		seq = o.ev.Sequence
	}
	publish(ctx, seq)
	return seq, nil
}

// queue computes and queues an event. If nothing changes, the outcome is that of the
// last queued update, or the node's present sequence.
func (u *updater) queue(compute func(*state.Node) (*journal.Event, error)) (outcome, error) {
	if err := u.store.RejectErr(); err != nil {
		return outcome{}, err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for {
		generation := u.store.Generation()
		base := u.base(generation)
		ev, err := compute(base)
		if err != nil {
			return outcome{}, err
		}
		switch {
		case ev != nil:
		case u.pending(generation):
			return outcome{ev: u.last.ev, commit: u.last.commit}, nil
		case base == nil:
			return outcome{}, nil
		default:
			return outcome{seq: base.Sequence()}, nil
		}
		// Before ev is queued, because the log may set its sequence and time from then on.
		after := u.after(base, ev)
		commit, err := u.store.Queue(generation, ev)
		if err != nil {
			if u.store.Generation() != generation {
				continue // the events that ev was computed from have failed
			}
			return outcome{}, err
		}
		u.generation, u.head = generation, after
		u.last = outcome{ev: ev, commit: commit, own: true}
		u.queued++
		return u.last, nil
	}
}

func (u *updater) after(base *state.Node, ev *journal.Event) *state.Node {
	if ev.Kind == journal.Clear {
		return nil
	}
	if base == nil {
		base = state.NewNode(u.cache, u.node)
	}
	return base.Apply(ev)
}

// settle removes a queued event that is committed or has failed.
func (u *updater) settle() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.queued--
	if u.queued == 0 {
		u.head, u.last = nil, outcome{}
	}
}
