package compact

import (
	"context"
	"os"
	"time"

	"github.com/xdswal/xdswal/compactor"
	"github.com/xdswal/xdswal/internal/catalog"
	"github.com/xdswal/xdswal/internal/durable"
	"github.com/xdswal/xdswal/internal/hook"
)

// settle prunes what an earlier process left.
func (c *Compactor) settle(ctx context.Context) {
	if c.begin(ctx) != nil {
		return // who is busy prunes
	}
	defer c.end()
	c.prune(ctx)
}

// prune deletes local snapshots that are neither among the newest nor young,
// then lets go of the journal that the ones left make needless. What cannot be
// deleted is logged and tried again with the next snapshot.
func (c *Compactor) prune(ctx context.Context) {
	local, damaged, err := c.local()
	if err != nil {
		c.opt.Logger.Warn("snapshots were not pruned", "error", err)
		return
	}
	var kept []catalog.Entry
	deleted := 0
	for i, s := range local {
		if keep(i, s.Written, c.opt.KeepSnapshots, c.opt.KeepFor) || !c.remove(s) {
			kept = append(kept, s)
		} else {
			deleted++
		}
	}
	for _, s := range damaged {
		// Until it is superseded it may be of use to who looks into it.
		if len(kept) > 0 && kept[0].Sequence >= s.Sequence && c.remove(s) {
			deleted++
		}
	}
	if deleted > 0 {
		if err := durable.SyncDir(c.opt.Dir); err != nil {
			c.opt.Logger.Warn("snapshots were not pruned durably", "error", err)
		}
	}
	c.truncate(ctx, kept)
}

func (c *Compactor) remove(s catalog.Entry) bool {
	if err := os.Remove(s.Path); err != nil {
		c.opt.Logger.Warn("snapshot was not pruned", "path", s.Path, "error", err)
		return false
	}
	hook.Call(c.opt.Hooks.SnapshotDeleted, compactor.Snapshot{Location: c.opt.Dir, Name: s.String(), Sequence: s.Sequence, Bytes: s.Size})
	return true
}

// keep reports whether retention keeps the i-th newest snapshot.
func keep(i int, written time.Time, count int, age time.Duration) bool {
	return i < count || time.Since(written) <= age
}

// relieve drops the journal up to the newest snapshot. It is called where the
// journal is more than half full of what came after the second newest, and no
// other snapshot will come, as nothing changes any more: perhaps because the
// journal is full.
func (c *Compactor) relieve(ctx context.Context) {
	good, _, err := c.local()
	if err == nil && len(good) > 0 {
		err = c.journal.TruncateBefore(ctx, good[0].Sequence+1)
	}
	if err != nil && ctx.Err() == nil {
		c.opt.Logger.Warn("journal was not truncated", "error", err)
	}
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
	} else if c.opt.Shipped != nil {
		covered = min(covered, c.opt.Shipped())
	}
	if err := c.journal.TruncateBefore(ctx, covered+1); err != nil && ctx.Err() == nil {
		c.opt.Logger.Warn("journal was not truncated", "before", uint64(covered+1), "error", err)
	}
}
