package event_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"
	"weak"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/internal/event/eventpb"
	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/journal"
)

// Offsets in the header that the tests damage, from the diagram in codec.go.
const (
	offCRC    = 6
	offFormat = 11
)

// record returns ev as a sealed record.
func record(t testing.TB, ev *journal.Event) []byte {
	t.Helper()
	b, err := event.Marshal(ev)
	require.NoError(t, err)
	event.Seal(b, ev.Sequence, ev.Time)
	return b
}

// toProto returns ev as the generated message. Its checksum is not correct.
func toProto(ev *journal.Event) *eventpb.Event {
	m := &eventpb.Event{
		Magic:        binary.LittleEndian.Uint32([]byte("XWAL")),
		Crc32C:       1,
		Format:       1,
		Sequence:     uint64(ev.Sequence),
		TimeUnixNano: ev.Time.UnixNano(),
		Kind:         eventpb.Event_Kind(ev.Kind),
		Cache:        ev.Cache,
		Node:         ev.Node,
	}
	for _, tc := range ev.Types {
		p := &eventpb.TypeChange{TypeUrl: tc.TypeURL, Version: tc.Version, Deletes: tc.Deletes}
		for _, r := range tc.Upserts {
			pr := &discovery.Resource{
				Name: r.Name, Version: r.Version,
				Resource: &anypb.Any{TypeUrl: r.TypeURL, Value: r.Value},
			}
			if r.TTL != nil {
				pr.Ttl = durationpb.New(*r.TTL)
			}
			p.Upserts = append(p.Upserts, pr)
		}
		m.Types = append(m.Types, p)
	}
	return m
}

// fromProto returns m as an event, for comparison with a decoded one.
func fromProto(m *eventpb.Event) *journal.Event {
	ev := &journal.Event{
		Sequence: journal.Sequence(m.GetSequence()),
		Time:     time.Unix(0, m.GetTimeUnixNano()),
		Kind:     journal.Kind(m.GetKind()),
		Cache:    m.GetCache(),
		Node:     m.GetNode(),
	}
	for _, p := range m.GetTypes() {
		tc := journal.TypeChange{TypeURL: p.GetTypeUrl(), Version: p.GetVersion(), Deletes: p.GetDeletes()}
		for _, pr := range p.GetUpserts() {
			r := &journal.Resource{
				Name: pr.GetName(), Version: pr.GetVersion(),
				TypeURL: pr.GetResource().GetTypeUrl(), Value: pr.GetResource().GetValue(),
			}
			if pr.GetTtl() != nil {
				d := pr.GetTtl().AsDuration()
				r.TTL = &d
			}
			tc.Upserts = append(tc.Upserts, r)
		}
		ev.Types = append(ev.Types, tc)
	}
	return ev
}

// marshalProto returns the generated code's encoding of m, with the checksum that
// xdswal.proto defines: of all bytes after it.
func marshalProto(t testing.TB, m *eventpb.Event) []byte {
	t.Helper()
	opt := proto.MarshalOptions{Deterministic: true}
	b, err := opt.Marshal(m)
	require.NoError(t, err)
	m.Crc32C = crc32.Checksum(b[offCRC+4:], crc32.MakeTable(crc32.Castagnoli))
	b, err = opt.Marshal(m)
	require.NoError(t, err)
	return b
}

// requireEqual compares events. A nil value equals an empty one.
func requireEqual(t testing.TB, want, got *journal.Event) {
	t.Helper()
	require.Equal(t, normal(want), normal(got))
}

func normal(ev *journal.Event) *journal.Event {
	out := *ev
	out.Types = nil
	for _, tc := range ev.Types {
		var upserts []*journal.Resource
		for _, r := range tc.Upserts {
			r := *r
			if len(r.Value) == 0 {
				r.Value = nil
			}
			upserts = append(upserts, &r)
		}
		tc.Upserts = upserts
		if len(tc.Deletes) == 0 {
			tc.Deletes = nil
		}
		out.Types = append(out.Types, tc)
	}
	return &out
}

func randomText(r *rand.Rand) string {
	words := []string{"", "a", "type.googleapis.com/envoy.config.cluster.v3.Cluster", "ж", "名前", "x\x00y", fmt.Sprintf("%0200d", 7)}
	return words[r.IntN(len(words))]
}

func randomResource(r *rand.Rand) *journal.Resource {
	res := &journal.Resource{Name: randomText(r), TypeURL: randomText(r), Version: randomText(r)}
	ttls := []time.Duration{0, 1, time.Second, 1500 * time.Millisecond, -time.Nanosecond, -1500 * time.Millisecond, time.Hour, math.MaxInt64, math.MinInt64}
	if i := r.IntN(len(ttls) + 3); i < len(ttls) {
		res.TTL = &ttls[i]
	}
	switch r.IntN(4) {
	case 0:
		res.Value = []byte{}
	case 1:
	default:
		res.Value = make([]byte, r.IntN(400))
		for i := range res.Value {
			res.Value[i] = byte(r.Uint32())
		}
	}
	return res
}

func randomEvent(r *rand.Rand) *journal.Event {
	ev := &journal.Event{
		Sequence: journal.Sequence(r.Uint64()>>r.IntN(64)) | 1,
		Time:     time.Unix(0, int64(r.Uint64())>>r.IntN(64)|1),
		Kind:     journal.Kind(1 + r.IntN(2)),
		Cache:    randomText(r),
		Node:     randomText(r),
	}
	for range r.IntN(4) {
		tc := journal.TypeChange{TypeURL: randomText(r), Version: randomText(r)}
		for range r.IntN(4) {
			tc.Upserts = append(tc.Upserts, randomResource(r))
		}
		for range r.IntN(3) {
			tc.Deletes = append(tc.Deletes, randomText(r))
		}
		ev.Types = append(ev.Types, tc)
	}
	return ev
}

// The codec and the generated code agree, in both directions.
func TestAgreesWithGeneratedCode(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 5000 {
		ev := randomEvent(r)
		want := marshalProto(t, toProto(ev))
		got := record(t, ev)
		require.Equal(t, want, got, "%+v", ev)
		require.Equal(t, len(got), cap(got), "the size is known beforehand")

		decoded, err := event.Unmarshal(want)
		require.NoError(t, err)
		requireEqual(t, ev, decoded)

		var m eventpb.Event
		require.NoError(t, proto.Unmarshal(got, &m))
		requireEqual(t, fromProto(&m), decoded)
		seq, at, err := event.Check(got)
		require.NoError(t, err)
		require.Equal(t, ev.Sequence, seq)
		require.True(t, ev.Time.Equal(at))
	}
}

func TestResourceAgreesWithGeneratedCode(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		res := randomResource(r)
		b := event.AppendResource([]byte("before"), res)
		require.Equal(t, "before", string(b[:6]))
		b = b[6:]
		require.Len(t, b, event.ResourceSize(res))
		var m discovery.Resource
		require.NoError(t, proto.Unmarshal(b, &m))
		want, err := proto.MarshalOptions{Deterministic: true}.Marshal(&m)
		require.NoError(t, err)
		require.Equal(t, want, b)

		// The previous content is overwritten.
		old := time.Minute
		got := journal.Resource{Name: "old", TypeURL: "old", Version: "old", Value: []byte("old"), TTL: &old}
		require.NoError(t, event.ParseResource(b, &got))
		require.True(t, got.Same(res), "%+v, want %+v", got, res)
		require.Equal(t, res.Name, got.Name)
	}
}

// A resource without a type URL does not get that of its type change.
func TestParseResourceWithoutType(t *testing.T) {
	ev := &journal.Event{Sequence: 1, Time: time.Unix(1, 0), Kind: journal.Update, Types: []journal.TypeChange{{
		TypeURL: "group",
		Upserts: []*journal.Resource{{Name: "none", Value: []byte("v")}, {Name: "same", TypeURL: "group"}, {Name: "other", TypeURL: "own"}},
	}}}
	got, err := event.Unmarshal(record(t, ev))
	require.NoError(t, err)
	requireEqual(t, ev, got)
}

// An event does not keep its record in memory.
func TestUnmarshalKeepsNoRecord(t *testing.T) {
	b := record(t, sample())
	freed := weak.Make(&b[0])
	ev, err := event.Unmarshal(b)
	require.NoError(t, err)
	b = nil
	runtime.GC()
	require.Nil(t, freed.Value(), "the record is still in memory")
	requireEqual(t, sample(), ev)
}

// A resource keeps no other resource of its event in memory.
func TestResourcesOfOneEventAreFreed(t *testing.T) {
	const n, size, url = 100, 100 << 10, "type.googleapis.com/T"
	before := heapInUse()
	tc := journal.TypeChange{TypeURL: url}
	for i := range n {
		tc.Upserts = append(tc.Upserts, &journal.Resource{Name: fmt.Sprint(i), TypeURL: url, Value: slices.Repeat([]byte{byte(i)}, size)})
	}
	b := record(t, &journal.Event{Sequence: 1, Time: time.Unix(1, 0), Kind: journal.Update, Cache: "c", Node: "n", Types: []journal.TypeChange{tc}})
	ev, err := event.Unmarshal(b)
	require.NoError(t, err)
	st, err := new(state.State).Apply(ev)
	require.NoError(t, err)
	tc = journal.TypeChange{}
	require.Greater(t, heapInUse(), before+n*size)
	drop := journal.TypeChange{TypeURL: url}
	for i := range n - 1 {
		if name := fmt.Sprint(i); i%2 == 0 {
			drop.Deletes = append(drop.Deletes, name)
		} else {
			drop.Upserts = append(drop.Upserts, &journal.Resource{Name: name})
		}
	}
	st, err = st.Apply(&journal.Event{Sequence: 2, Kind: journal.Update, Cache: "c", Node: "n", Types: []journal.TypeChange{drop}})
	require.NoError(t, err)
	require.Less(t, heapInUse(), before+2*size)
	require.Len(t, st.Node("c", "n").Type(url).Get(fmt.Sprint(n-1)).Value, size)
}

func heapInUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// Fields that are not in the schema are ignored at each level: unknown numbers, and
// known numbers with another wire type.
func TestUnknownFields(t *testing.T) {
	var otherTypes []byte
	for _, num := range []protowire.Number{1, 2, 3, 4, 6, 8, 9, 16, 536870911} {
		otherTypes = protowire.AppendTag(otherTypes, num, protowire.Fixed32Type)
		otherTypes = protowire.AppendFixed32(otherTypes, 1)
	}
	var unknown []byte
	for _, num := range []protowire.Number{10, 100} {
		unknown = protowire.AppendTag(unknown, num, protowire.VarintType)
		unknown = protowire.AppendVarint(unknown, math.MaxUint64)
		unknown = protowire.AppendTag(unknown, num, protowire.BytesType)
		unknown = protowire.AppendString(unknown, "later")
		unknown = protowire.AppendTag(unknown, num, protowire.Fixed64Type)
		unknown = protowire.AppendFixed64(unknown, 1)
		unknown = protowire.AppendTag(unknown, num, protowire.StartGroupType)
		unknown = protowire.AppendTag(unknown, 1, protowire.VarintType)
		unknown = protowire.AppendVarint(unknown, 1)
		unknown = protowire.AppendTag(unknown, num, protowire.EndGroupType)
	}
	otherInEvent := protowire.AppendVarint(protowire.AppendTag(nil, 7, protowire.VarintType), 1)
	otherInEvent = protowire.AppendFixed64(protowire.AppendTag(otherInEvent, 6, protowire.Fixed64Type), 2)
	unknown = unknown[:len(unknown):len(unknown)]
	ttl := 1500 * time.Millisecond
	ev := &journal.Event{
		Sequence: 7, Time: time.Unix(0, 99), Kind: journal.Update, Cache: "snapshot/main", Node: "n",
		Types: []journal.TypeChange{{
			TypeURL: "t", Version: "v", Deletes: []string{"d"},
			Upserts: []*journal.Resource{{Name: "r", TypeURL: "t", Version: "rv", Value: []byte("value"), TTL: &ttl}},
		}},
	}
	for _, c := range []struct {
		name string
		at   func(*eventpb.Event) proto.Message
		add  []byte
	}{
		{"event", func(m *eventpb.Event) proto.Message { return m }, unknown},
		{"event, other wire types", func(m *eventpb.Event) proto.Message { return m }, otherInEvent},
		{"type change", func(m *eventpb.Event) proto.Message { return m.GetTypes()[0] }, append(unknown, otherTypes...)},
		{"resource", func(m *eventpb.Event) proto.Message { return m.GetTypes()[0].GetUpserts()[0] }, append(unknown, otherTypes...)},
		{"any", func(m *eventpb.Event) proto.Message { return m.GetTypes()[0].GetUpserts()[0].GetResource() }, append(unknown, otherTypes...)},
		{"duration", func(m *eventpb.Event) proto.Message { return m.GetTypes()[0].GetUpserts()[0].GetTtl() }, append(unknown, otherTypes...)},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := toProto(ev)
			c.at(m).ProtoReflect().SetUnknown(protoreflect.RawFields(c.add))
			b := marshalProto(t, m)
			require.Greater(t, len(b), len(record(t, ev)))
			got, err := event.Unmarshal(b)
			require.NoError(t, err)
			requireEqual(t, ev, got)
		})
	}
}

func TestMarshalRefuses(t *testing.T) {
	bad := "\xff"
	upsert := func(r journal.Resource) journal.Event {
		return journal.Event{Kind: journal.Update, Types: []journal.TypeChange{{Upserts: []*journal.Resource{&r}}}}
	}
	for _, c := range []struct {
		name string
		ev   journal.Event
		want string
	}{
		{"no kind", journal.Event{}, "unknown kind 0"},
		{"unknown kind", journal.Event{Kind: 200}, "unknown kind 200"},
		{"cache", journal.Event{Kind: journal.Clear, Cache: bad}, "cache"},
		{"node", journal.Event{Kind: journal.Clear, Node: bad}, "node"},
		{"type URL", journal.Event{Kind: journal.Update, Types: []journal.TypeChange{{TypeURL: bad}}}, "type URL"},
		{"version", journal.Event{Kind: journal.Update, Types: []journal.TypeChange{{Version: bad}}}, "version"},
		{"deleted name", journal.Event{Kind: journal.Update, Types: []journal.TypeChange{{Deletes: []string{bad}}}}, "resource name"},
		{"resource name", upsert(journal.Resource{Name: bad}), "resource name"},
		{"resource type", upsert(journal.Resource{TypeURL: bad}), "resource type URL"},
		{"resource version", upsert(journal.Resource{Version: bad}), "resource version"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, err := event.Marshal(&c.ev)
			require.ErrorContains(t, err, c.want)
			require.Nil(t, b)
		})
	}
	ok := upsert(journal.Resource{Value: []byte(bad)}) // bytes are not text
	_, err := event.Marshal(&ok)
	require.NoError(t, err)
}

func sample() *journal.Event {
	ttl := 2500 * time.Millisecond
	return &journal.Event{
		Sequence: 42, Time: time.Unix(1700000000, 123456789), Kind: journal.Update,
		Cache: "snapshot/main", Node: "edge-1",
		Types: []journal.TypeChange{
			{
				TypeURL: "type.googleapis.com/envoy.config.cluster.v3.Cluster", Version: "v7",
				Upserts: []*journal.Resource{
					{
						Name: "a", TypeURL: "type.googleapis.com/envoy.config.cluster.v3.Cluster",
						Version: "0123abcd", Value: []byte{0x0a, 0x01, 'a'}, TTL: &ttl,
					},
					{Name: "empty", TypeURL: "type.googleapis.com/google.protobuf.Empty"},
				},
				Deletes: []string{"b", "c"},
			},
			{TypeURL: "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment", Version: "v8"},
		},
	}
}

// Each cut and each flipped bit of a record is detected.
func TestDamage(t *testing.T) {
	whole := record(t, sample())
	check := func(t *testing.T, b []byte, what string) {
		t.Helper()
		ev, err := event.Unmarshal(b)
		require.ErrorIs(t, err, event.ErrCorrupt, what)
		require.NotErrorIs(t, err, event.ErrVersion, what)
		require.Nil(t, ev)
		_, _, err = event.Check(b)
		require.ErrorIs(t, err, event.ErrCorrupt, what)
	}
	t.Run("cut", func(t *testing.T) {
		for n := range whole {
			check(t, whole[:n:n], fmt.Sprintf("cut to %d bytes", n))
		}
	})
	t.Run("flip", func(t *testing.T) {
		for i := range whole {
			for mask := 1; mask < 256; mask++ {
				b := append([]byte(nil), whole...)
				b[i] ^= byte(mask)
				check(t, b, fmt.Sprintf("byte %d xor %02x", i, mask))
			}
		}
	})
	t.Run("grown", func(t *testing.T) {
		check(t, append(append([]byte(nil), whole...), 0), "a zero behind")
	})
	got, err := event.Unmarshal(whole)
	require.NoError(t, err)
	requireEqual(t, sample(), got)
}

// Other checks detect damage in a record with a correct checksum.
func TestSealedDamage(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(b []byte) []byte
		want   error
	}{
		{"format 2", func(b []byte) []byte { b[offFormat] = 2; return b }, event.ErrVersion},
		{"format 0", func(b []byte) []byte { b[offFormat] = 0; return b }, event.ErrVersion},
		{"format 2 of another shape", func(b []byte) []byte { b[offFormat] = 2; b[12] = 0x42; return b }, event.ErrVersion},
		{"format 2 and a flip", func(b []byte) []byte { b[offFormat] = 2; b[0] ^= 1; return b }, event.ErrVersion},
		{"tag of the magic", func(b []byte) []byte { b[0] = 0x0e; return b }, event.ErrCorrupt},
		{"tag of the checksum", func(b []byte) []byte { b[5] = 0x16; return b }, event.ErrCorrupt},
		{"tag of the format", func(b []byte) []byte { b[10] = 0x19; return b }, event.ErrCorrupt},
		{"tag of the sequence", func(b []byte) []byte { b[12] = 0x22; return b }, event.ErrCorrupt},
		{"tag of the time", func(b []byte) []byte { b[21] = 0x2a; return b }, event.ErrCorrupt},
		{"no body", func(b []byte) []byte { return b[:event.MinRecordSize] }, event.ErrCorrupt},
		{"kind 3", func(b []byte) []byte { b[31] = 3; return b }, event.ErrCorrupt},
		{"kind 257", func(b []byte) []byte { return append(b, 6<<3, 0x81, 0x02) }, event.ErrCorrupt},
		{"cut body", func(b []byte) []byte { return b[:len(b)-1] }, event.ErrCorrupt},
		{"field 0", func(b []byte) []byte { return append(b, 0, 0) }, event.ErrCorrupt},
		{"endless varint", func(b []byte) []byte {
			return append(b, 6<<3, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01)
		}, event.ErrCorrupt},
		{"length beyond the end", func(b []byte) []byte { return append(b, 7<<3|2, 0xff, 0xff, 0xff, 0xff, 0x0f) }, event.ErrCorrupt},
		{"group without an end", func(b []byte) []byte { return append(b, 15<<3|3) }, event.ErrCorrupt},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := c.change(record(t, sample()))
			event.Seal(b, 42, time.Unix(0, 1))
			ev, err := event.Unmarshal(b)
			require.ErrorIs(t, err, c.want)
			require.Nil(t, ev)
			if errors.Is(c.want, event.ErrVersion) {
				require.NotErrorIs(t, err, event.ErrCorrupt)
			}
		})
	}
	require.NotErrorIs(t, event.ErrVersion, event.ErrCorrupt)
}

func TestSequenceText(t *testing.T) {
	for _, c := range []struct {
		name string
		seq  journal.Sequence
		text string
	}{
		{"none", 0, "00000000000000000000"},
		{"first", 1, "00000000000000000001"},
		{"largest", math.MaxUint64, "18446744073709551615"},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, c.text, c.seq.String())
			got, err := event.ParseSequence(c.text)
			require.NoError(t, err)
			require.Equal(t, c.seq, got)
		})
	}
	for _, text := range []string{"", "-1", "x", "18446744073709551616", "1 "} {
		_, err := event.ParseSequence(text)
		require.ErrorContains(t, err, "parse sequence")
	}
	require.Less(t, journal.Sequence(9).String(), journal.Sequence(10).String())
}

func TestKindText(t *testing.T) {
	require.Equal(t, "update", journal.Update.String())
	require.Equal(t, "clear", journal.Clear.String())
	require.Equal(t, "kind(7)", journal.Kind(7).String())
}

func TestSame(t *testing.T) {
	a, b := time.Second, time.Second
	base := journal.Resource{Name: "n", TypeURL: "t", Version: "v", Value: []byte("x"), TTL: &a}
	for _, c := range []struct {
		name   string
		change func(*journal.Resource)
		want   bool
	}{
		{"equal", func(r *journal.Resource) { r.TTL = &b }, true},
		{"other name", func(r *journal.Resource) { r.Name = "m" }, true},
		{"other type", func(r *journal.Resource) { r.TypeURL = "u" }, false},
		{"other version", func(r *journal.Resource) { r.Version = "w" }, false},
		{"other value", func(r *journal.Resource) { r.Value = []byte("y") }, false},
		{"no TTL", func(r *journal.Resource) { r.TTL = nil }, false},
		{"other TTL", func(r *journal.Resource) { d := time.Minute; r.TTL = &d }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := base
			c.change(&o)
			require.Equal(t, c.want, base.Same(&o))
			require.Equal(t, c.want, o.Same(&base))
			require.EqualValues(t, 1, o.Size())
		})
	}
}
