package wal_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/internal/wal"
	"github.com/xdswal/xdswal/journal"
)

const (
	minSegment = 64 << 10
	// patience bounds the wait for a condition on a busy machine.
	patience = 60 * time.Second
)

// update returns an event for the node id, with a value of size bytes.
func update(id string, size int) *journal.Event {
	value := make([]byte, size)
	for i := range value {
		value[i] = id[i%len(id)]
	}
	return &journal.Event{
		Kind: journal.Update, Cache: "snapshot/test", Node: id,
		Types: []journal.TypeChange{{
			TypeURL: "type.googleapis.com/test", Version: "v",
			Upserts: []*journal.Resource{{Name: "r", TypeURL: "type.googleapis.com/test", Value: value}},
		}},
	}
}

// intact reports whether ev is what update made.
func intact(ev *journal.Event) error {
	if ev.Kind != journal.Update || len(ev.Types) != 1 || len(ev.Types[0].Upserts) != 1 {
		return fmt.Errorf("event %d has another shape: %+v", ev.Sequence, ev)
	}
	for i, b := range ev.Types[0].Upserts[0].Value {
		if b != ev.Node[i%len(ev.Node)] {
			return fmt.Errorf("event %d of %s: byte %d of its value is %02x", ev.Sequence, ev.Node, i, b)
		}
	}
	return nil
}

// receiver is a wal.Receiver of functions; one that is nil does nothing.
type receiver struct {
	committed func(events []*journal.Event, bytes int64)
	failed    func(events []*journal.Event, cause error) error
}

func (r receiver) Committed(events []*journal.Event, bytes int64) {
	if r.committed != nil {
		r.committed(events, bytes)
	}
}

func (r receiver) Failed(events []*journal.Event, cause error) error {
	if r.failed == nil {
		return cause
	}
	return r.failed(events, cause)
}

// book contains the committed events.
type book struct {
	mu    sync.Mutex
	first journal.Sequence
	ids   map[journal.Sequence]string
}

func newBook(first journal.Sequence) *book {
	return &book{first: first, ids: map[journal.Sequence]string{}}
}

func (b *book) ack(seq journal.Sequence, id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ids[seq] = id
}

func (b *book) append(j *wal.Journal, id string, size int) error {
	seq, err := j.Append(context.Background(), update(id, size))
	if err == nil {
		b.ack(seq, id)
	}
	return err
}

// fill appends n events.
func (b *book) fill(t testing.TB, j *wal.Journal, n, size int) {
	t.Helper()
	for range n {
		require.NoError(t, b.append(j, fmt.Sprintf("node-%d", len(b.ids)), size))
	}
}

// fillGroup is fill in few groups.
func (b *book) fillGroup(t testing.TB, j *wal.Journal, n, size int) {
	t.Helper()
	events, pending := make([]*journal.Event, n), make([]wal.Pending, n)
	for i := range n {
		var err error
		events[i] = update(fmt.Sprintf("node-%d", len(b.ids)+i), size)
		pending[i], err = j.Queue(j.Generation(), events[i])
		require.NoError(t, err)
	}
	for i, p := range pending {
		<-p.Done()
		require.NoError(t, p.Err())
		b.ack(events[i].Sequence, events[i].Node)
	}
}

func (b *book) last() journal.Sequence {
	b.mu.Lock()
	defer b.mu.Unlock()
	last := b.first - 1
	for seq := range b.ids {
		last = max(last, seq)
	}
	return last
}

// check verifies that j contains, from sequence from on, the committed events and no
// others.
func (b *book) check(j *wal.Journal, from journal.Sequence) error {
	n, err := b.checkPrefix(j, from, false)
	if err != nil {
		return err
	}
	if last := b.last(); from+journal.Sequence(n) != last+1 {
		return fmt.Errorf("got %d events from %d on, want those up to %d", n, from, last)
	}
	return nil
}

// checkPrefix is check for a Range that may end early or, with more, late: it
// returns the number of events.
func (b *book) checkPrefix(j *wal.Journal, from journal.Sequence, more bool) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	next, n := from, 0
	var last time.Time
	err := j.Range(context.Background(), from, 0, func(ev *journal.Event) error {
		id, acked := b.ids[ev.Sequence]
		switch {
		case ev.Sequence != next:
			return fmt.Errorf("got event %d, want %d", ev.Sequence, next)
		case ev.Node != id && (acked || !more):
			return fmt.Errorf("got event %d of %q, want one of %q", ev.Sequence, ev.Node, id)
		case ev.Time.Before(last):
			return fmt.Errorf("event %d goes back in time", ev.Sequence)
		}
		last = ev.Time
		next++
		n++
		return intact(ev)
	})
	return n, err
}

// open opens a journal, with the smallest segments if opt does not say.
func open(t testing.TB, dir string, opt wal.Options) *wal.Journal {
	t.Helper()
	if opt.SegmentBytes == 0 {
		opt.SegmentBytes = minSegment
	}
	j, err := wal.Open(dir, opt)
	require.NoError(t, err)
	t.Cleanup(func() { _ = j.Close() })
	return j
}

// verify is the invariant check at the end of a test: the journal closes, and
// contains the committed events and no others, for a reader that changes nothing and
// for the next writer, whose event is the next one.
func (b *book) verify(t testing.TB, j *wal.Journal, dir string, from journal.Sequence) {
	t.Helper()
	require.NoError(t, b.check(j, from))
	require.NoError(t, j.Close())
	b.verifyClosed(t, dir, from)
}

func (b *book) verifyClosed(t testing.TB, dir string, from journal.Sequence) {
	t.Helper()
	before := files(t, dir)
	reader := open(t, dir, wal.Options{ReadOnly: true})
	require.NoError(t, b.check(reader, from))
	stats, err := reader.Stats()
	require.NoError(t, err)
	require.Equal(t, b.last(), stats.Last)
	require.LessOrEqual(t, stats.First, from)
	require.NoError(t, reader.Close())
	require.Equal(t, before, files(t, dir), "a reader changes nothing")

	writer := open(t, dir, wal.Options{})
	require.NoError(t, b.check(writer, from))
	stats, err = writer.Stats()
	require.NoError(t, err)
	require.Equal(t, b.last(), stats.Last)
	require.NoError(t, stats.Poisoned)
	seq, err := writer.Append(context.Background(), update("next", 10))
	require.NoError(t, err)
	require.Equal(t, b.last()+1, seq)
	b.ack(seq, "next")
	require.NoError(t, b.check(writer, from))
	require.NoError(t, writer.Close())
}

// files returns the names and contents of a journal's files.
func files(t testing.TB, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	out := map[string]string{}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		require.NoError(t, err)
		out[e.Name()] = string(data)
	}
	return out
}

// segments returns the names of a journal's segments, oldest first.
func segments(t testing.TB, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.journal"))
	require.NoError(t, err)
	for i := range names {
		names[i] = filepath.Base(names[i])
	}
	return names
}

// copyDir returns a copy of a journal as a crash at this moment leaves it.
func copyDir(t testing.TB, dir string) string {
	t.Helper()
	out := t.TempDir()
	for name, data := range files(t, dir) {
		require.NoError(t, os.WriteFile(filepath.Join(out, name), []byte(data), 0o600))
	}
	return out
}

// fastDir is a temporary directory in memory where the system has one, for
// tests that write much and of which none is about durability.
func fastDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "xdswal-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return dir
}

func collect(j *wal.Journal, from, to journal.Sequence) ([]*journal.Event, error) {
	var events []*journal.Event
	err := j.Range(context.Background(), from, to, func(ev *journal.Event) error {
		events = append(events, ev)
		return nil
	})
	return events, err
}

// requirePlace requires that an error names the place.
func requirePlace(t testing.TB, err error, path string) {
	t.Helper()
	var place *wal.Error
	require.ErrorAs(t, err, &place)
	require.Contains(t, place.Path, path)
	require.ErrorContains(t, err, path)
}

// policies are the three ways to sync.
var policies = []journal.SyncPolicy{journal.SyncAlways, journal.SyncEvery(2 * time.Millisecond), journal.SyncNever}

// isIdentity reports whether err is one that Range documents about damage.
func isIdentity(err error) bool {
	return errors.Is(err, wal.ErrCorrupt) || errors.Is(err, wal.ErrVersion) || errors.Is(err, wal.ErrGap)
}
