package wal_test

import (
	"context"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/internal/durable"
	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/internal/wal"
	"github.com/xdswal/xdswal/journal"
)

// Segments are consecutive, whatever the sizes of records.
func TestRotation(t *testing.T) {
	for _, policy := range policies {
		t.Run(policy.String(), func(t *testing.T) {
			dir := t.TempDir()
			var created []journal.Sequence
			j := open(t, dir, wal.Options{
				Sync: policy, SegmentBytes: minSegment, First: 10,
				Hooks: journal.Hooks{SegmentCreated: func(s journal.Segment) {
					require.FileExists(t, s.Path)
					require.Equal(t, s.First.String()+".journal", filepath.Base(s.Path))
					created = append(created, s.First)
				}},
			})
			b := newBook(10)
			for _, size := range []int{0, 10, 4000, 70, 3 * minSegment, 1, 20_000} {
				b.fill(t, j, 4, size)
				b.fillGroup(t, j, 26, size)
			}
			require.NoError(t, j.Close())
			require.Greater(t, len(created), 5)
			require.EqualValues(t, 10, created[0])
			var names []string
			for i, first := range created {
				names = append(names, first.String()+".journal")
				if i > 0 {
					require.Greater(t, first, created[i-1])
				}
			}
			require.Equal(t, names, segments(t, dir))
			entries, err := os.ReadDir(dir)
			require.NoError(t, err)
			for _, e := range entries {
				require.NotContains(t, e.Name(), durable.TempPrefix, "nothing temporary is left")
			}
			b.verifyClosed(t, dir, 10)
		})
	}
}

// A segment is sealed at about SegmentBytes, whatever the sizes of its
// records, and so the journal's bound is used well.
func TestSegmentSize(t *testing.T) {
	const segmentBytes = 4 << 20
	for _, c := range []struct {
		name string
		size int
	}{
		{"small", 100}, {"a page and a bit", 4200}, {"half a page and a bit", 2100}, {"large", 30_000},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			j := open(t, dir, wal.Options{SegmentBytes: segmentBytes})
			b := newBook(1)
			for len(segments(t, dir)) < 3 {
				b.fillGroup(t, j, 1+100_000/(c.size+100), c.size)
			}
			b.verify(t, j, dir, 1)
			for _, name := range segments(t, dir)[:2] {
				info, err := os.Stat(filepath.Join(dir, name))
				require.NoError(t, err)
				require.GreaterOrEqual(t, info.Size(), int64(segmentBytes))
				require.LessOrEqual(t, info.Size(), int64(segmentBytes*3/2))
			}
		})
	}
}

// Open removes the temporary file of a segment that was being created at a crash.
func TestTemporaryFilesAreRemoved(t *testing.T) {
	dir := t.TempDir()
	left := filepath.Join(dir, durable.TempPrefix+"left")
	require.NoError(t, os.WriteFile(left, []byte("half"), 0o600))
	j := open(t, dir, wal.Options{})
	require.NoFileExists(t, left)
	b := newBook(1)
	b.fill(t, j, 1, 1)
	b.verify(t, j, dir, 1)
}

func TestTruncateBefore(t *testing.T) {
	for _, policy := range policies {
		t.Run(policy.String(), func(t *testing.T) {
			dir := t.TempDir()
			var dropped []journal.Sequence
			opt := wal.Options{Sync: policy, SegmentBytes: minSegment, Hooks: journal.Hooks{
				SegmentDropped: func(s journal.Segment) {
					require.NoFileExists(t, s.Path)
					dropped = append(dropped, s.First)
				},
			}}
			j := open(t, dir, opt)
			b := newBook(1)
			for len(segments(t, dir)) < 6 {
				b.fill(t, j, 2, 4000)
				b.fillGroup(t, j, 8, 4000)
			}
			var firsts []journal.Sequence
			for _, name := range segments(t, dir) {
				first, err := event.ParseSequence(name[:20])
				require.NoError(t, err)
				firsts = append(firsts, first)
			}
			kept := 0
			for _, step := range []struct {
				name string
				seq  journal.Sequence
				keep int // index of the first segment that is kept
			}{
				{"nothing", 0, 0},
				{"first event", 1, 0},
				{"all but one event of the first segment", firsts[1] - 1, 0},
				{"all of the first segment", firsts[1], 1},
				{"again", firsts[1], 1},
				{"an older one", 1, 1},
				{"two more, and a half", firsts[3] + 1, 3},
			} {
				dropped = nil
				require.NoError(t, j.TruncateBefore(t.Context(), step.seq), step.name)
				names := segments(t, dir)
				require.Equal(t, firsts[step.keep].String()+".journal", names[0], step.name)
				require.Equal(t, firsts[kept:step.keep], append(firsts[:0:0], dropped...), "%s: oldest first", step.name)
				kept = step.keep
				stats, err := j.Stats()
				require.NoError(t, err)
				require.Equal(t, firsts[step.keep], stats.First)
				require.NoError(t, b.check(j, stats.First))
				if stats.First > 1 {
					_, err = collect(j, stats.First-1, 0)
					require.ErrorIs(t, err, wal.ErrGap)
					requirePlace(t, err, dir)
				}
			}
			canceled, cancel := context.WithCancel(t.Context())
			cancel()
			require.ErrorIs(t, j.TruncateBefore(canceled, math.MaxUint64), context.Canceled)
			require.NoError(t, b.check(j, firsts[3]))

			require.NoError(t, j.Close())
			j = open(t, dir, opt)
			require.NoError(t, b.check(j, firsts[3]), "it survives reopening")
			require.NoError(t, j.TruncateBefore(t.Context(), math.MaxUint64))
			require.Len(t, segments(t, dir), 1, "the active one is never dropped")
			stats, err := j.Stats()
			require.NoError(t, err)
			b.verify(t, j, dir, stats.First)
		})
	}
}
