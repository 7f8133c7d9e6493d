package snapshot_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"slices"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/internal/event/eventpb"
	"github.com/xdswal/xdswal/internal/format/snapshot"
	"github.com/xdswal/xdswal/journal"
)

// requireRefused checks that reading a damaged file returns an error, even into a sink
// without checks.
func requireRefused(t *testing.T, damaged []byte, want error, what ...any) {
	t.Helper()
	_, _, err := readState(context.Background(), bytes.NewReader(damaged))
	require.ErrorIs(t, err, want, what...)
	_, err = snapshot.Read(context.Background(), bytes.NewReader(damaged), func(snapshot.Header) (snapshot.Sink, error) {
		return anything{}, nil
	})
	require.ErrorIs(t, err, want, what...)
}

// anything is a sink without checks.
type anything struct{}

func (anything) Node(string, string, journal.Sequence, time.Time) error { return nil }
func (anything) Type(string, string) error                              { return nil }
func (anything) Resources([]*journal.Resource) error                    { return nil }

func TestCutAtEveryByte(t *testing.T) {
	defer noLeak(t)()
	st := small(t)
	f := file(t, st)
	header := 28 + len(split(t, f)[0].packed)
	for n := range f {
		requireRefused(t, f[:n], event.ErrCorrupt, "cut at %d", n)
		h, err := snapshot.ReadHeader(bytes.NewReader(f[:n]))
		if n < header {
			require.ErrorIs(t, err, event.ErrCorrupt, "cut at %d", n)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, headerOf(st), h)
	}
	requireRoundTrip(t, st, f)
}

func TestFlipEveryByte(t *testing.T) {
	defer noLeak(t)()
	st := small(t)
	f := file(t, st)
	header := 28 + len(split(t, f)[0].packed)
	for n := range f {
		for _, mask := range []byte{0x01, 0x80, 0xff} {
			f[n] ^= mask
			requireRefused(t, f, event.ErrCorrupt, "byte %d ^ %02x", n, mask)
			h, err := snapshot.ReadHeader(bytes.NewReader(f))
			if n < header {
				require.ErrorIs(t, err, event.ErrCorrupt, "byte %d ^ %02x", n, mask)
			} else {
				require.NoError(t, err)
				require.Equal(t, headerOf(st), h)
			}
			f[n] ^= mask
		}
	}
	requireRoundTrip(t, st, f)
}

// Damage of whole files and frames is detected.
func TestDamage(t *testing.T) {
	st := large(t, 6)
	f := file(t, st)
	parts := split(t, f)
	require.Len(t, parts, 8)
	bounds := []int{0}
	for _, p := range parts {
		bounds = append(bounds, bounds[len(bounds)-1]+28+len(p.packed))
	}
	frame := func(i int) []byte { return f[bounds[i]:bounds[i+1]] }
	other := st.Sequence() // another snapshot of the same shape
	otherHeader := headerOf(st)
	otherHeader.Sequence = other + 1
	var otherFile bytes.Buffer
	_, err := writeState(&otherFile, otherHeader, st)
	require.NoError(t, err)
	otherStart := otherFile.Len() - (len(f) - bounds[3])

	tests := []struct {
		name string
		file []byte
	}{
		{"garbage appended", append(slices.Clone(f), "garbage, longer than a frame's information"...)},
		{"a byte appended", append(slices.Clone(f), 0)},
		{"zeros appended", append(slices.Clone(f), make([]byte, 4096)...)},
		{"appended to itself", slices.Concat(f, f)},
		{"a byte before", append([]byte{0}, f...)},
		{"a frame missing", slices.Concat(f[:bounds[3]], f[bounds[4]:])},
		{"a frame twice", slices.Concat(f[:bounds[4]], f[bounds[3]:])},
		{"frames swapped", slices.Concat(f[:bounds[3]], frame(4), frame(3), f[bounds[5]:])},
		{"header missing", f[bounds[1]:]},
		{"header twice", slices.Concat(frame(0), f)},
		{"trailer missing", f[:bounds[7]]},
		{"trailer twice", slices.Concat(f, frame(7))},
		{"trailer only", frame(7)},
		{"the rest of another file", slices.Concat(f[:bounds[3]], otherFile.Bytes()[otherStart:])},
		{"zeros", make([]byte, len(f))},
		{"zeros in its middle", slices.Concat(f[:bounds[3]], make([]byte, bounds[4]-bounds[3]), f[bounds[4]:])},
		{"plain zstd", parts[0].packed},
		{"decompressed", streamed(t, f)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			defer noLeak(t)()
			requireRefused(t, tt.file, event.ErrCorrupt)
		})
	}
	requireRoundTrip(t, st, f)
}

// Files that no writer writes are detected even if all checksums are correct.
func TestForgery(t *testing.T) {
	st := large(t, 4)
	parts := split(t, file(t, st))
	head, tail := parts[0], parts[len(parts)-1]
	node := func(cache, name string, continued bool) *eventpb.SnapshotRecord {
		return &eventpb.SnapshotRecord{Record: &eventpb.SnapshotRecord_Node{Node: &eventpb.SnapshotNode{Cache: cache, Node: name, Continued: continued}}}
	}
	typ := func(url string, continued bool) *eventpb.SnapshotRecord {
		return &eventpb.SnapshotRecord{Record: &eventpb.SnapshotRecord_Type{Type: &eventpb.SnapshotType{TypeUrl: url, Continued: continued}}}
	}
	res := func(name string) *eventpb.SnapshotRecord {
		return &eventpb.SnapshotRecord{Record: &eventpb.SnapshotRecord_Resource{Resource: &discoveryv3.Resource{Name: name, Resource: &anypb.Any{TypeUrl: "t"}}}}
	}
	trailer := func(nodes, resources, bytes uint64) *eventpb.SnapshotRecord {
		return &eventpb.SnapshotRecord{Record: &eventpb.SnapshotRecord_Trailer{Trailer: &eventpb.SnapshotTrailer{Nodes: nodes, Resources: resources, ResourceBytes: bytes, Digest: make([]byte, 32)}}}
	}
	// contents is a file of one frame between a header and a correct trailer.
	contents := func(recs ...*eventpb.SnapshotRecord) []byte {
		var nodes, resources uint64
		for _, rec := range recs {
			switch {
			case rec.GetNode() != nil && !rec.GetNode().GetContinued():
				nodes++
			case rec.GetResource() != nil:
				resources++
			}
		}
		return sealed(head, packed(t, recs...), packed(t, trailer(nodes, resources, 0)))
	}
	info := func(at int, b byte) []byte {
		f := sealed(parts...)
		f[at] = b
		binary.LittleEndian.PutUint32(f[24:], crc32.Checksum(f[8:24], castagnoli))
		return f
	}
	tests := []struct {
		name string
		file []byte
		want error // nil: it is read
	}{
		{"the file itself", sealed(parts...), nil},
		{"hand-made", contents(node("c", "n", false), typ("t", false), res("a"), res("b"), typ("u", false), node("d", "a", false)), nil},
		{"frames swapped", sealed(head, parts[2], parts[1], parts[3], parts[4], tail), event.ErrCorrupt},
		{"later frames swapped", sealed(head, parts[1], parts[3], parts[2], parts[4], tail), event.ErrCorrupt},
		{"first frame missing", sealed(head, parts[2], parts[3], parts[4], tail), event.ErrCorrupt},
		{"middle frame missing", sealed(head, parts[1], parts[3], parts[4], tail), event.ErrCorrupt},
		{"frame twice", sealed(head, parts[1], parts[2], parts[2], parts[3], parts[4], tail), event.ErrCorrupt},
		{"no trailer", sealed(head, parts[1], parts[2], parts[3], parts[4]), event.ErrCorrupt},
		{"no header", sealed(parts[1:]...), event.ErrCorrupt},
		{"two headers", sealed(slices.Concat([]part{head}, parts)...), event.ErrCorrupt},
		{"two trailers", sealed(slices.Concat(parts, []part{tail})...), event.ErrCorrupt},
		{"empty frame in the middle", sealed(head, parts[1], packedBytes(t, nil), parts[2], parts[3], parts[4], tail), event.ErrCorrupt},
		{"empty frame at the end", sealed(slices.Concat(parts, []part{packedBytes(t, nil)})...), event.ErrCorrupt},
		{"frame of no bytes at the end", sealed(slices.Concat(parts, []part{{}})...), event.ErrCorrupt},
		{"record after the trailer", sealed(head, packed(t, trailer(1, 0, 0), node("c", "n", false))), event.ErrCorrupt},
		{"too few nodes counted", sealed(head, packed(t, node("c", "n", false)), packed(t, trailer(0, 0, 0))), event.ErrCorrupt},
		{"too many resources counted", sealed(head, packed(t, node("c", "n", false)), packed(t, trailer(1, 1, 0))), event.ErrCorrupt},
		{"other bytes counted", sealed(head, packed(t, node("c", "n", false)), packed(t, trailer(1, 0, 1))), event.ErrCorrupt},
		{"type before a node", contents(typ("t", false)), event.ErrCorrupt},
		{"resource before a node", contents(res("a")), event.ErrCorrupt},
		{"resource before a type", contents(node("c", "n", false), res("a")), event.ErrCorrupt},
		{"resource after a new node", contents(node("c", "n", false), typ("t", false), res("a"), node("c", "o", false), res("b")), event.ErrCorrupt},
		{"continues no node", contents(node("", "", true)), event.ErrCorrupt},
		{"continues another node", contents(node("c", "n", false), node("c", "o", true)), event.ErrCorrupt},
		{"continues no type", contents(node("c", "n", false), typ("", true)), event.ErrCorrupt},
		{"continues another type", contents(node("c", "n", false), typ("t", false), typ("u", true)), event.ErrCorrupt},
		{"node twice", contents(node("c", "n", false), node("c", "n", false)), event.ErrCorrupt},
		{"nodes unsorted", contents(node("c", "n", false), node("c", "m", false)), event.ErrCorrupt},
		{"caches unsorted", contents(node("c", "n", false), node("b", "o", false)), event.ErrCorrupt},
		{"type twice", contents(node("c", "n", false), typ("t", false), typ("t", false)), event.ErrCorrupt},
		{"types unsorted", contents(node("c", "n", false), typ("t", false), typ("s", false)), event.ErrCorrupt},
		{"resource twice", contents(node("c", "n", false), typ("t", false), res("a"), res("a")), event.ErrCorrupt},
		{"resources unsorted", contents(node("c", "n", false), typ("t", false), res("b"), res("a")), event.ErrCorrupt},
		{"resource twice, over frames", sealed(
			head, packed(t, node("c", "n", false), typ("t", false), res("a")),
			packed(t, node("c", "n", true), typ("t", true), res("a")), packed(t, trailer(1, 2, 0)),
		), event.ErrCorrupt},
		{"a record of no kind", contents(&eventpb.SnapshotRecord{}), event.ErrCorrupt},
		{"a record of an unknown kind", sealed(head, packedBytes(t, []byte{2, 6<<3 | 2, 0}), packed(t, trailer(0, 0, 0))), event.ErrCorrupt},
		{"a record of a varint", sealed(head, packedBytes(t, []byte{2, 2 << 3, 0}), packed(t, trailer(0, 0, 0))), event.ErrCorrupt},
		{"a record longer than its frame", sealed(head, packedBytes(t, []byte{3, 2<<3 | 2, 0}), packed(t, trailer(0, 0, 0))), event.ErrCorrupt},
		{"bytes after a record's message", sealed(head, packedBytes(t, []byte{3, 2<<3 | 2, 0, 0}), packed(t, trailer(1, 0, 0))), event.ErrCorrupt},
		{"not zstd", sealed(head, part{packed: []byte("not zstd"), plain: make([]byte, 8)}, tail), event.ErrCorrupt},
		{"longer than it says", sealed(head, part{parts[1].packed, parts[1].plain[:100]}, parts[2], parts[3], parts[4], tail), event.ErrCorrupt},
		{"shorter than it says", sealed(head, part{parts[1].packed, make([]byte, len(parts[1].plain)+1)}, parts[2], parts[3], parts[4], tail), event.ErrCorrupt},
		{"header without magic", sealed(packed(t, &eventpb.SnapshotRecord{Record: &eventpb.SnapshotRecord_Header{Header: &eventpb.SnapshotHeader{Format: 1}}}), packed(t, trailer(0, 0, 0))), event.ErrCorrupt},
		{"frames larger than the limit", info(19, 0x7f), event.ErrCorrupt},
		{"frames of format 2", info(11, 2), event.ErrVersion},
		{"header of format 2", sealed(packed(t, &eventpb.SnapshotRecord{Record: &eventpb.SnapshotRecord_Header{Header: &eventpb.SnapshotHeader{
			Magic: binary.LittleEndian.Uint32([]byte("XWSS")), Format: 2,
		}}}), packed(t, trailer(0, 0, 0))), event.ErrVersion},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			defer noLeak(t)()
			if tt.want == nil {
				_, _, err := readState(context.Background(), bytes.NewReader(tt.file))
				require.NoError(t, err)
				return
			}
			requireRefused(t, tt.file, tt.want)
			if errors.Is(tt.want, event.ErrVersion) {
				_, err := snapshot.ReadHeader(bytes.NewReader(tt.file))
				require.ErrorIs(t, err, event.ErrVersion)
				require.NotErrorIs(t, err, event.ErrCorrupt)
			}
		})
	}
}

// FuzzRead reads its input as a file, and as the contents of a frame whose
// checksums are correct.
func FuzzRead(f *testing.F) {
	st := small(f)
	whole := file(f, st)
	parts := split(f, whole)
	f.Add(whole)
	f.Add(whole[:len(whole)/2])
	f.Add([]byte{})
	for _, p := range parts {
		f.Add(p.plain)
	}
	truth := st.Digest()
	f.Fuzz(func(t *testing.T, b []byte) {
		if bytes.Equal(b, whole) {
			return
		}
		_, _, err := readState(context.Background(), bytes.NewReader(b))
		require.Error(t, err)
		requireKnown(t, err)
		_, err = snapshot.ReadHeader(bytes.NewReader(b))
		requireKnown(t, err)

		content := packedBytes(t, b)
		for _, forged := range [][]byte{
			sealed(content),
			sealed(parts[0], content, parts[2]),
			sealed(parts[0], parts[1], content),
			sealed(parts[0], content),
		} {
			got, _, err := readState(context.Background(), bytes.NewReader(forged))
			requireKnown(t, err)
			if err == nil && bytes.Equal(b, parts[1].plain) {
				require.Equal(t, truth, got.Digest())
			}
			if err == nil {
				got.Digest() // walks the whole state
			}
		}
	})
}

func requireKnown(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		return
	}
	for _, known := range []error{event.ErrCorrupt, event.ErrVersion} {
		if bytes.Contains([]byte(err.Error()), []byte(known.Error())) {
			require.ErrorIs(t, err, known)
			return
		}
	}
	t.Fatalf("an error of neither kind: %v", err)
}
