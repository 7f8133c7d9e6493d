package event

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/xdswal/xdswal/journal"
)

// A record is one protobuf message. The fields of its header have fixed widths, so
// that [Seal] can write sequence, time and checksum without moving the body.
//
//	 0  0d                 tag of field 1, fixed32
//	 1  58 57 41 4c        magic "XWAL"
//	 5  15                 tag of field 2, fixed32
//	 6  xx xx xx xx        CRC-32C of bytes 10 to the end
//	10  18                 tag of field 3, varint
//	11  01                 format
//	12  21                 tag of field 4, fixed64
//	13  xx * 8             sequence
//	21  29                 tag of field 5, sfixed64
//	22  xx * 8             time, nanoseconds since 1970
//	30  …                  body: fields 6 to 9
const (
	headerSize   = 30
	offMagic     = 1
	offCRC       = 6
	offChecked   = 10
	offFormat    = 11
	offSequence  = 13
	offTime      = 22
	recordMagic  = "XWAL"
	recordFormat = 1
)

// MinRecordSize is the size in bytes of the smallest record.
const MinRecordSize = headerSize

var header = [headerSize]byte{
	0: 0x0d, offMagic: 'X', 'W', 'A', 'L',
	5:  0x15,
	10: 0x18, offFormat: recordFormat,
	12: 0x21,
	21: 0x29,
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Field numbers of Event and TypeChange in xdswal.proto.
const (
	fieldKind, fieldCache, fieldNode, fieldTypes = 6, 7, 8, 9

	fieldTypeURL, fieldVersion, fieldUpserts, fieldDeletes = 1, 2, 3, 4
)

// Marshal encodes ev as a record, without the sequence, time and checksum that
// [Seal] writes. It ignores ev.Sequence and ev.Time. It returns an error if the
// kind of ev is unknown, or if a string is not valid UTF-8, because protobuf tools
// could not read the record.
func Marshal(ev *journal.Event) ([]byte, error) {
	if err := validate(ev); err != nil {
		return nil, err
	}
	b := make([]byte, headerSize, headerSize+bodySize(ev))
	copy(b, header[:])
	b = protowire.AppendTag(b, fieldKind, protowire.VarintType)
	b = protowire.AppendVarint(b, uint64(ev.Kind))
	b = AppendString(b, fieldCache, ev.Cache)
	b = AppendString(b, fieldNode, ev.Node)
	for i := range ev.Types {
		b = protowire.AppendTag(b, fieldTypes, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(typeChangeSize(&ev.Types[i])))
		b = appendTypeChange(b, &ev.Types[i])
	}
	return b, nil
}

// Seal writes sequence, time and checksum into the header of a record that
// [Marshal] returned.
func Seal(record []byte, seq journal.Sequence, at time.Time) {
	binary.LittleEndian.PutUint64(record[offSequence:], uint64(seq))
	binary.LittleEndian.PutUint64(record[offTime:], uint64(at.UnixNano()))
	binary.LittleEndian.PutUint32(record[offCRC:], crc32.Checksum(record[offChecked:], castagnoli))
}

// Check verifies magic, format and checksum of a record, and returns its
// sequence and time. The error is [ErrCorrupt] or [ErrVersion].
func Check(record []byte) (journal.Sequence, time.Time, error) {
	if len(record) < headerSize {
		return 0, time.Time{}, fmt.Errorf("%w: got a record of %d bytes, want at least %d", ErrCorrupt, len(record), headerSize)
	}
	if string(record[offMagic:offMagic+4]) != recordMagic {
		return 0, time.Time{}, fmt.Errorf("%w: not a record: magic %q is missing", ErrCorrupt, recordMagic)
	}
	if got, want := crc32.Checksum(record[offChecked:], castagnoli), binary.LittleEndian.Uint32(record[offCRC:]); got != want {
		return 0, time.Time{}, fmt.Errorf("%w: got record checksum %08x, want %08x", ErrCorrupt, got, want)
	}
	// After the checksum, so that a flipped bit is not taken for a newer format.
	if record[offFormat] != recordFormat {
		return 0, time.Time{}, fmt.Errorf("%w: got record format %d, want %d", ErrVersion, record[offFormat], recordFormat)
	}
	for i, b := range header {
		if isTag := i == 0 || i == 5 || i == 10 || i == 12 || i == 21; isTag && record[i] != b {
			return 0, time.Time{}, fmt.Errorf("%w: got tag %02x at byte %d of the record, want %02x", ErrCorrupt, record[i], i, b)
		}
	}
	seq := journal.Sequence(binary.LittleEndian.Uint64(record[offSequence:]))
	return seq, time.Unix(0, int64(binary.LittleEndian.Uint64(record[offTime:]))), nil
}

// Unmarshal verifies and decodes a record. The event contains no part of record,
// and each of its resources can outlive the others, as for [ParseResource]. The
// error is [ErrCorrupt] or [ErrVersion].
func Unmarshal(record []byte) (*journal.Event, error) {
	seq, at, err := Check(record)
	if err != nil {
		return nil, err
	}
	// Most events change one resource: one allocation has room for that.
	one := &struct {
		ev      journal.Event
		types   [1]journal.TypeChange
		upserts [1]*journal.Resource
	}{ev: journal.Event{Sequence: seq, Time: at}}
	ev := &one.ev
	var kind uint64
	err = Fields(record[headerSize:], func(tag int, f Field) error {
		switch tag {
		case fieldKind<<3 | Varint:
			kind = f.Number
		case fieldCache<<3 | Length:
			ev.Cache = Intern(f.Bytes)
		case fieldNode<<3 | Length:
			ev.Node = string(f.Bytes)
		case fieldTypes<<3 | Length:
			var room []*journal.Resource
			if ev.Types == nil {
				ev.Types, room = one.types[:0], one.upserts[:0]
			}
			tc, err := parseTypeChange(f.Bytes, room)
			if err != nil {
				return err
			}
			ev.Types = append(ev.Types, tc)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("decode event %d: %w", seq, err)
	}
	if kind != uint64(journal.Update) && kind != uint64(journal.Clear) {
		return nil, fmt.Errorf("decode event %d: %w: unknown kind %d", seq, ErrCorrupt, kind)
	}
	ev.Kind = journal.Kind(kind)
	return ev, nil
}

func bodySize(ev *journal.Event) int {
	n := 2 + stringSize(fieldCache, ev.Cache) + stringSize(fieldNode, ev.Node)
	for i := range ev.Types {
		n += protowire.SizeTag(fieldTypes) + protowire.SizeBytes(typeChangeSize(&ev.Types[i]))
	}
	return n
}

func typeChangeSize(tc *journal.TypeChange) int {
	n := stringSize(fieldTypeURL, tc.TypeURL) + stringSize(fieldVersion, tc.Version)
	for _, r := range tc.Upserts {
		n += protowire.SizeTag(fieldUpserts) + protowire.SizeBytes(ResourceSize(r))
	}
	for _, name := range tc.Deletes {
		// An element of a repeated field is written even if it is empty.
		n += protowire.SizeTag(fieldDeletes) + protowire.SizeBytes(len(name))
	}
	return n
}

func appendTypeChange(b []byte, tc *journal.TypeChange) []byte {
	b = AppendString(b, fieldTypeURL, tc.TypeURL)
	b = AppendString(b, fieldVersion, tc.Version)
	for _, r := range tc.Upserts {
		b = protowire.AppendTag(b, fieldUpserts, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(ResourceSize(r)))
		b = AppendResource(b, r)
	}
	for _, name := range tc.Deletes {
		b = protowire.AppendTag(b, fieldDeletes, protowire.BytesType)
		b = protowire.AppendString(b, name)
	}
	return b
}

// parseTypeChange decodes a TypeChange, whose upserts have room in an empty slice.
func parseTypeChange(b []byte, room []*journal.Resource) (tc journal.TypeChange, err error) {
	err = Fields(b, func(tag int, f Field) error {
		switch tag {
		case fieldTypeURL<<3 | Length:
			tc.TypeURL = Intern(f.Bytes)
		case fieldVersion<<3 | Length:
			tc.Version = string(f.Bytes)
		case fieldUpserts<<3 | Length:
			r := &journal.Resource{TypeURL: tc.TypeURL}
			if err := ParseResource(f.Bytes, r); err != nil {
				return err
			}
			if tc.Upserts == nil {
				tc.Upserts = room
			}
			tc.Upserts = append(tc.Upserts, r)
		case fieldDeletes<<3 | Length:
			tc.Deletes = append(tc.Deletes, string(f.Bytes))
		}
		return nil
	})
	return tc, err
}

func validate(ev *journal.Event) error {
	if ev.Kind != journal.Update && ev.Kind != journal.Clear {
		return fmt.Errorf("encode event: unknown kind %d", ev.Kind)
	}
	if err := cmp.Or(validText("cache", ev.Cache), validText("node", ev.Node)); err != nil {
		return err
	}
	for i := range ev.Types {
		tc := &ev.Types[i]
		if err := cmp.Or(validText("type URL", tc.TypeURL), validText("version", tc.Version)); err != nil {
			return err
		}
		for _, r := range tc.Upserts {
			if err := cmp.Or(
				validText("resource name", r.Name),
				validText("resource type URL", r.TypeURL),
				validText("resource version", r.Version),
			); err != nil {
				return err
			}
		}
		for _, name := range tc.Deletes {
			if err := validText("resource name", name); err != nil {
				return err
			}
		}
	}
	return nil
}

func validText(what, s string) error {
	if utf8.ValidString(s) {
		return nil
	}
	return fmt.Errorf("encode event: %s %q is not valid UTF-8", what, s)
}
