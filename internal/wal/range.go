package wal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/journal"
)

// Bounds of what is copied out of the active segment in one read transaction:
// a long one would keep bbolt from growing its map.
const (
	rangeChunkEvents = 1024
	rangeChunkBytes  = 1 << 20
)

// Range calls fn for the events from sequence from to sequence to, both
// included, in order; to = 0 stands for the last one at the time of the call.
// Range ends with fn's error, or the context's. It fails with [ErrGap] if the
// journal does not hold them all, with [ErrCorrupt] if a record is damaged, and
// with [ErrLocked] if the journal is open for reading and another process has
// the segment in question open for appending; fn was then called for the
// events before it. The events may be kept.
//
// Range runs beside appends and other Ranges.
func (j *Journal) Range(ctx context.Context, from, to journal.Sequence, fn func(*journal.Event) error) error {
	return j.walk(ctx, from, to, func(record []byte) (journal.Sequence, func() error, error) {
		ev, err := event.Unmarshal(record)
		if err != nil {
			return 0, nil, err
		}
		return ev.Sequence, func() error { return fn(ev) }, nil
	})
}

// Records is Range for the records as they stand in the journal, verified and
// not decoded. They may be kept and must not be changed.
func (j *Journal) Records(ctx context.Context, from, to journal.Sequence, fn func(seq journal.Sequence, record []byte) error) error {
	return j.walk(ctx, from, to, func(record []byte) (journal.Sequence, func() error, error) {
		seq, _, err := event.Check(record)
		return seq, func() error { return fn(seq, record) }, err
	})
}

// parser verifies a record, and returns its sequence and what is to be done
// with it if that is the one expected.
type parser func(record []byte) (journal.Sequence, func() error, error)

func (j *Journal) walk(ctx context.Context, from, to journal.Sequence, parse parser) error {
	r, err := j.newRanger(ctx, from, to, parse)
	if err != nil {
		return err
	}
	for i, seg := range r.chain {
		if err := r.segment(i, seg); err != nil {
			return err
		}
		if r.stop != nil {
			return r.stop
		}
	}
	if err := r.stagedRecords(); err != nil {
		return err
	}
	if r.stop != nil {
		return r.stop
	}
	if r.next <= r.to {
		return r.gap(r.next, r.to)
	}
	return nil
}

// ranger is one Range under way.
type ranger struct {
	j      *Journal
	ctx    context.Context
	parse  parser
	next   journal.Sequence
	to     journal.Sequence
	open   bool // to is the last event, which is not known beforehand
	chain  []segment
	active *active
	staged [][]byte
	first  journal.Sequence // of staged
	stop   error            // of the caller or the context: nothing is wrong with the journal
}

func (j *Journal) newRanger(ctx context.Context, from, to journal.Sequence, parse parser) (*ranger, error) {
	r := &ranger{j: j, ctx: ctx, parse: parse, next: max(from, 1), to: to}
	if j.opt.ReadOnly {
		var err error
		if r.chain, err = listSegments(j.dir); err != nil {
			return nil, err
		}
		r.open = to == 0
	} else {
		r.snapshot()
	}
	if len(r.chain) > 0 && r.next < r.chain[0].first && (r.open || r.next <= r.to) {
		return nil, r.gap(r.next, r.chain[0].first-1)
	}
	return r, nil
}

// snapshot takes what the journal holds at this moment.
func (r *ranger) snapshot() {
	j := r.j
	j.mu.RLock()
	defer j.mu.RUnlock()
	r.active = j.active
	r.chain = append(r.chain, j.sealed...)
	if j.active != nil {
		r.chain = append(r.chain, j.active.segment)
	}
	if j.staged != nil {
		r.staged, r.first = j.staged.records, j.staged.first
	}
	if r.to == 0 {
		r.to = j.last
	}
}

func (r *ranger) gap(first, last journal.Sequence) error {
	return &Error{Op: "read journal", Path: r.j.dir, Err: fmt.Errorf("%w: %d to %d", ErrGap, first, last)}
}

// segment yields what segment i of the chain holds of the range. Where a
// segment follows, its name tells where this one ends: what stands here beyond
// was never acknowledged.
func (r *ranger) segment(i int, seg segment) error {
	end := r.to
	last := i == len(r.chain)-1
	if !last {
		if r.chain[i+1].first <= r.next {
			return nil
		}
		next := r.chain[i+1].first - 1
		if r.open || next < end {
			end = next
		}
	} else if r.open {
		end = ^journal.Sequence(0)
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
			defer db.Close() // not before the staged file is read too
		}
	}
	if err := r.sealedSegment(seg, end); err != nil || r.stop != nil {
		return err
	}
	if !last && r.next <= end {
		return r.gap(r.next, end)
	}
	if last && r.j.opt.ReadOnly && r.next <= end {
		return r.readStagedFile()
	}
	return nil
}

func (r *ranger) sealedSegment(seg segment, end journal.Sequence) error {
	_, err := scanSegment(seg, func(seq journal.Sequence, record []byte) error {
		if seq > end {
			return errStop
		}
		if seq < r.next {
			return nil
		}
		return r.yield(bytes.Clone(record))
	})
	if errors.Is(err, fs.ErrNotExist) {
		// A snapshot covers it by now.
		return r.gap(r.next, max(r.next, min(end, r.to)))
	}
	return err
}

// yield passes on the next event. It returns errStop when the range is to end
// for a reason that it left in stop.
func (r *ranger) yield(record []byte) error {
	if r.ctx.Err() != nil {
		r.stop = context.Cause(r.ctx)
		return errStop
	}
	seq, use, err := r.parse(record)
	if err != nil {
		return err
	}
	if seq != r.next {
		return fmt.Errorf("%w: event %d where %d should stand", ErrCorrupt, seq, r.next)
	}
	if err := use(); err != nil {
		r.stop = err
		return errStop
	}
	r.next++
	return nil
}

// activeSegment reads through bbolt the segment that this process has open,
// which was verified when it was opened.
func (r *ranger) activeSegment(end journal.Sequence) error {
	for r.next <= end {
		chunk, err := r.copyChunk(end)
		if errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
			// It was sealed in between.
			return r.sealedSegment(r.active.segment, end)
		}
		if err != nil {
			return &Error{Op: "read segment", Path: r.active.path, Sequence: r.next, Err: err}
		}
		if len(chunk) == 0 {
			return nil // the rest is staged
		}
		for _, record := range chunk {
			if err := r.yield(record); errors.Is(err, errStop) {
				return nil
			} else if err != nil {
				return &Error{Op: "read segment", Path: r.active.path, Sequence: r.next, Err: err}
			}
		}
	}
	return nil
}

func (r *ranger) copyChunk(end journal.Sequence) (chunk [][]byte, err error) {
	bytes := 0
	err = r.active.db.View(func(tx *bolt.Tx) error {
		c := tx.Bucket(bucketRecords).Cursor()
		for k, v := c.Seek(key(r.next)); k != nil && len(chunk) < rangeChunkEvents && bytes < rangeChunkBytes; k, v = c.Next() {
			if journal.Sequence(len(chunk))+r.next > end {
				break
			}
			chunk = append(chunk, append([]byte(nil), v...))
			bytes += len(v)
		}
		return nil
	})
	return chunk, err
}

// stagedRecords yields what is acknowledged but not in the segment yet.
func (r *ranger) stagedRecords() error {
	for i, record := range r.staged {
		if seq := r.first + journal.Sequence(i); seq < r.next || seq > r.to {
			continue
		}
		if err := r.yield(record); errors.Is(err, errStop) {
			return nil
		} else if err != nil {
			return &Error{Op: "read staged events", Path: r.j.stagedPath(), Sequence: r.next, Err: err}
		}
	}
	return nil
}

// readStagedFile is stagedRecords for a journal that is open for reading.
func (r *ranger) readStagedFile() error {
	records, err := readStaged(r.j.stagedPath(), r.next)
	r.staged, r.first = records, r.next
	if r.open {
		r.to = r.next - 1 + journal.Sequence(len(records))
	}
	return err
}

// lastOf returns the last event of a journal whose last segment is seg.
func lastOf(seg segment, stagedPath string) (journal.Sequence, error) {
	db, err := lockShared(seg)
	if err != nil {
		return 0, err
	}
	if db != nil {
		defer db.Close()
	}
	scan, err := scanSegment(seg, nil)
	if err != nil {
		return 0, err
	}
	records, err := readStaged(stagedPath, scan.last+1)
	return scan.last + journal.Sequence(len(records)), err
}
