package ship

import (
	"context"
	"slices"
	"time"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/compactor"
	"github.com/xdswal/xdswal/internal/catalog"
	"github.com/xdswal/xdswal/internal/hook"
	"github.com/xdswal/xdswal/journal"
)

// inventory is the contents of the backend.
type inventory struct {
	snapshots  []catalog.Entry // newest first
	batches    []catalog.Batch // sorted by their first sequence
	superseded []backends.Object
	// limit returns the last event of an epoch that counts.
	limit func(epoch uint64) journal.Sequence
	// batched is the event after which the next batch begins.
	batched journal.Sequence
}

func newInventory(r *catalog.Remote, shipped journal.Sequence) inventory {
	return inventory{
		snapshots:  slices.Clone(r.Snapshots),
		batches:    slices.Clone(r.Batches),
		superseded: slices.Clone(r.Superseded),
		limit:      r.Limit,
		batched:    max(r.ShipAfter(), shipped),
	}
}

// expired returns what retention does not keep: snapshots; batches that end before the
// oldest kept snapshot, so that every state since then can be restored; and superseded
// objects, by their age alone.
func (h *inventory) expired(r catalog.Retention) (snapshots []catalog.Entry, batches []catalog.Batch, superseded []backends.Object) {
	oldest := journal.Sequence(0)
	for i, s := range h.snapshots {
		if r.Keeps(i, s.Written) {
			oldest = s.Sequence
		} else {
			snapshots = append(snapshots, s)
		}
	}
	// A batch ends before the next one of its epoch begins, and the last one where the
	// epoch does.
	next := map[uint64]journal.Sequence{}
	for _, b := range slices.Backward(h.batches) {
		last := h.limit(b.Epoch)
		if first, ok := next[b.Epoch]; ok {
			last = min(last, first-1)
		}
		next[b.Epoch] = b.First
		if last <= oldest {
			batches = append(batches, b)
		}
	}
	slices.Reverse(batches)
	for _, o := range h.superseded {
		if !r.KeepsAge(o.ModTime) {
			superseded = append(superseded, o)
		}
	}
	return snapshots, batches, superseded
}

// forget removes deleted objects.
func (h *inventory) forget(deleted map[string]bool) {
	h.snapshots = slices.DeleteFunc(h.snapshots, func(e catalog.Entry) bool { return deleted[e.Path] })
	h.batches = slices.DeleteFunc(h.batches, func(b catalog.Batch) bool { return deleted[b.Key()] })
	h.superseded = slices.DeleteFunc(h.superseded, func(o backends.Object) bool { return deleted[o.Key] })
}

// prune deletes what retention does not keep. The caller has just found that there is
// no newer writer. After a failure runSnapshots retries it; the first failure is
// logged.
func (s *Shipper) prune(ctx context.Context) {
	err := s.deleteExpired(ctx)
	s.unpruned.Store(err != nil)
	if err == nil {
		s.warned = false
	} else if ctx.Err() == nil && !s.warned {
		s.warned = true
		s.opt.Logger.Warn("the backend was not pruned; it is retried", "error", err)
	}
}

func (s *Shipper) deleteExpired(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, pruneTimeout)
	defer cancel()
	deleted := map[string]bool{}
	s.mu.Lock()
	snapshots, batches, superseded := s.held.expired(s.retention)
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.held.forget(deleted)
	}()
	remove := func(key string) error {
		err := s.opt.Backend.Delete(ctx, key)
		deleted[key] = err == nil
		return err
	}
	location := s.opt.Backend.String()
	// Snapshots first, oldest first: a restore that misses one lists the backend again,
	// and finds a newer one with all batches after it.
	for _, e := range slices.Backward(snapshots) {
		if err := remove(e.Path); err != nil {
			return err
		}
		hook.Call(s.opt.Hooks.SnapshotDeleted, compactor.Snapshot{Location: location, Backend: true, Name: e.String(), Sequence: e.Sequence, Bytes: e.Size})
	}
	for _, b := range batches {
		if err := remove(b.Key()); err != nil {
			return err
		}
		hook.Call(s.opt.Hooks.BatchDeleted, compactor.Batch{Location: location, Name: b.String(), First: b.First, Bytes: b.Size})
	}
	for _, o := range superseded {
		if err := remove(o.Key); err != nil {
			return err
		}
	}
	return nil
}

// sweepAge is the age from which on an upload that is not complete has crashed: it is
// more than the timeout of one attempt.
func (s *Shipper) sweepAge() time.Duration { return 2 * s.opt.Timeout }

// sweep lets the backend remove the remains of uploads that crashed.
func (s *Shipper) sweep(ctx context.Context) error {
	sweeper, ok := s.opt.Backend.(backends.Sweeper)
	if !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, claimTimeout)
	defer cancel()
	return s.exclusive(ctx, s.snapshotSlot, func(ctx context.Context) error {
		n, err := sweeper.Sweep(ctx, s.sweepAge(), catalog.SnapshotPrefix, catalog.BatchPrefix)
		if err == nil && n > 0 {
			s.opt.Logger.Info("crashed uploads were aborted", "backend", s.opt.Backend.String(), "uploads", n)
		}
		return err
	})
}
