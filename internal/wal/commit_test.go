package wal_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/internal/wal"
	"github.com/xdswal/xdswal/journal"
)

// commits records what the hooks report.
type commits struct {
	mu    sync.Mutex
	infos []journal.Commit
}

func (c *commits) add(info journal.Commit) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.infos = append(c.infos, info)
}

func TestGroupCommit(t *testing.T) {
	for _, policy := range policies {
		t.Run(policy.String(), func(t *testing.T) {
			const writers, each = 64, 20
			dir := t.TempDir()
			var c commits
			var committed []*journal.Event
			var bytes int64
			j := open(t, dir, wal.Options{
				Sync:         policy,
				SegmentBytes: minSegment,
				Receiver: receiver{committed: func(events []*journal.Event, n int64) {
					committed = append(committed, events...)
					bytes += n
				}},
				Hooks: journal.Hooks{Commit: c.add},
			})
			b := newBook(1)
			var wg sync.WaitGroup
			for w := range writers {
				wg.Add(1)
				go func() {
					defer wg.Done()
					var last journal.Sequence
					for i := range each {
						ev := update(fmt.Sprintf("node-%d-%d", w, i), 50)
						seq, err := j.Append(t.Context(), ev)
						if err != nil || seq <= last || seq != ev.Sequence {
							t.Errorf("event %d after %d: %v", seq, last, err)
							return
						}
						last = seq
						b.ack(seq, ev.Node)
					}
				}()
			}
			wg.Wait()
			require.EqualValues(t, writers*each, b.last())
			require.Less(t, len(c.infos), writers*each)
			next := journal.Sequence(1)
			for _, info := range c.infos {
				require.Equal(t, next, info.First)
				require.EqualValues(t, info.Events, info.Last-info.First+1)
				require.Positive(t, info.Bytes)
				require.Positive(t, info.Duration)
				require.NoError(t, info.Err)
				next = info.Last + 1
				bytes -= info.Bytes
			}
			require.Zero(t, bytes, "the receiver gets the size of each group")
			require.Equal(t, b.last()+1, next)
			require.Len(t, committed, writers*each)
			for i, ev := range committed {
				require.EqualValues(t, i+1, ev.Sequence)
			}
			b.verify(t, j, dir, 1)
		})
	}
}

// The events that are queued while a group is committed form the next group, up to its
// bounds, in the order of the queue.
func TestGroups(t *testing.T) {
	for _, c := range []struct {
		name      string
		n, size   int
		wantSizes []int
	}{
		{"one group", 1000, 10, []int{1, 1000}},
		{"bounded by events", 5000, 10, []int{1, 4096, 904}},
		{"bounded by bytes", 5, 8 << 20, []int{1, 2, 2, 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			entered, release := make(chan struct{}), make(chan struct{})
			var first sync.Once
			var sizes []int
			j := open(t, dir, wal.Options{Receiver: receiver{committed: func(events []*journal.Event, _ int64) {
				sizes = append(sizes, len(events))
				first.Do(func() { close(entered); <-release })
			}}})
			p, err := j.Queue(0, update("node-first", 1))
			require.NoError(t, err)
			<-entered
			select {
			case <-p.Done():
				t.Fatal("Committed is called before the append returns")
			default:
			}
			b := newBook(1)
			b.ack(1, "node-first")
			var pending []wal.Pending
			for i := range c.n {
				id := fmt.Sprintf("node-%d", i)
				p, err := j.Queue(0, update(id, c.size))
				require.NoError(t, err)
				pending = append(pending, p)
				b.ack(journal.Sequence(i+2), id)
			}
			close(release)
			for _, p := range pending {
				<-p.Done()
				require.NoError(t, p.Err())
			}
			b.verify(t, j, dir, 1)
			require.Equal(t, c.wantSizes, sizes)
		})
	}
}

// closed reports whether p is done.
func closed(p wal.Pending) bool {
	select {
	case <-p.Done():
		return true
	default:
		return false
	}
}

// When an append fails, all events queued after it fail too. A caller that reads the
// new generation finds them all done.
func TestGeneration(t *testing.T) {
	boom := errors.New("boom")
	rounds := 50
	if raceEnabled {
		rounds = 20
	}
	dir := t.TempDir()
	failing, release := make(chan []*journal.Event), make(chan struct{})
	j := open(t, dir, wal.Options{
		SegmentBytes: minSegment,
		MaxBytes:     2 * minSegment,
		Receiver: receiver{failed: func(events []*journal.Event, cause error) error {
			failing <- events
			<-release
			return errors.Join(boom, cause)
		}},
	})
	b := newBook(1)
	for round := range rounds {
		gen := j.Generation()
		require.EqualValues(t, round, gen)
		big, err := j.Queue(gen, update("too-much", 3*minSegment))
		require.NoError(t, err)
		events := <-failing
		require.Len(t, events, 1)
		require.Equal(t, b.last()+1, events[0].Sequence, "it has the sequence that it would have got")
		behind := []wal.Pending{big}
		for i := range 3 {
			p, err := j.Queue(gen, update(fmt.Sprintf("behind-%d", i), 10))
			require.NoError(t, err)
			behind = append(behind, p)
		}
		watcher := make(chan error, 1)
		go func() {
			for j.Generation() == gen {
			}
			for i, p := range behind {
				if !closed(p) {
					watcher <- fmt.Errorf("in the new generation event %d behind the failed one is not done", i)
					return
				}
			}
			watcher <- nil
		}()
		release <- struct{}{}
		<-big.Done()
		require.Equal(t, gen+1, j.Generation(), "a caller that sees the failure reads the new generation")
		require.NoError(t, <-watcher)
		for i, p := range behind {
			require.ErrorIs(t, p.Err(), boom)
			require.ErrorIs(t, p.Err(), wal.ErrFull)
			require.Equal(t, i > 0, errors.Is(p.Err(), wal.ErrStale))
		}

		_, err = j.Queue(gen, update("stale", 10))
		require.ErrorIs(t, err, wal.ErrStale)
		requirePlace(t, err, dir)
		id := fmt.Sprintf("round-%d", round)
		ev := update(id, 10)
		p, err := j.Queue(j.Generation(), ev)
		require.NoError(t, err)
		<-p.Done()
		require.NoError(t, p.Err())
		b.ack(ev.Sequence, id)
	}
	require.EqualValues(t, rounds, b.last(), "failed events take no sequence")
	b.verify(t, j, dir, 1)
}

// keeper is a receiver that accepts events when the journal fails.
type keeper struct {
	mu     sync.Mutex
	refuse error
	events []*journal.Event // committed and accepted
	failed int
}

func (k *keeper) Committed(events []*journal.Event, _ int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.events = append(k.events, events...)
}

func (k *keeper) Failed(events []*journal.Event, _ error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.refuse != nil {
		return k.refuse
	}
	k.failed += len(events)
	k.events = append(k.events, events...)
	return nil
}

// tail returns the events from sequence first on.
func (k *keeper) tail(first journal.Sequence) func() []*journal.Event {
	return func() []*journal.Event {
		k.mu.Lock()
		defer k.mu.Unlock()
		for i, ev := range k.events {
			if ev.Sequence == first {
				return k.events[i:]
			}
		}
		return nil
	}
}

// The receiver accepts events while the journal is full; Recover makes durable those
// that no snapshot covers.
func TestAccepted(t *testing.T) {
	for _, policy := range policies {
		for _, c := range []struct {
			name string
			// tail is the first event of Recover's tail, given the last event
			// before and after the failure.
			tail func(before, after journal.Sequence) journal.Sequence
			gap  bool // the journal is left without what the snapshot covers
		}{
			{"everything", func(_, _ journal.Sequence) journal.Sequence { return 1 }, false},
			{"from amid a sealed segment", func(before, _ journal.Sequence) journal.Sequence { return before / 2 }, false},
			{"from the last one before the failure", func(before, _ journal.Sequence) journal.Sequence { return before }, false},
			{"from the failure", func(before, _ journal.Sequence) journal.Sequence { return before + 1 }, false},
			{"from amid the accepted events", func(_, after journal.Sequence) journal.Sequence { return after - 2 }, true},
			{"nothing", func(_, after journal.Sequence) journal.Sequence { return after + 1 }, true},
		} {
			if policy != journal.SyncAlways && c.name == "from the failure" {
				continue // the tail has the events of the log
			}
			t.Run(policy.String()+", "+c.name, func(t *testing.T) {
				dir := t.TempDir()
				k := &keeper{}
				opt := wal.Options{
					Sync: policy, SegmentBytes: minSegment, MaxBytes: 6 * minSegment,
					Receiver: k,
				}
				j := open(t, dir, opt)
				b := newBook(1)
				for k.failed == 0 {
					b.fill(t, j, 1, 3000)
				}
				before := b.last() - 1
				b.fill(t, j, 5, 3000)
				after := b.last()
				stats, err := j.Stats()
				require.NoError(t, err)
				require.ErrorIs(t, stats.Poisoned, wal.ErrFull)
				require.Equal(t, after, stats.Last)

				// The receiver does not accept it: the append fails.
				k.refuse = errors.New("no room here either")
				require.ErrorIs(t, b.append(j, "refused", 10), k.refuse)
				k.refuse = nil

				require.Greater(t, len(segments(t, dir)), 2)
				from := journal.Sequence(1)
				if c.gap {
					from = c.tail(before, after)
				}
				crashed := copyDir(t, dir)
				require.NoError(t, j.Recover(t.Context(), k.tail(c.tail(before, after))))
				stats, err = j.Stats()
				require.NoError(t, err)
				require.NoError(t, stats.Poisoned)
				require.Equal(t, after, stats.Last)
				if c.gap {
					_, err := collect(j, 1, 0)
					require.ErrorIs(t, err, wal.ErrGap)
				}
				require.NoError(t, b.check(j, from))
				require.NoError(t, j.TruncateBefore(t.Context(), from))
				require.NoError(t, j.Close())

				opt.MaxBytes = 0
				j = open(t, dir, opt)
				b.fill(t, j, 3, 10)
				require.Equal(t, after+3, b.last())
				b.verify(t, j, dir, from)

				// Without Recover, the journal does not contain accepted events.
				b2 := newBook(1)
				for _, ev := range k.events[:before] {
					b2.ack(ev.Sequence, ev.Node)
				}
				b2.verifyClosed(t, crashed, 1)
			})
		}
	}
}

func TestRecoverRefusesAWrongTail(t *testing.T) {
	dir := t.TempDir()
	k := &keeper{}
	j := open(t, dir, wal.Options{SegmentBytes: minSegment, MaxBytes: 2 * minSegment, Receiver: k})
	b := newBook(1)
	b.fill(t, j, 3, 10)
	b.fill(t, j, 1, 3*minSegment)
	require.NoError(t, j.Recover(t.Context(), k.tail(1)), "MaxBytes does not bound accepted events")
	b.fill(t, j, 1, 3*minSegment)
	require.NoError(t, b.append(j, "small", 10))
	events := k.tail(1)()
	for _, c := range []struct {
		name string
		tail []*journal.Event
	}{
		{"without the last", events[:len(events)-1]},
		{"with a hole", []*journal.Event{events[2], events[len(events)-1]}},
		{"out of order", []*journal.Event{events[len(events)-1], events[len(events)-2]}},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := j.Recover(t.Context(), func() []*journal.Event { return c.tail })
			require.ErrorIs(t, err, wal.ErrGap)
			requirePlace(t, err, dir)
			stats, err := j.Stats()
			require.NoError(t, err)
			require.ErrorIs(t, stats.Poisoned, wal.ErrFull)
		})
	}
	require.NoError(t, j.Recover(t.Context(), k.tail(1)))
	b.verify(t, j, dir, 1)
}

// A crash during Recover leaves the journal as it was, or recovered: the events that
// were durable before the failure stay durable.
func TestCrashWithinRecover(t *testing.T) {
	for _, policy := range policies {
		t.Run(policy.String(), func(t *testing.T) {
			dir := t.TempDir()
			k := &keeper{}
			recovering, crashed := false, ""
			j := open(t, dir, wal.Options{
				Sync: policy, MaxBytes: 4 * minSegment, Receiver: k,
				Hooks: journal.Hooks{SegmentCreated: func(journal.Segment) {
					if recovering {
						crashed = copyDir(t, dir) // the new segment has its name
					}
				}},
			})
			b := newBook(1)
			for k.failed < 3 {
				b.fill(t, j, 1, 3000)
			}
			recovering = true
			require.NoError(t, j.Recover(t.Context(), k.tail(1)))
			recovering = false
			require.NotEmpty(t, crashed)
			b.verify(t, j, dir, 1)
			delete(b.ids, b.last()) // appended by verify
			b.verifyClosed(t, crashed, 1)
		})
	}
}

// Hooks and the receiver may read the status of the journal.
func TestHooksMayReadStatus(t *testing.T) {
	dir := t.TempDir()
	var j *wal.Journal
	calls := map[string]int{}
	var mu sync.Mutex
	look := func(what string) {
		mu.Lock()
		calls[what]++
		mu.Unlock()
		if j == nil {
			return // within Open
		}
		if _, err := j.Stats(); err != nil {
			t.Error(err)
		}
		j.Generation()
	}
	opened := make(chan struct{})
	opt := wal.Options{
		SegmentBytes: minSegment,
		Receiver:     receiver{committed: func([]*journal.Event, int64) { <-opened; look("Committed") }},
		Hooks: journal.Hooks{
			Commit:         func(journal.Commit) { look("Commit") },
			SegmentCreated: func(journal.Segment) { look("SegmentCreated") },
			SegmentDropped: func(journal.Segment) { look("SegmentDropped") },
		},
	}
	j = open(t, dir, opt)
	close(opened)
	b := newBook(1)
	b.fill(t, j, 60, 4000)
	done := make(chan error, 1)
	go func() { done <- j.TruncateBefore(t.Context(), b.last()+1) }()
	select {
	case err := <-done:
		require.NoError(t, err)
	case <-time.After(patience):
		t.Fatal("a hook that reads the status blocks the journal")
	}
	stats, err := j.Stats()
	require.NoError(t, err)
	b.verify(t, j, dir, stats.First)
	for _, what := range []string{"Committed", "Commit", "SegmentCreated", "SegmentDropped"} {
		require.Positive(t, calls[what], what)
	}
}
