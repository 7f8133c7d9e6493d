package batch_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"testing"
	"weak"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/internal/format/batch"
	"github.com/xdswal/xdswal/journal"
)

func TestRoundTrip(t *testing.T) {
	for _, r := range []struct {
		name       string
		first      journal.Sequence
		n, payload int
	}{
		{"one", 1, 1, 10},
		{"clear alone", 5, 1, 0},
		{"some", 7, 30, 1000},
		{"many", 1, 5000, 10},
		{"large", 1 << 40, 3, 3 << 20},
		{"at the end of numbers", 1<<63 - 2, 3, 10},
	} {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			events := newEvents(r.first, r.n, r.payload)
			data, name := encode(t, events)
			got, err := decode(data, name)
			require.NoError(t, err)
			requireEvents(t, events, got)
		})
	}
}

// A record may be much larger than the target size of a batch.
func TestHugeRecord(t *testing.T) {
	events := newEvents(1, 2, 40<<20)
	w := newWriter(t)
	require.False(t, w.Full())
	require.NoError(t, w.Add(1, record(t, events[0])))
	require.True(t, w.Full())
	require.NoError(t, w.Add(2, record(t, events[1])), "to be full is advice")
	got, err := decode(w.Bytes(), batch.Name{Epoch: 1, First: 1})
	require.NoError(t, err)
	requireEvents(t, events, got)
}

// A writer writes one batch after another.
func TestReset(t *testing.T) {
	w := newWriter(t)
	for i, size := range []int{10, 9 << 20, 100, 40 << 20, 10} {
		w.Reset()
		first, last := w.Bounds()
		require.Zero(t, first)
		require.Zero(t, last)
		require.False(t, w.Full())
		events := newEvents(journal.Sequence(100*i+1), 2, size)
		for _, ev := range events {
			rec := record(t, ev)
			require.NoError(t, w.Add(ev.Sequence, rec))
			clear(rec) // it was copied
		}
		require.Equal(t, size > 8<<20, w.Full())
		data := w.Bytes()
		require.Equal(t, data, w.Bytes(), "the same records make the same bytes")
		got, err := decode(data, batch.Name{Epoch: 3, First: events[0].Sequence})
		require.NoError(t, err)
		requireEvents(t, events, got)
	}
}

// The bytes depend only on the records, so that a batch that is shipped again after a
// restart of the writer is recognized.
func TestDeterministic(t *testing.T) {
	events := newEvents(11, 200, 300)
	one, _ := encode(t, events)
	other, _ := encode(t, events)
	require.Equal(t, one, other)
}

func TestAddRefusesGap(t *testing.T) {
	events := newEvents(7, 9, 10)
	for _, next := range []int{0, 2, 8} {
		w := newWriter(t)
		require.NoError(t, w.Add(7, record(t, events[0])))
		require.ErrorContains(t, w.Add(events[next].Sequence, record(t, events[next])), "after 7")
		got, err := decode(w.Bytes(), batch.Name{Epoch: 1, First: 7})
		require.NoError(t, err)
		requireEvents(t, events[:1], got)
	}
}

// pack returns a batch of any bytes.
func pack(t *testing.T, records ...[]byte) []byte {
	t.Helper()
	var raw []byte
	for _, r := range records {
		raw = protowire.AppendBytes(raw, r)
	}
	return compress(t, raw)
}

func compress(t *testing.T, raw []byte) []byte {
	t.Helper()
	enc, err := zstd.NewWriter(nil)
	require.NoError(t, err)
	defer enc.Close()
	return enc.EncodeAll(raw, nil)
}

// Decode returns an error for anything but a complete batch of the events in its name.
func TestDecodeRefuses(t *testing.T) {
	events := newEvents(7, 4, 20)
	rec := make([][]byte, len(events))
	for i, ev := range events {
		rec[i] = record(t, ev)
	}
	flipped := bytes.Clone(rec[1])
	flipped[len(flipped)-1] ^= 1
	newer := bytes.Clone(rec[1])
	newer[11]++
	event.Seal(newer, 8, events[1].Time)
	good := pack(t, rec...)
	for _, r := range []struct {
		name   string
		data   []byte
		first  journal.Sequence
		want   error
		before int // complete events before the error
	}{
		{"nothing", nil, 7, event.ErrCorrupt, 0},
		{"an empty frame", pack(t), 7, event.ErrCorrupt, 0},
		{"not zstd", []byte("events of long ago"), 7, event.ErrCorrupt, 0},
		{"a later name", good, 8, event.ErrCorrupt, 0},
		{"an earlier name", good, 6, event.ErrCorrupt, 0},
		{"a gap", pack(t, rec[0], rec[2]), 7, event.ErrCorrupt, 1},
		{"an event twice", pack(t, rec[0], rec[0]), 7, event.ErrCorrupt, 1},
		{"backwards", pack(t, rec[1], rec[0]), 8, event.ErrCorrupt, 1},
		{"a damaged record", pack(t, rec[0], flipped, rec[2]), 7, event.ErrCorrupt, 1},
		{"an empty record", pack(t, rec[0], nil), 7, event.ErrCorrupt, 1},
		{"a record of a newer format", pack(t, rec[0], newer), 7, event.ErrVersion, 1},
		{"a length beyond the end", compress(t, append(protowire.AppendBytes(nil, rec[0]), 0xff, 0x01, 1)), 7, event.ErrCorrupt, 1},
		{"half a length", compress(t, append(protowire.AppendBytes(nil, rec[0]), 0xff)), 7, event.ErrCorrupt, 1},
		{"bytes after it", append(bytes.Clone(good), "tail"...), 7, event.ErrCorrupt, 0},
	} {
		t.Run(r.name, func(t *testing.T) {
			got, err := decode(r.data, batch.Name{Epoch: 3, First: r.first})
			require.ErrorIs(t, err, r.want)
			require.Len(t, got, r.before)
		})
	}
	stop := errors.New("stop")
	n := 0
	err := batch.Decode(good, batch.Name{First: 7}, func(*journal.Event) error {
		if n++; n == 2 {
			return stop
		}
		return nil
	})
	require.Same(t, stop, err)
	require.Equal(t, 2, n)
}

// A batch with any cut or any flipped bit is corrupt, or still contains the same
// events.
func TestEveryByte(t *testing.T) {
	events := newEvents(7, 6, 40)
	data, name := encode(t, events)
	check := func(damaged []byte) bool {
		got, err := decode(damaged, name)
		if err != nil {
			require.ErrorIs(t, err, event.ErrCorrupt)
			require.Empty(t, got, "all or nothing: the frame has a checksum")
			return false
		}
		requireEvents(t, events, got)
		return true
	}
	require.True(t, check(data))
	for i := range data {
		require.False(t, check(data[:i]), "cut at %d", i)
	}
	same := 0
	for i := range data {
		for bit := range 8 {
			damaged := bytes.Clone(data)
			damaged[i] ^= 1 << bit
			if check(damaged) {
				same++
			}
		}
	}
	require.Less(t, same, 16, "bits of the frame header that a decoder ignores")
}

// Events remain valid after the batch is overwritten.
func TestEventsMayBeKept(t *testing.T) {
	events := newEvents(1, 20, 500)
	data, name := encode(t, events)
	got, err := decode(data, name)
	require.NoError(t, err)
	clear(data)
	requireEvents(t, events, got)
}

// A resource keeps no other resource of its event or its batch in memory.
func TestResourcesOfOneEventAreFreed(t *testing.T) {
	const n, size = 100, 100 << 10
	ev := &journal.Event{Sequence: 1, Time: start, Kind: journal.Update, Cache: "snapshot/default", Node: "node", Types: []journal.TypeChange{{TypeURL: clusterURL}}}
	for i := range n {
		ev.Types[0].Upserts = append(ev.Types[0].Upserts, &journal.Resource{
			Name: fmt.Sprint("resource ", i), TypeURL: clusterURL, Version: "1", Value: bytes.Repeat([]byte{byte(i)}, size),
		})
	}
	data, name := encode(t, []*journal.Event{ev})
	before := heapInUse()
	got, err := decode(data, name)
	require.NoError(t, err)
	var dropped []weak.Pointer[byte]
	for _, r := range got[0].Types[0].Upserts {
		dropped = append(dropped, weak.Make(&r.Value[0]))
	}
	require.Greater(t, heapInUse(), before+(n-1)*size)
	kept := got[0].Types[0].Upserts[n/2]
	dropped = slices.Delete(dropped, n/2, n/2+1)
	require.Less(t, heapInUse(), before+2*size)
	for i := range dropped {
		require.Nil(t, dropped[i].Value())
	}
	require.Equal(t, ev.Types[0].Upserts[n/2], kept)
	runtime.KeepAlive(data)
}

func heapInUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestNames(t *testing.T) {
	n := batch.Name{Epoch: 3, First: 1234}
	require.Equal(t, "events-0000000003-00000000000000001234.zst", n.String())
	var sorted []string
	for _, n := range []batch.Name{{1, 1}, {1, 2}, {1, 10}, {1, 1<<64 - 1}, {2, 1}, {10, 3}, {9999999999, 1}} {
		for _, dir := range []string{"", "events/", "a/b/"} {
			got, ok := batch.ParseName(dir + n.String())
			require.True(t, ok, n)
			require.Equal(t, n, got)
		}
		sorted = append(sorted, n.String())
	}
	require.True(t, slices.IsSorted(sorted))
	for _, s := range []string{
		"", "events-.zst", "events-3-1234.zst", "events-0000000003-1234.zst",
		"events-00000000003-00000000000000001234.zst", // another spelling of the same numbers
		"events-0000000003-00000000000000001234",
		"events-0000000003-00000000000000001234.zst.bak",
		"events-0000000003-00000000000000001234.zst/x",
		"snapshot-0000000003-00000000000000001234.zst",
		"events-0000000003-00000000000000001234-1.zst",
		"events-0000000003-99999999999999999999.zst",
		"events-+000000003-00000000000000001234.zst",
		"xevents-0000000003-00000000000000001234.zst",
	} {
		_, ok := batch.ParseName(s)
		require.False(t, ok, s)
	}
}

// Plain zstd reads a batch. Its output is the records with their lengths.
func TestPlainZstd(t *testing.T) {
	zstdPath, err := exec.LookPath("zstd")
	if err != nil {
		t.Skip("zstd is not installed")
	}
	events := newEvents(1, 50, 100)
	data, _ := encode(t, events)
	path := t.TempDir() + "/batch.zst"
	require.NoError(t, os.WriteFile(path, data, 0o600))
	raw, err := exec.CommandContext(t.Context(), zstdPath, "-dc", path).Output()
	require.NoError(t, err)
	for _, ev := range events {
		rec, n := protowire.ConsumeBytes(raw)
		require.Positive(t, n)
		require.Equal(t, record(t, ev), rec)
		raw = raw[n:]
	}
	require.Empty(t, raw)
}

// FuzzDecode searches for bytes with which the decoder panics, or returns events that
// are not consecutive.
func FuzzDecode(f *testing.F) {
	data, name := encode(f, newEvents(7, 3, 20))
	f.Add(data, uint64(name.First))
	f.Add(data[:len(data)/2], uint64(1))
	f.Fuzz(func(t *testing.T, data []byte, first uint64) {
		next := journal.Sequence(first)
		err := batch.Decode(data, batch.Name{Epoch: 1, First: next}, func(ev *journal.Event) error {
			require.Equal(t, next, ev.Sequence)
			next++
			return nil
		})
		if err == nil {
			require.NotEqual(t, journal.Sequence(first), next, "a batch is not empty")
		} else if !errors.Is(err, event.ErrVersion) {
			require.ErrorIs(t, err, event.ErrCorrupt)
		}
	})
}
