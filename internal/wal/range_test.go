package wal_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/internal/wal"
	"github.com/xdswal/xdswal/journal"
)

func TestRange(t *testing.T) {
	for _, policy := range policies {
		t.Run(policy.String(), func(t *testing.T) {
			dir := t.TempDir()
			j := open(t, dir, wal.Options{Sync: policy, SegmentBytes: minSegment, First: 11})
			b := newBook(11)
			b.fill(t, j, 90, 3000) // events 11 to 100, over several segments
			require.Greater(t, len(segments(t, dir)), 2)
			for _, c := range []struct {
				name        string
				from, to    journal.Sequence
				first, last journal.Sequence // what is yielded
				err         error
			}{
				{"all", 11, 0, 11, 100, nil},
				{"all, by number", 11, 100, 11, 100, nil},
				{"some", 20, 70, 20, 70, nil},
				{"one", 42, 42, 42, 42, nil},
				{"the last", 100, 0, 100, 100, nil},
				{"behind the last", 101, 0, 1, 0, nil},
				{"far behind the last", 1000, 0, 1, 0, nil},
				{"backwards", 50, 40, 1, 0, nil},
				{"beyond the last", 90, 105, 90, 100, wal.ErrGap},
				{"before the first", 10, 20, 1, 0, wal.ErrGap},
				{"from zero", 0, 0, 1, 0, wal.ErrGap},
				{"wholly before the first", 2, 5, 1, 0, wal.ErrGap},
				{"wholly beyond the last", 200, 300, 1, 0, wal.ErrGap},
			} {
				t.Run(c.name, func(t *testing.T) {
					events, err := collect(j, c.from, c.to)
					require.True(t, errors.Is(err, c.err), "%v", err)
					if c.err != nil {
						requirePlace(t, err, dir)
					}
					require.Len(t, events, int(c.last+1-c.first))
					for i, ev := range events {
						require.Equal(t, c.first+journal.Sequence(i), ev.Sequence)
						require.NoError(t, intact(ev))
					}
				})
			}
			b.verify(t, j, dir, 11)
		})
	}
}

// Range returns the error of fn and the cause of the context unchanged, in every
// file.
func TestRangeStops(t *testing.T) {
	boom, gone := errors.New("boom"), errors.New("gone")
	for _, policy := range policies {
		t.Run(policy.String(), func(t *testing.T) {
			dir := t.TempDir()
			j := open(t, dir, wal.Options{Sync: policy, SegmentBytes: minSegment})
			b := newBook(1)
			b.fill(t, j, 60, 3000)
			for stop := journal.Sequence(1); stop <= 60; stop++ {
				var last journal.Sequence
				err := j.Range(t.Context(), 1, 0, func(ev *journal.Event) error {
					if last = ev.Sequence; last == stop {
						return boom
					}
					return nil
				})
				require.Same(t, boom, err)
				require.Equal(t, stop, last)

				ctx, cancel := context.WithCancelCause(t.Context())
				err = j.Range(ctx, 1, 0, func(ev *journal.Event) error {
					if last = ev.Sequence; last == stop {
						cancel(gone)
					}
					return nil
				})
				require.Equal(t, stop, last)
				if stop < 60 {
					require.Same(t, gone, err)
				}
				cancel(nil)
			}
			b.verify(t, j, dir, 1)
		})
	}
}

// The caller may keep the events of Range: they do not change when the journal does.
func TestRangeEventsMayBeKept(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, wal.Options{SegmentBytes: minSegment})
	b := newBook(1)
	b.fill(t, j, 20, 1000)
	events, err := collect(j, 1, 0)
	require.NoError(t, err)
	b.fill(t, j, 100, 3000)
	require.NoError(t, j.TruncateBefore(t.Context(), b.last()))
	stats, err := j.Stats()
	require.NoError(t, err)
	b.verify(t, j, dir, stats.First)
	for i, ev := range events {
		require.Equal(t, fmt.Sprintf("node-%d", i), ev.Node)
		require.NoError(t, intact(ev))
	}
}

// Records yields the records of the same events as Range, verified, and the caller may
// keep them; also in a closed and in a read-only journal.
func TestRecords(t *testing.T) {
	for _, policy := range policies {
		t.Run(policy.String(), func(t *testing.T) {
			dir := t.TempDir()
			j := open(t, dir, wal.Options{Sync: policy, SegmentBytes: minSegment, First: 11})
			b := newBook(11)
			b.fill(t, j, 90, 3000)
			want, err := collect(j, 11, 0)
			require.NoError(t, err)
			check := func(j *wal.Journal, from, to, first, last journal.Sequence) {
				t.Helper()
				kept := map[journal.Sequence][]byte{}
				next := first
				require.NoError(t, j.Records(t.Context(), from, to, func(seq journal.Sequence, record []byte) error {
					require.Equal(t, next, seq)
					next++
					kept[seq] = record
					return nil
				}))
				require.Equal(t, last+1, next)
				for seq, record := range kept {
					ev, err := event.Unmarshal(record)
					require.NoError(t, err)
					require.Equal(t, want[seq-11], ev)
				}
			}
			check(j, 11, 0, 11, 100)
			check(j, 42, 57, 42, 57)
			check(j, 100, 0, 100, 100)
			check(j, 101, 0, 101, 100)
			for _, bounds := range [][2]journal.Sequence{{10, 0}, {0, 0}, {90, 101}} {
				err := j.Records(t.Context(), bounds[0], bounds[1], func(journal.Sequence, []byte) error { return nil })
				require.ErrorIs(t, err, wal.ErrGap)
				requirePlace(t, err, dir)
			}
			boom, gone := errors.New("boom"), errors.New("gone")
			require.Same(t, boom, j.Records(t.Context(), 11, 0, func(seq journal.Sequence, _ []byte) error {
				if seq == 60 {
					return boom
				}
				return nil
			}))
			ctx, cancel := context.WithCancelCause(t.Context())
			require.Same(t, gone, j.Records(ctx, 11, 0, func(seq journal.Sequence, _ []byte) error {
				if seq == 60 {
					cancel(gone)
				}
				return nil
			}))
			require.NoError(t, j.Close())
			check(j, 11, 0, 11, 100)
			ro := open(t, dir, wal.Options{ReadOnly: true})
			check(ro, 11, 0, 11, 100)
			require.NoError(t, ro.Close())
			b.verify(t, open(t, dir, wal.Options{}), dir, 11)
		})
	}
}

// Records beside appends yields the events that were committed before the call.
func TestRecordsBesideWriters(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, wal.Options{SegmentBytes: minSegment})
	b := newBook(1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 200 {
			if err := b.append(j, fmt.Sprintf("node-%d", i), 1000); err != nil {
				t.Error(err)
			}
		}
	}()
	for ended := false; !ended; {
		select {
		case <-done:
			ended = true
		default:
		}
		acked := b.last()
		next := journal.Sequence(1)
		require.NoError(t, j.Records(t.Context(), 1, 0, func(seq journal.Sequence, record []byte) error {
			require.Equal(t, next, seq)
			next++
			_, err := event.Unmarshal(record)
			return err
		}))
		require.Greater(t, next, acked)
	}
	b.verify(t, j, dir, 1)
}

// Range beside appends, rotation and truncation yields all events, or returns ErrGap
// for those that were deleted.
func TestRangeBesideWriters(t *testing.T) {
	for _, policy := range policies {
		t.Run(policy.String(), func(t *testing.T) {
			rotations := int64(12)
			if raceEnabled {
				rotations = 6
			}
			dir := t.TempDir()
			var created atomic.Int64
			j := open(t, dir, wal.Options{Sync: policy, SegmentBytes: minSegment, Hooks: journal.Hooks{
				SegmentCreated: func(journal.Segment) { created.Add(1) },
			}})
			b := newBook(1)
			var last atomic.Uint64
			var wg sync.WaitGroup
			background := func(fn func() error) {
				wg.Add(1)
				go func() {
					defer wg.Done()
					for created.Load() < rotations && !t.Failed() {
						if err := fn(); err != nil {
							t.Error(err)
							return
						}
					}
				}()
			}
			for w := range 4 {
				n := 0
				background(func() error {
					n++
					ev := update(fmt.Sprintf("node-%d-%d", w, n), rand.IntN(6000))
					seq, err := j.Append(t.Context(), ev)
					if err != nil {
						return err
					}
					b.ack(seq, ev.Node)
					for old := last.Load(); uint64(seq) > old && !last.CompareAndSwap(old, uint64(seq)); old = last.Load() {
					}
					return nil
				})
			}
			background(func() error {
				stats, err := j.Stats()
				if err != nil || stats.Segments < 5 {
					return err
				}
				return j.TruncateBefore(t.Context(), stats.First+(stats.Last-stats.First)/3)
			})
			var whole, gaps atomic.Int64
			for range 2 {
				background(func() error {
					stats, err := j.Stats()
					if err != nil {
						return err
					}
					from := stats.First + journal.Sequence(rand.Uint64N(uint64(stats.Last-stats.First+2)))
					if rand.IntN(2) == 0 {
						from = stats.First
					}
					acked := journal.Sequence(last.Load())
					next := from
					err = j.Range(t.Context(), from, 0, func(ev *journal.Event) error {
						if ev.Sequence != next {
							return fmt.Errorf("got event %d, want %d", ev.Sequence, next)
						}
						next++
						return intact(ev)
					})
					switch {
					case errors.Is(err, wal.ErrGap):
						gaps.Add(1)
						return nil
					case err != nil:
						return err
					case next <= acked:
						return fmt.Errorf("the range ended before event %d, want event %d", next, acked)
					}
					whole.Add(1)
					return nil
				})
			}
			wg.Wait()
			require.Positive(t, whole.Load())
			t.Logf("%d ranges, %d gaps, %d events", whole.Load(), gaps.Load(), b.last())
			stats, err := j.Stats()
			require.NoError(t, err)
			b.verify(t, j, dir, stats.First)
		})
	}
}
