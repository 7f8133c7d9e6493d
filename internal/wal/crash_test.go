package wal_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/internal/wal"
	"github.com/xdswal/xdswal/journal"
)

// appendChild appends from several goroutines until it is killed, and prints each
// committed event with one write.
func appendChild(dir string, policy journal.SyncPolicy) error {
	j, err := wal.Open(dir, wal.Options{Sync: policy, SegmentBytes: minSegment})
	if err != nil {
		return err
	}
	failed := make(chan error)
	for w := range 4 {
		go func() {
			for i := 0; ; i++ {
				id := fmt.Sprintf("node-%d-%d-%d", os.Getpid(), w, i)
				b := newBook(1)
				if err := b.append(j, id, rand.IntN(3000)); err != nil {
					failed <- err
					return
				}
				for seq := range b.ids {
					fmt.Fprintf(os.Stdout, "%d %s\n", uint64(seq), id)
				}
			}
		}()
	}
	return <-failed
}

// read adds a line that a child printed to the book. It reports whether the line is
// that of a committed event.
func (b *book) read(t testing.TB, line string) bool {
	t.Helper()
	var seq journal.Sequence
	var id string
	if n, _ := fmt.Sscanf(line, "%d %s", (*uint64)(&seq), &id); n != 2 {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	require.Empty(t, b.ids[seq], "event %d is committed twice", seq)
	b.ids[seq] = id
	return true
}

// survives checks that j contains all committed events. It may contain those that were
// being committed when the process died; they are added to the book.
func (b *book) survives(t testing.TB, j *wal.Journal, from journal.Sequence) {
	t.Helper()
	n, err := b.checkPrefix(j, from, true)
	require.NoError(t, err)
	require.GreaterOrEqual(t, from+journal.Sequence(n), b.last()+1, "committed events are missing")
	events, err := collect(j, from, 0)
	require.NoError(t, err)
	for _, ev := range events {
		b.ack(ev.Sequence, ev.Node)
	}
	require.NoError(t, b.check(j, from))
}

// Killed at any moment, a process loses no committed event.
func TestKill(t *testing.T) {
	const rounds = 5
	for _, policy := range policies {
		t.Run(policy.String(), func(t *testing.T) {
			dir := t.TempDir()
			b := newBook(1)
			for round := range rounds {
				c := startChild(t, "append", dir, policy.String())
				for range rand.IntN(400) {
					require.True(t, b.read(t, c.line(t)))
				}
				require.NoError(t, c.cmd.Process.Kill())
				for _, line := range c.rest(t) {
					require.True(t, b.read(t, line), line)
				}

				crashed := copyDir(t, dir)
				reader := open(t, crashed, wal.Options{ReadOnly: true})
				stats, err := reader.Stats()
				require.NoError(t, err)
				require.GreaterOrEqual(t, stats.Last, b.last())
				b.survives(t, reader, stats.First)

				j := open(t, dir, wal.Options{Sync: policies[round%3], SegmentBytes: minSegment})
				b.survives(t, j, stats.First)
				require.NoError(t, j.TruncateBefore(t.Context(), b.last()/2))
				require.NoError(t, j.Close())
			}
			reader := open(t, dir, wal.Options{ReadOnly: true})
			stats, err := reader.Stats()
			require.NoError(t, err)
			t.Logf("%d events", b.last())
			b.verifyClosed(t, dir, stats.First)
		})
	}
}

// takeChild fills a journal, accepts the events that fail, and recovers with all
// events. It prints those that were durable before the first failure.
func takeChild(dir string, policy journal.SyncPolicy) error {
	k := &keeper{}
	j, err := wal.Open(dir, wal.Options{
		Sync: policy, SegmentBytes: minSegment, MaxBytes: 2 * minSegment,
		Receiver: k,
	})
	if err != nil {
		return err
	}
	b := newBook(1)
	for i := 0; k.failed < 3; i++ {
		id := fmt.Sprintf("node-%d", i)
		if err := b.append(j, id, 6000); err != nil {
			return err
		}
		if k.failed == 0 {
			fmt.Fprintf(os.Stdout, "%d %s\n", i+1, id)
		}
	}
	return j.Recover(b0, k.tail(1))
}

// The journal opens with the whole records of the log, whatever follows them.
func TestLogIsCut(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, wal.Options{Sync: journal.SyncEvery(time.Hour)})
	b := newBook(1)
	b.fill(t, j, 6, 30)
	crashed := copyDir(t, dir)
	require.NoError(t, j.Close())
	whole, err := os.ReadFile(filepath.Join(crashed, "staged"))
	require.NoError(t, err)
	ends := []int{0} // of records in the file
	for at := 0; at < len(whole); {
		at += 4 + int(binary.LittleEndian.Uint32(whole[at:]))
		ends = append(ends, at)
	}
	require.Len(t, ends, 7)
	segment := files(t, crashed)[segments(t, crashed)[0]]
	path := fastDir(t)
	// put makes the journal as a crash left it.
	put := func(t testing.TB, staged []byte) {
		t.Helper()
		for _, name := range append(segments(t, path), "staged") {
			_ = os.Remove(filepath.Join(path, name))
		}
		require.NoError(t, os.WriteFile(filepath.Join(path, segments(t, crashed)[0]), []byte(segment), 0o600))
		require.NoError(t, os.WriteFile(filepath.Join(path, "staged"), staged, 0o600))
	}
	// holds checks that the first n events are there and nothing else.
	holds := func(t testing.TB, n int) {
		t.Helper()
		left := newBook(1)
		for i := range n {
			left.ack(journal.Sequence(i+1), b.ids[journal.Sequence(i+1)])
		}
		reader := open(t, path, wal.Options{ReadOnly: true})
		require.NoError(t, left.check(reader, 1))
		writer := open(t, path, wal.Options{Sync: policies[n%3]})
		require.NoError(t, left.check(writer, 1))
		require.NoError(t, left.append(writer, "next", 1))
		left.verify(t, writer, path, 1)
	}
	t.Run("cut", func(t *testing.T) {
		step := 3
		if raceEnabled {
			step = 17
		}
		for n := 0; n <= len(whole); n += step {
			whole := whole[:n]
			put(t, whole)
			want := 0
			for want+1 < len(ends) && ends[want+1] <= n {
				want++
			}
			holds(t, want)
		}
	})
	for _, c := range []struct {
		name   string
		behind []byte
	}{
		{"zeros", make([]byte, 5000)},
		{"ones", []byte(strings.Repeat("\xff", 5000))},
		{"text", []byte(strings.Repeat("garbage ", 700))},
		{"half a length", []byte{1, 2}},
		{"an old record", whole[:ends[1]]},
		{"half a record", whole[:ends[1]/2]},
	} {
		t.Run(c.name, func(t *testing.T) {
			put(t, append(whole[:len(whole):len(whole)], c.behind...))
			holds(t, 6)
		})
	}
	t.Run("flip", func(t *testing.T) {
		require.Equal(t, ends[1], ends[4]-ends[3])
		for at := range ends[1] {
			damaged := append([]byte(nil), whole...)
			damaged[ends[3]+at] ^= 0x10
			put(t, damaged)
			reader := open(t, path, wal.Options{ReadOnly: true})
			events, err := collect(reader, 1, 0)
			require.NoError(t, err)
			require.Len(t, events, 3)
		}
	})
	t.Run("newer format", func(t *testing.T) {
		newer := append([]byte(nil), whole...)
		record := newer[ends[2]+4 : ends[3]]
		record[11] = 2
		event.Seal(record, 3, time.Now())
		put(t, newer)
		_, err := wal.Open(path, wal.Options{})
		require.ErrorIs(t, err, wal.ErrVersion)
		requirePlace(t, err, "staged")
		put(t, whole)
	})
	t.Run("a hole before it", func(t *testing.T) {
		put(t, whole[ends[2]:])
		_, err := wal.Open(path, wal.Options{})
		require.ErrorIs(t, err, wal.ErrGap)
		requirePlace(t, err, "staged")
		got, err := os.ReadFile(filepath.Join(path, "staged"))
		require.NoError(t, err)
		require.Equal(t, whole[ends[2]:], got, "the log is unchanged")
		put(t, whole)
	})
	holds(t, 6)
}

// Old events in the log, whose truncation was not durable, are skipped.
func TestLogReappears(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, wal.Options{Sync: journal.SyncEvery(time.Hour)})
	b := newBook(1)
	b.fill(t, j, 6, 30)
	old, err := os.ReadFile(filepath.Join(dir, "staged"))
	require.NoError(t, err)
	b.fill(t, j, 6, 30)
	require.NoError(t, j.Close())
	require.NoError(t, os.WriteFile(filepath.Join(dir, "staged"), old, 0o600))
	b.verifyClosed(t, dir, 1)
}

// Opening and closing under any policy keeps the events.
func TestReopenInEveryPolicy(t *testing.T) {
	dir := t.TempDir()
	b := newBook(1)
	var wg sync.WaitGroup
	for i := range 12 {
		j := open(t, dir, wal.Options{Sync: policies[i%3], SegmentBytes: minSegment})
		for range 4 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				if err := b.append(j, "node", 5000); err != nil {
					t.Error(err)
				}
			}()
		}
		wg.Wait()
		require.NoError(t, b.check(j, 1))
		require.NoError(t, j.Close())
	}
	b.verifyClosed(t, dir, 1)
}
