package snapshot_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protodelim"

	"github.com/xdswal/xdswal/internal/event/eventpb"
	"github.com/xdswal/xdswal/internal/format/snapshot"
	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/journal"
)

// writeState writes st to w.
func writeState(w io.Writer, h snapshot.Header, st *state.State) (snapshot.Trailer, error) {
	sw, err := snapshot.NewWriter(w, h)
	if err != nil {
		return snapshot.Trailer{}, err
	}
	if err := writeNodes(sw, st); err != nil {
		sw.Abort()
		return snapshot.Trailer{}, err
	}
	return sw.Close(st.Digest())
}

func writeNodes(sw *snapshot.Writer, st *state.State) error {
	for n := range st.All() {
		if err := sw.Node(n.Cache(), n.Name(), n.Sequence(), n.Time()); err != nil {
			return err
		}
		for i := range n.Types() {
			t := &n.Types()[i]
			if err := sw.Type(t.URL(), t.Version()); err != nil {
				return err
			}
			for r := range t.All() {
				if err := sw.Resource(r); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// file returns a snapshot of st.
func file(tb testing.TB, st *state.State) []byte {
	tb.Helper()
	var buf bytes.Buffer
	_, err := writeState(&buf, headerOf(st), st)
	require.NoError(tb, err)
	return buf.Bytes()
}

func headerOf(st *state.State) snapshot.Header {
	return snapshot.Header{
		Sequence: st.Sequence(), Time: st.Time(), Epoch: 3,
		Created: time.Unix(1_700_000_100, 5), StoreID: "0123456789abcdef",
	}
}

// readState reads a snapshot as a restart does.
func readState(ctx context.Context, r io.Reader) (*state.State, snapshot.Contents, error) {
	var b *state.Builder
	c, err := snapshot.Read(ctx, r, func(h snapshot.Header) (snapshot.Sink, error) {
		b = state.NewBuilder(h.Sequence, h.Time)
		return b, nil
	})
	if err != nil {
		return nil, c, err
	}
	return b.Build(), c, nil
}

// requireRoundTrip checks that a file contains st, with the reader and with a decoder
// that shares no code with it.
func requireRoundTrip(t *testing.T, st *state.State, file []byte) {
	t.Helper()
	got, contents, err := readState(context.Background(), bytes.NewReader(file))
	require.NoError(t, err)
	require.Equal(t, st.Digest(), got.Digest())
	require.Equal(t, st.NumNodes(), got.NumNodes())
	require.Equal(t, st.NumResources(), got.NumResources())
	require.Equal(t, st.Bytes(), got.Bytes())
	require.True(t, st.Time().Equal(got.Time()))
	require.Equal(t, headerOf(st), contents.Header)
	require.Equal(t, snapshot.Trailer{
		Nodes: st.NumNodes(), Resources: st.NumResources(), Bytes: st.Bytes(), Digest: st.Digest(),
	}, contents.Trailer)
	require.Equal(t, int64(len(file)), contents.Size)
	for n := range st.All() {
		require.True(t, n.Time().Equal(got.Node(n.Cache(), n.Name()).Time()))
	}
	header, err := snapshot.ReadHeader(bytes.NewReader(file))
	require.NoError(t, err)
	require.Equal(t, contents.Header, header)
	require.Equal(t, st.Digest(), decode(t, streamed(t, file)).Digest())
}

// streamed decompresses a file like the zstd tool.
func streamed(t *testing.T, file []byte) []byte {
	t.Helper()
	dec, err := zstd.NewReader(bytes.NewReader(file))
	require.NoError(t, err)
	defer dec.Close()
	plain, err := io.ReadAll(dec)
	require.NoError(t, err)
	return plain
}

// records parses a decompressed file with the generated code.
func records(t *testing.T, plain []byte) []*eventpb.SnapshotRecord {
	t.Helper()
	var out []*eventpb.SnapshotRecord
	r := bytes.NewReader(plain)
	for r.Len() > 0 {
		rec := &eventpb.SnapshotRecord{}
		require.NoError(t, protodelim.UnmarshalOptions{MaxSize: -1}.UnmarshalFrom(r, rec))
		require.Empty(t, rec.ProtoReflect().GetUnknown())
		require.NotNil(t, rec.GetRecord())
		out = append(out, rec)
	}
	return out
}

// decode returns the state in a decompressed file, without code of this package.
func decode(t *testing.T, plain []byte) *state.State {
	t.Helper()
	recs := records(t, plain)
	require.GreaterOrEqual(t, len(recs), 2)
	h := recs[0].GetHeader()
	require.NotNil(t, h)
	require.Equal(t, uint32(1), h.GetFormat())
	require.Equal(t, "XWSS", string(binary.LittleEndian.AppendUint32(nil, h.GetMagic())))
	require.NotNil(t, recs[len(recs)-1].GetTrailer())
	b := state.NewBuilder(journal.Sequence(h.GetSequence()), time.Unix(0, h.GetTimeUnixNano()))
	for _, rec := range recs[1 : len(recs)-1] {
		switch {
		case rec.GetNode() != nil:
			if n := rec.GetNode(); !n.GetContinued() {
				require.NoError(t, b.Node(n.GetCache(), n.GetNode(), journal.Sequence(n.GetSequence()), time.Unix(0, n.GetTimeUnixNano())))
			}
		case rec.GetType() != nil:
			if typ := rec.GetType(); !typ.GetContinued() {
				require.NoError(t, b.Type(typ.GetTypeUrl(), typ.GetVersion()))
			}
		default:
			res := rec.GetResource()
			require.NotNil(t, res)
			r := &journal.Resource{
				Name: res.GetName(), TypeURL: res.GetResource().GetTypeUrl(),
				Version: res.GetVersion(), Value: res.GetResource().GetValue(),
			}
			if res.GetTtl() != nil {
				ttl := res.GetTtl().AsDuration()
				r.TTL = &ttl
			}
			require.NoError(t, b.Resources([]*journal.Resource{r}))
		}
	}
	return b.Build()
}

// part is a frame of a file, without its info.
type part struct {
	packed []byte // the zstd frame
	plain  []byte
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// split returns the frames of a file, and checks each info against the package comment.
func split(tb testing.TB, file []byte) []part {
	tb.Helper()
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
	require.NoError(tb, err)
	defer dec.Close()
	var parts []part
	prev := uint32(0)
	for len(file) > 0 {
		require.GreaterOrEqual(tb, len(file), 28)
		require.Equal(tb, "\x5e\x2a\x4d\x18\x14\x00\x00\x00XWS\x01", string(file[:12]))
		size := int(binary.LittleEndian.Uint32(file[12:]))
		packed := file[28 : 28+size]
		require.Equal(tb, crc32.Checksum(packed, castagnoli), binary.LittleEndian.Uint32(file[20:]))
		prev = crc32.Update(prev, castagnoli, file[8:24])
		require.Equal(tb, prev, binary.LittleEndian.Uint32(file[24:]))
		plain, err := dec.DecodeAll(packed, nil)
		require.NoError(tb, err)
		require.Equal(tb, len(plain), int(binary.LittleEndian.Uint32(file[16:])))
		parts = append(parts, part{packed, plain})
		file = file[28+size:]
	}
	return parts
}

// sealed returns a file of any frames, with correct checksums.
func sealed(parts ...part) []byte {
	var out []byte
	prev := uint32(0)
	for _, p := range parts {
		info := []byte("\x5e\x2a\x4d\x18\x14\x00\x00\x00XWS\x01")
		info = binary.LittleEndian.AppendUint32(info, uint32(len(p.packed)))
		info = binary.LittleEndian.AppendUint32(info, uint32(len(p.plain)))
		info = binary.LittleEndian.AppendUint32(info, crc32.Checksum(p.packed, castagnoli))
		prev = crc32.Update(prev, castagnoli, info[8:])
		out = append(out, binary.LittleEndian.AppendUint32(info, prev)...)
		out = append(out, p.packed...)
	}
	return out
}

// packed returns a frame of records.
func packed(tb testing.TB, recs ...*eventpb.SnapshotRecord) part {
	tb.Helper()
	var buf bytes.Buffer
	for _, rec := range recs {
		_, err := protodelim.MarshalTo(&buf, rec)
		require.NoError(tb, err)
	}
	return packedBytes(tb, buf.Bytes())
}

func packedBytes(tb testing.TB, plain []byte) part {
	tb.Helper()
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithZeroFrames(true))
	require.NoError(tb, err)
	return part{packed: enc.EncodeAll(plain, nil), plain: plain}
}

// small returns a state of a few hundred bytes with every kind of content.
func small(tb testing.TB) *state.State {
	tb.Helper()
	ttl, nothing := 90*time.Second+5, time.Duration(0)
	at := time.Unix(1_700_000_000, 123)
	b := state.NewBuilder(41, at)
	require.NoError(tb, b.Node("linear/endpoints", "", 41, at))
	require.NoError(tb, b.Type("type.googleapis.com/E", "e1"))
	require.NoError(tb, b.Resources([]*journal.Resource{
		{Name: "a", TypeURL: "type.googleapis.com/E", Version: "1", Value: []byte("one")},
		{Name: "b", TypeURL: "type.googleapis.com/Foreign", Version: "2", Value: []byte("two"), TTL: &ttl},
		{Name: "c", TypeURL: "type.googleapis.com/E", TTL: &nothing},
	}))
	require.NoError(tb, b.Node("snapshot/default", "empty", 7, at.Add(-time.Hour)))
	require.NoError(tb, b.Node("snapshot/default", "node", 40, at.Add(-time.Second)))
	require.NoError(tb, b.Type("type.googleapis.com/E", "without resources"))
	require.NoError(tb, b.Type("type.googleapis.com/F", ""))
	require.NoError(tb, b.Resources([]*journal.Resource{{Name: "f", TypeURL: "type.googleapis.com/F", Value: []byte("no version")}}))
	return b.Build()
}

// random returns the fold of random events.
func random(t *testing.T, seed uint64, events, maxValue int) *state.State {
	t.Helper()
	rnd := rand.New(rand.NewPCG(seed, 9))
	st := &state.State{}
	for seq := range journal.Sequence(events) {
		ev := &journal.Event{
			Sequence: seq + 1, Time: time.Unix(1_700_000_000, int64(seq)), Kind: journal.Update,
			Cache: fmt.Sprintf("snapshot/%d", rnd.IntN(3)), Node: fmt.Sprintf("node-%d", rnd.IntN(12)),
		}
		if rnd.IntN(15) == 0 {
			ev.Kind = journal.Clear
		}
		for u := range 4 {
			if ev.Kind == journal.Clear || rnd.IntN(2) == 0 {
				continue
			}
			ev.Types = append(ev.Types, randomChange(rnd, fmt.Sprintf("type.googleapis.com/T%d", u), maxValue))
		}
		next, err := st.Apply(ev)
		require.NoError(t, err)
		st = next
	}
	return st
}

func randomChange(rnd *rand.Rand, url string, maxValue int) journal.TypeChange {
	tc := journal.TypeChange{TypeURL: url, Version: fmt.Sprint(rnd.IntN(4))}
	if tc.Version == "0" {
		tc.Version = ""
	}
	for range rnd.IntN(8) {
		r := &journal.Resource{
			Name: fmt.Sprintf("name-%d", rnd.IntN(60)), TypeURL: url,
			Version: fmt.Sprintf("%016x", rnd.Uint64()), Value: randomBytes(rnd, rnd.IntN(maxValue)),
		}
		switch rnd.IntN(6) {
		case 0:
			ttl := time.Duration(rnd.Int64N(int64(time.Hour)))
			r.TTL = &ttl
		case 1:
			r.TypeURL = "type.googleapis.com/Foreign"
		}
		tc.Upserts = append(tc.Upserts, r)
	}
	for range rnd.IntN(3) {
		tc.Deletes = append(tc.Deletes, fmt.Sprintf("name-%d", rnd.IntN(60)))
	}
	return tc
}

func randomBytes(rnd *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rnd.Uint32())
	}
	return b
}

// large returns a state of n frames of 1 MiB, with one resource each, that compress to
// almost nothing.
func large(tb testing.TB, n int) *state.State {
	tb.Helper()
	b := state.NewBuilder(1, time.Unix(1, 0))
	require.NoError(tb, b.Node("snapshot/default", "node", 1, time.Unix(1, 0)))
	require.NoError(tb, b.Type("type.googleapis.com/T", "1"))
	for i := range n {
		value := make([]byte, 1<<20)
		binary.BigEndian.PutUint64(value, uint64(i))
		require.NoError(tb, b.Resources([]*journal.Resource{{Name: fmt.Sprintf("r-%04d", i), TypeURL: "type.googleapis.com/T", Value: value}}))
	}
	return b.Build()
}

// noLeak returns a function that checks that there are no more goroutines than before.
func noLeak(t *testing.T) func() {
	t.Helper()
	before := runtime.NumGoroutine()
	return func() {
		t.Helper()
		// A goroutine exits a moment after its last statement.
		for deadline := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before; runtime.Gosched() {
			if time.Now().After(deadline) {
				stacks := make([]byte, 1<<16)
				t.Fatalf("got more goroutines than before:\n%s", stacks[:runtime.Stack(stacks, true)])
			}
		}
	}
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
