// Package event is the record codec: it encodes a [journal.Event] as a protobuf
// message, and decodes it.
//
// The message is described in xdswal.proto, so any protobuf tool reads a record.
// This package encodes and decodes by hand, because the journal, the snapshot and
// the restore spend their time here; a test compares it with the generated code in
// eventpb. It does no I/O and imports nothing but the model and protobuf's wire
// format.
package event

import (
	"fmt"
	"strconv"

	"github.com/xdswal/xdswal/journal"
)

// ParseSequence parses the decimal text of a sequence, with or without leading
// zeros.
func ParseSequence(s string) (journal.Sequence, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("parse sequence %q: not a decimal number", s)
	}
	return journal.Sequence(n), nil
}
