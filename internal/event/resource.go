package event

import (
	"bytes"
	"time"
	"unsafe"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/xdswal/xdswal/journal"
)

// Field numbers of envoy.service.discovery.v3.Resource, and of the Any and the
// Duration in it.
const (
	fieldResVersion, fieldResAny, fieldResName, fieldResTTL = 1, 2, 3, 6
	fieldAnyTypeURL, fieldAnyValue                          = 1, 2
	fieldSeconds, fieldNanos                                = 1, 2
)

// ResourceSize returns the number of bytes that [AppendResource] appends.
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
	b = AppendString(b, fieldResVersion, r.Version)
	b = protowire.AppendTag(b, fieldResAny, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(anySize(r)))
	b = AppendString(b, fieldAnyTypeURL, r.TypeURL)
	if len(r.Value) > 0 {
		b = protowire.AppendTag(b, fieldAnyValue, protowire.BytesType)
		b = protowire.AppendBytes(b, r.Value)
	}
	b = AppendString(b, fieldResName, r.Name)
	if r.TTL != nil {
		b = protowire.AppendTag(b, fieldResTTL, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(durationSize(*r.TTL)))
		b = appendDuration(b, *r.TTL)
	}
	return b
}

// ParseResource decodes an envoy.service.discovery.v3.Resource and overwrites r
// with it. A type URL that equals the previous one of r is shared with it. r
// contains no part of b: it keeps one allocation with its name, version and value
// in memory, and nothing else. The error is [ErrCorrupt].
func ParseResource(b []byte, r *journal.Resource) error {
	var name, version, typeURL, value []byte
	var ttl *time.Duration
	err := Fields(b, func(tag int, f Field) error {
		switch tag {
		case fieldResVersion<<3 | Length:
			version = f.Bytes
		case fieldResName<<3 | Length:
			name = f.Bytes
		case fieldResTTL<<3 | Length:
			d, err := parseDuration(f.Bytes)
			ttl = &d
			return err
		case fieldResAny<<3 | Length:
			return Fields(f.Bytes, func(tag int, f Field) error {
				switch tag {
				case fieldAnyTypeURL<<3 | Length:
					typeURL = f.Bytes
				case fieldAnyValue<<3 | Length:
					value = f.Bytes
				}
				return nil
			})
		}
		return nil
	})
	if err != nil {
		return err
	}
	*r = journal.Resource{TypeURL: r.TypeURL, TTL: ttl}
	if r.TypeURL != string(typeURL) {
		r.TypeURL = Intern(typeURL)
	}
	own := bytes.Join([][]byte{name, version, value}, nil)
	texts := unsafe.String(unsafe.SliceData(own), len(name)+len(version))
	r.Name, r.Version = texts[:len(name)], texts[len(name):]
	if len(value) > 0 {
		r.Value = own[len(texts):]
	}
	return nil
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
	err := Fields(b, func(tag int, f Field) error {
		switch tag {
		case fieldSeconds<<3 | Varint:
			seconds = time.Duration(f.Number)
		case fieldNanos<<3 | Varint:
			nanos = time.Duration(int32(f.Number))
		}
		return nil
	})
	return seconds*time.Second + nanos, err
}
