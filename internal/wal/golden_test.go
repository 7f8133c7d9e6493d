package wal_test

import (
	"bytes"
	"compress/gzip"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/internal/wal"
	"github.com/xdswal/xdswal/journal"
)

var writeGolden = flag.Bool("write-golden", false, "write golden files that are missing; those that exist never change")

// goldenTime is later than any time at which the golden journal may be made,
// so that its events have it.
var goldenTime = time.Date(2100, 1, 1, 0, 0, 0, 5, time.UTC)

// goldenEvents are the events of testdata/format1.
func goldenEvents() []*journal.Event {
	ttl := 1500 * time.Millisecond
	var events []*journal.Event
	for i := range 25 {
		ev := update(fmt.Sprintf("node-%d", i), 100*i)
		switch {
		case i == 7:
			ev = &journal.Event{Kind: journal.Clear, Cache: "snapshot/test", Node: "node-6"}
		case i == 8:
			ev = update("node-8", 60_000) // alone it fills a segment
		case i == 9:
			ev.Types[0].Deletes = []string{"a", "b"}
			ev.Types[0].Upserts[0].TTL = &ttl
			ev.Types[0].Upserts[0].Version = "0123"
		case i > 20:
			ev.Cache, ev.Node = "linear/ж", ""
		}
		ev.Sequence, ev.Time = journal.Sequence(100+i), goldenTime
		events = append(events, ev)
	}
	return events
}

// writeGoldenJournal writes a journal as a crash leaves it: three segments and a log.
func writeGoldenJournal(t *testing.T, golden string) {
	dir := t.TempDir()
	j := open(t, dir, wal.Options{First: 100, NotBefore: goldenTime})
	events := goldenEvents()
	for _, ev := range events[:20] {
		_, err := j.Append(t.Context(), ev)
		require.NoError(t, err)
	}
	require.NoError(t, j.Close())
	j = open(t, dir, wal.Options{NotBefore: goldenTime, Sync: journal.SyncEvery(time.Hour)})
	for _, ev := range events[20:] {
		_, err := j.Append(t.Context(), ev)
		require.NoError(t, err)
	}
	require.NoError(t, os.MkdirAll(golden, 0o755))
	for name, data := range files(t, dir) {
		if len(data) == 0 || strings.HasPrefix(name, ".") {
			continue
		}
		var b bytes.Buffer
		w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
		require.NoError(t, err)
		_, err = io.WriteString(w, data)
		require.NoError(t, err)
		require.NoError(t, w.Close())
		require.NoError(t, os.WriteFile(filepath.Join(golden, name+".gz"), b.Bytes(), 0o644))
	}
	require.NoError(t, j.Close())
}

// A journal of format 1, as the first release wrote it, stays readable,
// and events can be appended to it.
func TestGolden(t *testing.T) {
	const golden = "testdata/format1"
	if _, err := os.Stat(golden); *writeGolden && err != nil {
		writeGoldenJournal(t, golden)
	}
	names, err := filepath.Glob(filepath.Join(golden, "*.gz"))
	require.NoError(t, err)
	require.Len(t, names, 4, "three segments and a log")
	dir := t.TempDir()
	for _, name := range names {
		f, err := os.Open(name)
		require.NoError(t, err)
		r, err := gzip.NewReader(f)
		require.NoError(t, err)
		data, err := io.ReadAll(r)
		require.NoError(t, err)
		require.NoError(t, f.Close())
		require.NoError(t, os.WriteFile(filepath.Join(dir, strings.TrimSuffix(filepath.Base(name), ".gz")), data, 0o600))
	}
	b := newBook(100)
	for _, ev := range goldenEvents() {
		b.ack(ev.Sequence, ev.Node)
	}
	for _, readOnly := range []bool{true, false} {
		j := open(t, dir, wal.Options{ReadOnly: readOnly})
		events, err := collect(j, 100, 0)
		require.NoError(t, err)
		require.Len(t, events, 25)
		for i, want := range goldenEvents() {
			got := events[i]
			require.True(t, want.Time.Equal(got.Time))
			got.Time = want.Time
			if want.Types != nil && len(want.Types[0].Upserts[0].Value) == 0 {
				want.Types[0].Upserts[0].Value = nil
			}
			require.Equal(t, want, got)
		}
		require.NoError(t, j.Close())
	}
	j := open(t, dir, wal.Options{})
	seq, err := j.Append(t.Context(), update("next", 10))
	require.NoError(t, err)
	require.EqualValues(t, 125, seq)
	events, err := collect(j, 100, 0)
	require.NoError(t, err)
	require.Len(t, events, 26)
	require.False(t, events[25].Time.Before(goldenTime))
}
