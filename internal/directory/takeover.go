package directory

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/internal/bounded"
	"github.com/xdswal/xdswal/internal/catalog"
	"github.com/xdswal/xdswal/internal/durable"
	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/internal/restore"
	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/replay"
)

// DefaultBackendTimeout is the default bound of the wait for a backend that is not needed.
const DefaultBackendTimeout = 5 * time.Second

// slowAnswer is the time after which a start that waits for the backend logs that.
const slowAnswer = 5 * time.Second

// TakeoverOptions are the settings of a takeover.
type TakeoverOptions struct {
	// Backend is nil for a store without one.
	Backend backends.Backend
	// RequireBackend makes a backend that cannot be reached an error. Otherwise
	// BackendTimeout bounds the wait for it where the local data is complete.
	RequireBackend bool
	BackendTimeout time.Duration
	Hooks          replay.Hooks
	Logger         *slog.Logger
}

// Takeover makes this process the writer of a data directory and a backend. Its steps
// are called once each, in this order:
//
//	Survey   lists the backend, and sets local data aside that another writer has
//	         superseded
//	Restore  restores the local data, and what the backend has after it
//	Begin    if the last writer was another machine: claims an epoch that fences it,
//	         lists the backend again, and restores what it published until then;
//	         then writes the next epoch into the data directory and into the backend
type Takeover struct {
	opt TakeoverOptions
	dir *Directory
	// fresh is set if no local data counts, so that the state comes from the backend.
	fresh bool
	meta  Metadata

	// Remote is what the backend contained when it was listed, or nil. Once Claimed is
	// set, it is what the backend contains in the directory's epoch.
	Remote  *catalog.Remote
	Claimed bool
	// Weak reports that the backend does not create objects conditionally.
	Weak bool
	// State and Result are the outcome of the restore.
	State  *state.State
	Result replay.Result
}

// NewTakeover returns a takeover of a data directory.
func NewTakeover(dir *Directory, opt TakeoverOptions) *Takeover {
	return &Takeover{opt: opt, dir: dir}
}

// Survey lists the backend and decides whether the local data counts.
func (t *Takeover) Survey(ctx context.Context) error {
	t.meta = t.dir.Metadata()
	t.fresh = !t.dir.known || t.meta.unsettled()
	if t.opt.Backend == nil {
		return nil
	}
	if err := t.reach(ctx); err != nil || t.Remote == nil {
		return err
	}
	newest, ok := t.Remote.Newest()
	if !ok {
		if t.fresh && t.Remote.Empty() {
			t.opt.Logger.Warn("backend is empty; starting a new store without configuration; correct the URL if the backend should contain one", "backend", t.opt.Backend.String())
		}
		return nil // the backend has no writer yet
	}
	if t.dir.known {
		leads, err := t.meta.leads(t.opt.Backend, newest)
		if err != nil {
			return err
		}
		if leads {
			// The process may have crashed between the claim and recording it.
			t.meta.Claimed = t.meta.Claimed || newest.Number == t.meta.Epoch
			t.fresh = false
			return nil
		}
	}
	t.fresh = true
	return t.setAside(newest)
}

// SurveyFollowed is Survey for a follower, whose state comes from the backend: it sets
// all local data aside. The check returns an error if the newest epoch is not that of
// the followed store.
func (t *Takeover) SurveyFollowed(ctx context.Context, check func(newest catalog.Epoch) error) error {
	t.fresh = true
	if err := t.reach(ctx); err != nil {
		return err
	}
	newest, _ := t.Remote.Newest()
	if err := check(newest); err != nil {
		return err
	}
	return t.setAside(newest)
}

// reach lists the backend. It returns nil if the backend cannot be reached and the
// local data suffices.
func (t *Takeover) reach(ctx context.Context) error {
	err := t.list(ctx)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err == nil && t.Weak:
		catalog.WarnWeak(t.opt.Logger, t.opt.Backend)
		return nil
	case err == nil:
		return nil
	case errors.Is(err, event.ErrVersion), errors.Is(err, event.ErrCorrupt):
		return err // it was reached
	case t.fresh || t.opt.RequireBackend:
		return fmt.Errorf("%w; the newest configuration is not known without the backend", err)
	}
	t.opt.Logger.Warn("backend cannot be reached; serving the local data, and trying to take the backend over", "backend", t.opt.Backend.String(), "error", err)
	return nil
}

// list lists the backend. It returns when ctx is done, even if the backend does not.
func (t *Takeover) list(ctx context.Context) error {
	ctx, cancel := t.bound(ctx)
	defer cancel()
	b := t.opt.Backend
	waiting := time.AfterFunc(slowAnswer, func() {
		t.opt.Logger.Warn("waiting for the backend, which has not answered yet", "backend", b.String())
	})
	defer waiting.Stop()
	type answer struct {
		weak   bool
		remote *catalog.Remote
	}
	a, err := bounded.Call(ctx, b, func(ctx context.Context) (a answer, err error) {
		if a.weak, err = catalog.Weak(ctx, b); err == nil {
			a.remote, err = catalog.List(ctx, b)
		}
		return a, err
	})
	if err == nil {
		t.Weak, t.Remote = a.weak, a.remote
		return nil
	}
	if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
		err = errors.Join(err, cause) // a backend returns the context's error alone
	}
	return err
}

// timeout returns the bound of the wait for a backend that is not needed, or 0 if it is
// needed.
func (t *Takeover) timeout() time.Duration {
	if t.fresh || t.opt.RequireBackend {
		return 0
	}
	return t.opt.BackendTimeout
}

func (t *Takeover) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	timeout := t.timeout()
	if timeout == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no answer within %s", timeout))
}

// setAside moves local data away that another writer has superseded. The metadata is
// moved first, durably: without it, what a crash leaves of the rest is not served as
// long as the backend cannot be reached.
//
//	rename(xdswal.json), fsync(aside), fsync(DIR)
//	rename(journal), rename(snapshots), fsync(aside), fsync(DIR)
func (t *Takeover) setAside(newest catalog.Epoch) error {
	t.meta = Metadata{}
	aside := filepath.Join(t.dir.path, "superseded-"+time.Now().UTC().Format("20060102T150405.000000000Z"))
	moved := false
	for _, names := range [][]string{{metadataFile}, {journalDir, snapshotDir}} {
		m, err := t.moveAside(aside, names)
		if err != nil {
			return fmt.Errorf("set superseded data aside: %w", err)
		}
		moved = moved || m
	}
	if moved {
		t.opt.Logger.Warn("local data is stale: another writer has taken over since; set it aside, restoring from the backend",
			"aside", aside, "epoch", newest.Number, "host", newest.Host, "claimed", newest.Claimed)
	}
	return nil
}

// moveAside moves entries of the data directory durably. It reports false if there were
// none.
func (t *Takeover) moveAside(aside string, names []string) (moved bool, err error) {
	names = slices.DeleteFunc(names, func(name string) bool { return isEmpty(filepath.Join(t.dir.path, name)) })
	if len(names) == 0 {
		return false, nil
	}
	if err := durable.MkdirAll(aside); err != nil {
		return false, err
	}
	for _, name := range names {
		if err := os.Rename(filepath.Join(t.dir.path, name), filepath.Join(aside, name)); err != nil {
			return false, err
		}
	}
	return true, errors.Join(durable.SyncDir(aside), durable.SyncDir(t.dir.path))
}

// Restore restores the local data, and what the backend has after it. The journal is
// nil if there is none.
func (t *Takeover) Restore(ctx context.Context, j restore.Journal) (err error) {
	remote := t.Remote
	if remote != nil && !t.fresh && !t.meta.Claimed && t.meta.Parent != 0 {
		// The directory's epoch begins there, though the backend has not recorded it.
		remote = remote.Until(t.meta.From)
	}
	opt := t.restoreOptions(remote)
	opt.Journal, opt.Known, opt.BackendTimeout = j, t.meta.Sequence, t.timeout()
	t.State, t.Result, err = restore.Restore(ctx, opt)
	if err == nil && t.fresh && t.Remote != nil {
		return t.Remote.CheckEmpty(t.opt.Backend, t.State.Sequence())
	}
	return err
}

// RestoreFollowed is Restore for a follower, which restores by itself. The epoch and the
// store are those that it followed.
func (t *Takeover) RestoreFollowed(fn func(restore.Options) (*state.State, replay.Result, error), epoch uint64, storeID string) (err error) {
	t.State, t.Result, err = fn(t.restoreOptions(t.Remote))
	if err != nil {
		return err
	}
	if newest, _ := t.Remote.Newest(); newest.Number == 0 {
		// The backend has lost its epochs; the store is still the same.
		t.Result.Epoch = max(t.Result.Epoch, epoch)
		if storeID != "" {
			t.Result.StoreID = storeID
		}
	}
	t.Result.ShippedTo = t.State.Sequence()
	return nil
}

func (t *Takeover) restoreOptions(remote *catalog.Remote) restore.Options {
	return restore.Options{Dir: t.dir.SnapshotDir(), Backend: t.opt.Backend, Remote: remote, Hooks: t.opt.Hooks}
}

// Begin makes the next epoch the directory's, and claims it in the backend.
func (t *Takeover) Begin(ctx context.Context) error {
	if t.fresh {
		if err := t.fence(ctx); err != nil {
			return err
		}
		t.meta = newMetadata(t.Remote, t.Result.Epoch, t.Result.StoreID)
		t.meta.From = t.State.Sequence()
	}
	if t.opt.Backend == nil {
		t.meta.Inherited = false // the directory is all there is
	}
	t.meta = t.meta.next(t.State.Sequence())
	if err := t.dir.Update(func(m *Metadata) { *m = t.meta }); err != nil {
		return err
	}
	if t.Remote == nil {
		return nil
	}
	claiming, cancel := t.bound(ctx)
	defer cancel()
	err := t.claim(claiming, t.meta.Claim())
	switch {
	case err == nil:
		t.Claimed = true
		return t.dir.Update(func(m *Metadata) { m.Claimed = true })
	case t.fresh && errors.Is(err, catalog.ErrFenced):
		// The directory is again one in which no store was ever opened.
		return errors.Join(err, t.dir.removeMetadata())
	case ctx.Err() != nil, t.fresh, t.opt.RequireBackend, errors.Is(err, catalog.ErrFenced), errors.Is(err, catalog.ErrForeign):
		return err
	}
	// The local data leads, and the shipper claims the epoch when it can.
	t.opt.Logger.Warn("backend was not taken over; trying again", "backend", t.opt.Backend.String(), "error", err)
	return nil
}

// fence ends the epoch of the last writer, which may be running on another machine, and
// restores what it published until then. It does not report anything later as shipped,
// since it finds the epoch. Only now can the next epoch record where it begins; if this
// process crashes before that, everything that was published counts.
func (t *Takeover) fence(ctx context.Context) error {
	if t.Remote == nil {
		return nil
	}
	newest, ok := t.Remote.Newest()
	if !ok {
		return nil // there is no last writer
	}
	e := signed(catalog.Epoch{
		Number: t.Remote.Next(), Parent: newest.Number, ParentToken: newest.Token, Fence: true,
		Sequence: t.State.Sequence(), // for a backend that loses everything else
		StoreID:  newest.StoreID, Token: NewToken(),
	})
	if err := t.claim(ctx, e); err != nil {
		return err
	}
	b := t.opt.Backend
	remote, err := bounded.Call(ctx, b, func(ctx context.Context) (*catalog.Remote, error) { return catalog.List(ctx, b) })
	if err != nil {
		return err
	}
	t.Remote = remote
	if newest, _ := t.Remote.Newest(); newest.Token != e.Token {
		return catalog.Fenced(newest)
	}
	return t.restoreRest(ctx)
}

// claim claims an epoch. After an error the listing must not be used.
func (t *Takeover) claim(ctx context.Context, e catalog.Epoch) error {
	return bounded.Do(ctx, t.opt.Backend, func(ctx context.Context) error { return t.Remote.Claim(ctx, t.opt.Backend, e) })
}

// restoreRest restores what the backend contains after the state.
func (t *Takeover) restoreRest(ctx context.Context) error {
	opt := t.restoreOptions(t.Remote)
	opt.Base = t.State
	st, result, err := restore.Restore(ctx, opt)
	if err != nil {
		return err
	}
	// The source is that of the first restore, the end that of the second.
	sum := t.Result
	sum.Sequence, sum.Time, sum.Nodes, sum.Resources, sum.Bytes = result.Sequence, result.Time, result.Nodes, result.Resources, result.Bytes
	sum.Events += result.Events
	sum.Shipped += result.Shipped
	sum.Batches += result.Batches
	sum.Duration += result.Duration
	sum.Skipped = append(sum.Skipped, result.Skipped...)
	sum.ShippedTo = max(sum.ShippedTo, result.ShippedTo)
	t.State, t.Result = st, sum
	return nil
}

// Fresh reports whether no local data counted.
func (t *Takeover) Fresh() bool { return t.fresh }

// FromBackend reports whether a part of the state came from the backend.
func (t *Takeover) FromBackend() bool {
	return t.State.Sequence() > 0 && t.opt.Backend != nil &&
		(t.fresh || t.Result.Shipped > 0 || t.Result.Source == t.opt.Backend.String())
}
