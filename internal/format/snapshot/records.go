package snapshot

import (
	"encoding/binary"
	"fmt"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/internal/event/eventpb"
	"github.com/xdswal/xdswal/journal"
)

// Field numbers of SnapshotRecord, whose fields are the kinds of records.
const (
	recordHeader, recordNode, recordType, recordResource, recordTrailer = 1, 2, 3, 4, 5
)

// appendRecord appends a SnapshotRecord, preceded by its length.
func appendRecord(b []byte, kind protowire.Number, body []byte) []byte {
	return append(appendRecordPrefix(b, kind, len(body)), body...)
}

// appendRecordPrefix appends the bytes that precede a record's body.
func appendRecordPrefix(b []byte, kind protowire.Number, size int) []byte {
	b = protowire.AppendVarint(b, uint64(protowire.SizeTag(kind)+protowire.SizeBytes(size)))
	b = protowire.AppendTag(b, kind, protowire.BytesType)
	return protowire.AppendVarint(b, uint64(size))
}

func appendResourceRecord(b []byte, r *journal.Resource) []byte {
	b = appendRecordPrefix(b, recordResource, event.ResourceSize(r))
	return event.AppendResource(b, r)
}

// appendMessage is appendRecord for a message of the generated code.
func appendMessage(b []byte, kind protowire.Number, m proto.Message) ([]byte, error) {
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	return appendRecord(b, kind, body), err
}

func unmarshal(b []byte, m proto.Message) error {
	if err := (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(b, m); err != nil {
		return fmt.Errorf("%w: %w", event.ErrCorrupt, err)
	}
	return nil
}

var headerMagic = binary.LittleEndian.Uint32([]byte("XWSS"))

func (h *Header) message() *eventpb.SnapshotHeader {
	return &eventpb.SnapshotHeader{
		Magic: headerMagic, Format: fileFormat, Sequence: uint64(h.Sequence), TimeUnixNano: unixNano(h.Time),
		Epoch: h.Epoch, CreatedUnixNano: unixNano(h.Created), StoreId: h.StoreID,
	}
}

func (h *Header) unmarshal(b []byte) error {
	var m eventpb.SnapshotHeader
	if err := unmarshal(b, &m); err != nil {
		return err
	}
	if m.GetMagic() != headerMagic {
		return fmt.Errorf("%w: got magic %08x in the snapshot header, want %08x", event.ErrCorrupt, m.GetMagic(), headerMagic)
	}
	if m.GetFormat() != fileFormat {
		return fmt.Errorf("%w: got snapshot format %d, want %d", event.ErrVersion, m.GetFormat(), fileFormat)
	}
	*h = Header{
		Sequence: journal.Sequence(m.GetSequence()), Time: timeOf(m.GetTimeUnixNano()), Epoch: m.GetEpoch(),
		Created: timeOf(m.GetCreatedUnixNano()), StoreID: m.GetStoreId(),
	}
	return nil
}

func (t *Trailer) message() *eventpb.SnapshotTrailer {
	return &eventpb.SnapshotTrailer{
		Nodes: uint64(t.Nodes), Resources: uint64(t.Resources), ResourceBytes: uint64(t.Bytes), Digest: t.Digest[:],
	}
}

func (t *Trailer) unmarshal(b []byte) error {
	var m eventpb.SnapshotTrailer
	if err := unmarshal(b, &m); err != nil {
		return err
	}
	*t = Trailer{Nodes: int(m.GetNodes()), Resources: int(m.GetResources()), Bytes: int64(m.GetResourceBytes())}
	copy(t.Digest[:], m.GetDigest())
	return nil
}

// node is a SnapshotNode. It is encoded and decoded by hand, like typ, because
// generated code needs a quarter more time for a snapshot of many small nodes.
type node struct {
	cache, name string
	seq         journal.Sequence
	at          time.Time
	continued   bool
}

func (n node) append(b []byte) []byte {
	b = event.AppendString(b, 1, n.cache)
	b = event.AppendString(b, 2, n.name)
	b = appendFixed64(b, 3, uint64(n.seq))
	b = appendFixed64(b, 4, uint64(unixNano(n.at)))
	if n.continued {
		b = appendTrue(b, 5)
	}
	return b
}

func (n *node) unmarshal(b []byte) error {
	return event.Fields(b, func(tag int, f event.Field) error {
		switch tag {
		case 1<<3 | event.Length:
			n.cache = event.Intern(f.Bytes)
		case 2<<3 | event.Length:
			n.name = string(f.Bytes)
		case 3<<3 | event.Fixed64:
			n.seq = journal.Sequence(f.Number)
		case 4<<3 | event.Fixed64:
			n.at = timeOf(int64(f.Number))
		case 5<<3 | event.Varint:
			n.continued = f.Number != 0
		}
		return nil
	})
}

// typ is a SnapshotType.
type typ struct {
	url, version string
	continued    bool
}

func (t typ) append(b []byte) []byte {
	b = event.AppendString(b, 1, t.url)
	b = event.AppendString(b, 2, t.version)
	if t.continued {
		b = appendTrue(b, 3)
	}
	return b
}

func (t *typ) unmarshal(b []byte) error {
	return event.Fields(b, func(tag int, f event.Field) error {
		switch tag {
		case 1<<3 | event.Length:
			t.url = event.Intern(f.Bytes)
		case 2<<3 | event.Length:
			t.version = string(f.Bytes)
		case 3<<3 | event.Varint:
			t.continued = f.Number != 0
		}
		return nil
	})
}

func appendTrue(b []byte, num protowire.Number) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), 1)
}

func appendFixed64(b []byte, num protowire.Number, n uint64) []byte {
	if n == 0 {
		return b
	}
	return protowire.AppendFixed64(protowire.AppendTag(b, num, protowire.Fixed64Type), n)
}

// unixNano returns 0 for the zero time, and timeOf returns the zero time for 0.
func unixNano(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func timeOf(nano int64) time.Time {
	if nano == 0 {
		return time.Time{}
	}
	return time.Unix(0, nano)
}
