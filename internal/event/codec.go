package event

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"
	"unicode/utf8"
	"unsafe"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/xdswal/xdswal/journal"
)

// A record, as bytes. All of it is one protobuf message; the header's fields
// have fixed widths so that the journal can seal a record, which is to write
// sequence, time and checksum into it, without moving its body.
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

var (
	// ErrCorrupt is the identity of every error about bytes that are not
	// what was written: cut, flipped or foreign.
	ErrCorrupt = errors.New("corrupt")
	// ErrVersion is the identity of every error about a record or a file
	// that a newer xdswal wrote.
	ErrVersion = errors.New("written in a newer format than this xdswal reads")
	// ErrGap is the identity of every error about events that are missing
	// between those that are there.
	ErrGap = errors.New("events are missing")
)

// Field numbers of xdswal.proto and of envoy.service.discovery.v3.Resource.
const (
	fieldKind, fieldCache, fieldNode, fieldTypes = 6, 7, 8, 9

	fieldTypeURL, fieldVersion, fieldUpserts, fieldDeletes = 1, 2, 3, 4

	fieldResVersion, fieldResAny, fieldResName, fieldResTTL = 1, 2, 3, 6
	fieldAnyTypeURL, fieldAnyValue                          = 1, 2
	fieldSeconds, fieldNanos                                = 1, 2
)

// A tag on the wire is a field's number shifted by three bits, and its wire
// type.
const (
	varint = int(protowire.VarintType)
	length = int(protowire.BytesType)
)

// Marshal encodes ev as a record with a header that [Seal] has yet to fill.
// The sequence and the time of ev are not read. It fails if the kind of ev is
// unknown, or if a string is not valid UTF-8, which no protobuf tool would
// read.
func Marshal(ev *journal.Event) ([]byte, error) {
	if err := validate(ev); err != nil {
		return nil, err
	}
	b := make([]byte, headerSize, headerSize+bodySize(ev))
	copy(b, header[:])
	b = protowire.AppendTag(b, fieldKind, protowire.VarintType)
	b = protowire.AppendVarint(b, uint64(ev.Kind))
	b = appendString(b, fieldCache, ev.Cache)
	b = appendString(b, fieldNode, ev.Node)
	for i := range ev.Types {
		b = protowire.AppendTag(b, fieldTypes, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(typeChangeSize(&ev.Types[i])))
		b = appendTypeChange(b, &ev.Types[i])
	}
	return b, nil
}

// Seal writes sequence, time and checksum into the header of a record made by
// [Marshal].
func Seal(record []byte, seq journal.Sequence, at time.Time) {
	binary.LittleEndian.PutUint64(record[offSequence:], uint64(seq))
	binary.LittleEndian.PutUint64(record[offTime:], uint64(at.UnixNano()))
	binary.LittleEndian.PutUint32(record[offCRC:], crc32.Checksum(record[offChecked:], castagnoli))
}

// Check verifies magic, format and checksum of a record, and returns its
// sequence and time. The error is [ErrCorrupt] or [ErrVersion].
func Check(record []byte) (journal.Sequence, time.Time, error) {
	if len(record) < headerSize {
		return 0, time.Time{}, fmt.Errorf("%w: record of %d bytes is shorter than its header of %d", ErrCorrupt, len(record), headerSize)
	}
	if string(record[offMagic:offMagic+4]) != recordMagic {
		return 0, time.Time{}, fmt.Errorf("%w: record has no magic", ErrCorrupt)
	}
	if want, got := binary.LittleEndian.Uint32(record[offCRC:]), crc32.Checksum(record[offChecked:], castagnoli); want != got {
		return 0, time.Time{}, fmt.Errorf("%w: record has checksum %08x, its bytes %08x", ErrCorrupt, want, got)
	}
	// Only bytes that are as they were written tell a newer format.
	if record[offFormat] != recordFormat {
		return 0, time.Time{}, fmt.Errorf("%w: record has format %d, this xdswal reads %d", ErrVersion, record[offFormat], recordFormat)
	}
	for i, b := range header {
		if isTag := i == 0 || i == 5 || i == 10 || i == 12 || i == 21; isTag && record[i] != b {
			return 0, time.Time{}, fmt.Errorf("%w: record has byte %02x at %d in place of a tag", ErrCorrupt, record[i], i)
		}
	}
	seq := journal.Sequence(binary.LittleEndian.Uint64(record[offSequence:]))
	return seq, time.Unix(0, int64(binary.LittleEndian.Uint64(record[offTime:]))), nil
}

// Unmarshal verifies and decodes a record. The event's strings and values are
// parts of record, which must not change afterwards. The error is
// [ErrCorrupt] or [ErrVersion].
func Unmarshal(record []byte) (*journal.Event, error) {
	seq, at, err := Check(record)
	if err != nil {
		return nil, err
	}
	ev := &journal.Event{Sequence: seq, Time: at}
	var kind uint64
	err = fields(record[headerSize:], func(tag int, f field) error {
		switch tag {
		case fieldKind<<3 | varint:
			kind = f.varint
		case fieldCache<<3 | length:
			ev.Cache = f.text()
		case fieldNode<<3 | length:
			ev.Node = f.text()
		case fieldTypes<<3 | length:
			tc, err := parseTypeChange(f.bytes)
			if err != nil {
				return err
			}
			ev.Types = append(ev.Types, tc)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("parse record %d: %w", seq, err)
	}
	if kind != uint64(journal.Update) && kind != uint64(journal.Clear) {
		return nil, fmt.Errorf("parse record %d: %w: unknown kind %d", seq, ErrCorrupt, kind)
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
	b = appendString(b, fieldTypeURL, tc.TypeURL)
	b = appendString(b, fieldVersion, tc.Version)
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

func parseTypeChange(b []byte) (journal.TypeChange, error) {
	var tc journal.TypeChange
	err := fields(b, func(tag int, f field) error {
		switch tag {
		case fieldTypeURL<<3 | length:
			tc.TypeURL = f.text()
		case fieldVersion<<3 | length:
			tc.Version = f.text()
		case fieldUpserts<<3 | length:
			r := &journal.Resource{TypeURL: tc.TypeURL}
			if err := ParseResource(f.bytes, r); err != nil {
				return err
			}
			tc.Upserts = append(tc.Upserts, r)
		case fieldDeletes<<3 | length:
			tc.Deletes = append(tc.Deletes, f.text())
		}
		return nil
	})
	return tc, err
}

// ResourceSize returns the size in bytes of what [AppendResource] appends.
func ResourceSize(r *journal.Resource) int {
	n := stringSize(fieldResVersion, r.Version) + stringSize(fieldResName, r.Name)
	n += protowire.SizeTag(fieldResAny) + protowire.SizeBytes(anySize(r))
	if r.TTL != nil {
		n += protowire.SizeTag(fieldResTTL) + protowire.SizeBytes(durationSize(*r.TTL))
	}
	return n
}

func anySize(r *journal.Resource) int {
	n := stringSize(fieldAnyTypeURL, r.TypeURL)
	if len(r.Value) > 0 {
		n += protowire.SizeTag(fieldAnyValue) + protowire.SizeBytes(len(r.Value))
	}
	return n
}

// AppendResource appends r to b as an envoy.service.discovery.v3.Resource.
func AppendResource(b []byte, r *journal.Resource) []byte {
	b = appendString(b, fieldResVersion, r.Version)
	b = protowire.AppendTag(b, fieldResAny, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(anySize(r)))
	b = appendString(b, fieldAnyTypeURL, r.TypeURL)
	if len(r.Value) > 0 {
		b = protowire.AppendTag(b, fieldAnyValue, protowire.BytesType)
		b = protowire.AppendBytes(b, r.Value)
	}
	b = appendString(b, fieldResName, r.Name)
	if r.TTL != nil {
		b = protowire.AppendTag(b, fieldResTTL, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(durationSize(*r.TTL)))
		b = appendDuration(b, *r.TTL)
	}
	return b
}

// ParseResource decodes an envoy.service.discovery.v3.Resource into r, and
// overwrites what r was. The strings and the value of r are parts of b, but a
// type URL that equals the one r had before is shared with it. The error is
// [ErrCorrupt].
func ParseResource(b []byte, r *journal.Resource) error {
	shared := r.TypeURL
	*r = journal.Resource{}
	return fields(b, func(tag int, f field) error {
		switch tag {
		case fieldResVersion<<3 | length:
			r.Version = f.text()
		case fieldResName<<3 | length:
			r.Name = f.text()
		case fieldResTTL<<3 | length:
			ttl, err := parseDuration(f.bytes)
			r.TTL = &ttl
			return err
		case fieldResAny<<3 | length:
			return parseAny(f.bytes, r, shared)
		}
		return nil
	})
}

func parseAny(b []byte, r *journal.Resource, shared string) error {
	return fields(b, func(tag int, f field) error {
		switch tag {
		case fieldAnyTypeURL<<3 | length:
			if r.TypeURL = shared; r.TypeURL != string(f.bytes) {
				r.TypeURL = f.text()
			}
		case fieldAnyValue<<3 | length:
			r.Value = f.bytes
		}
		return nil
	})
}

func durationSize(d time.Duration) int { return len(appendDuration(nil, d)) }

func appendDuration(b []byte, d time.Duration) []byte {
	seconds, nanos := int64(d/time.Second), int64(d%time.Second)
	if seconds != 0 {
		b = protowire.AppendTag(b, fieldSeconds, protowire.VarintType)
		b = protowire.AppendVarint(b, uint64(seconds))
	}
	if nanos != 0 {
		b = protowire.AppendTag(b, fieldNanos, protowire.VarintType)
		b = protowire.AppendVarint(b, uint64(nanos))
	}
	return b
}

func parseDuration(b []byte) (time.Duration, error) {
	var seconds, nanos time.Duration
	err := fields(b, func(tag int, f field) error {
		switch tag {
		case fieldSeconds<<3 | varint:
			seconds = time.Duration(f.varint)
		case fieldNanos<<3 | varint:
			nanos = time.Duration(int32(f.varint))
		}
		return nil
	})
	return seconds*time.Second + nanos, err
}

func stringSize(num protowire.Number, s string) int {
	if s == "" {
		return 0
	}
	return protowire.SizeTag(num) + protowire.SizeBytes(len(s))
}

func appendString(b []byte, num protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	b = protowire.AppendTag(b, num, protowire.BytesType)
	return protowire.AppendString(b, s)
}

// field is the value of one field: varint or bytes, whichever its wire type
// says.
type field struct {
	varint uint64
	bytes  []byte
}

// text returns the field's bytes as a string without copying them.
func (f field) text() string { return unsafe.String(unsafe.SliceData(f.bytes), len(f.bytes)) }

// fields calls fn for each field of a message, with its tag. A known number
// with another wire type is another tag, and so an unknown field, as protobuf
// asks.
func fields(b []byte, fn func(tag int, f field) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return fmt.Errorf("%w: bad protobuf tag", ErrCorrupt)
		}
		b = b[n:]
		var f field
		switch typ {
		case protowire.VarintType:
			f.varint, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			f.bytes, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(num, typ, b)
		}
		if n < 0 {
			return fmt.Errorf("%w: bad protobuf value of field %d", ErrCorrupt, num)
		}
		b = b[n:]
		if err := fn(int(num)<<3|int(typ), f); err != nil {
			return err
		}
	}
	return nil
}

func validate(ev *journal.Event) error {
	if ev.Kind != journal.Update && ev.Kind != journal.Clear {
		return fmt.Errorf("encode event: unknown kind %d", ev.Kind)
	}
	if err := utf8Valid("cache", ev.Cache); err != nil {
		return err
	}
	if err := utf8Valid("node", ev.Node); err != nil {
		return err
	}
	for i := range ev.Types {
		tc := &ev.Types[i]
		if err := utf8Valid("type URL", tc.TypeURL); err != nil {
			return err
		}
		if err := utf8Valid("version", tc.Version); err != nil {
			return err
		}
		for _, r := range tc.Upserts {
			if err := errors.Join(
				utf8Valid("resource name", r.Name),
				utf8Valid("resource type URL", r.TypeURL),
				utf8Valid("resource version", r.Version),
			); err != nil {
				return err
			}
		}
		for _, name := range tc.Deletes {
			if err := utf8Valid("resource name", name); err != nil {
				return err
			}
		}
	}
	return nil
}

func utf8Valid(what, s string) error {
	if utf8.ValidString(s) {
		return nil
	}
	return fmt.Errorf("encode event: the %s %q is not valid UTF-8", what, s)
}
