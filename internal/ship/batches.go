package ship

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/xdswal/xdswal/compactor"
	"github.com/xdswal/xdswal/internal/catalog"
	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/internal/format/batch"
	"github.com/xdswal/xdswal/internal/hook"
	"github.com/xdswal/xdswal/internal/retry"
	"github.com/xdswal/xdswal/journal"
)

// pending is the batch that is being shipped. If that fails, it is put again
// unchanged: the backend may contain it already.
type pending struct {
	w      *batch.Writer
	packed []byte // the encoded batch of w, nil while w is filled
	// readAt is when the journal was last read, newest its newest event then.
	readAt time.Time
	newest journal.Sequence
}

// runBatches ships new events, at most once each interval, and checks for a newer
// writer when idle.
func (s *Shipper) runBatches(ctx context.Context) {
	wait := retry.Backoff(minBackoff, maxBackoff)
	var idle <-chan time.Time
	wake := s.wake
	if s.opt.Interval < 0 {
		wake = nil
	}
	idleFor := s.opt.FenceInterval // the time until the next check
	for {
		if s.opt.FenceInterval > 0 {
			idle = time.After(idleFor)
		}
		work, checks := s.shipEvents, false
		select {
		case <-ctx.Done():
			return
		case <-s.fenced:
			return
		case <-wake:
		case <-idle:
			work, checks = s.checkWriter, true
		}
		idleFor = s.opt.FenceInterval
		start := time.Now()
		err := work(ctx)
		pause := s.opt.Interval - time.Since(start)
		switch {
		case ctx.Err() != nil || s.isFenced():
			return
		case err != nil:
			s.failed(&s.batchErr, "events were not shipped; updates continue, and it is retried", err)
			pause = wait.NextBackOff()
			if checks {
				idleFor = 0 // there may be no events to ship
			} else {
				signal(s.wake)
			}
		default:
			s.succeeded(&s.batchErr, "events are shipped again")
			wait.Reset()
		}
		if !retry.Sleep(ctx, pause) {
			return
		}
	}
}

func (s *Shipper) checkWriter(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, batchTimeout)
	defer cancel()
	return s.exclusive(ctx, s.batchSlot, s.checkFenced)
}

// shipEvents ships the events that the journal contains and the backend does not.
func (s *Shipper) shipEvents(ctx context.Context) error {
	if s.opt.Interval < 0 {
		return nil
	}
	return s.exclusive(ctx, s.batchSlot, func(ctx context.Context) error {
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
	if s.pending.packed != nil {
		if err := s.shipBatch(ctx); err != nil {
			return err
		}
	}
	s.pending.w.Reset()
	from := s.batched() + 1
	s.pending.readAt, s.pending.newest = time.Now(), journal.Sequence(s.last.Load())
	if from > s.pending.newest {
		return nil
	}
	// Many events are shipped batch by batch while they are read.
	err := s.opt.Journal.Records(ctx, from, 0, func(seq journal.Sequence, record []byte) error {
		if s.pending.w.Full() {
			if err := s.shipBatch(ctx); err != nil {
				return err
			}
		}
		return s.pending.w.Add(seq, record)
	})
	if err != nil {
		return err
	}
	return s.shipBatch(ctx)
}

// skipGap continues after the newest shipped snapshot, if the journal does not contain
// the events before: they were dropped under pressure, a snapshot covers what the
// journal could not write, or a segment is damaged.
func (s *Shipper) skipGap(gap error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.status.Snapshot > s.held.batched {
		s.held.batched = s.status.Snapshot
		return nil
	}
	signal(s.snapshot)
	return fmt.Errorf("%w: %w", errSnapshotFirst, gap)
}

// errSnapshotFirst is no failure if a snapshot is about to be shipped, as at a new
// backend or in a directory that was made from a copy.
var errSnapshotFirst = errors.New("a snapshot has to be shipped first")

// batched returns the event after which the next batch begins.
func (s *Shipper) batched() journal.Sequence {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held.batched
}

// shipBatch ships the pending batch, if it is not empty.
func (s *Shipper) shipBatch(ctx context.Context) error {
	first, last := s.pending.w.Bounds()
	if first == 0 {
		return nil
	}
	if s.pending.packed == nil {
		s.pending.packed = s.pending.w.Bytes()
	}
	b := catalog.Batch{Name: batch.Name{Epoch: s.opt.Epoch.Number, First: first}, Size: int64(len(s.pending.packed))}
	info := compactor.Batch{Location: s.opt.Backend.String(), Name: b.String(), First: first, Last: last, Bytes: b.Size}
	start := time.Now()
	hook.Call(s.opt.Hooks.BatchWriteBegin, info)
	err := s.putBatch(ctx, b.Key(), s.pending.packed)
	info.Duration = time.Since(start)
	if err != nil {
		info.Err = fmt.Errorf("ship events %d to %d: %w", first, last, err)
		hook.Call(s.opt.Hooks.BatchWriteEnd, info)
		return info.Err
	}
	b.Written = time.Now()
	s.advance(b, last)
	s.pending.packed = nil
	s.pending.w.Reset()
	hook.Call(s.opt.Hooks.BatchWriteEnd, info)
	return nil
}

// advance adds a shipped batch to the inventory.
func (s *Shipper) advance(b catalog.Batch, last journal.Sequence) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.opt.NoPrune {
		s.held.batches = append(s.held.batches, b)
	}
	s.held.batched = last
	if last >= s.pending.newest {
		s.status.BehindSince = s.pending.readAt // later events were committed after that
	}
	s.setShipped(last)
}

func (s *Shipper) putBatch(ctx context.Context, key string, data []byte) error {
	// One record may be very large.
	ctx, cancel := context.WithTimeout(ctx, batchTimeout+time.Duration(len(data)/minRate)*time.Second)
	defer cancel()
	return s.publish(ctx, key, bytes.NewReader(data), func(existing io.Reader) error {
		got, err := io.ReadAll(io.LimitReader(existing, int64(len(data))+1))
		if err != nil {
			return err
		}
		if !bytes.Equal(got, data) {
			return s.setFenced(fmt.Errorf("%w: %s in %s is not the batch that this store wrote: another writer publishes in epoch %d", catalog.ErrFenced, key, s.opt.Backend, s.opt.Epoch.Number))
		}
		return nil
	})
}
