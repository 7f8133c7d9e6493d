package ship

import (
	"context"
	"errors"
	"fmt"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/compactor"
	"github.com/xdswal/xdswal/internal/catalog"
	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/internal/hook"
	"github.com/xdswal/xdswal/internal/retry"
)

// claimLoop claims the epoch as soon as the backend can be reached. It returns false if
// ctx is done or the shipper is fenced.
func (s *Shipper) claimLoop(ctx context.Context) bool {
	wait := retry.Backoff(minBackoff, maxBackoff)
	for {
		err := s.claim(ctx)
		if err == nil {
			return true
		}
		if ctx.Err() != nil || s.isFenced() {
			return false
		}
		s.failed(&s.batchErr, "the backend was not taken over; updates continue, and it is retried", err)
		if !retry.Sleep(ctx, wait.NextBackOff()) {
			return false
		}
	}
}

func (s *Shipper) claim(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, claimTimeout)
	defer cancel()
	return s.exclusive(ctx, s.batchSlot, func(ctx context.Context) error {
		if err := s.probe(ctx); err != nil {
			return err
		}
		remote, err := catalog.List(ctx, s.opt.Backend)
		if err != nil {
			return err
		}
		if err := remote.Claim(ctx, s.opt.Backend, s.opt.Epoch); err != nil {
			if errors.Is(err, catalog.ErrFenced) || errors.Is(err, catalog.ErrForeign) {
				_ = s.setFenced(err)
			}
			return err
		}
		if s.opt.Claimed != nil {
			if err := s.opt.Claimed(); err != nil {
				return err
			}
		}
		s.begin(remote)
		if s.opt.Weak {
			catalog.WarnWeak(s.opt.Logger, s.opt.Backend)
		}
		s.succeeded(&s.batchErr, "the backend was taken over")
		return nil
	})
}

// probe finds out, once, whether the backend is weak. That takes requests which each attempt
// to claim the epoch would repeat.
func (s *Shipper) probe(ctx context.Context) error {
	if s.probed {
		return nil
	}
	weak, err := catalog.Weak(ctx, s.opt.Backend)
	if err != nil {
		return err
	}
	s.opt.Weak, s.probed = weak, true
	s.setStatus(func(st *compactor.ShipperStatus) { st.Weak = weak })
	return nil
}

// settle checks, before the first object is put, that the epoch is still this writer's. A
// weak backend may accept a claim of the same instant as ours, and store it later: without
// the check, both writers would put the same keys.
func (s *Shipper) settle(ctx context.Context) error {
	if s.settled.Load() {
		return nil
	}
	if s.opt.Weak && !retry.Sleep(ctx, weakPause) {
		return context.Cause(ctx)
	}
	err := s.checkFenced(ctx)
	s.settled.Store(err == nil)
	return err
}

// checkFenced returns an error if another writer has taken over. What was put before
// checkFenced returns nil counts: a later writer claims its epoch first and lists the
// backend then. That holds for a backend that does not create objects atomically too,
// where a claim of the same instant may have overwritten our own.
func (s *Shipper) checkFenced(ctx context.Context) error {
	number := s.opt.Epoch.Number
	next, err := catalog.ReadClaim(ctx, s.opt.Backend, number+1)
	switch {
	case err == nil:
		return s.setFenced(catalog.Fenced(next))
	case errors.Is(err, event.ErrCorrupt):
		// It cannot be read, but it exists.
		return s.setFenced(fmt.Errorf("%w: %w; it is not known whether a writer has the epoch: if none has, stop this one, delete the object, and start it again", catalog.ErrFenced, err))
	case errors.Is(err, event.ErrVersion):
		return s.setFenced(fmt.Errorf("%w: %w", catalog.ErrFenced, err))
	case !errors.Is(err, backends.ErrNotFound):
		return fmt.Errorf("look for a newer writer: %w", err)
	}
	own, err := catalog.ReadClaim(ctx, s.opt.Backend, number)
	switch {
	case errors.Is(err, backends.ErrNotFound):
		return nil // the backend has lost it, and no other writer has claimed it
	case errors.Is(err, event.ErrCorrupt):
		return fmt.Errorf("look for another writer: %w; if another writer has claimed the epoch in the same instant, stop it; then stop this one, delete the object, and start it again", err)
	case err != nil:
		return fmt.Errorf("look for another writer: %w", err)
	case own.Token != s.opt.Epoch.Token:
		return s.setFenced(catalog.Fenced(own))
	}
	return nil
}

// setFenced ends the shipping, reports err once, and returns it.
func (s *Shipper) setFenced(err error) error {
	s.mu.Lock()
	first := s.status.Fenced == nil
	if first {
		s.status.Fenced = err
	}
	s.mu.Unlock()
	if !first {
		return err
	}
	s.opt.Logger.Error("another writer has taken over the backend; nothing more is shipped", "backend", s.opt.Backend.String(), "epoch", s.opt.Epoch.Number, "error", err)
	hook.Call(s.opt.Fenced, err)
	close(s.fenced)
	// In its own goroutine: it may close the store, which waits for this one, or call
	// Close while Close ships.
	go hook.Call(s.opt.Hooks.Fenced, err)
	return err
}

func (s *Shipper) isFenced() bool {
	select {
	case <-s.fenced:
		return true
	default:
		return false
	}
}
