package wal

import (
	"context"
	"fmt"
	"sync"

	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/journal"
)

// Bounds of one group, and so of one bbolt transaction.
const (
	maxGroupEvents = 4096
	maxGroupBytes  = 16 << 20
)

// Generation counts the failures of groups.
//
// An event can be computed from the expected result of events that are still
// queued, and is correct only if those are committed. Its caller reads the
// generation before it computes the event. When a group fails, all events queued
// after it fail too, the generation increases, and Queue refuses events of an older
// generation with [ErrStale].
type Generation uint64

// Pending is a queued event.
type Pending struct {
	group *group
}

// Done is closed when the event is committed or has failed.
func (p Pending) Done() <-chan struct{} { return p.group.done }

// Err returns the error of the event, or nil if it is committed. Call it only after
// Done is closed.
func (p Pending) Err() error { return p.group.err }

// group is a run of events that one sync makes durable.
type group struct {
	events  []*journal.Event
	records [][]byte
	bytes   int64 // of the records
	done    chan struct{}
	err     error
}

func (g *group) last() *journal.Event { return g.events[len(g.events)-1] }

func (g *group) finish(err error) {
	g.err = err
	close(g.done)
}

// queue collects events in groups for the committer.
type queue struct {
	mu     sync.Mutex
	groups []*group // the last one is open for more events
	gen    Generation
	closed bool
	wake   chan struct{} // of capacity 1
}

func (q *queue) add(gen Generation, ev *journal.Event, record []byte) (Pending, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return Pending{}, ErrClosed
	}
	if gen != q.gen {
		return Pending{}, ErrStale
	}
	var g *group
	if n := len(q.groups); n > 0 {
		g = q.groups[n-1]
	}
	if g == nil || len(g.events) >= maxGroupEvents || g.bytes >= maxGroupBytes {
		g = &group{done: make(chan struct{})}
		q.groups = append(q.groups, g)
	}
	g.events = append(g.events, ev)
	g.records = append(g.records, record)
	g.bytes += int64(len(record))
	q.signal()
	return Pending{g}, nil
}

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take removes the oldest group. Without a group it returns nil, and whether the
// queue is closed, so that no group will follow.
func (q *queue) take() (*group, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.groups) == 0 {
		return nil, q.closed
	}
	g := q.groups[0]
	q.groups = q.groups[1:]
	return g, false
}

// fail increments the generation, and fails g, which was taken, and all queued
// groups. It does so under the lock: a caller that reads the new generation finds
// these groups done, and a caller that finds one of them done reads the new
// generation.
func (q *queue) fail(g *group, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.gen++
	g.finish(err)
	for _, later := range q.groups {
		later.finish(fmt.Errorf("%w: %w", ErrStale, err))
	}
	q.groups = nil
}

// close makes later adds return ErrClosed.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.signal()
}

// Generation returns the current generation.
func (j *Journal) Generation() Generation {
	j.queue.mu.Lock()
	defer j.queue.mu.Unlock()
	return j.queue.gen
}

// Queue passes an event to the committer and returns without waiting. Events get
// their sequences in the order in which they are queued. The caller must not change
// the event afterwards; its Sequence and Time are set before Done is closed.
func (j *Journal) Queue(gen Generation, ev *journal.Event) (Pending, error) {
	p, err := j.enqueue(gen, ev)
	if err != nil {
		return Pending{}, j.fail("append to journal", err)
	}
	return p, nil
}

func (j *Journal) enqueue(gen Generation, ev *journal.Event) (Pending, error) {
	if j.opt.ReadOnly {
		return Pending{}, ErrReadOnly
	}
	record, err := event.Marshal(ev)
	if err != nil {
		return Pending{}, err
	}
	if len(record) > j.opt.MaxRecordBytes {
		return Pending{}, fmt.Errorf("%w: got a record of %d bytes, want at most %d; split the update or raise MaxRecordBytes", ErrTooLarge, len(record), j.opt.MaxRecordBytes)
	}
	return j.queue.add(gen, ev, record)
}

// Append queues an event that does not depend on an earlier one, waits until it is
// committed, and returns its sequence. If ctx ends first, Append returns its cause,
// and the event may still be committed.
func (j *Journal) Append(ctx context.Context, ev *journal.Event) (journal.Sequence, error) {
	if err := ctx.Err(); err != nil {
		return 0, j.fail("append to journal", err)
	}
	p, err := j.Queue(j.Generation(), ev)
	if err != nil {
		return 0, err
	}
	select {
	case <-p.Done():
		return ev.Sequence, p.Err()
	case <-ctx.Done():
		return 0, j.fail("append to journal", fmt.Errorf("canceled while waiting for the commit; the update may still become durable: %w", context.Cause(ctx)))
	}
}
