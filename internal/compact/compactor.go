// Package compact writes snapshots of the state into the data directory. It decides
// when, deletes the snapshots that retention does not keep, and drops the part of the
// journal that the kept snapshots cover. Package ship copies snapshots to a backend.
//
// Invariants: a crash leaves a snapshot whole or absent. The journal keeps all events
// after the second newest snapshot, so that nothing is lost if the newest one turns
// out to be damaged. An attempt that fails drops nothing: its events count toward the
// next one, and it is retried with a backoff, whatever the interval.
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
	"github.com/xdswal/xdswal/internal/bounded"
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
	DefaultKeepSnapshots = catalog.DefaultKeepSnapshots
	DefaultKeepFor       = catalog.DefaultKeepFor
)

var errClosed = errors.New("compact: the compactor is closed")

// Journal is the part of the journal that the compactor uses.
type Journal interface {
	// TruncateBefore drops what is not needed to read the events from seq on.
	TruncateBefore(ctx context.Context, seq journal.Sequence) error
	// Pressure reports whether the journal is more than half full.
	Pressure() bool
}

// Options are the settings of a compactor. In each setting 0 is the default.
type Options struct {
	// Dir is the directory of the snapshots; it must exist.
	Dir string
	// StoreID and Epoch are written into each snapshot.
	StoreID string
	Epoch   uint64
	// Damaged are the names of snapshots in Dir that could not be read. They do not
	// count, and are deleted after a newer one has been written.
	Damaged []string
	// Interval is the time between snapshots, also across restarts; default 10
	// minutes. A negative value writes none by time.
	Interval time.Duration
	// TailBytes and TailRecords start a compaction earlier, when the events since the
	// last snapshot reach one of them; default 256 MiB and 1,000,000. A negative value
	// sets no limit.
	TailBytes   int64
	TailRecords int64
	// KeepSnapshots is the number of snapshots to keep; default 3, at least 2.
	KeepSnapshots int
	// KeepFor also keeps every snapshot of that age or younger; default 1 hour. A
	// negative value keeps none for its age.
	KeepFor time.Duration
	// Written is called after each written snapshot; it may be nil.
	Written func()
	// Shipped returns the newest event that a backend has. The journal keeps later
	// events as long as it is not under pressure. It is nil without a backend.
	Shipped func() journal.Sequence
	// Hooks and Logger report the work. Logger must not be nil.
	Hooks  compactor.Hooks
	Logger *slog.Logger
}

// Compactor writes snapshots of a state that others advance. Its methods are
// safe for concurrent use.
type Compactor struct {
	opt       Options
	retention catalog.Retention
	state     func() *state.State
	journal   Journal

	// tailBytes and tailRecords count the events since the last snapshot.
	tailBytes   atomic.Int64
	tailRecords atomic.Int64
	wake        chan struct{} // a limit of the tail was reached
	demanded    chan struct{} // a call of Compact has ended

	// busy is full while a compaction, a pruning or a truncation runs; it guards
	// closed and journal.
	busy   chan struct{}
	closed bool
	// unpruned is set while something is left to delete or to truncate that could not
	// be.
	unpruned atomic.Bool
	warned   bool // of it; guarded by busy

	mu      sync.Mutex
	status  compactor.Status
	damaged []string // the names of Options.Damaged that have not been written again

	stop context.CancelFunc
	done sync.WaitGroup
}

// New returns a compactor of the state that current returns. j may be nil. The
// snapshots that the directory contains count as written. An error names the option
// that is out of range. Call Start to compact by interval and by tail.
func New(current func() *state.State, j Journal, opt Options) (*Compactor, error) {
	retention, err := catalog.NewRetention(opt.KeepSnapshots, opt.KeepFor)
	if err != nil {
		return nil, fmt.Errorf("compact: %w", err)
	}
	if opt.Dir == "" {
		return nil, errors.New("compact: Dir is empty, want a directory")
	}
	opt.Interval = cmp.Or(opt.Interval, DefaultInterval)
	opt.TailBytes = cmp.Or(opt.TailBytes, DefaultTailBytes)
	opt.TailRecords = cmp.Or(opt.TailRecords, DefaultTailRecords)
	c := &Compactor{
		opt: opt, retention: retention, state: current, journal: j, damaged: slices.Clone(opt.Damaged),
		wake: make(chan struct{}, 1), demanded: make(chan struct{}, 1), busy: make(chan struct{}, 1),
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

// local returns the snapshots in the directory, newest first: the usable ones, and
// those that are known to be damaged.
func (c *Compactor) local() (good, damaged []catalog.Entry, err error) {
	all, err := catalog.Local(c.opt.Dir)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range all {
		if slices.Contains(c.damaged, s.String()) {
			damaged = append(damaged, s)
		} else {
			good = append(good, s)
		}
	}
	return good, damaged, err
}

// Snapshots returns the snapshots in the directory that are not known to be damaged,
// newest first.
func (c *Compactor) Snapshots() ([]catalog.Entry, error) {
	good, _, err := c.local()
	return good, err
}

// Committed adds durable events to the tail. It is called after the state contains
// them.
func (c *Compactor) Committed(records int, bytes int64) {
	c.tailBytes.Add(bytes)
	c.tailRecords.Add(int64(records))
	if c.longTail() {
		signal(c.wake)
	}
}

// longTail reports whether the tail has reached a limit.
func (c *Compactor) longTail() bool {
	return (c.opt.TailRecords > 0 && c.tailRecords.Load() >= c.opt.TailRecords) ||
		(c.opt.TailBytes > 0 && c.tailBytes.Load() >= c.opt.TailBytes)
}

// Compact writes a snapshot of the current state, unless the newest snapshot has that
// state, and returns the sequence of the state. It waits for a compaction that is
// running, until ctx is done. After Close it returns an error.
func (c *Compactor) Compact(ctx context.Context) (journal.Sequence, error) {
	defer signal(c.demanded)
	return c.compact(ctx, compactor.ReasonDemand)
}

// Close writes a last snapshot, unless the newest one has the current state. It is
// called after Stop, when the state does not change any more; the journal may be
// closed already.
func (c *Compactor) Close(ctx context.Context) error {
	_, err := c.compact(ctx, compactor.ReasonClose)
	return err
}

func (c *Compactor) compact(ctx context.Context, reason compactor.Reason) (journal.Sequence, error) {
	if err := c.begin(ctx); err != nil {
		return 0, fmt.Errorf("compact: wait for the running compaction: %w", err)
	}
	defer c.end()
	if reason == compactor.ReasonClose {
		// The next process truncates the journal.
		c.closed, c.journal = true, nil
	} else if c.closed {
		return 0, errClosed
	}
	start := time.Now()
	// The state contains at least the events that are counted here.
	records, bytes := c.tailRecords.Load(), c.tailBytes.Load()
	st := c.state()
	info := compactor.Compaction{Reason: reason, Sequence: st.Sequence(), Unchanged: st.Sequence() == c.Status().Sequence}
	hook.Call(c.opt.Hooks.CompactionBegin, info)
	if !info.Unchanged {
		info.Err = c.write(ctx, st)
	}
	info.Duration = time.Since(start)
	defer func() { hook.Call(c.opt.Hooks.CompactionEnd, info) }()
	if info.Err != nil {
		if ctx.Err() != nil && errors.Is(info.Err, context.Cause(ctx)) {
			return 0, info.Err // by its caller or by Stop, which is no failure
		}
		c.setStatus(func(s *compactor.Status) { s.Err = info.Err })
		c.opt.Logger.Error("snapshot was not written", "sequence", uint64(info.Sequence), "retried", reason != compactor.ReasonClose, "error", info.Err)
		return 0, info.Err
	}
	c.setStatus(func(s *compactor.Status) { s.Err = nil })
	c.tailRecords.Add(-records)
	c.tailBytes.Add(-bytes)
	switch {
	case !info.Unchanged:
		if c.opt.Written != nil {
			c.opt.Written()
		}
		c.prune(ctx)
	case c.journal != nil && c.journal.Pressure():
		c.relieve(ctx)
	}
	return info.Sequence, nil
}

func (c *Compactor) begin(ctx context.Context) error { return bounded.Acquire(ctx, c.busy) }

func (c *Compactor) end() { <-c.busy }

// write writes the snapshot of a state. A crash leaves the directory without it, or
// with it whole.
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
		info.Bytes, err = snapshot.Encode(ctx, w, st, snapshot.Header{
			Sequence: st.Sequence(), Time: st.Time(), Epoch: c.opt.Epoch, Created: created, StoreID: c.opt.StoreID,
		})
		return err
	})
	info.Duration = time.Since(start)
	if info.Err != nil {
		info.Err = fmt.Errorf("write snapshot %s to %s: %w", name, c.opt.Dir, info.Err)
	} else {
		c.setStatus(func(s *compactor.Status) {
			s.Sequence, s.Time = st.Sequence(), created
			// Without a backend the epoch stays, and a damaged file is replaced.
			c.damaged = slices.DeleteFunc(c.damaged, func(d string) bool { return d == info.Name })
		})
	}
	hook.Call(c.opt.Hooks.SnapshotWriteEnd, info)
	return info.Err
}

// Status returns the state of the compactor.
func (c *Compactor) Status() compactor.Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status
}

func (c *Compactor) setStatus(change func(*compactor.Status)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(&c.status)
}
