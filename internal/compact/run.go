package compact

import (
	"context"
	"time"

	"github.com/xdswal/xdswal/compactor"
	"github.com/xdswal/xdswal/internal/retry"
)

// Bounds of the waits between an attempt that failed and the next one.
const (
	minBackoff = time.Second
	maxBackoff = time.Minute
)

// Start begins to compact by interval and by tail, and to retry what failed. It first
// prunes what the last process left. It is called once, before Stop.
func (c *Compactor) Start() {
	ctx, cancel := context.WithCancel(context.Background())
	c.stop = cancel
	due := c.due()
	c.done.Add(1)
	go func() {
		defer c.done.Done()
		c.run(ctx, due)
	}()
}

// Stop ends what Start began and waits for it.
func (c *Compactor) Stop() {
	if c.stop != nil {
		c.stop()
	}
	c.done.Wait()
}

// due reports whether the tail that the last process left is to be compacted: it has
// reached a limit, or a new snapshot would make room in the journal.
func (c *Compactor) due() bool {
	return c.longTail() || (c.tailRecords.Load() > 0 && c.journal != nil && c.journal.Pressure())
}

// run compacts when the interval has passed and when the tail is long. After a failure
// only the backoff starts the next attempt, however many events are committed.
func (c *Compactor) run(ctx context.Context, due bool) {
	c.settle(ctx)
	var tick, again <-chan time.Time
	if c.opt.Interval > 0 {
		tick = time.After(c.firstInterval())
	}
	reason := compactor.ReasonInterval
	if due && c.due() && ctx.Err() == nil { // pruning may have made room
		reason = compactor.ReasonTail
		_, _ = c.compact(ctx, reason)
	}
	wait := retry.Backoff(minBackoff, maxBackoff)
	for {
		interval, tail, failed := tick, c.wake, c.Status().Err != nil
		if failed {
			interval, tail = nil, nil
		}
		switch {
		case !failed && !c.unpruned.Load():
			again = nil
			wait.Reset()
		case again == nil:
			again = time.After(wait.NextBackOff())
		}
		select {
		case <-ctx.Done():
			return
		case <-c.demanded:
			if !failed {
				reason = compactor.ReasonDemand // of the retry, if it has failed
			}
			continue
		case <-interval:
			reason, tick = compactor.ReasonInterval, time.After(c.opt.Interval)
		case <-tail:
			if !c.longTail() {
				continue // a compaction has ended since
			}
			reason = compactor.ReasonTail
		case <-again:
			again = nil
			if !failed {
				c.settle(ctx)
				continue
			}
		}
		if ctx.Err() != nil {
			return // another case was ready too
		}
		_, _ = c.compact(ctx, reason) // hooks, log and status report the error
	}
}

// firstInterval returns the time until the first snapshot by interval. It counts from
// the newest snapshot: a process that restarts more often than the interval must write
// one too.
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
