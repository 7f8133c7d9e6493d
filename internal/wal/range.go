package wal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/journal"
)

// Bounds of what is copied from the active segment in one read transaction. bbolt
// cannot grow its map while a read transaction is open.
const (
	rangeChunkEvents = 1024
	rangeChunkBytes  = 1 << 20
)

// Range calls fn with the events from sequence from to sequence to, both included, in
// order; a to of 0 is the last event at the time of the call. Range returns the error
// of fn as it is, and the cause of ctx if it ends. The error is [ErrGap] if the
// journal does not contain all events of the range, [ErrCorrupt] if a record is
// damaged, and [ErrLocked] if the journal is read-only and another process has the
// segment open for appending; fn has then been called with the events before. The
// caller may keep the events.
//
// Appends and other Ranges can run at the same time.
func (j *Journal) Range(ctx context.Context, from, to journal.Sequence, fn func(*journal.Event) error) error {
	var ev *journal.Event
	parse := func(record []byte) (seq journal.Sequence, err error) {
		if ev, err = event.Unmarshal(record); err != nil {
			return 0, err
		}
		return ev.Sequence, nil
	}
	return j.walk(ctx, from, to, parse, func(journal.Sequence, []byte) error { return fn(ev) })
}

// Records is Range for verified records that are not decoded. fn must not change a
// record, nor keep it.
func (j *Journal) Records(ctx context.Context, from, to journal.Sequence, fn func(seq journal.Sequence, record []byte) error) error {
	parse := func(record []byte) (journal.Sequence, error) {
		seq, _, err := event.Check(record)
		return seq, err
	}
	return j.walk(ctx, from, to, parse, fn)
}

// stop ends a range with an error of fn or of the context.
type stop struct{ cause error }

func (s *stop) Error() string { return s.cause.Error() }

func (j *Journal) walk(ctx context.Context, from, to journal.Sequence, parse func([]byte) (journal.Sequence, error), fn func(journal.Sequence, []byte) error) error {
	r := &ranger{j: j, ctx: ctx, parse: parse, fn: fn, next: max(from, 1), to: to}
	err := r.run()
	var s *stop
	if errors.As(err, &s) {
		return s.cause
	}
	return err
}

// ranger is a running Range or Records.
type ranger struct {
	j     *Journal
	ctx   context.Context
	parse func(record []byte) (journal.Sequence, error) // verifies a record
	fn    func(journal.Sequence, []byte) error

	next journal.Sequence
	to   journal.Sequence
	open bool // to is the last event, which is not known yet

	chain  []segment
	active *active
	log    [][]byte // records that no segment contains, from event first on
	first  journal.Sequence
}

func (r *ranger) run() error {
	if err := r.snapshot(); err != nil {
		return err
	}
	if len(r.chain) > 0 && r.next < r.chain[0].first && (r.open || r.next <= r.to) {
		return r.fail(fmt.Errorf("%w: event %d has been compacted away; the oldest is %d", ErrGap, r.next, r.chain[0].first))
	}
	for i := range r.chain {
		if err := r.segment(i); err != nil {
			return err
		}
	}
	if err := r.logRecords(); err != nil {
		return err
	}
	if r.next <= r.to {
		return r.fail(gap(r.next, r.to))
	}
	return nil
}

func (r *ranger) fail(err error) error { return r.j.fail("read journal", err) }

func gap(first, last journal.Sequence) error {
	return fmt.Errorf("%w: %d to %d", ErrGap, first, last)
}

// snapshot sets the content of the journal at this moment.
func (r *ranger) snapshot() (err error) {
	j := r.j
	if j.opt.ReadOnly {
		r.open = r.to == 0
		r.chain, err = listSegments(j.dir)
		return err
	}
	j.mu.RLock()
	defer j.mu.RUnlock()
	r.active = j.active
	r.chain = append(r.chain, j.sealed...)
	if j.active != nil {
		r.chain = append(r.chain, j.active.segment)
	}
	if j.log != nil {
		r.log, r.first = j.log.records, j.log.first
	}
	if r.to == 0 {
		r.to = j.last
	}
	return nil
}

// segment yields the events of the range in segment i of the chain. A segment ends
// before the first event of the next one, and the events in it after that were never
// committed.
func (r *ranger) segment(i int) error {
	seg, end, last := r.chain[i], r.to, i == len(r.chain)-1
	switch {
	case !last && (r.open || r.chain[i+1].first <= end):
		end = r.chain[i+1].first - 1
	case last && r.open:
		end = math.MaxUint64
	}
	if r.next > end {
		return nil
	}
	if r.active != nil && r.active.path == seg.path {
		return r.activeSegment(end)
	}
	if r.j.opt.ReadOnly {
		db, err := lockShared(seg)
		if err != nil {
			return err
		}
		if db != nil {
			defer db.Close() // after the log has been read
		}
	}
	if err := r.sealedSegment(seg, end); err != nil || r.next > end {
		return err
	}
	switch {
	case !last:
		return r.fail(gap(r.next, end))
	case r.j.opt.ReadOnly:
		return r.readLog()
	}
	return nil
}

func (r *ranger) sealedSegment(seg segment, end journal.Sequence) error {
	_, err := scanSegment(seg, func(seq journal.Sequence, record []byte) error {
		if seq > end {
			return errEndScan
		}
		if seq < r.next {
			return nil
		}
		return r.yield(record)
	})
	if errors.Is(err, fs.ErrNotExist) {
		return r.fail(fmt.Errorf("%w: event %d was compacted away while the journal was read", ErrGap, r.next))
	}
	return err
}

// yield calls fn with the next event.
func (r *ranger) yield(record []byte) error {
	if r.ctx.Err() != nil {
		return &stop{context.Cause(r.ctx)}
	}
	seq, err := r.parse(record)
	if err != nil {
		return err
	}
	if seq != r.next {
		return fmt.Errorf("%w: got event %d, want %d", ErrCorrupt, seq, r.next)
	}
	if err := r.fn(seq, record); err != nil {
		return &stop{err}
	}
	r.next++
	return nil
}

// activeSegment reads through bbolt the segment that this process has open, which was
// verified when it was opened.
func (r *ranger) activeSegment(end journal.Sequence) error {
	for r.next <= end {
		chunk, err := r.copyChunk(end)
		if errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
			return r.sealedSegment(r.active.segment, end) // it was sealed meanwhile
		}
		if err == nil && len(chunk) == 0 {
			return nil // the log contains the rest
		}
		for i := 0; err == nil && i < len(chunk); i++ {
			err = r.yield(chunk[i])
		}
		if err != nil {
			return &Error{Op: "read segment", Path: r.active.path, Sequence: r.next, Err: err}
		}
	}
	return nil
}

func (r *ranger) copyChunk(end journal.Sequence) (chunk [][]byte, err error) {
	size := 0
	err = r.active.db.View(func(tx *bolt.Tx) error {
		c := tx.Bucket([]byte(bucketRecords)).Cursor()
		for k, v := c.Seek(key(r.next)); k != nil && len(chunk) < rangeChunkEvents && size < rangeChunkBytes; k, v = c.Next() {
			if journal.Sequence(len(chunk))+r.next > end {
				break
			}
			chunk = append(chunk, bytes.Clone(v))
			size += len(v)
		}
		return nil
	})
	return chunk, err
}

// logRecords yields the events of the range that only the log contains.
func (r *ranger) logRecords() error {
	for i, record := range r.log {
		if seq := r.first + journal.Sequence(i); seq < r.next || seq > r.to {
			continue
		}
		if err := r.yield(record); err != nil {
			return &Error{Op: "read log", Path: r.j.logPath(), Sequence: r.next, Err: err}
		}
	}
	return nil
}

// readLog reads the log of a read-only journal, for logRecords.
func (r *ranger) readLog() (err error) {
	r.log, err = readLog(r.j.logPath(), r.next)
	r.first = r.next
	if r.open {
		r.to = r.next - 1 + journal.Sequence(len(r.log))
	}
	return err
}
