package xdswal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/xdswal/xdswal/compactor/catalog"
	"github.com/xdswal/xdswal/compactor/shipper"
	"github.com/xdswal/xdswal/internal/durable"
	"github.com/xdswal/xdswal/replay"
	"github.com/xdswal/xdswal/replay/state"
)

// takeover is the way from what a data directory and a backend hold to a store
// that writes both:
//
//	survey   list the backend; set local data aside if another writer has since
//	         gone on from it
//	restore  what is local, and what the backend has beyond it
//	claim    write the next epoch into the data directory, then into the backend
//	look     whether the writer before published more until it was claimed; then
//	         restore that too, and claim the epoch after
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
	// A takeover that was not settled has served nothing: it begins anew.
	unsettled := known && last.Inherited && !last.Claimed
	t.meta, t.fresh = last, !known || unsettled
	if t.opt.Backend == nil {
		return nil
	}
	if err := t.reach(ctx); err != nil || t.remote == nil {
		return err
	}
	newest, ok := t.remote.Newest()
	switch {
	case !ok:
		return nil // nobody has taken it over yet
	case unsettled && newest.Token == last.Token:
		// The claim was made, and what the writer before has published until
		// then was not looked at.
		t.remote = t.remote.Before(last.Parent + 1)
	case !t.fresh:
		leads, err := t.meta.leads(t.opt.Backend, newest)
		if err != nil {
			return err
		}
		// A crash may have come between the claim and the note of it.
		t.meta.Claimed = t.meta.Claimed || (leads && newest.Number == t.meta.Epoch)
		if leads {
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
		t.opt.Logger.Warn("the backend does not create conditionally: two stores that take it over in the same instant are both let in, and the one that lost learns it when it ships next", "backend", t.opt.Backend.String())
		return nil
	case err == nil:
		return nil
	case errors.Is(err, ErrVersion), errors.Is(err, ErrCorrupt):
		return err // it was reached
	case t.fresh || t.opt.RequireBackend:
		return fmt.Errorf("%w; without the backend there is no telling what the newest configuration is", err)
	}
	t.opt.Logger.Warn("the backend cannot be reached; what is local is served, and the backend is taken over as soon as it can be", "backend", t.opt.Backend.String(), "error", err)
	return nil
}

// list lists the backend, and gives it up when ctx is done even if it does not
// heed that. A directory that can be served without it does not wait long.
func (t *takeover) list(ctx context.Context) error {
	if !t.fresh && !t.opt.RequireBackend {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, t.opt.BackendTimeout, fmt.Errorf("it did not answer within %s", t.opt.BackendTimeout))
		defer cancel()
	}
	type answer struct {
		weak   bool
		remote *catalog.Remote
		err    error
	}
	answers := make(chan answer, 1)
	b := t.opt.Backend
	go func() {
		var a answer
		if a.weak, a.err = shipper.Weak(ctx, b); a.err == nil {
			a.remote, a.err = catalog.List(ctx, b)
		}
		answers <- a
	}()
	select {
	case a := <-answers:
		t.weak, t.remote = a.weak, a.remote
		return a.err
	case <-ctx.Done():
	}
	// It has the cause, if it heeds the context.
	select {
	case a := <-answers:
		return errors.Join(a.err, context.Cause(ctx))
	case <-time.After(time.Second):
		return fmt.Errorf("%s: %w", b, context.Cause(ctx))
	}
}

// setAside moves what is local out of the way, because another writer has gone
// on from before its end. The identity goes last: after a crash the rest of it
// is found to be stale again.
func (t *takeover) setAside(newest catalog.Epoch) error {
	var moved []string
	aside := filepath.Join(t.opt.Dir, fmt.Sprintf("superseded-%s", time.Now().UTC().Format("20060102T150405.000000000Z")))
	for _, name := range []string{journalDir, snapshotDir, metadataFile} {
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
func (t *takeover) restore(ctx context.Context, j replay.Journal) error {
	remote := t.remote
	if remote != nil && !t.fresh && !t.meta.Claimed && t.meta.Parent != 0 {
		// The epoch that the directory goes on in begins there, though the
		// backend does not know yet.
		remote = remote.Until(t.meta.From)
	}
	st, result, err := replay.Restore(ctx, replay.Options{
		Dir:       filepath.Join(t.opt.Dir, snapshotDir),
		Journal:   j,
		Backend:   t.opt.Backend,
		Remote:    remote,
		KeepLocal: true,
		Known:     t.meta.Sequence,
		Hooks:     t.opt.Hooks.Replay,
	})
	t.state, t.result = st, result
	return err
}

// begin makes the next epoch the directory's, and claims it.
func (t *takeover) begin(ctx context.Context) error {
	if t.fresh {
		t.meta = newDirectory(t.remote, catalog.Epoch{Number: t.result.Epoch, StoreID: t.result.StoreID})
		t.meta.From = t.state.Sequence()
	}
	t.meta = t.meta.next(t.state.Sequence())
	if err := writeMetadata(t.opt.Dir, t.meta); err != nil {
		return err
	}
	if t.remote == nil {
		return nil
	}
	err := t.claim(ctx)
	if err == nil || ctx.Err() != nil || t.fresh || t.opt.RequireBackend ||
		errors.Is(err, ErrFenced) || errors.Is(err, ErrForeign) {
		return err
	}
	// What is local leads, and has one who goes on trying.
	t.opt.Logger.Warn("the backend was not taken over; it is tried again", "backend", t.opt.Backend.String(), "error", err)
	return nil
}

// claims bounds how often an epoch is claimed because the writer before still
// publishes: it learns of the first claim at its next publish.
const claims = 5

// claim claims the epoch, and has restored all that the writer before published.
func (t *takeover) claim(ctx context.Context) error {
	for try := 1; ; try++ {
		if err := t.remote.Claim(ctx, t.opt.Backend, t.meta.claim()); err != nil {
			return err
		}
		if !t.fresh {
			break // the writer before was the process that had the directory
		}
		remote, err := catalog.List(ctx, t.opt.Backend)
		if err != nil {
			return err
		}
		if newest, _ := remote.Newest(); newest.Token != t.meta.Token {
			return catalog.Fenced(newest)
		}
		// Not only what begins behind the state: a batch that a snapshot has
		// overtaken, or that is shipped again, begins before its end.
		t.remote = remote.Before(t.meta.Epoch)
		if err := t.goOn(ctx); err != nil {
			return err
		}
		if t.state.Sequence() == t.meta.From {
			t.remote = remote
			break
		}
		if try == claims {
			return fmt.Errorf("claim epoch %d: the writer before goes on publishing, though it has been superseded %d times: stop it", t.meta.Epoch, try)
		}
		t.meta.Epoch++
		t.meta.From, t.meta.Sequence, t.meta.Token = t.state.Sequence(), t.state.Sequence(), newToken()
		if err := writeMetadata(t.opt.Dir, t.meta); err != nil {
			return err
		}
	}
	t.claimed, t.meta.Claimed = true, true
	return writeMetadata(t.opt.Dir, t.meta)
}

// goOn restores what the backend holds beyond the state.
func (t *takeover) goOn(ctx context.Context) error {
	st, result, err := replay.Restore(ctx, replay.Options{
		Base:      t.state,
		Dir:       filepath.Join(t.opt.Dir, snapshotDir),
		Backend:   t.opt.Backend,
		Remote:    t.remote,
		KeepLocal: true,
		Hooks:     t.opt.Hooks.Replay,
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
