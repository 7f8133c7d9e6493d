package compactor

import (
	"context"
	"os"
	"time"

	"github.com/xdswal/xdswal/compactor/catalog"
	"github.com/xdswal/xdswal/compactor/snapshot"
	"github.com/xdswal/xdswal/internal/durable"
	"github.com/xdswal/xdswal/journal/event"
)

// settle prunes what an earlier process left.
func (c *Compactor) settle(ctx context.Context) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.prune(ctx)
}

// prune deletes local snapshots that are neither among the newest nor young,
// then lets go of the journal that the ones left make needless. What cannot be
// deleted is logged and tried again with the next snapshot.
func (c *Compactor) prune(ctx context.Context) {
	local, err := catalog.Local(c.opt.Dir)
	if err != nil {
		c.opt.Logger.Warn("snapshots were not pruned", "error", err)
		return
	}
	kept := local[:0:0]
	for i, s := range local {
		if keep(i, s.Written, c.opt.KeepSnapshots, c.opt.KeepFor) {
			kept = append(kept, s)
			continue
		}
		if err := os.Remove(s.Path); err != nil {
			c.opt.Logger.Warn("snapshot was not pruned", "path", s.Path, "error", err)
			kept = append(kept, s)
			continue
		}
		call(c.opt.Hooks.SnapshotDeleted, snapshot.Info{Location: c.opt.Dir, Name: s.Name.String(), Sequence: s.Sequence, Bytes: s.Size})
	}
	if len(kept) < len(local) {
		if err := durable.SyncDir(c.opt.Dir); err != nil {
			c.opt.Logger.Warn("snapshots were not pruned durably", "error", err)
		}
	}
	c.truncate(ctx, kept)
}

// keep reports whether retention keeps the i-th newest snapshot.
func keep(i int, written time.Time, count int, age time.Duration) bool {
	return i < count || time.Since(written) <= age
}

// truncate drops the journal up to the oldest snapshot kept, so that every
// moment since then can be restored. A journal that is more than half full is
// dropped up to the second newest snapshot: then the newest may still turn out
// damaged and nothing is lost. Before there is a second one, nothing goes.
//
// With a backend, what it has not got yet stays too, as long as there is room.
func (c *Compactor) truncate(ctx context.Context, kept []catalog.Entry) {
	if c.journal == nil || len(kept) < 2 {
		return
	}
	pressed := c.journal.Pressure()
	covered := kept[len(kept)-1].Sequence
	if pressed {
		covered = kept[1].Sequence
	} else if c.opt.Backend != nil {
		covered = min(covered, c.Status().Shipped)
	}
	if err := c.journal.TruncateBefore(ctx, covered+1); err != nil && ctx.Err() == nil {
		c.opt.Logger.Warn("journal was not truncated", "before", uint64(covered+1), "error", err)
	}
}

// shipped notes that the backend has a snapshot.
func (c *Compactor) shipped(ctx context.Context, seq event.Sequence) {
	c.setStatus(func(s *Status) { s.Shipped, s.ShipErr = max(s.Shipped, seq), nil })
	c.settle(ctx)
}
