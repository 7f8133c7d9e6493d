package ship

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/compactor"
	"github.com/xdswal/xdswal/internal/catalog"
	"github.com/xdswal/xdswal/internal/format/snapshot"
	"github.com/xdswal/xdswal/internal/hook"
	"github.com/xdswal/xdswal/internal/retry"
)

// runSnapshots ships each new snapshot, prunes the backend, and sweeps it. While the
// backend fails it retries with a backoff.
func (s *Shipper) runSnapshots(ctx context.Context) {
	wait, pruneWait := retry.Backoff(minBackoff, maxBackoff), retry.Backoff(minPruneBackoff, maxPruneBackoff)
	signal(s.snapshot) // the last process may have left one
	sweep, again, warned := time.After(0), false, false
	var prune <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.fenced:
			return
		case <-sweep:
			// The uploads that crashed with the last process are old enough the second
			// time.
			err := s.sweep(ctx)
			if err == nil && again {
				sweep = nil
				continue
			}
			sweep, again = time.After(s.sweepAge()), true
			if err != nil && ctx.Err() == nil && !warned {
				warned = true
				s.opt.Logger.Warn("crashed uploads were not aborted; configure the object store to expire incomplete multipart uploads", "backend", s.opt.Backend.String(), "error", err)
			}
			continue
		case <-s.snapshot:
		case <-prune:
			prune = nil
		}
		err := s.shipSnapshot(ctx)
		if ctx.Err() != nil || s.isFenced() {
			return
		}
		if err != nil {
			s.failed(&s.snapshotErr, "snapshot was not shipped; updates continue, and it is retried", err)
			if !retry.Sleep(ctx, wait.NextBackOff()) {
				return
			}
			signal(s.snapshot)
			continue
		}
		s.succeeded(&s.snapshotErr, "snapshots are shipped again")
		wait.Reset()
		switch {
		case !s.unpruned.Load():
			prune = nil
			pruneWait.Reset()
		case prune == nil:
			prune = time.After(pruneWait.NextBackOff())
		}
	}
}

// shipSnapshot puts the newest snapshot of the data directory into the backend, unless
// the backend has it, and prunes the backend.
func (s *Shipper) shipSnapshot(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.opt.Timeout)
	defer cancel()
	return s.exclusive(ctx, s.snapshotSlot, func(ctx context.Context) error {
		local, err := s.opt.Snapshots()
		if err != nil {
			return err
		}
		if len(local) > 0 && local[0].Sequence > s.Status().Snapshot {
			if err := s.shipOne(ctx, local[0]); err != nil {
				return err
			}
			signal(s.wake) // the batches may have waited for it
			if !s.opt.NoPrune {
				s.prune(ctx)
			}
		} else if s.unpruned.Load() && s.checkFenced(ctx) == nil {
			s.prune(ctx)
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
	e.Path, e.Written = catalog.SnapshotPrefix+e.String(), now
	s.held.snapshots = slices.Insert(s.held.snapshots, 0, e)
	s.status.Snapshot, s.status.SnapshotTime = e.Sequence, now
	s.setShipped(e.Sequence)
	s.mu.Unlock()
	hook.Call(s.opt.Hooks.SnapshotWriteEnd, info)
	return nil
}

// putSnapshot publishes a file. If the backend has a snapshot of that name, the headers
// must match: they contain the store and the time of writing, to the nanosecond.
func (s *Shipper) putSnapshot(ctx context.Context, e catalog.Entry) error {
	f, err := os.Open(e.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	key := catalog.SnapshotPrefix + e.String()
	return s.publish(ctx, key, f, func(existing io.Reader) error {
		got, err := snapshot.ReadHeader(existing)
		if err != nil {
			return err
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return err
		}
		want, err := snapshot.ReadHeader(f)
		if err != nil {
			return err
		}
		if got != want {
			return fmt.Errorf("%s in %s %w: it is not the snapshot that this store wrote; give each store a backend prefix of its own, also after its data directory was replaced by an older copy",
				key, s.opt.Backend, catalog.ErrForeign)
		}
		return nil
	})
}

// publish puts an object and checks that no other writer has taken over. If the object
// exists, an earlier Put succeeded and its answer was lost, or another writer publishes
// in this epoch, which a weak backend permits; compare returns an error for the latter.
func (s *Shipper) publish(ctx context.Context, key string, body io.ReadSeeker, compare func(existing io.Reader) error) error {
	if err := s.settle(ctx); err != nil {
		return err
	}
	err := s.opt.Backend.Put(ctx, key, body)
	if errors.Is(err, backends.ErrExists) {
		var existing io.ReadCloser
		if existing, err = s.opt.Backend.Get(ctx, key, 0, -1); err == nil {
			err = compare(existing)
			_ = existing.Close()
		}
	}
	if err != nil {
		return err
	}
	return s.checkFenced(ctx)
}
