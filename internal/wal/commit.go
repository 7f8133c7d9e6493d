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

// commit is the committer. It returns when the queue is closed and empty.
func (j *Journal) commit() {
	defer close(j.done)
	var flush <-chan time.Time
	for {
		select {
		case <-j.queue.wake:
		case <-flush:
			flush = nil
			j.flushLog()
			continue
		}
		for {
			// Let the callers whose appends have just returned append again, and so
			// join this group. Measured: without it callers split in two halves that
			// alternate, and groups have half the size.
			runtime.Gosched()
			g, closed := j.queue.take()
			if g == nil && closed {
				j.flushLog()
				return
			}
			if g == nil {
				break
			}
			j.commitGroup(g)
			if flush == nil {
				flush = j.flushTimer()
			}
			select { // here too: the queue may never be empty
			case <-flush:
				flush = nil
				j.flushLog()
			default:
			}
		}
	}
}

// commitGroup makes a group durable, or fails it, and completes its appends.
func (j *Journal) commitGroup(g *group) {
	j.commitMu.Lock()
	defer j.commitMu.Unlock()
	start := time.Now()
	first := j.stamp(g, start)
	err := j.store(first, g)
	info := journal.Commit{
		First: first, Last: g.last().Sequence,
		Events: len(g.events), Bytes: g.bytes, Duration: time.Since(start), Err: err,
	}
	if err != nil {
		err = j.failed(g, err)
	} else {
		j.advance(g)
		if j.opt.Receiver != nil {
			j.opt.Receiver.Committed(g.events, g.bytes)
		}
	}
	hook.Call(j.opt.Hooks.Commit, info)
	if err != nil {
		j.queue.fail(g, err)
	} else {
		g.finish(nil)
	}
	j.rotate()
}

// stamp assigns the events of a group their sequences and their time.
func (j *Journal) stamp(g *group, now time.Time) journal.Sequence {
	first := j.last + 1
	if now.Before(j.lastTime) {
		now = j.lastTime
	}
	now = now.Round(0) // without the monotonic reading, as it is read back
	for i, ev := range g.events {
		ev.Sequence, ev.Time = first+journal.Sequence(i), now
		event.Seal(g.records[i], ev.Sequence, now)
	}
	return first
}

// store writes a group to the active segment, or to the log.
func (j *Journal) store(first journal.Sequence, g *group) error {
	fail := func(err error) error {
		path := j.dir
		if j.active != nil {
			path = j.active.path
		}
		return &Error{Op: "append to journal", Path: path, Sequence: first, Err: err}
	}
	if j.poison != nil {
		return fail(fmt.Errorf("%w: %w", ErrPoisoned, j.poison))
	}
	if size := j.size() + g.bytes; size > j.opt.MaxBytes {
		return fail(fmt.Errorf("%w: got %d bytes with this append, want at most %d; a snapshot makes room, so check why none was written, or raise MaxBytes", ErrFull, size, j.opt.MaxBytes))
	}
	var err error
	if j.log != nil {
		err = j.writeLog(first, g)
	} else {
		err = j.active.put(first, g.records)
	}
	if err != nil {
		j.setPoison(err)
		return fail(fmt.Errorf("%w: %w", ErrPoisoned, err))
	}
	return nil
}

func (j *Journal) setPoison(err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.poison = err
}

func (j *Journal) advance(g *group) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.last, j.lastTime = g.last().Sequence, g.last().Time
}

// failed passes a group that could not be stored to the receiver. It returns the
// error of the group's appends.
func (j *Journal) failed(g *group, cause error) error {
	if j.opt.Receiver == nil {
		return cause
	}
	if err := j.opt.Receiver.Failed(g.events, cause); err != nil {
		return err
	}
	j.advance(g)
	j.accepted = true
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

// sizeLocked is size for a caller that holds mu.
func (j *Journal) sizeLocked() int64 {
	var n int64
	for i := range j.sealed {
		n += j.sealed[i].bytes
	}
	if j.active != nil {
		n += j.active.bytes.Load()
	}
	if j.log != nil {
		n += j.log.bytes
	}
	return n
}

// rotate seals the active segment when it is full. When it is half full, rotate
// starts the creation of the next segment. If the next segment cannot be created,
// the active one grows, and the next commit tries again.
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
		// The new segment may have its name. If so, the next Open ignores what is
		// appended to the old one from now on.
		j.setPoison(err)
	}
	if err == nil {
		j.setActive(next)
	}
}

// setActive makes a the active segment, and seals the one before it, unless a has
// replaced its file.
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

// prepareSpare starts the creation of the next segment, if it has not started.
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
		if err == nil {
			j.spare = s
		}
	}()
}

// Recover makes a poisoned journal accept appends again. It creates a new segment
// that begins after the last committed event, and does not write to the file whose
// content is unknown.
//
// If Receiver.Failed has accepted events, tail is called, while no event can be
// committed, for the events that no durable snapshot covers: they must be
// consecutive and end with the last event. Otherwise tail is not called. Recover
// makes durable those events that the sealed segments do not contain. On a journal
// that is not poisoned it does nothing; if it fails, it can be called again.
//
//	new segment from N on, with its events, under a temporary name
//	rename(.tmp-*, N.journal), fsync(directory)
//
// A crash before the rename leaves the journal as it was; a group that failed may
// then be found whole, as if it had been committed. After the rename the events of
// the old segment from N on are never read again.
func (j *Journal) Recover(ctx context.Context, tail func() []*journal.Event) error {
	j.commitMu.Lock()
	defer j.commitMu.Unlock()
	if j.poison == nil {
		return nil
	}
	const op = "recover journal"
	if j.active == nil {
		return j.fail(op, ErrClosed)
	}
	if err := ctx.Err(); err != nil {
		return j.fail(op, err)
	}
	records, err := j.unsealed(tail)
	if err != nil {
		return j.fail(op, err)
	}
	a, err := j.newActive(j.last+1-journal.Sequence(len(records)), records)
	if err != nil {
		return err
	}
	j.setActive(a)
	if j.log != nil {
		// The events of a failed group must not reappear under the sequences of
		// later ones, so this truncation must be durable.
		if err := errors.Join(j.emptyLog(), j.log.f.Sync()); err != nil {
			return j.fail(op, err)
		}
	}
	j.accepted = false
	j.setPoison(nil)
	return nil
}

// unsealed returns the records of those committed events that the sealed segments
// and the durable part of the active one may not contain.
func (j *Journal) unsealed(tail func() []*journal.Event) ([][]byte, error) {
	if !j.accepted && j.log != nil {
		return j.log.records, nil
	}
	if !j.accepted {
		return nil, nil
	}
	var records [][]byte
	events := tail()
	for i, ev := range events {
		if want := j.last + 1 - journal.Sequence(len(events)-i); ev.Sequence != want {
			return nil, fmt.Errorf("%w: got event %d, want %d", ErrGap, ev.Sequence, want)
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
