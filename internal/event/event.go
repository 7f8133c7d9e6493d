// Package event is the record codec: it encodes a [journal.Event] as a protobuf
// message, and decodes it. It also defines the identities of errors about stored
// data, which all formats share.
//
// The messages are those of xdswal.proto, so any protobuf tool reads a record. The
// codec is written by hand because appends and restores spend their time in it;
// tests compare it with the generated code in eventpb. Format 1 does not change, and
// nothing that is decoded keeps its record in memory. This package has no I/O, and
// imports only the journal's types and protobuf's wire format.
package event

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/xdswal/xdswal/journal"
)

var (
	// ErrCorrupt is the identity of errors about bytes that differ from those that
	// were written: cut, changed, or written by another program.
	ErrCorrupt = errors.New("corrupt")
	// ErrVersion is the identity of errors about a record or a file that a newer
	// xdswal wrote.
	ErrVersion = errors.New("written in a newer format than this xdswal reads")
	// ErrGap is the identity of errors about events that are missing before or
	// between the events that can be read.
	ErrGap = errors.New("events are missing")
)

// ParseSequence parses the decimal digits of a sequence, with or without leading
// zeros.
func ParseSequence(s string) (journal.Sequence, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("parse sequence %q: not a decimal number below 2^64", s)
	}
	return journal.Sequence(n), nil
}
