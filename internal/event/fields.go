package event

import (
	"fmt"
	"unique"
	"unsafe"

	"google.golang.org/protobuf/encoding/protowire"
)

// Wire types, the lower three bits of a tag. The other bits are the field's number.
const (
	Varint  = int(protowire.VarintType)
	Fixed64 = int(protowire.Fixed64Type)
	Length  = int(protowire.BytesType)
)

// Field is the value of one field of a message: Number for [Varint] and [Fixed64],
// Bytes for [Length]. Fields of other wire types have neither.
type Field struct {
	Number uint64
	Bytes  []byte
}

// Fields calls fn with the tag and the value of each field of a message. A known
// number with another wire type is another tag, so fn ignores it like an unknown
// field, as protobuf requires. The error is fn's, or [ErrCorrupt].
func Fields(message []byte, fn func(tag int, f Field) error) error {
	for len(message) > 0 {
		num, typ, n := protowire.ConsumeTag(message)
		if n < 0 {
			return fmt.Errorf("%w: invalid protobuf tag", ErrCorrupt)
		}
		message = message[n:]
		var f Field
		switch typ {
		case protowire.VarintType:
			f.Number, n = protowire.ConsumeVarint(message)
		case protowire.Fixed64Type:
			f.Number, n = protowire.ConsumeFixed64(message)
		case protowire.BytesType:
			f.Bytes, n = protowire.ConsumeBytes(message)
		default:
			n = protowire.ConsumeFieldValue(num, typ, message)
		}
		if n < 0 {
			return fmt.Errorf("%w: invalid protobuf value of field %d", ErrCorrupt, num)
		}
		message = message[n:]
		if err := fn(int(num)<<3|int(typ), f); err != nil {
			return err
		}
	}
	return nil
}

// AppendString appends a string field to b, unless s is empty.
func AppendString(b []byte, num protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	b = protowire.AppendTag(b, num, protowire.BytesType)
	return protowire.AppendString(b, s)
}

func stringSize(num protowire.Number, s string) int {
	if s == "" {
		return 0
	}
	return protowire.SizeTag(num) + protowire.SizeBytes(len(s))
}

// Intern returns the string with these bytes. All callers share it: it is for the
// names of caches and for type URLs, of which there are few.
func Intern(b []byte) string {
	return unique.Make(unsafe.String(unsafe.SliceData(b), len(b))).Value()
}
