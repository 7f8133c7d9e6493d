package wal

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/internal/hook"
	"github.com/xdswal/xdswal/journal"
)

// commit is the committer. It ends when the queue is closed and empty.
func (j *Journal) commit() {
	defer close(j.done)
	var flush <-chan time.Time
	for {
		select {
		case <-j.queue.wake:
		case <-flush:
			flush = nil
			j.flushStaged()
			continue
		}
		for {
			// Whoever was acknowledged a moment ago may be about to append
			// again: let them join this batch. Measured: without it writers
			// fall into two halves that take turns, and batches have half
			// the size.
			runtime.Gosched()
			b, closed := j.queue.take()
			if b == nil && closed {
				j.flushStaged()
				return
			}
			if b == nil {
				break
			}
			j.commitBatch(b)
			if flush == nil {
				flush = j.flushTimer()
			}
			select { // in here too: the queue may never be empty
			case <-flush:
				flush = nil
				j.flushStaged()
			default:
			}
		}
	}
}

// commitBatch makes a batch durable and acknowledges it, or fails it.
func (j *Journal) commitBatch(b *batch) {
	j.commitMu.Lock()
	defer j.commitMu.Unlock()
	start := time.Now()
	first := j.stamp(b, start)
	err := j.store(first, b)
	info := journal.Commit{
		First: first, Last: first + journal.Sequence(len(b.events)) - 1,
		Events: len(b.events), Bytes: b.bytes, Duration: time.Since(start), Err: err,
	}
	if err != nil {
		err = j.fail(info.Last, b, err)
	} else {
		j.advance(info.Last, b)
		if j.opt.Committed != nil {
			j.opt.Committed(b.events)
		}
		if j.opt.Receiver != nil {
			j.opt.Receiver.Committed(b.events, b.bytes)
		}
	}
	hook.Call(j.opt.Hooks.Commit, info)
	if err != nil {
		j.queue.fail(b, err)
	} else {
		b.finish(nil)
	}
	j.rotate()
}

// stamp gives the events of a batch their sequences and their time.
func (j *Journal) stamp(b *batch, now time.Time) journal.Sequence {
	first := j.last + 1
	if now.Before(j.lastTime) {
		now = j.lastTime
	}
	now = now.Round(0) // as it will be read back
	for i, ev := range b.events {
		ev.Sequence, ev.Time = first+journal.Sequence(i), now
		event.Seal(b.records[i], ev.Sequence, now)
	}
	return first
}

// store writes a batch to the active segment, or stages it.
func (j *Journal) store(first journal.Sequence, b *batch) error {
	if j.poison != nil {
		return j.errorAt(first, fmt.Errorf("%w: %w", ErrPoisoned, j.poison))
	}
	if size := j.size() + b.bytes; size > j.opt.MaxBytes {
		return j.errorAt(first, fmt.Errorf("%w: it would take %d bytes of at most %d; it shrinks when a snapshot covers it, so see why none was written, or raise MaxBytes", ErrFull, size, j.opt.MaxBytes))
	}
	var err error
	if j.staged != nil {
		err = j.stage(first, b)
	} else {
		err = j.active.put(first, b.records)
	}
	if err != nil {
		j.setPoison(err)
		return j.errorAt(first, fmt.Errorf("%w: %w", ErrPoisoned, err))
	}
	return nil
}

func (j *Journal) errorAt(seq journal.Sequence, err error) error {
	path := j.dir
	if j.active != nil {
		path = j.active.path
	}
	return &Error{Op: "append to journal", Path: path, Sequence: seq, Err: err}
}

func (j *Journal) setPoison(err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.poison = err
}

func (j *Journal) advance(last journal.Sequence, b *batch) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.last, j.lastTime = last, b.events[len(b.events)-1].Time
}

// fail offers a batch that could not be stored to whoever may take it on. It
// returns what the batch's appends return.
func (j *Journal) fail(last journal.Sequence, b *batch, cause error) error {
	failed := j.opt.Failed
	if j.opt.Receiver != nil {
		failed = j.opt.Receiver.Failed
	}
	if failed == nil {
		return cause
	}
	if err := failed(b.events, cause); err != nil {
		return err
	}
	j.advance(last, b)
	j.takenOver = true
	if j.poison == nil {
		j.setPoison(cause)
	}
	return nil
}

func (j *Journal) size() int64 {
	j.mu.RLock()
	defer j.mu.RUnlock()
	return j.sizeLocked()
}

// sizeLocked is size for those who hold mu.
func (j *Journal) sizeLocked() int64 {
	var n int64
	for i := range j.sealed {
		n += j.sealed[i].bytes
	}
	if j.active != nil {
		n += j.active.bytes.Load()
	}
	if j.staged != nil {
		n += j.staged.bytes
	}
	return n
}

// rotate seals the active segment when it is full, and has the next one made
// in time. If that fails the active one simply grows, and the next commit
// tries again.
func (j *Journal) rotate() {
	if j.active == nil || j.poison != nil {
		return
	}
	if j.active.bytes.Load() >= j.opt.SegmentBytes/2 {
		j.prepareSpare()
	}
	if j.active.bytes.Load() < j.opt.SegmentBytes {
		return
	}
	next, err := j.newActive(j.active.last+1, nil)
	if errors.Is(err, ErrPoisoned) {
		// The new one has its name already: what the old one would take from
		// now on, the next Open would not look for there.
		j.setPoison(err)
	}
	if err == nil {
		j.setActive(next)
	}
}

// setActive makes a the active segment. The one before it is sealed, unless a
// has taken its name.
func (j *Journal) setActive(a *active) {
	j.mu.Lock()
	old := j.active
	j.active = a
	if old != nil && old.first != a.first {
		j.sealed = append(j.sealed, old.seal())
	}
	j.mu.Unlock()
	if old != nil {
		j.background.Add(1)
		go func() {
			defer j.background.Done()
			old.db.Close() // waits for readers
		}()
	}
	hook.Call(j.opt.Hooks.SegmentCreated, journal.Segment{Path: a.path, First: a.first})
}

// prepareSpare starts making the next segment, unless that was done.
func (j *Journal) prepareSpare() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.spare != nil || j.preparing {
		return
	}
	j.preparing = true
	j.background.Add(1)
	go func() {
		defer j.background.Done()
		s, err := newSpare(j.dir, j.opt.SegmentBytes)
		j.mu.Lock()
		defer j.mu.Unlock()
		j.preparing = false
		if err == nil && j.spare == nil {
			j.spare = s
		} else if err == nil {
			s.discard()
		}
	}()
}

// Recover brings a poisoned journal back: it begins a new segment behind the
// last acknowledged event, and so leaves alone the file that is in doubt.
//
// If events were taken on by Failed, tail is called, while no event can come,
// for those that no durable snapshot covers: they must be consecutive and end
// with the last one. If none were, tail is not called. What the sealed
// segments do not hold of them is made durable here. Recover of a journal that
// is not poisoned does nothing; one that fails may be tried again.
//
//	new segment from N on, with its events, under a temporary name
//	rename(.tmp-*, N.journal), fsync(directory)
//
// A crash before the rename leaves the journal as it was; a batch that failed
// may then be found whole, as if it had been acknowledged. After the rename
// nothing of the old segment from N on is read any more.
func (j *Journal) Recover(ctx context.Context, tail func() []*journal.Event) error {
	j.commitMu.Lock()
	defer j.commitMu.Unlock()
	fail := func(err error) error {
		return &Error{Op: "recover journal", Path: j.dir, Err: err}
	}
	if j.poison == nil {
		return nil
	}
	if j.active == nil {
		return fail(ErrClosed)
	}
	if err := ctx.Err(); err != nil {
		return fail(err)
	}
	records, err := j.unstored(tail)
	if err != nil {
		return fail(err)
	}
	a, err := j.newActive(j.last+1-journal.Sequence(len(records)), records)
	if err != nil {
		return err
	}
	j.setActive(a)
	if j.staged != nil {
		// What it holds of a failed batch must not come back in the place of
		// what is staged next, so here the truncation is made durable.
		if err := errors.Join(j.resetStaged(), j.staged.f.Sync()); err != nil {
			return fail(err)
		}
	}
	j.takenOver = false
	j.setPoison(nil)
	return nil
}

// unstored returns the records of acknowledged events that no sealed segment
// holds for sure.
func (j *Journal) unstored(tail func() []*journal.Event) ([][]byte, error) {
	if !j.takenOver && j.staged != nil {
		return j.staged.records, nil
	}
	if !j.takenOver {
		return nil, nil
	}
	var records [][]byte
	events := tail()
	for i, ev := range events {
		if want := j.last + 1 - journal.Sequence(len(events)-i); ev.Sequence != want {
			return nil, fmt.Errorf("%w: event %d where %d should stand", ErrGap, ev.Sequence, want)
		}
		if ev.Sequence < j.active.first {
			continue
		}
		record, err := event.Marshal(ev)
		if err != nil {
			return nil, err
		}
		event.Seal(record, ev.Sequence, ev.Time)
		records = append(records, record)
	}
	return records, nil
}
