package ship

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/compactor"
	"github.com/xdswal/xdswal/internal/catalog"
	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/internal/format/batch"
	"github.com/xdswal/xdswal/internal/hook"
	"github.com/xdswal/xdswal/journal"
)

// tail is what is being shipped of the journal. A batch that could not be
// shipped is tried again as it is: it may be in the backend already.
type tail struct {
	w      *batch.Writer
	unsent []byte // the batch in w as it is shipped, nil while w is filled
	// taken is when the journal was last read, newest its newest event then.
	taken  time.Time
	newest journal.Sequence
}

// runTail ships the tail whenever there is one, at most once in the interval,
// and looks for a newer writer when there is none for long.
func (s *Shipper) runTail(ctx context.Context) {
	var wait backoff
	var idle <-chan time.Time
	wake := s.wake
	if s.opt.Interval < 0 {
		wake = nil
	}
	look := s.opt.FenceInterval // how long to be idle before the next look
	for {
		if s.opt.FenceInterval > 0 {
			idle = time.After(look)
		}
		work := s.shipTail
		looks := false
		select {
		case <-ctx.Done():
			return
		case <-s.fenced:
			return
		case <-wake:
		case <-idle:
			work, looks = s.lookForWriter, true
		}
		look = s.opt.FenceInterval
		start := time.Now()
		err := work(ctx)
		pause := s.opt.Interval - time.Since(start)
		switch {
		case ctx.Err() != nil || s.isFenced():
			return
		case err != nil:
			s.failed(&s.tailErr, "events were not shipped; updates go on, and it is tried again", err)
			pause = wait.wait()
			if looks {
				look = 0 // there may be nothing to ship
			} else {
				signal(s.wake)
			}
		default:
			s.succeeded(&s.tailErr, "events are shipped again")
			wait.reset()
		}
		if !sleep(ctx, pause) {
			return
		}
	}
}

func (s *Shipper) lookForWriter(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, batchTimeout)
	defer cancel()
	return s.bounded(ctx, s.tailing, s.fence)
}

// shipTail ships all that the journal holds and the backend does not.
func (s *Shipper) shipTail(ctx context.Context) error {
	if s.opt.Interval < 0 {
		return nil
	}
	return s.bounded(ctx, s.tailing, func(ctx context.Context) error {
		err := s.shipRecords(ctx)
		if errors.Is(err, event.ErrGap) || errors.Is(err, event.ErrCorrupt) {
			if err = s.skipGap(err); err == nil {
				err = s.shipRecords(ctx)
			}
		}
		return err
	})
}

func (s *Shipper) shipRecords(ctx context.Context) error {
	if s.tail.unsent != nil {
		if err := s.shipBatch(ctx); err != nil {
			return err
		}
	}
	s.tail.w.Reset()
	from := s.shipped() + 1
	s.tail.taken, s.tail.newest = time.Now(), journal.Sequence(s.last.Load())
	if from > s.tail.newest {
		return nil
	}
	// A long tail is shipped batch by batch while it is read.
	err := s.opt.Journal.Records(ctx, from, 0, func(seq journal.Sequence, record []byte) error {
		if s.tail.w.Full() {
			if err := s.shipBatch(ctx); err != nil {
				return err
			}
		}
		return s.tail.w.Add(seq, record)
	})
	if err != nil {
		return err
	}
	return s.shipBatch(ctx)
}

// skipGap goes on behind the newest snapshot that was shipped, where the journal
// does not yield what comes before: it was dropped under pressure, a snapshot
// made good what the journal could not take, or a segment is damaged.
func (s *Shipper) skipGap(gap error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.status.Snapshot > s.held.tail {
		s.held.tail = s.status.Snapshot
		return nil
	}
	signal(s.snapshot)
	return fmt.Errorf("%w: %w", errSnapshotFirst, gap)
}

// errSnapshotFirst is no failure where there is a snapshot to ship: at a new
// backend, or in a directory that was made from a copy.
var errSnapshotFirst = errors.New("a snapshot has to be shipped first")

// shipped returns the event behind which the tail begins.
func (s *Shipper) shipped() journal.Sequence {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held.tail
}

// shipBatch ships what was gathered.
func (s *Shipper) shipBatch(ctx context.Context) error {
	first, last := s.tail.w.Bounds()
	if first == 0 {
		return nil
	}
	if s.tail.unsent == nil {
		s.tail.unsent = s.tail.w.Bytes()
	}
	b := catalog.Batch{Name: batch.Name{Epoch: s.opt.Epoch.Number, First: first}, Size: int64(len(s.tail.unsent))}
	info := compactor.Batch{Location: s.opt.Backend.String(), Name: b.String(), First: first, Last: last, Bytes: b.Size}
	start := time.Now()
	hook.Call(s.opt.Hooks.BatchWriteBegin, info)
	err := s.putBatch(ctx, b.Key(), s.tail.unsent)
	info.Duration = time.Since(start)
	if err != nil {
		info.Err = fmt.Errorf("ship events %d to %d: %w", first, last, err)
		hook.Call(s.opt.Hooks.BatchWriteEnd, info)
		return info.Err
	}
	b.Written = time.Now()
	s.advance(b, last)
	s.tail.unsent = nil
	s.tail.w.Reset()
	hook.Call(s.opt.Hooks.BatchWriteEnd, info)
	return nil
}

// advance notes that a batch is shipped.
func (s *Shipper) advance(b catalog.Batch, last journal.Sequence) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.opt.NoPrune {
		s.held.batches = append(s.held.batches, b)
	}
	s.held.tail = last
	s.status.Shipped = max(s.status.Shipped, last)
	switch {
	case uint64(last) >= s.last.Load():
		s.status.BehindSince = time.Time{}
	case last >= s.tail.newest:
		s.status.BehindSince = s.tail.taken // what is left came after that
	}
}

func (s *Shipper) putBatch(ctx context.Context, key string, data []byte) error {
	// One record may be very large.
	ctx, cancel := context.WithTimeout(ctx, batchTimeout+time.Duration(len(data)/slowest)*time.Second)
	defer cancel()
	err := s.opt.Backend.Put(ctx, key, bytes.NewReader(data))
	if errors.Is(err, backends.ErrExists) {
		// By an earlier attempt whose answer was lost; or somebody else
		// publishes in this epoch, as a backend that does not create
		// conditionally lets happen.
		err = s.compare(ctx, key, data)
	}
	if err != nil {
		return err
	}
	return s.fence(ctx)
}

// compare fails if an object is not what was to be put.
func (s *Shipper) compare(ctx context.Context, key string, data []byte) error {
	r, err := s.opt.Backend.Get(ctx, key, 0, -1)
	if err != nil {
		return err
	}
	defer r.Close()
	there, err := io.ReadAll(io.LimitReader(r, int64(len(data))+1))
	if err != nil {
		return err
	}
	if !bytes.Equal(there, data) {
		return s.supersede(fmt.Errorf("%w: %s in %s is not what was to be written: another writer publishes in epoch %d", catalog.ErrFenced, key, s.opt.Backend, s.opt.Epoch.Number))
	}
	return nil
}
