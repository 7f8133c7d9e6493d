package ship

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/compactor"
	"github.com/xdswal/xdswal/internal/catalog"
	"github.com/xdswal/xdswal/internal/format/snapshot"
	"github.com/xdswal/xdswal/internal/hook"
)

// runSnapshots ships the newest snapshot whenever there is a new one, and tries
// again, ever more rarely, while the backend refuses.
func (s *Shipper) runSnapshots(ctx context.Context) {
	var wait backoff
	signal(s.snapshot) // what the last process left
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.fenced:
			return
		case <-s.snapshot:
		}
		err := s.shipSnapshot(ctx)
		switch {
		case ctx.Err() != nil || s.isFenced():
			return
		case err == nil:
			s.succeeded(&s.snapshotErr, "snapshots are shipped again")
			wait.reset()
			continue
		}
		s.failed(&s.snapshotErr, "snapshot was not shipped; updates go on, and it is tried again", err)
		if !sleep(ctx, wait.wait()) {
			return
		}
		signal(s.snapshot)
	}
}

// shipSnapshot puts the newest local snapshot into the backend, unless it is
// there, and prunes the backend.
func (s *Shipper) shipSnapshot(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.opt.Timeout)
	defer cancel()
	return s.bounded(ctx, s.shipping, func(ctx context.Context) error {
		local, err := s.opt.Snapshots()
		if err != nil || len(local) == 0 {
			return err
		}
		// Older ones that were not shipped are superseded by it.
		newest := local[0]
		if newest.Sequence <= s.Status().Snapshot {
			return nil
		}
		if err := s.shipOne(ctx, newest); err != nil {
			return err
		}
		signal(s.wake) // the tail may have waited for it
		if ctx.Err() == nil && !s.opt.NoPrune {
			s.prune(ctx)
		}
		if !s.sweepAt.IsZero() && time.Now().After(s.sweepAt) {
			s.sweepAt = time.Time{}
			s.sweep(ctx)
		}
		return nil
	})
}

func (s *Shipper) shipOne(ctx context.Context, e catalog.Entry) error {
	info := compactor.Snapshot{Location: s.opt.Backend.String(), Backend: true, Name: e.String(), Sequence: e.Sequence, Bytes: e.Size}
	start := time.Now()
	hook.Call(s.opt.Hooks.SnapshotWriteBegin, info)
	err := s.putSnapshot(ctx, e)
	info.Duration = time.Since(start)
	if err != nil {
		info.Err = fmt.Errorf("ship snapshot %s: %w", e.Name, err)
		hook.Call(s.opt.Hooks.SnapshotWriteEnd, info)
		return info.Err
	}
	now := time.Now()
	s.mu.Lock()
	s.held.addSnapshot(catalog.Entry{Name: e.Name, Path: catalog.KeyPrefix + e.String(), Size: e.Size, Written: now})
	s.status.Snapshot, s.status.SnapshotTime = e.Sequence, now
	s.status.Shipped = max(s.status.Shipped, e.Sequence)
	if uint64(s.status.Shipped) >= s.last.Load() {
		s.status.BehindSince = time.Time{}
	}
	s.mu.Unlock()
	hook.Call(s.opt.Hooks.SnapshotWriteEnd, info)
	return nil
}

func (s *Shipper) putSnapshot(ctx context.Context, e catalog.Entry) error {
	f, err := os.Open(e.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	key := catalog.KeyPrefix + e.String()
	err = s.opt.Backend.Put(ctx, key, f)
	if errors.Is(err, backends.ErrExists) {
		err = s.compareSnapshot(ctx, key, f)
	}
	if err != nil {
		return err
	}
	return s.fence(ctx)
}

// compareSnapshot fails if a snapshot is another one than the file: an upload
// whose answer was lost, or one before a restart, has left this one. The header
// tells, with the time to the nanosecond at which the file was written.
func (s *Shipper) compareSnapshot(ctx context.Context, key string, f *os.File) error {
	r, err := s.opt.Backend.Get(ctx, key, 0, -1)
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
	if theirs != ours {
		return fmt.Errorf("%s in %s %w: it is not the snapshot that was written here; give each store a backend prefix of its own, and a data directory that was set back to an older copy a new one",
			key, s.opt.Backend, catalog.ErrForeign)
	}
	return nil
}
