package snapshot

import (
	"encoding/binary"
	"fmt"
	"time"
	"unique"
	"unsafe"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/journal"
)

// Fields of SnapshotRecord, and of the messages in it.
const (
	recordHeader, recordNode, recordType, recordResource, recordTrailer = 1, 2, 3, 4, 5
)

// appendRecord appends a SnapshotRecord after its length.
func appendRecord(b []byte, kind protowire.Number, body []byte) []byte {
	b = appendRecordPrefix(b, kind, len(body))
	return append(b, body...)
}

// appendRecordPrefix appends what stands before a record's body.
func appendRecordPrefix(b []byte, kind protowire.Number, size int) []byte {
	b = protowire.AppendVarint(b, uint64(protowire.SizeTag(kind)+protowire.SizeBytes(size)))
	b = protowire.AppendTag(b, kind, protowire.BytesType)
	return protowire.AppendVarint(b, uint64(size))
}

func appendResourceRecord(b []byte, r *journal.Resource) []byte {
	b = appendRecordPrefix(b, recordResource, event.ResourceSize(r))
	return event.AppendResource(b, r)
}

func (h Header) marshal() []byte {
	b := appendFixed32(nil, 1, binary.LittleEndian.Uint32([]byte(headerMagic)))
	b = appendVarint(b, 2, fileFormat)
	b = appendFixed64(b, 3, uint64(h.Sequence))
	b = appendFixed64(b, 4, uint64(unixNano(h.Time)))
	b = appendFixed64(b, 5, h.Epoch)
	b = appendFixed64(b, 6, uint64(unixNano(h.Created)))
	return appendText(b, 7, h.StoreID)
}

func (h *Header) unmarshal(b []byte) error {
	var magic uint32
	format := uint64(fileFormat)
	err := fields(b, func(num protowire.Number, v value) {
		switch num {
		case 1:
			magic = uint32(v.number)
		case 2:
			format = v.number
		case 3:
			h.Sequence = journal.Sequence(v.number)
		case 4:
			h.Time = timeOf(v.number)
		case 5:
			h.Epoch = v.number
		case 6:
			h.Created = timeOf(v.number)
		case 7:
			h.StoreID = string(v.bytes)
		}
	})
	if err != nil {
		return err
	}
	if magic != binary.LittleEndian.Uint32([]byte(headerMagic)) {
		return fmt.Errorf("%w: header has no magic", event.ErrCorrupt)
	}
	if format != fileFormat {
		return fmt.Errorf("%w: snapshot has format %d, this xdswal reads %d", event.ErrVersion, format, fileFormat)
	}
	return nil
}

func (t Trailer) marshal() []byte {
	b := appendVarint(nil, 1, uint64(t.Nodes))
	b = appendVarint(b, 2, uint64(t.Resources))
	b = appendVarint(b, 3, uint64(t.Bytes))
	b = protowire.AppendTag(b, 4, protowire.BytesType)
	return protowire.AppendBytes(b, t.Digest[:])
}

func (t *Trailer) unmarshal(b []byte) error {
	return fields(b, func(num protowire.Number, v value) {
		switch num {
		case 1:
			t.Nodes = int(v.number)
		case 2:
			t.Resources = int(v.number)
		case 3:
			t.Bytes = int64(v.number)
		case 4:
			copy(t.Digest[:], v.bytes)
		}
	})
}

// node is a SnapshotNode.
type node struct {
	cache, name string
	seq         journal.Sequence
	at          time.Time
	continued   bool
}

func (n node) append(b []byte) []byte {
	b = appendText(b, 1, n.cache)
	b = appendText(b, 2, n.name)
	b = appendFixed64(b, 3, uint64(n.seq))
	b = appendFixed64(b, 4, uint64(unixNano(n.at)))
	if n.continued {
		b = appendVarint(b, 5, 1)
	}
	return b
}

func (n *node) unmarshal(b []byte) error {
	return fields(b, func(num protowire.Number, v value) {
		switch num {
		case 1:
			n.cache = v.shared()
		case 2:
			n.name = string(v.bytes)
		case 3:
			n.seq = journal.Sequence(v.number)
		case 4:
			n.at = timeOf(v.number)
		case 5:
			n.continued = v.number != 0
		}
	})
}

// typ is a SnapshotType.
type typ struct {
	url, version string
	continued    bool
}

func (t typ) append(b []byte) []byte {
	b = appendText(b, 1, t.url)
	b = appendText(b, 2, t.version)
	if t.continued {
		b = appendVarint(b, 3, 1)
	}
	return b
}

func (t *typ) unmarshal(b []byte) error {
	return fields(b, func(num protowire.Number, v value) {
		switch num {
		case 1:
			t.url = v.shared()
		case 2:
			t.version = string(v.bytes)
		case 3:
			t.continued = v.number != 0
		}
	})
}

// value is the value of one field, by its wire type.
type value struct {
	number uint64
	bytes  []byte
}

// shared returns the value as a string that all who ask for the same one have
// in common, for there are few caches and types. No string of a node or a type
// is a part of its frame, as those of resources are: such a string would hold
// the frame in memory long after all resources of the frame have changed.
func (v value) shared() string {
	part := unsafe.String(unsafe.SliceData(v.bytes), len(v.bytes))
	return unique.Make(part).Value()
}

// fields calls fn for each field of a message.
func fields(b []byte, fn func(protowire.Number, value)) error {
	for len(b) > 0 {
		num, wire, n := protowire.ConsumeTag(b)
		if n < 0 {
			return fmt.Errorf("%w: bad protobuf tag", event.ErrCorrupt)
		}
		b = b[n:]
		var v value
		switch wire {
		case protowire.VarintType:
			v.number, n = protowire.ConsumeVarint(b)
		case protowire.Fixed32Type:
			var small uint32
			small, n = protowire.ConsumeFixed32(b)
			v.number = uint64(small)
		case protowire.Fixed64Type:
			v.number, n = protowire.ConsumeFixed64(b)
		case protowire.BytesType:
			v.bytes, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(num, wire, b)
		}
		if n < 0 {
			return fmt.Errorf("%w: bad protobuf value of field %d", event.ErrCorrupt, num)
		}
		b = b[n:]
		fn(num, v)
	}
	return nil
}

func appendVarint(b []byte, num protowire.Number, n uint64) []byte {
	if n == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), n)
}

func appendFixed32(b []byte, num protowire.Number, n uint32) []byte {
	return protowire.AppendFixed32(protowire.AppendTag(b, num, protowire.Fixed32Type), n)
}

func appendFixed64(b []byte, num protowire.Number, n uint64) []byte {
	if n == 0 {
		return b
	}
	return protowire.AppendFixed64(protowire.AppendTag(b, num, protowire.Fixed64Type), n)
}

func appendText(b []byte, num protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	return protowire.AppendString(protowire.AppendTag(b, num, protowire.BytesType), s)
}

// The zero time is written as 0 and read back as the zero time.
func unixNano(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func timeOf(nano uint64) time.Time {
	if nano == 0 {
		return time.Time{}
	}
	return time.Unix(0, int64(nano))
}
