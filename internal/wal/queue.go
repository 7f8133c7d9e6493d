package wal

import (
	"context"
	"fmt"
	"sync"

	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/journal"
)

// Bounds of one batch, and so of one bbolt transaction.
const (
	maxBatchEvents = 4096
	maxBatchBytes  = 16 << 20
)

// Generation counts the journal's failures.
//
// An event may be computed from what events before it in the queue will have
// done: it holds only what differs. It is right only if those are committed.
// So whoever computes events ahead takes the generation first; when an append
// fails, all that is queued behind it fails too, the generation grows, and
// Queue refuses, with [ErrStale], events of the generation before.
type Generation uint64

// Pending is an event on its way to stable storage.
type Pending struct {
	batch *batch
}

// Done is closed when the event is durable or has failed.
func (p Pending) Done() <-chan struct{} { return p.batch.done }

// Err returns why the event failed, nil if it is durable. It may be called
// only after Done is closed.
func (p Pending) Err() error { return p.batch.err }

// batch is a run of events that are committed together.
type batch struct {
	events  []*journal.Event
	records [][]byte
	bytes   int64
	done    chan struct{}
	err     error
}

func newBatch() *batch { return &batch{done: make(chan struct{})} }

func (b *batch) finish(err error) {
	b.err = err
	close(b.done)
}

// queue gathers events into batches for the committer.
type queue struct {
	mu      sync.Mutex
	batches []*batch // the last one is still open
	gen     Generation
	closed  bool
	wake    chan struct{} // has room for one
}

func (q *queue) init() { q.wake = make(chan struct{}, 1) }

func (q *queue) add(gen Generation, ev *journal.Event, record []byte) (Pending, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return Pending{}, ErrClosed
	}
	if gen != q.gen {
		return Pending{}, ErrStale
	}
	var b *batch
	if n := len(q.batches); n > 0 {
		b = q.batches[n-1]
	}
	if b == nil || len(b.events) >= maxBatchEvents || b.bytes >= maxBatchBytes {
		b = newBatch()
		q.batches = append(q.batches, b)
	}
	b.events = append(b.events, ev)
	b.records = append(b.records, record)
	b.bytes += int64(len(record))
	q.signal()
	return Pending{b}, nil
}

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take removes the oldest batch. It returns nil if there is none, and then
// whether the queue is closed, so that none will come.
func (q *queue) take() (*batch, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.batches) == 0 {
		return nil, q.closed
	}
	b := q.batches[0]
	q.batches = q.batches[1:]
	return b, false
}

// fail ends a generation: it fails a batch that was taken, and all that are
// queued. Whoever sees the new generation sees them all done, and whoever sees
// one of them done gets the new generation.
func (q *queue) fail(b *batch, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.gen++
	b.finish(err)
	for _, rest := range q.batches {
		rest.finish(fmt.Errorf("%w: %w", ErrStale, err))
	}
	q.batches = nil
}

func (q *queue) generation() Generation {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.gen
}

// close makes later adds return ErrClosed.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.signal()
}

// Generation returns the current generation.
func (j *Journal) Generation() Generation { return j.queue.generation() }

// Queue hands an event to the committer and returns at once. Events get their
// sequences in the order in which they are queued. The event must not be
// changed afterwards; its Sequence and Time are set before Done is closed.
func (j *Journal) Queue(gen Generation, ev *journal.Event) (Pending, error) {
	fail := func(err error) (Pending, error) {
		return Pending{}, &Error{Op: "append to journal", Path: j.dir, Err: err}
	}
	if j.opt.ReadOnly {
		return fail(ErrReadOnly)
	}
	record, err := event.Marshal(ev)
	if err != nil {
		return fail(err)
	}
	if len(record) > j.opt.MaxRecordBytes {
		return fail(fmt.Errorf("%w: it takes %d bytes of at most %d; split the update or raise MaxRecordBytes", ErrTooLarge, len(record), j.opt.MaxRecordBytes))
	}
	p, err := j.queue.add(gen, ev, record)
	if err != nil {
		return fail(err)
	}
	return p, nil
}

// Append queues an event that depends on none before it, and waits until it
// is durable. It returns the event's sequence. If ctx is done before that, the
// event may still be committed.
func (j *Journal) Append(ctx context.Context, ev *journal.Event) (journal.Sequence, error) {
	if err := ctx.Err(); err != nil {
		return 0, &Error{Op: "append to journal", Path: j.dir, Err: err}
	}
	p, err := j.Queue(j.Generation(), ev)
	if err != nil {
		return 0, err
	}
	select {
	case <-p.Done():
		return ev.Sequence, p.Err()
	case <-ctx.Done():
		return 0, &Error{Op: "append to journal", Path: j.dir, Err: fmt.Errorf("gave up waiting, it may still be committed: %w", context.Cause(ctx))}
	}
}
