package compact

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/xdswal/xdswal/compactor"
	"github.com/xdswal/xdswal/internal/catalog"
	"github.com/xdswal/xdswal/internal/durable"
	"github.com/xdswal/xdswal/internal/hook"
)

// settle prunes what an earlier process or a failed attempt left.
func (c *Compactor) settle(ctx context.Context) {
	if c.begin(ctx) != nil {
		return
	}
	defer c.end()
	c.prune(ctx)
}

// prune deletes the snapshots that retention does not keep, then drops the part of
// the journal that the kept ones cover. After a failure run calls it again; the first
// failure is logged.
func (c *Compactor) prune(ctx context.Context) {
	kept, err := c.deleteSnapshots()
	if len(kept) > 1 {
		err = errors.Join(err, c.truncate(ctx, kept))
	}
	c.unpruned.Store(err != nil)
	if err == nil {
		c.warned = false
	} else if ctx.Err() == nil && !c.warned {
		c.warned = true
		c.opt.Logger.Warn("snapshots or the journal were not pruned; it is retried", "error", err)
	}
}

// deleteSnapshots returns the snapshots that remain, newest first, and why others
// could not be deleted.
func (c *Compactor) deleteSnapshots() (kept []catalog.Entry, err error) {
	local, damaged, err := c.local()
	if err != nil {
		return nil, err
	}
	var errs []error
	deleted := 0
	remove := func(s catalog.Entry) bool {
		if err := os.Remove(s.Path); err != nil {
			errs = append(errs, fmt.Errorf("delete snapshot: %w", err))
			return false
		}
		deleted++
		hook.Call(c.opt.Hooks.SnapshotDeleted, compactor.Snapshot{Location: c.opt.Dir, Name: s.String(), Sequence: s.Sequence, Bytes: s.Size})
		return true
	}
	for i, s := range local {
		if c.retention.Keeps(i, s.Written) || !remove(s) {
			kept = append(kept, s)
		}
	}
	for _, s := range damaged {
		// Until a newer snapshot exists an operator may want to examine it.
		if len(kept) > 0 && kept[0].Sequence >= s.Sequence {
			remove(s)
		}
	}
	if deleted > 0 || c.unpruned.Load() { // the last sync may have failed
		errs = append(errs, durable.SyncDir(c.opt.Dir))
	}
	return kept, errors.Join(errs...)
}

// truncate drops the journal up to the oldest kept snapshot, so that every state since
// then can be restored. If the journal is more than half full, it is dropped up to the
// second newest snapshot: the newest may still turn out to be damaged. The events that
// a backend does not have yet are kept, unless the journal is more than half full.
func (c *Compactor) truncate(ctx context.Context, kept []catalog.Entry) error {
	if c.journal == nil {
		return nil
	}
	covered := kept[len(kept)-1].Sequence
	if c.journal.Pressure() {
		covered = kept[1].Sequence
	} else if c.opt.Shipped != nil {
		covered = min(covered, c.opt.Shipped())
	}
	return c.journal.TruncateBefore(ctx, covered+1)
}

// relieve drops the journal up to the newest snapshot. It is called if the journal is
// more than half full of events after the second newest snapshot and nothing changes,
// perhaps because the full journal rejects updates: then no other snapshot follows.
// Its caller calls Compact again while the journal is full.
func (c *Compactor) relieve(ctx context.Context) {
	good, _, err := c.local()
	if err == nil && len(good) > 0 {
		err = c.journal.TruncateBefore(ctx, good[0].Sequence+1)
	}
	if err != nil && ctx.Err() == nil {
		c.opt.Logger.Warn("journal was not truncated", "error", err)
	}
}
