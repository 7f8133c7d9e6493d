package journal

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/xdswal/xdswal/journal/event"
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
		// Whoever was acknowledged a moment ago may be about to append again:
		// let them join this batch. Measured at 128 writers: batches are
		// twice as large, and throughput grows with them.
		runtime.Gosched()
		for {
			b, closed := j.queue.take()
			if b == nil && closed {
				j.flushStaged()
				return
			}
			if b == nil {
				break
			}
			j.commitBatch(b)
		}
		if flush == nil {
			flush = j.flushTimer()
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
	info := CommitInfo{
		First: first, Last: first + event.Sequence(len(b.events)) - 1,
		Events: len(b.events), Bytes: b.bytes, Duration: time.Since(start), Err: err,
	}
	if err != nil {
		err = j.fail(info.Last, b, err)
	} else {
		j.advance(info.Last, b)
		if j.opt.Committed != nil {
			j.opt.Committed(b.events)
		}
	}
	if j.opt.Hooks.Commit != nil {
		j.opt.Hooks.Commit(info)
	}
	b.finish(err)
	if err != nil {
		for _, rest := range j.queue.fail() {
			rest.finish(fmt.Errorf("%w: %w", ErrStale, err))
		}
	}
	j.rotate()
}

// stamp gives the events of a batch their sequences and their time.
func (j *Journal) stamp(b *batch, now time.Time) event.Sequence {
	first := j.last + 1
	if now.Before(j.lastTime) {
		now = j.lastTime
	}
	now = now.Round(0) // as it will be read back
	for i, ev := range b.events {
		ev.Sequence, ev.Time = first+event.Sequence(i), now
		event.Seal(b.records[i], ev.Sequence, now)
	}
	return first
}

// store writes a batch to the active segment, or stages it.
func (j *Journal) store(first event.Sequence, b *batch) error {
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
		err = j.active.put(first, b.records, b.bytes)
	}
	if err != nil {
		j.setPoison(err)
		return j.errorAt(first, fmt.Errorf("%w: %w", ErrPoisoned, err))
	}
	return nil
}

func (j *Journal) errorAt(seq event.Sequence, err error) error {
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

func (j *Journal) advance(last event.Sequence, b *batch) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.last, j.lastTime = last, b.events[len(b.events)-1].Time
}

// fail offers a batch that could not be stored to whoever may take it on. It
// returns what the batch's appends return.
func (j *Journal) fail(last event.Sequence, b *batch, cause error) error {
	if j.opt.Failed == nil {
		return cause
	}
	if err := j.opt.Failed(b.events, cause); err != nil {
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
	n := j.sealedBytes()
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
	j.mu.Lock()
	defer j.mu.Unlock()
	full := j.active
	if err := j.createActive(full.last + 1); err != nil {
		j.active = full
		return
	}
	j.sealed = append(j.sealed, full.segment)
	j.background.Add(1)
	go func() {
		defer j.background.Done()
		full.db.Close() // waits for readers
	}()
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
// with the last one, and are made durable here. If none were, tail is not
// called. Recover of a journal that is not poisoned does nothing.
//
//	new segment at N (see activate), then its first transaction
//
// A crash before the rename leaves the journal as it was; a batch that failed
// may then be found whole, as if it had been acknowledged. After the rename
// nothing of the old segment from N on is read any more.
func (j *Journal) Recover(ctx context.Context, tail func() []*event.Event) error {
	j.commitMu.Lock()
	defer j.commitMu.Unlock()
	if j.poison == nil || j.opt.ReadOnly {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return &Error{Op: "recover journal", Path: j.dir, Err: err}
	}
	records, bytes, err := j.unstored(tail)
	if err != nil {
		return &Error{Op: "recover journal", Path: j.dir, Err: err}
	}
	next := j.last + 1 - event.Sequence(len(records))
	if err := j.replaceActive(next); err != nil {
		return err
	}
	if len(records) > 0 {
		if err := j.active.put(next, records, bytes); err != nil {
			return j.errorAt(next, fmt.Errorf("%w: %w", ErrPoisoned, err))
		}
	}
	if j.staged != nil {
		if err := j.staged.reset(j.last + 1); err != nil {
			return j.errorAt(next, fmt.Errorf("%w: %w", ErrPoisoned, err))
		}
	}
	j.takenOver = false
	j.setPoison(nil)
	return nil
}

// unstored returns the records of acknowledged events that no segment holds.
func (j *Journal) unstored(tail func() []*event.Event) ([][]byte, int64, error) {
	var records [][]byte
	switch {
	case j.takenOver:
		events := tail()
		for i, ev := range events {
			if want := j.last + 1 - event.Sequence(len(events)-i); ev.Sequence != want {
				return nil, 0, fmt.Errorf("%w: event %d where %d should stand", ErrGap, ev.Sequence, want)
			}
			record, err := event.Marshal(ev)
			if err != nil {
				return nil, 0, err
			}
			event.Seal(record, ev.Sequence, ev.Time)
			records = append(records, record)
		}
	case j.staged != nil:
		records = slices.Clone(j.staged.records)
	}
	var bytes int64
	for _, r := range records {
		bytes += int64(len(r))
	}
	return records, bytes, nil
}

// replaceActive seals the active segment as it is and begins one at next.
func (j *Journal) replaceActive(next event.Sequence) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	old := j.active
	if old != nil {
		// Its lock goes with it: a segment of the same name may follow.
		old.db.Close()
		j.active = nil
		j.sealed = append(j.sealed, old.segment)
	}
	// A segment that begins with next or later is empty but for what was not
	// acknowledged. The new one takes the place of one with its own name.
	keep := slices.IndexFunc(j.sealed, func(s segment) bool { return s.first >= next })
	if keep < 0 {
		keep = len(j.sealed)
	}
	if err := j.createActive(next); err != nil {
		return err
	}
	drop := j.sealed[keep:]
	j.sealed = j.sealed[:keep]
	return errors.Join(removeSegments(drop, next)...)
}
