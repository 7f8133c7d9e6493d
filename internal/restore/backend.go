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
	"github.com/xdswal/xdswal/internal/format/snapshot"
	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/journal"
	"github.com/xdswal/xdswal/replay"
)

const (
	// listings bounds how often a backend is listed, because what was listed
	// is gone.
	listings = 5
	// parallelBatches is how many batches are fetched ahead.
	parallelBatches = 16
)

// fromBackend goes on from what is local with what was shipped, if the state
// has not come as far as it should.
func (r *restore) fromBackend(ctx context.Context) error {
	if r.opt.Backend == nil || (r.arrived() && !r.nothing() && r.remote == nil) {
		return nil
	}
	if r.remote == nil {
		remote, err := catalog.List(ctx, r.opt.Backend)
		if err != nil {
			return listed(ctx, err)
		}
		r.list(remote)
	}
	for try := 1; ; try++ {
		err := r.fromListing(ctx)
		if ctx.Err() != nil || try == listings || !errors.Is(err, backends.ErrNotFound) {
			return listed(ctx, err)
		}
		// A writer pruned it since it was listed: there is something newer.
		remote, err := r.remote.Relist(ctx, r.opt.Backend)
		if err != nil {
			return listed(ctx, err)
		}
		r.list(remote)
	}
}

// listed returns the cause of the context's end, if that is why.
func listed(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func (r *restore) list(remote *catalog.Remote) {
	r.remote = remote
	r.known = max(r.known, remote.Trace())
}

func (r *restore) fromListing(ctx context.Context) error {
	// The empty state is no base where there is a snapshot.
	seq := r.state.Sequence()
	fromSnapshot := !r.arrived() && (seq == 0 || !r.remote.Continues(seq))
	err := r.goOn(ctx, fromSnapshot)
	if err != nil || fromSnapshot || r.arrived() {
		return err
	}
	// The batches end before events that went into a snapshot alone.
	return r.goOn(ctx, true)
}

// goOn goes on from the state, or from a snapshot in the backend, with the
// journal and the batches, and with the journal where the batches end before
// it does.
func (r *restore) goOn(ctx context.Context, fromSnapshot bool) error {
	if fromSnapshot {
		if err := r.from(ctx, backendPlace(r)); err != nil {
			return err
		}
		if err := r.tail(ctx); err != nil {
			return err
		}
	}
	if err := r.batches(ctx); err != nil || r.passed {
		return err
	}
	return r.tail(ctx)
}

// errGone says that what follows in a batch does not follow the state, or is
// past the target.
var errGone = errors.New("does not continue the state")

// batches applies what was shipped of the journal to the state.
func (r *restore) batches(ctx context.Context) error {
	if r.passed || (r.opt.Target.Sequence != 0 && r.state.Sequence() >= r.opt.Target.Sequence) {
		return nil
	}
	list := r.remote.After(r.state.Sequence())
	objects := make([]download.Object, 0, len(list))
	p := replay.Progress{Location: r.opt.Backend.String()}
	for _, b := range list {
		if r.opt.Target.Sequence != 0 && b.First > r.opt.Target.Sequence {
			break // those after it begin later still
		}
		objects = append(objects, download.Object{Key: b.Key(), Size: b.Size})
		p.Total += b.Size
	}
	if len(objects) == 0 {
		return nil
	}
	err := download.Each(ctx, counting(r.opt.Backend, r.opt.Hooks.Progress, p), objects, parallelBatches, func(i int, data []byte, err error) error {
		return r.batch(list[i], data, err)
	})
	if errors.Is(err, errGone) || errors.Is(err, errLater) {
		return nil // whether that is enough is for arrived to say
	}
	return err
}

// batch applies a batch of which data was read, or which failed to be with err.
func (r *restore) batch(b catalog.Batch, data []byte, err error) error {
	before := r.result.Events
	if err == nil {
		err = r.decode(b, data)
	}
	if n := r.result.Events - before; n > 0 {
		r.result.Shipped += n
		r.result.Batches++
	}
	if damaged(err) {
		err = fmt.Errorf("read batch %s in %s: %w", b.Name, r.opt.Backend, err)
		r.result.Skipped = append(r.result.Skipped, replay.Skipped{Location: r.opt.Backend.String(), Name: b.String(), Reason: err})
		return nil // another epoch may have the same events
	}
	return err
}

func (r *restore) decode(b catalog.Batch, data []byte) error {
	return r.remote.Decode(b, data, func(ev *journal.Event) error {
		r.result.ShippedTo = max(r.result.ShippedTo, ev.Sequence)
		next := r.state.Sequence() + 1
		switch target := r.opt.Target.Sequence; {
		case ev.Sequence < next:
			return nil
		case ev.Sequence > next, target != 0 && ev.Sequence > target:
			return errGone
		}
		return r.apply(ev)
	})
}

// backendPlace is where the snapshots of the backend are that count.
func backendPlace(r *restore) place {
	b := r.opt.Backend
	return place{
		location: b.String(),
		remote:   true,
		list: func(context.Context) ([]candidate, error) {
			out := make([]candidate, len(r.remote.Snapshots))
			for i, s := range r.remote.Snapshots {
				out[i] = candidate{name: s.Name, key: s.Path, size: s.Size}
			}
			return out, nil
		},
		read: func(ctx context.Context, c candidate, check func(snapshot.Header) error) (*state.State, snapshot.Contents, error) {
			counted := counting(b, r.opt.Hooks.Progress, replay.Progress{Location: b.String(), Name: c.name.String(), Total: c.size})
			body, err := download.Open(ctx, counted, c.key, c.size)
			if err != nil {
				return nil, snapshot.Contents{}, err
			}
			defer body.Close()
			return Decode(ctx, body, check)
		},
	}
}

// counting returns a backend that reports what is read of it as it arrives. In the
// order in which it is used, it would be reported in leaps.
func counting(b backends.Backend, report func(replay.Progress), p replay.Progress) backends.Backend {
	if report == nil {
		return b
	}
	report(p)
	return &counted{Backend: b, report: report, p: p}
}

type counted struct {
	backends.Backend
	report func(replay.Progress)

	mu   sync.Mutex
	p    replay.Progress
	last time.Time
}

// progressInterval is the least time between two reports.
const progressInterval = 50 * time.Millisecond

func (c *counted) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	r, err := c.Backend.Get(ctx, key, offset, length)
	if err != nil {
		return nil, err
	}
	return &countedBody{r, c}, nil
}

func (c *counted) add(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.p.Read += int64(n)
	if time.Since(c.last) >= progressInterval || c.p.Read == c.p.Total {
		c.last = time.Now()
		c.report(c.p)
	}
}

type countedBody struct {
	io.ReadCloser
	c *counted
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.c.add(n)
	return n, err
}
