package xdswal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/internal/bounded"
	"github.com/xdswal/xdswal/internal/catalog"
	"github.com/xdswal/xdswal/internal/durable"
	"github.com/xdswal/xdswal/internal/restore"
	"github.com/xdswal/xdswal/internal/ship"
	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/replay"
)

// takeover is the way from what a data directory and a backend hold to a store
// that writes both:
//
//	survey   list the backend; set local data aside if another writer has since
//	         gone on from it
//	restore  what is local, and what the backend has beyond it
//	fence    if the writer before was another machine: claim an epoch that ends
//	         its turn, list again, and restore what it published until then
//	claim    write the next epoch into the data directory, then into the backend
type takeover struct {
	opt  *Options
	meta metadata
	// fresh is set if there is nothing local that counts, and the state comes
	// from the backend.
	fresh bool
	// remote is what the backend holds, nil without one or if it cannot be
	// reached. Once claimed is set it is what it holds in our epoch.
	remote  *catalog.Remote
	claimed bool
	weak    bool
	// state and result are what was restored.
	state  *state.State
	result replay.Result
}

// survey lists the backend and decides whether what is local counts.
func (t *takeover) survey(ctx context.Context, last metadata, known bool) error {
	t.meta, t.fresh = last, !known || last.unsettled()
	if t.opt.Backend == nil {
		return nil
	}
	if err := t.reach(ctx); err != nil || t.remote == nil {
		return err
	}
	newest, ok := t.remote.Newest()
	if !ok {
		if t.fresh && t.remote.Empty() {
			t.opt.Logger.Warn("the backend holds no store: a new one begins, with no configuration; correct the URL if it should hold one", "backend", t.opt.Backend.String())
		}
		return nil // nobody has taken it over yet
	}
	if known {
		leads, err := t.meta.leads(t.opt.Backend, newest)
		if err != nil {
			return err
		}
		if leads {
			// A crash may have come between the claim and the note of it.
			t.meta.Claimed = t.meta.Claimed || newest.Number == t.meta.Epoch
			t.fresh = false
			return nil
		}
	}
	t.meta, t.fresh = metadata{}, true
	return t.setAside(newest)
}

// reach lists the backend. If it cannot be reached, and what is local will do,
// that is no error.
func (t *takeover) reach(ctx context.Context) error {
	err := t.list(ctx)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err == nil && t.weak:
		ship.WarnWeak(t.opt.Logger, t.opt.Backend)
		return nil
	case err == nil:
		return nil
	case errors.Is(err, ErrVersion), errors.Is(err, ErrCorrupt):
		return err // it was reached
	case t.fresh || t.opt.RequireBackend:
		return fmt.Errorf("%w; without the backend there is no telling what the newest configuration is", err)
	}
	t.opt.Logger.Warn("the backend cannot be used; what is local is served, and the backend is taken over as soon as it can be", "backend", t.opt.Backend.String(), "error", err)
	return nil
}

// slowAnswer is when a start that waits for the backend says so.
const slowAnswer = 5 * time.Second

// list lists the backend, and gives it up when ctx is done even if it does not
// heed that. A directory that can be served without it does not wait long.
func (t *takeover) list(ctx context.Context) error {
	ctx, cancel := t.bound(ctx)
	defer cancel()
	type answer struct {
		weak   bool
		remote *catalog.Remote
	}
	b := t.opt.Backend
	waiting := time.AfterFunc(slowAnswer, func() {
		t.opt.Logger.Warn("the backend has not answered yet; the start waits for it", "backend", b.String())
	})
	defer waiting.Stop()
	a, err := bounded.Call(ctx, b, func(ctx context.Context) (a answer, err error) {
		if a.weak, err = ship.Weak(ctx, b); err == nil {
			a.remote, err = catalog.List(ctx, b)
		}
		return a, err
	})
	if err == nil {
		t.weak, t.remote = a.weak, a.remote
		return nil
	}
	if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
		err = errors.Join(err, cause) // a backend tells of the end alone
	}
	return err
}

// bound returns a context for what the backend is not needed for.
func (t *takeover) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	patience := t.patience()
	if patience == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, patience, fmt.Errorf("it did not answer within %s", patience))
}

// setAside moves what is local out of the way, because another writer has gone
// on from before its end. The identity goes first: what a crash leaves of the
// rest is served to nobody as long as the backend cannot be asked.
func (t *takeover) setAside(newest catalog.Epoch) error {
	var moved []string
	aside := filepath.Join(t.opt.Dir, fmt.Sprintf("superseded-%s", time.Now().UTC().Format("20060102T150405.000000000Z")))
	for _, name := range []string{metadataFile, journalDir, snapshotDir} {
		path := filepath.Join(t.opt.Dir, name)
		if empty(path) {
			continue
		}
		if err := durable.MkdirAll(aside); err != nil {
			return fmt.Errorf("set stale data aside: %w", err)
		}
		if err := os.Rename(path, filepath.Join(aside, name)); err != nil {
			return fmt.Errorf("set stale data aside: %w", err)
		}
		moved = append(moved, name)
	}
	if len(moved) == 0 {
		return nil
	}
	if err := errors.Join(durable.SyncDir(aside), durable.SyncDir(t.opt.Dir)); err != nil {
		return fmt.Errorf("set stale data aside: %w", err)
	}
	t.opt.Logger.Warn("the local data is stale: another writer has taken over since; it was set aside, and the backend is restored",
		"aside", aside, "epoch", newest.Number, "host", newest.Host, "claimed", newest.Claimed)
	return nil
}

// empty reports whether a path is missing or a directory with nothing in it.
func empty(path string) bool {
	info, err := os.Stat(path)
	if err != nil || !info.IsDir() {
		return err != nil
	}
	entries, err := os.ReadDir(path)
	return err == nil && len(entries) == 0
}

// restore restores what is local, and what the backend has beyond it.
func (t *takeover) restore(ctx context.Context, j restore.Journal) error {
	remote := t.remote
	if remote != nil && !t.fresh && !t.meta.Claimed && t.meta.Parent != 0 {
		// The epoch that the directory goes on in begins there, though the
		// backend does not know yet.
		remote = remote.Until(t.meta.From)
	}
	st, result, err := restore.Restore(ctx, restore.Options{
		Dir:      filepath.Join(t.opt.Dir, snapshotDir),
		Journal:  j,
		Backend:  t.opt.Backend,
		Remote:   remote,
		Known:    t.meta.Sequence,
		Patience: t.patience(),
		Hooks:    t.opt.Hooks.Replay,
	})
	t.state, t.result = st, result
	if err == nil && t.fresh && t.remote != nil {
		return t.remote.CheckEmpty(t.opt.Backend, st.Sequence())
	}
	return err
}

// patience returns how long a backend is waited for that is not needed, 0 for as
// long as it takes.
func (t *takeover) patience() time.Duration {
	if t.fresh || t.opt.RequireBackend {
		return 0
	}
	return t.opt.BackendTimeout
}

// begin makes the next epoch the directory's, and claims it.
func (t *takeover) begin(ctx context.Context) error {
	if t.fresh {
		if err := t.fence(ctx); err != nil {
			return err
		}
		t.meta = newDirectory(t.remote, catalog.Epoch{Number: t.result.Epoch, StoreID: t.result.StoreID})
		t.meta.From = t.state.Sequence()
	}
	if t.opt.Backend == nil {
		t.meta.Inherited = false // the directory is all there is
	}
	t.meta = t.meta.next(t.state.Sequence())
	if err := writeMetadata(t.opt.Dir, t.meta); err != nil {
		return err
	}
	if t.remote == nil {
		return nil
	}
	claiming, cancel := t.bound(ctx)
	defer cancel()
	err := claim(claiming, t.remote, t.opt.Backend, t.meta.claim())
	switch {
	case err == nil:
		t.claimed, t.meta.Claimed = true, true
		return writeMetadata(t.opt.Dir, t.meta)
	case t.fresh && errors.Is(err, ErrFenced):
		// The directory is as if it had never been opened.
		return errors.Join(err, os.Remove(filepath.Join(t.opt.Dir, metadataFile)))
	case ctx.Err() != nil, t.fresh, t.opt.RequireBackend, errors.Is(err, ErrFenced), errors.Is(err, ErrForeign):
		return err
	}
	// What is local leads, and has one who goes on trying.
	t.opt.Logger.Warn("the backend was not taken over; it is tried again", "backend", t.opt.Backend.String(), "error", err)
	return nil
}

// fence ends the turn of the writer before, which may be alive on another
// machine, and restores what it has published until then. What comes later it
// does not take for shipped, since it finds the epoch. Only when that is known
// can the next epoch say where it goes on; and if this process ends before that,
// all that was published counts.
func (t *takeover) fence(ctx context.Context) error {
	if t.remote == nil {
		return nil
	}
	newest, ok := t.remote.Newest()
	if !ok {
		return nil // there is none
	}
	e := signed(catalog.Epoch{
		Number: t.remote.Next(), Parent: newest.Number, ParentToken: newest.Token, Fence: true,
		Sequence: t.state.Sequence(), // for who finds nothing else
		StoreID:  newest.StoreID, Token: newToken(),
	})
	if err := claim(ctx, t.remote, t.opt.Backend, e); err != nil {
		return err
	}
	remote, err := bounded.Call(ctx, t.opt.Backend, func(ctx context.Context) (*catalog.Remote, error) { return catalog.List(ctx, t.opt.Backend) })
	if err != nil {
		return err
	}
	t.remote = remote
	if newest, _ := t.remote.Newest(); newest.Token != e.Token {
		return catalog.Fenced(newest)
	}
	return t.goOn(ctx)
}

// claim claims an epoch. After an error the listing is not to be used.
func claim(ctx context.Context, r *catalog.Remote, b backends.Backend, e catalog.Epoch) error {
	return bounded.Do(ctx, b, func(ctx context.Context) error { return r.Claim(ctx, b, e) })
}

// goOn restores what the backend holds beyond the state.
func (t *takeover) goOn(ctx context.Context) error {
	st, result, err := restore.Restore(ctx, restore.Options{
		Base:    t.state,
		Dir:     filepath.Join(t.opt.Dir, snapshotDir),
		Backend: t.opt.Backend,
		Remote:  t.remote,
		Hooks:   t.opt.Hooks.Replay,
	})
	if err != nil {
		return err
	}
	// What the first restore tells stays, and where it ends moves.
	last := t.result
	last.Sequence, last.Time, last.Nodes, last.Resources, last.Bytes = result.Sequence, result.Time, result.Nodes, result.Resources, result.Bytes
	last.Events, last.Shipped, last.Batches, last.Duration = last.Events+result.Events, last.Shipped+result.Shipped, last.Batches+result.Batches, last.Duration+result.Duration
	last.Skipped = append(last.Skipped, result.Skipped...)
	last.ShippedTo = max(last.ShippedTo, result.ShippedTo)
	t.state, t.result = st, last
	return nil
}

// cameFromBackend reports whether a part of the state did.
func (t *takeover) cameFromBackend() bool {
	return t.state.Sequence() > 0 && t.opt.Backend != nil &&
		(t.fresh || t.result.Shipped > 0 || t.result.Source == t.opt.Backend.String())
}
