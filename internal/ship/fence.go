package ship

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/compactor"
	"github.com/xdswal/xdswal/internal/catalog"
	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/internal/hook"
)

// claimLoop claims the epoch as soon as the backend can be reached. It returns
// false if that has become pointless.
func (s *Shipper) claimLoop(ctx context.Context) bool {
	var wait backoff
	for {
		err := s.claim(ctx)
		if err == nil {
			return true
		}
		if ctx.Err() != nil || s.isFenced() {
			return false
		}
		s.failed(&s.tailErr, "the backend was not taken over; updates go on, and it is tried again", err)
		if !sleep(ctx, wait.wait()) {
			return false
		}
	}
}

func (s *Shipper) claim(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, claimTimeout)
	defer cancel()
	return s.bounded(ctx, s.tailing, func(ctx context.Context) error {
		weak, err := Weak(ctx, s.opt.Backend)
		if err != nil {
			return err
		}
		s.opt.Weak = weak
		s.setStatus(func(st *compactor.ShipperStatus) { st.Weak = weak })
		remote, err := catalog.List(ctx, s.opt.Backend)
		if err != nil {
			return err
		}
		if err := remote.Claim(ctx, s.opt.Backend, s.opt.Epoch); err != nil {
			if errors.Is(err, catalog.ErrFenced) || errors.Is(err, catalog.ErrForeign) {
				_ = s.supersede(err)
			}
			return err
		}
		if s.opt.Claimed != nil {
			if err := s.opt.Claimed(); err != nil {
				return err
			}
		}
		s.begin(remote)
		if weak {
			WarnWeak(s.opt.Logger, s.opt.Backend)
		}
		s.succeeded(&s.tailErr, "the backend was taken over")
		return nil
	})
}

// Weak reports whether a backend does not create conditionally.
func Weak(ctx context.Context, b backends.Backend) (bool, error) {
	p, ok := b.(backends.ConditionalCreator)
	if !ok {
		return false, nil
	}
	conditional, err := p.ProbeConditionalCreate(ctx)
	return err == nil && !conditional, err
}

// WarnWeak logs what it means that a backend is weak.
func WarnWeak(l *slog.Logger, b backends.Backend) {
	l.Warn("the backend does not create conditionally: two stores that take it over in the same instant are both let in, and the one that lost learns it when it ships next", "backend", b.String())
}

// fence fails if another writer has taken over. What was put before it succeeds
// counts, whoever takes over later: the next writer claims its epoch first, and
// looks what there is then.
func (s *Shipper) fence(ctx context.Context) error {
	next, err := catalog.ReadEpoch(ctx, s.opt.Backend, s.opt.Epoch.Number+1)
	switch {
	case err == nil:
		return s.supersede(catalog.Fenced(next))
	case errors.Is(err, event.ErrCorrupt), errors.Is(err, event.ErrVersion):
		// Whatever it says, it is there.
		return s.supersede(fmt.Errorf("%w: %w", catalog.ErrFenced, err))
	case !errors.Is(err, backends.ErrNotFound):
		return fmt.Errorf("look for a newer writer: %w", err)
	case !s.opt.Weak:
		return nil
	}
	// The claim itself may have been overwritten by one made in the same
	// instant.
	own, err := catalog.ReadEpoch(ctx, s.opt.Backend, s.opt.Epoch.Number)
	if err != nil {
		return fmt.Errorf("look for another writer: %w", err)
	}
	if own.Token != s.opt.Epoch.Token {
		return s.supersede(catalog.Fenced(own))
	}
	return nil
}

// supersede ends the shipping.
func (s *Shipper) supersede(err error) error {
	s.mu.Lock()
	first := s.status.Fenced == nil
	if first {
		s.status.Fenced = err
	}
	s.mu.Unlock()
	if !first {
		return err
	}
	s.opt.Logger.Error("another writer has taken over the backend; nothing is shipped any more", "backend", s.opt.Backend.String(), "epoch", s.opt.Epoch.Number, "error", err)
	if s.opt.Fenced != nil {
		s.opt.Fenced(err)
	}
	// First, so that a hook may close the store.
	close(s.fenced)
	hook.Call(s.opt.Hooks.Fenced, err)
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

func (s *Shipper) setStatus(change func(*compactor.ShipperStatus)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.status)
}

// failed notes why an attempt failed, and logs it if the one before did not.
func (s *Shipper) failed(where *error, message string, err error) {
	s.mu.Lock()
	log, waits := s.opt.Logger.Error, errors.Is(err, errSnapshotFirst)
	if waits {
		log = s.opt.Logger.Info
	}
	first := *where == nil || (errors.Is(*where, errSnapshotFirst) && !waits)
	*where = err
	s.mu.Unlock()
	if first {
		log(message, "backend", s.opt.Backend.String(), "error", err)
	}
}

// succeeded notes that nothing is wrong any more.
func (s *Shipper) succeeded(where *error, message string) {
	s.mu.Lock()
	was := *where != nil
	*where = nil
	s.mu.Unlock()
	if was {
		s.opt.Logger.Info(message, "backend", s.opt.Backend.String()) //nolint:sloglint // Callers give constants.
	}
}

// sweepAge is how old an upload has to be to have crashed: one under way is
// never older than its timeout.
func (s *Shipper) sweepAge() time.Duration { return 2 * s.opt.Timeout }

// sweep has the backend clean up after uploads that crashed.
func (s *Shipper) sweep(ctx context.Context) {
	sweeper, ok := s.opt.Backend.(backends.Sweeper)
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, claimTimeout)
	defer cancel()
	n, err := sweeper.Sweep(ctx, s.sweepAge(), catalog.KeyPrefix, catalog.BatchPrefix)
	switch {
	case ctx.Err() != nil:
	case err != nil:
		s.opt.Logger.Warn("crashed uploads were not looked for: have the store expire incomplete multipart uploads", "backend", s.opt.Backend.String(), "error", err)
	case n > 0:
		s.opt.Logger.Info("crashed uploads were aborted", "backend", s.opt.Backend.String(), "uploads", n)
	}
}

// sleep waits; it returns false if ctx is done before.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
