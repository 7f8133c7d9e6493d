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

// inventory is what the backend holds, so that it need not be listed.
type inventory struct {
	snapshots  []catalog.Entry // newest first
	batches    []catalog.Batch // sorted by their first sequence
	superseded []backends.Object
	// limit returns the last event of an epoch that counts.
	limit func(epoch uint64) journal.Sequence
	// tail is the event behind which the next batch begins.
	tail journal.Sequence
}

func newInventory(r *catalog.Remote, shipped journal.Sequence) inventory {
	return inventory{
		snapshots:  slices.Clone(r.Snapshots),
		batches:    slices.Clone(r.Batches),
		superseded: slices.Clone(r.Superseded),
		limit:      r.Limit,
		tail:       max(r.Tail(), shipped),
	}
}

func (h *inventory) addSnapshot(e catalog.Entry) {
	h.snapshots = slices.Insert(h.snapshots, 0, e)
}

// doomed returns what retention does not keep: snapshots that are neither among
// the newest nor young, batches that end before the oldest snapshot that is
// kept, so that every moment since then can be restored, and what was
// superseded, once it is old.
func (h *inventory) doomed(keepSnapshots int, keepFor time.Duration) (snapshots []catalog.Entry, batches []catalog.Batch, superseded []backends.Object) {
	oldest := journal.Sequence(0)
	for i, s := range h.snapshots {
		if i < keepSnapshots || time.Since(s.Written) <= keepFor {
			oldest = s.Sequence
		} else {
			snapshots = append(snapshots, s)
		}
	}
	// A batch ends where the next of its epoch begins, at the latest, and the
	// last one with what counts of the epoch.
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
		if time.Since(o.ModTime) > keepFor {
			superseded = append(superseded, o)
		}
	}
	return snapshots, batches, superseded
}

// prune deletes what retention does not keep. It is called right after no newer
// writer was found. What cannot be deleted is tried again after the next
// snapshot.
func (s *Shipper) prune(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, pruneTimeout)
	defer cancel()
	s.mu.Lock()
	snapshots, batches, superseded := s.held.doomed(s.opt.KeepSnapshots, s.opt.KeepFor)
	s.mu.Unlock()
	location := s.opt.Backend.String()
	// Snapshots first, oldest first: whoever restores one that is gone lists
	// anew, and finds a newer one with all batches behind it.
	for _, e := range slices.Backward(snapshots) {
		if !s.remove(ctx, e.Path) {
			return
		}
		s.mu.Lock()
		s.held.snapshots = slices.DeleteFunc(s.held.snapshots, func(o catalog.Entry) bool { return o.Path == e.Path })
		s.mu.Unlock()
		hook.Call(s.opt.Hooks.SnapshotDeleted, compactor.Snapshot{Location: location, Backend: true, Name: e.String(), Sequence: e.Sequence, Bytes: e.Size})
	}
	deleted := map[string]bool{}
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.held.batches = slices.DeleteFunc(s.held.batches, func(b catalog.Batch) bool { return deleted[b.Key()] })
		s.held.superseded = slices.DeleteFunc(s.held.superseded, func(o backends.Object) bool { return deleted[o.Key] })
	}()
	for _, b := range batches {
		if !s.remove(ctx, b.Key()) {
			return
		}
		deleted[b.Key()] = true
		hook.Call(s.opt.Hooks.BatchDeleted, compactor.Batch{Location: location, Name: b.String(), First: b.First, Bytes: b.Size})
	}
	for _, o := range superseded {
		if !s.remove(ctx, o.Key) {
			return
		}
		deleted[o.Key] = true
	}
}

func (s *Shipper) remove(ctx context.Context, key string) bool {
	if err := s.opt.Backend.Delete(ctx, key); err != nil {
		if ctx.Err() == nil {
			s.opt.Logger.Warn("the backend was not pruned; it is tried again after the next snapshot", "key", key, "error", err)
		}
		return false
	}
	return true
}
