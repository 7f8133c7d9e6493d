// Package compact folds the journal into snapshots: it decides when, writes
// them durably into the data directory, keeps and deletes older ones, and lets
// go of the journal that they cover. Package shipper brings them to a backend.
package compact

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/xdswal/xdswal/compactor"
	"github.com/xdswal/xdswal/internal/catalog"
	"github.com/xdswal/xdswal/internal/durable"
	"github.com/xdswal/xdswal/internal/format/snapshot"
	"github.com/xdswal/xdswal/internal/hook"
	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/journal"
)

// Defaults of Options.
const (
	DefaultInterval      = 10 * time.Minute
	DefaultTailBytes     = 256 << 20
	DefaultTailRecords   = 1_000_000
	DefaultKeepSnapshots = 3
	DefaultKeepFor       = time.Hour
)

var errClosed = errors.New("compact: the compactor is closed")

// Journal is what the compactor needs of the journal.
type Journal interface {
	// TruncateBefore drops what is not needed to read events from seq on.
	TruncateBefore(ctx context.Context, seq journal.Sequence) error
	// Pressure reports that the journal is more than half full.
	Pressure() bool
}

// Options are the settings of a compactor.
type Options struct {
	// Dir is the directory of the local snapshots; it must exist.
	Dir string
	// StoreID and Epoch are written into each snapshot.
	StoreID string
	Epoch   uint64
	// Damaged names snapshots in Dir that could not be read. They are neither
	// counted nor relied on, and are deleted once a newer one has
	// been written.
	Damaged []string
	// Interval is the time between snapshots, also across restarts; default
	// 10 minutes. A negative one leaves it to the tail and to demand.
	Interval time.Duration
	// TailBytes and TailRecords start a compaction earlier, when the events
	// since the last snapshot exceed them; default 256 MiB and 1,000,000. A
	// negative one sets no limit.
	TailBytes   int64
	TailRecords int64
	// KeepSnapshots is how many snapshots are kept; default 3, at least 2, so
	// that there is one to fall back to.
	KeepSnapshots int
	// KeepFor keeps all snapshots of that age or younger besides; default an
	// hour. A negative one keeps none besides.
	KeepFor time.Duration
	// Written is called after a snapshot was written, nil for nobody.
	Written func()
	// Shipped returns the event up to which a backend has what the journal
	// holds: what it has not got yet is kept, as long as there is room. Nil
	// where there is no backend.
	Shipped func() journal.Sequence
	// Hooks and Logger report the work. Logger must not be nil.
	Hooks  compactor.Hooks
	Logger *slog.Logger
}

func (o *Options) setDefaults() {
	o.Interval = cmp.Or(o.Interval, DefaultInterval)
	o.TailBytes = cmp.Or(o.TailBytes, DefaultTailBytes)
	o.TailRecords = cmp.Or(o.TailRecords, DefaultTailRecords)
	o.KeepSnapshots = max(2, cmp.Or(o.KeepSnapshots, DefaultKeepSnapshots))
	o.KeepFor = cmp.Or(o.KeepFor, DefaultKeepFor)
}

// Compactor writes snapshots of a state that others advance. Its methods are
// safe for concurrent use.
type Compactor struct {
	opt     Options
	state   func() *state.State
	journal Journal

	tailBytes   atomic.Int64
	tailRecords atomic.Int64
	wake        chan struct{} // the tail is long

	// busy is full during a compaction, a pruning and a truncation; who fills
	// it may change closed and journal.
	busy   chan struct{}
	closed bool

	statusMu sync.Mutex
	status   compactor.Status

	stop context.CancelFunc
	done sync.WaitGroup
}

// New returns a compactor of the state that the function returns. It takes up
// what snapshots the directory holds; Start makes it work.
func New(current func() *state.State, j Journal, opt Options) (*Compactor, error) {
	opt.setDefaults()
	c := &Compactor{
		opt: opt, state: current, journal: j,
		wake: make(chan struct{}, 1), busy: make(chan struct{}, 1),
	}
	if err := durable.RemoveTemp(opt.Dir); err != nil {
		return nil, fmt.Errorf("clean snapshot directory: %w", err)
	}
	local, _, err := c.local()
	if err != nil {
		return nil, err
	}
	if len(local) > 0 {
		c.status.Sequence, c.status.Time = local[0].Sequence, local[0].Written
	}
	if seq := current().Sequence(); seq > c.status.Sequence {
		// The last process left a tail. Its bytes are not known.
		c.tailRecords.Store(int64(seq - c.status.Sequence))
	}
	return c, nil
}

// local returns the snapshots in the directory that can be relied on, newest
// first, and those that are known to be damaged.
func (c *Compactor) local() (good, damaged []catalog.Entry, err error) {
	all, err := catalog.Local(c.opt.Dir)
	for _, s := range all {
		if slices.Contains(c.opt.Damaged, s.String()) {
			damaged = append(damaged, s)
		} else {
			good = append(good, s)
		}
	}
	return good, damaged, err
}

// Snapshots returns the local snapshots that can be relied on, newest first.
func (c *Compactor) Snapshots() ([]catalog.Entry, error) {
	good, _, err := c.local()
	return good, err
}

// Start begins to compact by interval and by tail. It takes up what the last
// process left to compact and to prune. It is called once, before Stop.
func (c *Compactor) Start() {
	ctx, cancel := context.WithCancel(context.Background())
	c.stop = cancel
	tail := c.tailRecords.Load()
	if c.long(tail, 0) || (tail > 0 && c.journal != nil && c.journal.Pressure()) {
		signal(c.wake)
	}
	c.done.Add(1)
	go func() {
		defer c.done.Done()
		c.run(ctx)
	}()
}

// Stop ends what Start began and waits for it.
func (c *Compactor) Stop() {
	if c.stop != nil {
		c.stop()
	}
	c.done.Wait()
}

func (c *Compactor) run(ctx context.Context) {
	c.settle(ctx)
	var tick <-chan time.Time
	if c.opt.Interval > 0 {
		tick = time.After(c.firstInterval())
	}
	for {
		reason := compactor.ReasonInterval
		select {
		case <-ctx.Done():
			return
		case <-tick:
			tick = time.After(c.opt.Interval)
		case <-c.wake:
			reason = compactor.ReasonTail
		}
		if ctx.Err() != nil {
			return // another case was ready too
		}
		// Reported by hooks and status; the next occasion tries again.
		_, _ = c.compact(ctx, reason)
	}
}

// firstInterval is the time until the first snapshot by interval is due. A
// process that restarts more often than that must come to write one too.
func (c *Compactor) firstInterval() time.Duration {
	newest := c.Status().Time
	if newest.IsZero() {
		return c.opt.Interval
	}
	return min(c.opt.Interval, max(0, c.opt.Interval-time.Since(newest)))
}

func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// Committed tells the compactor how much the tail has grown.
func (c *Compactor) Committed(records int, bytes int64) {
	if c.long(c.tailRecords.Add(int64(records)), c.tailBytes.Add(bytes)) {
		signal(c.wake)
	}
}

// long reports whether a tail is so long that it is to be compacted.
func (c *Compactor) long(records, bytes int64) bool {
	return (c.opt.TailRecords > 0 && records >= c.opt.TailRecords) || (c.opt.TailBytes > 0 && bytes >= c.opt.TailBytes)
}

// Compact writes a snapshot of the current state into the data directory,
// unless the newest one is of that state, and returns its sequence.
func (c *Compactor) Compact(ctx context.Context) (journal.Sequence, error) {
	return c.compact(ctx, compactor.ReasonDemand)
}

// Close writes a last snapshot, unless nothing changed. It is called after
// Stop, when the state does not change any more; the journal may be closed
// already. Compact fails from then on.
func (c *Compactor) Close(ctx context.Context) error {
	_, err := c.compact(ctx, compactor.ReasonClose)
	return err
}

func (c *Compactor) compact(ctx context.Context, reason compactor.Reason) (journal.Sequence, error) {
	if err := c.begin(ctx); err != nil {
		return 0, fmt.Errorf("compact: wait for the compaction under way: %w", err)
	}
	defer c.end()
	if reason == compactor.ReasonClose {
		// The next process truncates the journal.
		c.closed, c.journal = true, nil
	} else if c.closed {
		return 0, errClosed
	}
	start := time.Now()
	// What comes after the state is taken counts as tail of the next one.
	c.tailRecords.Store(0)
	c.tailBytes.Store(0)
	st := c.state()
	info := compactor.Compaction{Reason: reason, Sequence: st.Sequence(), Unchanged: st.Sequence() == c.Status().Sequence}
	hook.Call(c.opt.Hooks.CompactionBegin, info)
	if !info.Unchanged {
		info.Err = c.write(ctx, st)
	}
	info.Duration = time.Since(start)
	c.setStatus(func(s *compactor.Status) { s.Err = info.Err })
	if info.Err != nil {
		hook.Call(c.opt.Hooks.CompactionEnd, info)
		if ctx.Err() != nil {
			return 0, info.Err // given up, as by Stop
		}
		c.opt.Logger.Error("snapshot was not written; updates go on, and it is tried again", "sequence", uint64(info.Sequence), "error", info.Err)
		return 0, info.Err
	}
	if !info.Unchanged {
		if c.opt.Written != nil {
			c.opt.Written()
		}
		c.prune(ctx)
	} else if c.journal != nil && c.journal.Pressure() {
		c.relieve(ctx)
	}
	hook.Call(c.opt.Hooks.CompactionEnd, info)
	return info.Sequence, nil
}

func (c *Compactor) begin(ctx context.Context) error {
	select {
	case c.busy <- struct{}{}:
		return nil
	default:
	}
	select {
	case c.busy <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (c *Compactor) end() { <-c.busy }

// write writes the snapshot of a state into the data directory. A crash
// leaves the directory without it, or with it whole.
func (c *Compactor) write(ctx context.Context, st *state.State) error {
	name := snapshot.Name{Epoch: c.opt.Epoch, Sequence: st.Sequence()}
	info := compactor.Snapshot{
		Location: c.opt.Dir, Name: name.String(), Sequence: st.Sequence(),
		Nodes: st.NumNodes(), Resources: st.NumResources(), ResourceBytes: st.Bytes(),
	}
	start := time.Now()
	hook.Call(c.opt.Hooks.SnapshotWriteBegin, info)
	created := start.Round(0)
	info.Err = durable.WriteFile(filepath.Join(c.opt.Dir, name.String()), func(w io.Writer) error {
		var err error
		info.Bytes, err = Encode(ctx, w, st, snapshot.Header{
			Sequence: st.Sequence(), Time: st.Time(), Epoch: c.opt.Epoch, Created: created, StoreID: c.opt.StoreID,
		})
		return err
	})
	info.Duration = time.Since(start)
	if info.Err != nil {
		info.Err = fmt.Errorf("write snapshot %s to %s: %w", name, c.opt.Dir, info.Err)
	} else {
		c.setStatus(func(s *compactor.Status) { s.Sequence, s.Time = st.Sequence(), created })
	}
	hook.Call(c.opt.Hooks.SnapshotWriteEnd, info)
	return info.Err
}

// Encode writes a snapshot of a state and returns its size in bytes. It ends
// with the context's cause soon after the context is done.
func Encode(ctx context.Context, w io.Writer, st *state.State, h snapshot.Header) (int64, error) {
	sw, err := snapshot.NewWriter(contextWriter{ctx, w}, h)
	if err != nil {
		return 0, err
	}
	// The digest takes about a third of the time that encoding takes.
	digest := make(chan [32]byte, 1)
	go func() { digest <- st.Digest() }()
	if err := encode(sw, st); err != nil {
		sw.Abort()
		return sw.Written(), err
	}
	_, err = sw.Close(<-digest)
	return sw.Written(), err
}

// contextWriter fails once the context is done. It is asked for every frame,
// however large a node is.
type contextWriter struct {
	ctx context.Context
	w   io.Writer
}

func (w contextWriter) Write(p []byte) (int, error) {
	if w.ctx.Err() != nil {
		return 0, context.Cause(w.ctx)
	}
	return w.w.Write(p)
}

func encode(w *snapshot.Writer, st *state.State) error {
	for n := range st.All() {
		if err := w.Node(n.Cache(), n.Name(), n.Sequence(), n.Time()); err != nil {
			return err
		}
		for i := range n.Types() {
			t := &n.Types()[i]
			if err := w.Type(t.URL(), t.Version()); err != nil {
				return err
			}
			for r := range t.All() {
				if err := w.Resource(r); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// Status returns what the compactor has done.
func (c *Compactor) Status() compactor.Status {
	c.statusMu.Lock()
	defer c.statusMu.Unlock()
	return c.status
}

func (c *Compactor) setStatus(change func(*compactor.Status)) {
	c.statusMu.Lock()
	defer c.statusMu.Unlock()
	change(&c.status)
}
