package restore_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/backends/backendtest"
	"github.com/xdswal/xdswal/compactor"
	"github.com/xdswal/xdswal/internal/backendfault"
	"github.com/xdswal/xdswal/internal/catalog"
	"github.com/xdswal/xdswal/internal/durable"
	"github.com/xdswal/xdswal/internal/format/snapshot"
	"github.com/xdswal/xdswal/internal/restore"
	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/internal/wal"
	"github.com/xdswal/xdswal/journal"
	"github.com/xdswal/xdswal/replay"
)

const (
	storeID    = "5707e1d0"
	epoch      = 3
	clusterURL = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	// groupSize is how many events of a history are one group commit.
	groupSize = 4
	// groupStep is the time between two groups.
	groupStep = 100 * time.Millisecond
)

// history is the truth: what was acknowledged, event by event.
type history struct {
	events []*journal.Event
	states []*state.State // states[n] is the fold of events 1 to n
}

// newHistory makes n events with a payload of some size each. Their times are a
// little in the future, where the journal keeps to them exactly, since it never
// goes back behind NotBefore; groups of them have one time.
func newHistory(t testing.TB, n, payload int) *history {
	t.Helper()
	start := time.Now().Add(50 * time.Second).Truncate(time.Second)
	h := &history{states: []*state.State{{}}}
	for i := 1; i <= n; i++ {
		ev := newEvent(i, payload)
		ev.Sequence, ev.Time = journal.Sequence(i), start.Add(time.Duration((i-1)/groupSize)*groupStep)
		next, err := h.states[i-1].Apply(ev)
		require.NoError(t, err)
		h.events, h.states = append(h.events, ev), append(h.states, next)
	}
	return h
}

func newEvent(i, payload int) *journal.Event {
	ev := &journal.Event{Kind: journal.Update, Cache: "snapshot/default", Node: fmt.Sprintf("node-%d", i%3)}
	if i%11 == 0 {
		ev.Kind = journal.Clear
		return ev
	}
	ttl := time.Duration(i) * time.Second
	ev.Types = []journal.TypeChange{{
		TypeURL: clusterURL,
		Version: fmt.Sprint(i),
		Deletes: []string{fmt.Sprintf("cluster-%d", (i+2)%5)},
		Upserts: []*journal.Resource{{
			Name: fmt.Sprintf("cluster-%d", i%5), TypeURL: clusterURL, Version: fmt.Sprint("v", i),
			Value: append(bytes.Repeat([]byte{byte(i)}, payload), fmt.Sprint(i)...), TTL: &ttl,
		}},
	}}
	return ev
}

func (h *history) time(seq int) time.Time { return h.events[seq-1].Time }

// write appends events first to last to a journal that begins with them.
func (h *history) write(t testing.TB, dir string, first, last int) {
	t.Helper()
	for i := first; ; {
		var at time.Time
		if i <= last {
			at = h.time(i)
		}
		j, err := wal.Open(dir, wal.Options{First: journal.Sequence(first), NotBefore: at, SegmentBytes: 64 << 10})
		require.NoError(t, err)
		for ; i <= last && h.time(i).Equal(at); i++ {
			ev := *h.events[i-1]
			seq, err := j.Append(t.Context(), &ev)
			require.NoError(t, err)
			require.EqualValues(t, i, seq)
			require.True(t, ev.Time.Equal(at))
		}
		require.NoError(t, j.Close())
		if i > last {
			return
		}
	}
}

// snapshot returns the snapshot of events 1 to seq as a file holds it.
func (h *history) snapshot(t testing.TB, seq int) []byte { return encode(t, h.states[seq]) }

func encode(t testing.TB, st *state.State) []byte {
	t.Helper()
	var b bytes.Buffer
	_, err := snapshot.Encode(t.Context(), &b, st, snapshot.Header{
		Sequence: st.Sequence(), Time: st.Time(), Epoch: epoch, Created: time.Unix(1700000000, 0), StoreID: storeID,
	})
	require.NoError(t, err)
	return b.Bytes()
}

func nameOf(seq int) string {
	return snapshot.Name{Epoch: epoch, Sequence: journal.Sequence(seq)}.String()
}

// fixture is a data directory and a backend.
type fixture struct {
	t       testing.TB
	h       *history
	dir     string // of snapshots
	journal string
	backend *backendfault.Backend
}

func newFixture(t testing.TB, h *history) *fixture {
	dir := t.TempDir()
	f := &fixture{
		t: t, h: h, dir: filepath.Join(dir, "snapshots"), journal: filepath.Join(dir, "journal"),
		backend: &backendfault.Backend{Backend: backendtest.NewMemory()},
	}
	require.NoError(t, durable.MkdirAll(f.dir))
	return f
}

// events gives the directory a journal of events first to last; a journal of
// events first to first-1 is empty.
func (f *fixture) events(first, last int) { f.h.write(f.t, f.journal, first, last) }

// local and remote put good snapshots in their places.
func (f *fixture) local(seqs ...int) {
	for _, seq := range seqs {
		f.putLocal(nameOf(seq), f.h.snapshot(f.t, seq))
	}
}

func (f *fixture) remote(seqs ...int) {
	for _, seq := range seqs {
		f.putRemote(nameOf(seq), f.h.snapshot(f.t, seq))
	}
}

func (f *fixture) putLocal(name string, content []byte) {
	f.t.Helper()
	require.NoError(f.t, durable.WriteFile(filepath.Join(f.dir, name), func(w io.Writer) error {
		_, err := w.Write(content)
		return err
	}))
}

func (f *fixture) putRemote(name string, content []byte) {
	f.t.Helper()
	require.NoError(f.t, f.backend.Put(f.t.Context(), catalog.SnapshotPrefix+name, bytes.NewReader(content)))
}

// openJournal opens the journal as the store does.
func (f *fixture) openJournal(opt wal.Options) restore.Journal {
	f.t.Helper()
	j, err := wal.Open(f.journal, opt)
	require.NoError(f.t, err)
	f.t.Cleanup(func() { require.NoError(f.t, j.Close()) })
	return bounded{j}
}

// options are those of a store that opens.
func (f *fixture) options() restore.Options {
	return restore.Options{Dir: f.dir, Journal: f.openJournal(wal.Options{}), Backend: f.backend}
}

// bounded gives a journal its bounds.
type bounded struct{ *wal.Journal }

func (b bounded) Bounds() (first, last journal.Sequence, err error) {
	s, err := b.Stats()
	return s.First, s.Last, err
}

// damages are what may befall a file.
var damages = map[string]func([]byte) []byte{
	"flipped": func(b []byte) []byte {
		b = bytes.Clone(b)
		b[len(b)/2] ^= 0x10
		return b
	},
	"cut":   func(b []byte) []byte { return b[:len(b)-1] },
	"empty": func([]byte) []byte { return nil },
}

// newerFormat makes a snapshot one that a later xdswal wrote.
func newerFormat(b []byte) []byte {
	b = bytes.Clone(b)
	b[11]++
	binary.LittleEndian.PutUint32(b[24:], crc32.Checksum(b[8:24], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

// counted are hooks that count.
type counted struct {
	hooks                       replay.Hooks
	started, stopped, excepted  int
	readStarted, read, unread   int
	results                     []replay.Result
	readBytes, readResourceSize int64
}

func countHooks() *counted {
	c := &counted{}
	c.hooks = replay.Hooks{
		SnapshotReadBegin: func(compactor.Snapshot) { c.readStarted++ },
		SnapshotReadEnd: func(i compactor.Snapshot) {
			if i.Err != nil {
				c.unread++
				return
			}
			c.read++
			c.readBytes, c.readResourceSize = i.Bytes, i.ResourceBytes
		},
		RestoreBegin: func() { c.started++ },
		RestoreEnd: func(r replay.Result) {
			c.results = append(c.results, r)
			if r.Err != nil {
				c.excepted++
			} else {
				c.stopped++
			}
		},
	}
	return c
}

// requireBalanced requires that each start has had its stop or exception.
func (c *counted) requireBalanced(t testing.TB) {
	t.Helper()
	require.Equal(t, c.started, c.stopped+c.excepted)
	require.Equal(t, c.readStarted, c.read+c.unread)
}

// restored restores and holds what must be so in any case against the result.
func restored(t testing.TB, ctx context.Context, opt restore.Options) (*state.State, replay.Result, error) {
	t.Helper()
	c := countHooks()
	opt.Hooks = c.hooks
	st, result, err := restore.Restore(ctx, opt)
	c.requireBalanced(t)
	require.Len(t, c.results, 1)
	require.Equal(t, result, c.results[0])
	require.Equal(t, err, result.Err)
	require.Equal(t, st.Sequence(), result.Sequence)
	require.Equal(t, st.NumNodes(), result.Nodes)
	require.Equal(t, st.NumResources(), result.Resources)
	require.Equal(t, st.Bytes(), result.Bytes)
	require.Positive(t, result.Duration)
	if err == nil && result.Snapshot != "" {
		require.Equal(t, storeID, result.StoreID)
		require.EqualValues(t, epoch, result.Epoch)
		require.Equal(t, nameOf(int(result.SnapshotSequence)), result.Snapshot)
	}
	if err == nil {
		require.EqualValues(t, result.Sequence-result.SnapshotSequence, result.Events)
	}
	return st, result, err
}

// requireState requires the fold of events 1 to seq.
func (h *history) requireState(t testing.TB, seq int, st *state.State, r replay.Result) {
	t.Helper()
	require.EqualValues(t, seq, st.Sequence())
	require.Equal(t, h.states[seq].Digest(), st.Digest())
	require.True(t, h.states[seq].Time().Equal(r.Time), "time of the state")
}

func files(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
