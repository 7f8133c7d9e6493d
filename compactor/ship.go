package compactor

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/compactor/catalog"
	"github.com/xdswal/xdswal/compactor/snapshot"
)

// Bounds of the shipper's waits.
const (
	minShipBackoff = time.Second
	maxShipBackoff = time.Minute
	pruneTimeout   = time.Minute
	// returnTimeout is how long a backend is waited for when its context is
	// done.
	returnTimeout = time.Second
)

// runShipper ships the newest snapshot whenever there is a new one, and tries
// again, ever more rarely, while the backend refuses.
func (c *Compactor) runShipper(ctx context.Context) {
	backoff := minShipBackoff
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.ship:
		}
		err := c.shipNewest(ctx)
		if err == nil {
			backoff = minShipBackoff
			continue
		}
		if ctx.Err() != nil {
			return
		}
		wait := backoff/2 + rand.N(backoff/2)
		c.opt.Logger.Error("snapshot was not shipped; updates go on, and it is tried again", "backend", c.opt.Backend.String(), "in", wait, "error", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
			signal(c.ship)
		}
		backoff = min(2*backoff, maxShipBackoff)
	}
}

// shipNewest puts the newest local snapshot into the backend, unless it is
// there, and prunes the backend. It returns soon after ctx is done or the
// timeout is over, even if the backend does not: a write to a network volume
// that hangs cannot be interrupted. Until that has returned, no other begins.
func (c *Compactor) shipNewest(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.opt.ShipTimeout)
	defer cancel()
	err := c.bounded(ctx, c.shipNow)
	if err != nil {
		c.setStatus(func(s *Status) { s.ShipErr = err })
	}
	return err
}

// bounded calls fn, which uses the backend.
func (c *Compactor) bounded(ctx context.Context, fn func(context.Context) error) error {
	select {
	case c.shipping <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("ship snapshot: %s has not returned from an earlier call: %w", c.opt.Backend, context.Cause(ctx))
	}
	done := make(chan error, 1)
	go func() {
		defer func() { <-c.shipping }()
		done <- fn(ctx)
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-done:
		return err
	case <-time.After(returnTimeout):
		return fmt.Errorf("ship snapshot: %s does not return: %w", c.opt.Backend, context.Cause(ctx))
	}
}

// shipNow ships the newest snapshot. Older ones that were not shipped are
// superseded by it.
func (c *Compactor) shipNow(ctx context.Context) error {
	local, _, err := c.local()
	if err != nil || len(local) == 0 {
		return err
	}
	newest := local[0]
	if st := c.Status(); st.Shipped >= newest.Sequence && st.ShipErr == nil {
		return nil
	}
	if err := c.shipOne(ctx, newest); err != nil {
		return err
	}
	c.setStatus(func(s *Status) { s.Shipped, s.ShipErr = max(s.Shipped, newest.Sequence), nil })
	if ctx.Err() != nil {
		return nil // and nobody may be waiting: leave the directory alone
	}
	c.settle(ctx)
	c.pruneBackend(ctx)
	return nil
}

func (c *Compactor) shipOne(ctx context.Context, s catalog.Entry) error {
	info := snapshot.Info{Location: c.opt.Backend.String(), Name: s.String(), Sequence: s.Sequence, Bytes: s.Size}
	start := time.Now()
	call(c.opt.Hooks.SnapshotWriteStart, info)
	info.Err = c.put(ctx, s)
	info.Duration = time.Since(start)
	if info.Err != nil {
		info.Err = fmt.Errorf("ship snapshot %s: %w", s.Name, info.Err)
		call(c.opt.Hooks.SnapshotWriteException, info)
		return info.Err
	}
	call(c.opt.Hooks.SnapshotWriteStop, info)
	return nil
}

func (c *Compactor) put(ctx context.Context, s catalog.Entry) error {
	f, err := os.Open(s.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	key := catalog.KeyPrefix + s.String()
	err = c.opt.Backend.Put(ctx, key, f)
	if !errors.Is(err, backends.ErrExists) {
		return err
	}
	// An upload whose answer was lost, or one before a restart; or a backend
	// that another store ships to.
	r, err := c.opt.Backend.Get(ctx, key, 0, -1)
	if err != nil {
		return err
	}
	defer r.Close()
	theirs, err := snapshot.ReadHeader(r)
	if err != nil {
		return err
	}
	if _, err := f.Seek(0, 0); err != nil {
		return err
	}
	ours, err := snapshot.ReadHeader(f)
	if err != nil {
		return err
	}
	// Not the store alone: a directory that was set back to an older copy
	// comes by the same names again.
	if theirs != ours {
		return fmt.Errorf("%s in %s: %w: it is not the snapshot that was written here; give each store a backend prefix of its own, and a data directory that was set back to an older copy a new one", key, c.opt.Backend, ErrForeign)
	}
	return nil
}

// pruneBackend applies retention to the backend.
func (c *Compactor) pruneBackend(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, pruneTimeout)
	defer cancel()
	remote, err := catalog.Remote(ctx, c.opt.Backend)
	if err != nil {
		c.opt.Logger.Warn("snapshots in the backend were not pruned", "error", err)
		return
	}
	for i, s := range remote {
		if keep(i, s.Written, c.opt.KeepSnapshots, c.opt.KeepFor) {
			continue
		}
		if err := c.opt.Backend.Delete(ctx, s.Path); err != nil {
			c.opt.Logger.Warn("snapshot in the backend was not pruned", "key", s.Path, "error", err)
			continue
		}
		call(c.opt.Hooks.SnapshotDeleted, snapshot.Info{Location: c.opt.Backend.String(), Name: s.String(), Sequence: s.Sequence, Bytes: s.Size})
	}
}
