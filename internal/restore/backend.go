package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/internal/catalog"
	"github.com/xdswal/xdswal/internal/download"
	"github.com/xdswal/xdswal/journal"
	"github.com/xdswal/xdswal/replay"
)

const (
	// maxListings bounds how often a backend is listed because an object was deleted.
	maxListings = 5
	// parallelBatches is the number of batches that are downloaded ahead.
	parallelBatches = 16
)

// readBackend extends the state from the backend, if local data does not suffice or a
// listing is given. The error is the context's cause if that has ended the reading.
func (r *restore) readBackend(ctx context.Context) error {
	complete := r.complete() && !r.nothingKnown()
	if r.opt.Backend == nil || (complete && r.remote == nil) {
		return nil
	}
	if complete && r.opt.BackendTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, r.opt.BackendTimeout)
		defer cancel()
	}
	err := r.readListings(ctx)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func (r *restore) readListings(ctx context.Context) error {
	if r.remote == nil {
		remote, err := catalog.List(ctx, r.opt.Backend)
		if err != nil {
			return err
		}
		r.setRemote(remote)
	}
	for try := 1; ; try++ {
		err := r.readListing(ctx)
		if ctx.Err() != nil || try == maxListings || !errors.Is(err, backends.ErrNotFound) {
			return err
		}
		// A writer pruned the object since it was listed, so there is a newer snapshot.
		remote, err := r.remote.Relist(ctx, r.opt.Backend)
		if err != nil {
			return err
		}
		r.setRemote(remote)
	}
}

func (r *restore) setRemote(remote *catalog.Remote) {
	r.remote = remote
	r.known = max(r.known, remote.Known())
}

// readListing applies the batches to the state, or, if they do not continue it or end
// too early, to a snapshot in the backend.
func (r *restore) readListing(ctx context.Context) error {
	seq := r.state.Sequence()
	// A snapshot is faster than all events from the first one on.
	if r.complete() || (seq != 0 && r.remote.Continues(seq)) {
		if err := r.replayShipped(ctx); err != nil || r.complete() {
			return err
		}
	}
	if err := r.loadSnapshot(ctx, backendPlace(r.opt.Backend, r.remote, r.opt.Hooks.Progress)); err != nil {
		return err
	}
	if err := r.replayJournal(ctx); err != nil {
		return err
	}
	return r.replayShipped(ctx)
}

// replayShipped applies the batches to the state, and then the journal, which may
// continue where the batches end.
func (r *restore) replayShipped(ctx context.Context) error {
	if err := r.replayBatches(ctx); err != nil || r.pastTarget {
		return err
	}
	return r.replayJournal(ctx)
}

// errNotNext ends the reading of a batch at an event that does not continue the state,
// or that is after the target sequence.
var errNotNext = errors.New("does not continue the state")

// replayBatches applies the events of the batches to the state.
func (r *restore) replayBatches(ctx context.Context) error {
	target := r.opt.Target.Sequence
	if r.pastTarget || (target != 0 && r.state.Sequence() >= target) {
		return nil
	}
	list := r.remote.After(r.state.Sequence())
	objects := make([]download.Object, 0, len(list))
	p := replay.Progress{Location: r.opt.Backend.String()}
	for _, b := range list {
		if target != 0 && b.First > target {
			break // the ones after it begin later
		}
		objects = append(objects, download.Object{Key: b.Key(), Size: b.Size})
		p.Total += b.Size
	}
	if len(objects) == 0 {
		return nil
	}
	err := download.Each(ctx, withProgress(r.opt.Backend, r.opt.Hooks.Progress, p), objects, parallelBatches, func(i int, data []byte, err error) error {
		return r.replayBatch(list[i], data, err)
	})
	if errors.Is(err, errNotNext) || errors.Is(err, errPastTarget) {
		return nil // finish decides whether the state is complete
	}
	return err
}

// replayBatch applies a downloaded batch to the state; err is the error of its
// download. A damaged batch is skipped: another epoch may have the same events.
func (r *restore) replayBatch(b catalog.Batch, data []byte, err error) error {
	before := r.result.Events
	if err == nil {
		err = r.remote.Decode(b, data, r.applyShipped)
	}
	if n := r.result.Events - before; n > 0 {
		r.result.Shipped += n
		r.result.Batches++
	}
	if damaged(err) {
		err = fmt.Errorf("read batch %s in %s: %w", b.Name, r.opt.Backend, err)
		r.result.Skipped = append(r.result.Skipped, replay.Skipped{Location: r.opt.Backend.String(), Name: b.String(), Reason: err})
		return nil
	}
	return err
}

func (r *restore) applyShipped(ev *journal.Event) error {
	r.result.ShippedTo = max(r.result.ShippedTo, ev.Sequence)
	next := r.state.Sequence() + 1
	switch target := r.opt.Target.Sequence; {
	case ev.Sequence < next:
		return nil // batches may overlap
	case ev.Sequence > next, target != 0 && ev.Sequence > target:
		return errNotNext
	}
	return r.apply(ev)
}

// backendPlace returns the snapshots in a backend that count.
func backendPlace(b backends.Backend, remote *catalog.Remote, report func(replay.Progress)) place {
	return place{
		location: b.String(),
		remote:   true,
		list:     func() ([]catalog.Entry, error) { return remote.Snapshots, nil },
		open: func(ctx context.Context, e catalog.Entry) (io.ReadCloser, error) {
			p := replay.Progress{Location: b.String(), Name: e.String(), Total: e.Size}
			return download.Open(ctx, withProgress(b, report, p), e.Path, e.Size)
		},
	}
}

// withProgress returns a backend that reports each read of an object when its bytes
// arrive. Consumers read in order, so reports from there would leap.
func withProgress(b backends.Backend, report func(replay.Progress), p replay.Progress) backends.Backend {
	if report == nil {
		return b
	}
	report(p)
	return &progressBackend{Backend: b, report: report, p: p}
}

type progressBackend struct {
	backends.Backend
	report func(replay.Progress)

	mu   sync.Mutex
	p    replay.Progress
	last time.Time
}

// progressInterval is the least time between two reports.
const progressInterval = 50 * time.Millisecond

func (b *progressBackend) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	r, err := b.Backend.Get(ctx, key, offset, length)
	if err != nil {
		return nil, err
	}
	return &progressBody{r, b}, nil
}

func (b *progressBackend) add(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.p.Read += int64(n)
	if time.Since(b.last) >= progressInterval || b.p.Read == b.p.Total {
		b.last = time.Now()
		b.report(b.p)
	}
}

type progressBody struct {
	io.ReadCloser
	b *progressBackend
}

func (r *progressBody) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.b.add(n)
	return n, err
}
