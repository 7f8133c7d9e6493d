package wal_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/internal/wal"
	"github.com/xdswal/xdswal/journal"
)

func TestAppendRangeReopen(t *testing.T) {
	for _, policy := range append(policies, journal.SyncEvery(time.Hour)) {
		for _, first := range []journal.Sequence{0, 1, 1000, math.MaxUint64 >> 1} {
			t.Run(fmt.Sprintf("%s from %d", policy, first), func(t *testing.T) {
				dir := filepath.Join(t.TempDir(), "a", "journal")
				opt := wal.Options{Sync: policy, First: first, SegmentBytes: minSegment}
				b := newBook(max(first, 1))
				for round := range 3 {
					j := open(t, dir, opt)
					require.NoError(t, b.check(j, b.first))
					b.fill(t, j, 5, 100*round)
					require.Equal(t, b.first+journal.Sequence(5*round+4), b.last())
					stats, err := j.Stats()
					require.NoError(t, err)
					require.Equal(t, b.first, stats.First)
					require.Equal(t, b.last(), stats.Last)
					require.Equal(t, 1, stats.Segments)
					require.Positive(t, stats.Bytes)
					require.NoError(t, b.check(j, b.first))
					require.NoError(t, j.Close())
					opt.First = 77 // has no effect on a journal that exists
				}
				b.verifyClosed(t, dir, b.first)
			})
		}
	}
}

func TestEmpty(t *testing.T) {
	dir := t.TempDir()
	j, err := wal.Open(dir, wal.Options{First: 100})
	require.NoError(t, err)
	t.Cleanup(func() { _ = j.Close() })
	stats, err := j.Stats()
	require.NoError(t, err)
	require.EqualValues(t, 100, stats.First)
	require.EqualValues(t, 99, stats.Last)
	events, err := collect(j, 100, 0)
	require.NoError(t, err)
	require.Empty(t, events)
	_, err = collect(j, 99, 0)
	require.ErrorIs(t, err, wal.ErrGap, "the snapshot has it")
	newBook(100).verify(t, j, dir, 100)
}

// Times never decrease: not below the snapshot's, nor when the journal is reopened.
func TestTimes(t *testing.T) {
	dir := t.TempDir()
	future := time.Now().Add(time.Hour).Round(0)
	opt := wal.Options{NotBefore: future}
	b := newBook(1)
	for range 2 {
		j := open(t, dir, opt)
		b.fill(t, j, 2, 1)
		require.NoError(t, j.Close())
		opt.NotBefore = time.Time{}
	}
	j := open(t, dir, opt)
	events, err := collect(j, 1, 0)
	require.NoError(t, err)
	require.Len(t, events, 4)
	for _, ev := range events {
		require.True(t, future.Equal(ev.Time))
	}
	b.verify(t, j, dir, 1)
}

func TestSyncPolicyText(t *testing.T) {
	for _, c := range []struct {
		name   string
		policy journal.SyncPolicy
		text   string
	}{
		{"zero", journal.SyncPolicy{}, "always"},
		{"always", journal.SyncAlways, "always"},
		{"never", journal.SyncNever, "never"},
		{"interval", journal.SyncEvery(100 * time.Millisecond), "100ms"},
		{"no interval", journal.SyncEvery(0), "always"},
		{"negative interval", journal.SyncEvery(-1), "always"},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, c.text, c.policy.String())
			got, err := journal.ParseSyncPolicy(c.text)
			require.NoError(t, err)
			require.Equal(t, c.policy, got)
		})
	}
	for _, text := range []string{"", "sometimes", "0s", "-1s", "5"} {
		_, err := journal.ParseSyncPolicy(text)
		require.ErrorContains(t, err, "parse sync policy")
	}
}

func TestLocked(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, wal.Options{})
	start := time.Now()
	second, err := wal.Open(dir, wal.Options{})
	require.ErrorIs(t, err, wal.ErrLocked)
	requirePlace(t, err, dir)
	require.Nil(t, second)
	require.Less(t, time.Since(start), patience, "it does not wait")
	b := newBook(1)
	b.fill(t, j, 3, 10)
	b.verify(t, j, dir, 1)
}

func TestLockedByAnotherProcess(t *testing.T) {
	dir := t.TempDir()
	holder := startChild(t, "hold", dir, "always")
	require.Equal(t, "<nil>", holder.line(t))
	start := time.Now()
	_, err := wal.Open(dir, wal.Options{})
	require.ErrorIs(t, err, wal.ErrLocked)
	requirePlace(t, err, dir)
	require.Less(t, time.Since(start), patience, "it does not wait")

	reader := open(t, dir, wal.Options{ReadOnly: true})
	_, err = collect(reader, 1, 0)
	require.ErrorIs(t, err, wal.ErrLocked)

	holder.kill(t)
	b := newBook(1)
	j := open(t, dir, wal.Options{})
	b.fill(t, j, 3, 10)
	b.verify(t, j, dir, 1)
}

func TestClosed(t *testing.T) {
	for _, policy := range policies {
		t.Run(policy.String(), func(t *testing.T) {
			dir := t.TempDir()
			j := open(t, dir, wal.Options{Sync: policy, SegmentBytes: minSegment})
			b := newBook(1)
			b.fill(t, j, 100, 1000)
			require.NoError(t, j.Close())
			require.NoError(t, j.Close(), "a second Close")

			_, err := j.Append(t.Context(), update("late", 1))
			require.ErrorIs(t, err, wal.ErrClosed)
			requirePlace(t, err, dir)
			_, err = j.Queue(j.Generation(), update("late", 1))
			require.ErrorIs(t, err, wal.ErrClosed)
			require.ErrorIs(t, j.TruncateBefore(t.Context(), math.MaxUint64), wal.ErrClosed)
			require.NoError(t, j.Recover(t.Context(), nil))
			require.NoError(t, b.check(j, 1), "the events can still be read")
			b.verifyClosed(t, dir, 1)
		})
	}
}

// Events that were queued before Close are committed.
func TestCloseDrains(t *testing.T) {
	for _, policy := range policies {
		t.Run(policy.String(), func(t *testing.T) {
			dir := t.TempDir()
			entered, release := make(chan struct{}, 10), make(chan struct{})
			j := open(t, dir, wal.Options{Sync: policy, Receiver: receiver{committed: func([]*journal.Event, int64) {
				entered <- struct{}{}
				<-release
			}}})
			var pending []wal.Pending
			var events []*journal.Event
			queue := func(i int) {
				ev := update(fmt.Sprintf("node-%d", i), 10)
				p, err := j.Queue(j.Generation(), ev)
				require.NoError(t, err)
				pending, events = append(pending, p), append(events, ev)
			}
			queue(0)
			<-entered // the committer is at work
			for i := range 99 {
				queue(i + 1)
			}
			closed := make(chan error, 1)
			go func() { closed <- j.Close() }()
			require.Eventually(t, func() bool {
				// Close must commit an event that is queued without an error.
				ev := update("node-late", 10)
				p, err := j.Queue(j.Generation(), ev)
				if err == nil {
					pending, events = append(pending, p), append(events, ev)
				}
				return errors.Is(err, wal.ErrClosed)
			}, patience, time.Millisecond)
			close(release)
			require.NoError(t, <-closed)
			b := newBook(1)
			for i, p := range pending {
				<-p.Done()
				require.NoError(t, p.Err())
				require.EqualValues(t, i+1, events[i].Sequence)
				b.ack(events[i].Sequence, events[i].Node)
			}
			b.verifyClosed(t, dir, 1)
		})
	}
}

func TestTooLarge(t *testing.T) {
	dir := t.TempDir()
	fits := update("fits", 500)
	record, err := event.Marshal(fits)
	require.NoError(t, err)
	j := open(t, dir, wal.Options{MaxRecordBytes: len(record)})
	_, err = j.Append(t.Context(), update("fits", 501))
	require.ErrorIs(t, err, wal.ErrTooLarge)
	require.ErrorContains(t, err, "raise MaxRecordBytes")
	requirePlace(t, err, dir)
	b := newBook(1)
	require.NoError(t, b.append(j, "fits", 500))
	b.verify(t, j, dir, 1)
}

// An event that could not be read back is refused.
func TestUnreadableEvents(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, wal.Options{})
	for _, ev := range []*journal.Event{{}, {Kind: 9}, {Kind: journal.Clear, Node: "\xff"}} {
		_, err := j.Append(t.Context(), ev)
		require.Error(t, err)
		requirePlace(t, err, dir)
	}
	b := newBook(1)
	b.fill(t, j, 1, 1)
	b.verify(t, j, dir, 1)
}

func TestFull(t *testing.T) {
	for _, policy := range policies {
		t.Run(policy.String(), func(t *testing.T) {
			dir := t.TempDir()
			j := open(t, dir, wal.Options{Sync: policy, SegmentBytes: minSegment, MaxBytes: 10 * minSegment})
			b := newBook(1)
			var err error
			for i := 0; err == nil; i++ {
				require.Less(t, i, 2000)
				err = b.append(j, fmt.Sprintf("node-%d", i), 2000)
			}
			require.ErrorIs(t, err, wal.ErrFull)
			require.NotErrorIs(t, err, wal.ErrPoisoned)
			require.ErrorContains(t, err, "raise MaxBytes")
			require.ErrorContains(t, err, fmt.Sprint(10*minSegment))
			require.ErrorIs(t, b.append(j, "again", 2000), wal.ErrFull)
			stats, err := j.Stats()
			require.NoError(t, err)
			require.NoError(t, stats.Poisoned)
			// A group, and the log, may need more than was counted.
			require.LessOrEqual(t, stats.Bytes, int64(14*minSegment))
			require.Greater(t, stats.Bytes, int64(6*minSegment), "most of the space was used")

			require.NoError(t, j.TruncateBefore(t.Context(), b.last()+1))
			b.fill(t, j, 10, 2000)
			stats, err = j.Stats()
			require.NoError(t, err)
			b.verify(t, j, dir, stats.First)
		})
	}
}

// A journal that ends before its snapshot continues after the snapshot.
func TestAdvance(t *testing.T) {
	for _, policy := range policies {
		t.Run(policy.String(), func(t *testing.T) {
			dir := t.TempDir()
			opt := wal.Options{Sync: policy}
			j := open(t, dir, opt)
			old := newBook(1)
			old.fill(t, j, 40, 3000)
			future := time.Now().Add(time.Hour)
			err := j.Advance(30, future)
			require.ErrorContains(t, err, "at event 40 already")
			requirePlace(t, err, dir)
			require.NoError(t, old.check(j, 1), "nothing has changed")
			require.NoError(t, j.Close())
			require.ErrorIs(t, j.Advance(100, future), wal.ErrClosed)

			reader := open(t, dir, wal.Options{ReadOnly: true})
			require.ErrorIs(t, reader.Advance(100, future), wal.ErrReadOnly)
			old.verifyClosed(t, dir, 1)

			j = open(t, dir, opt)
			for range 2 {
				require.NoError(t, j.Advance(100, future))
				stats, err := j.Stats()
				require.NoError(t, err)
				require.EqualValues(t, 100, stats.First)
				require.EqualValues(t, 99, stats.Last)
				require.Len(t, segments(t, dir), 1)
			}
			b := newBook(100)
			b.fill(t, j, 3, 10)
			events, err := collect(j, 100, 0)
			require.NoError(t, err)
			require.True(t, events[0].Time.Equal(future.Round(0)))
			b.verify(t, j, dir, 100)
		})
	}
}

func TestAppendContext(t *testing.T) {
	dir := t.TempDir()
	entered, release := make(chan struct{}, 10), make(chan struct{})
	j := open(t, dir, wal.Options{Receiver: receiver{committed: func([]*journal.Event, int64) {
		entered <- struct{}{}
		<-release
	}}})
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := j.Append(canceled, update("never", 1))
	require.ErrorIs(t, err, context.Canceled)
	requirePlace(t, err, dir)

	gone := errors.New("gone")
	ctx, giveUp := context.WithCancelCause(t.Context())
	result := make(chan error, 1)
	go func() {
		_, err := j.Append(ctx, update("given-up", 1))
		result <- err
	}()
	<-entered
	giveUp(gone)
	err = <-result
	require.ErrorIs(t, err, gone)
	require.ErrorContains(t, err, "the update may still become durable")
	close(release)
	b := newBook(1)
	b.ack(1, "given-up")
	b.fill(t, j, 1, 1)
	b.verify(t, j, dir, 1)
}

// SyncEvery syncs in time while the queue is never empty.
func TestSyncEveryUnderLoad(t *testing.T) {
	const limit = 20_000 // groups, of fewer bytes than maxLogBytes
	dir := t.TempDir()
	var j *wal.Journal
	ready, done := make(chan struct{}), make(chan struct{})
	var once sync.Once
	groups, flushed, size := 0, false, int64(0)
	b := newBook(1)
	j = open(t, dir, wal.Options{
		Sync: journal.SyncEvery(time.Millisecond),
		Receiver: receiver{committed: func(events []*journal.Event, _ int64) {
			<-ready
			for _, ev := range events {
				b.ack(ev.Sequence, ev.Node)
			}
			info, err := os.Stat(filepath.Join(dir, "staged"))
			if err != nil {
				return
			}
			flushed = flushed || info.Size() < size
			size = info.Size()
			if groups++; flushed || groups == limit {
				once.Do(func() { close(done) })
				return
			}
			if _, err := j.Queue(0, update("next", 1)); err != nil {
				once.Do(func() { close(done) })
			}
		}},
	})
	_, err := j.Queue(0, update("first", 1))
	require.NoError(t, err)
	close(ready)
	<-done
	require.NoError(t, j.Close())
	require.True(t, flushed, "nothing was synced after %d groups", groups)
	b.verifyClosed(t, dir, 1)
}

// With SyncEvery, committed events are flushed to the segment without another append.
func TestSyncEveryWhenIdle(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, wal.Options{Sync: journal.SyncEvery(time.Millisecond)})
	b := newBook(1)
	b.fill(t, j, 1, 100)
	require.Eventually(t, func() bool {
		info, err := os.Stat(filepath.Join(dir, "staged"))
		return err == nil && info.Size() == 0
	}, patience, time.Millisecond)
	crashed := copyDir(t, dir)
	require.NoError(t, os.Remove(filepath.Join(crashed, "staged")))
	b.verifyClosed(t, crashed, 1)
}

func TestReadOnlyRefusesChanges(t *testing.T) {
	dir := t.TempDir()
	b := newBook(1)
	j := open(t, dir, wal.Options{})
	b.fill(t, j, 3, 10)
	require.NoError(t, j.Close())
	before := files(t, dir)

	reader := open(t, dir, wal.Options{ReadOnly: true})
	_, err := reader.Append(t.Context(), update("x", 1))
	require.ErrorIs(t, err, wal.ErrReadOnly)
	requirePlace(t, err, dir)
	require.ErrorIs(t, reader.TruncateBefore(t.Context(), 3), wal.ErrReadOnly)
	require.NoError(t, reader.Recover(t.Context(), nil))
	require.NoError(t, reader.Close())
	require.NoError(t, reader.Close())
	require.Equal(t, before, files(t, dir))

	missing := filepath.Join(dir, "missing")
	none, err := wal.Open(missing, wal.Options{ReadOnly: true})
	require.ErrorIs(t, err, fs.ErrNotExist)
	requirePlace(t, err, missing)
	require.Nil(t, none)
	require.NoDirExists(t, missing)
	b.verifyClosed(t, dir, 1)
}

// A reader beside a live writer sees the sealed segments, also those that are
// sealed after it was opened.
func TestReadOnlyBesideWriter(t *testing.T) {
	for _, policy := range policies {
		t.Run(policy.String(), func(t *testing.T) {
			dir := t.TempDir()
			j := open(t, dir, wal.Options{Sync: policy, SegmentBytes: minSegment})
			b := newBook(1)
			reader := open(t, dir, wal.Options{ReadOnly: true})
			for round := range 3 {
				for before := len(segments(t, dir)); len(segments(t, dir)) < before+2; {
					b.fill(t, j, 5, 500+5000*round)
				}
				// The next segment is created, and the sealed one closed, shortly
				// after an append returns.
				require.EventuallyWithT(t, func(c *assert.CollectT) {
					names := segments(t, dir)
					active := names[len(names)-1]
					first, err := event.ParseSequence(active[:20])
					require.NoError(c, err)
					events, err := collect(reader, 1, first-1)
					require.NoError(c, err)
					require.Len(c, events, int(first-1))

					events, err = collect(reader, 1, 0)
					require.ErrorIs(c, err, wal.ErrLocked)
					require.ErrorContains(c, err, active)
					require.Len(c, events, int(first-1), "what can be read is read")
				}, patience, time.Millisecond)
				_, err := reader.Stats()
				require.ErrorIs(t, err, wal.ErrLocked)
				requirePlace(t, err, dir)
			}
			require.NoError(t, j.Close())
			require.NoError(t, b.check(reader, 1))
			b.verifyClosed(t, dir, 1)
		})
	}
}

func logSize(t testing.TB, dir string) int64 {
	info, err := os.Stat(filepath.Join(dir, "staged"))
	require.NoError(t, err)
	return info.Size()
}

// A reader finds the events that a crashed writer wrote only to the log.
func TestReadOnlyLog(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, wal.Options{Sync: journal.SyncEvery(time.Hour)})
	b := newBook(1)
	b.fill(t, j, 10, 100)
	crashed := copyDir(t, dir)
	require.Positive(t, logSize(t, crashed))
	reader := open(t, crashed, wal.Options{ReadOnly: true})
	for _, c := range []struct {
		name     string
		from, to journal.Sequence
		want     int
		err      error
	}{
		{"all", 1, 0, 10, nil},
		{"to the last", 1, 10, 10, nil},
		{"some", 3, 5, 3, nil},
		{"none", 11, 0, 0, nil},
		{"far beyond", 100, 0, 0, nil},
		{"too many", 1, 11, 10, wal.ErrGap},
	} {
		t.Run(c.name, func(t *testing.T) {
			events, err := collect(reader, c.from, c.to)
			require.True(t, errors.Is(err, c.err), "%v", err)
			require.Len(t, events, c.want)
		})
	}
	stats, err := reader.Stats()
	require.NoError(t, err)
	require.EqualValues(t, 10, stats.Last)
	b.verifyClosed(t, crashed, 1)
	require.NoError(t, j.Close())
}
