// Package batch is the format of a batch: consecutive events in one immutable
// object of a backend.
//
// An object is one zstd frame of journal records (internal/event/xdswal.proto), each
// preceded by its length as a varint. The records are those of the journal, with
// their own magic, format, sequence and checksum. Plain "zstd -dc" reads the object.
// Its name contains the epoch and the first sequence, so a follower that has applied
// event N can compute the name of the object with event N+1.
//
// The reader verifies the checksum of each record, that the sequences have no gap,
// and zstd's checksum of the frame. This package has no I/O.
package batch

import (
	"fmt"

	"github.com/klauspost/compress/zstd"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/internal/format"
	"github.com/xdswal/xdswal/journal"
)

// Name is the name of a batch. Names sort as text by epoch, up to epoch
// 9,999,999,999, and then by sequence.
type Name struct {
	// Epoch is the epoch of the writer, First the first sequence of the batch.
	Epoch uint64
	First journal.Sequence
}

const nameKind = "events"

// String returns for example "events-0000000003-00000000000000001234.zst".
func (n Name) String() string { return format.Name(nameKind, n.Epoch, n.First) }

// ParseName parses the last element of a batch's key. It returns false for any other
// name.
func ParseName(s string) (Name, bool) {
	epoch, seq, ok := format.ParseName(nameKind, s)
	return Name{Epoch: epoch, First: seq}, ok
}

const (
	// targetSize is the size in bytes of the records at which a batch is full. A batch
	// is much larger only if one record is.
	targetSize = 8 << 20
	// maxSize limits the memory that Decode allocates for one batch.
	maxSize = 1 << 30
)

// Writer encodes records into a batch, in memory. One goroutine uses a Writer.
type Writer struct {
	enc         *zstd.Encoder
	raw, packed []byte
	first, last journal.Sequence
}

// NewWriter returns a writer of an empty batch.
func NewWriter() (*Writer, error) {
	// Fast and on one processor, because updates need the others. A batch is small,
	// and its records are similar.
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(1<<20))
	if err != nil {
		return nil, fmt.Errorf("create zstd encoder: %w", err)
	}
	return &Writer{enc: enc}, nil
}

// Reset begins a new, empty batch, and invalidates the result of Bytes.
func (w *Writer) Reset() {
	if cap(w.raw) > 4*targetSize {
		w.raw, w.packed = nil, nil // The buffers of a very large record are freed.
	}
	w.raw, w.first, w.last = w.raw[:0], 0, 0
}

// Full reports whether the batch must be shipped before another record is added.
func (w *Writer) Full() bool { return len(w.raw) >= targetSize }

// Add appends a copy of the record. It returns an error if seq is not the sequence
// after the previous one.
func (w *Writer) Add(seq journal.Sequence, record []byte) error {
	if w.first == 0 {
		w.first = seq
	} else if seq != w.last+1 {
		return fmt.Errorf("write batch: got event %d after %d, want %d", seq, w.last, w.last+1)
	}
	w.raw = protowire.AppendVarint(w.raw, uint64(len(record)))
	w.raw = append(w.raw, record...)
	w.last = seq
	return nil
}

// Bounds returns the first and the last sequence added, or 0 and 0.
func (w *Writer) Bounds() (first, last journal.Sequence) { return w.first, w.last }

// Bytes returns the encoded batch, which is valid until the next call of Bytes or
// Reset.
func (w *Writer) Bytes() []byte {
	w.packed = w.enc.EncodeAll(w.raw, w.packed[:0])
	return w.packed
}

// Decode calls fn for each event of a batch, in order. fn may keep the event. The
// error is fn's, [event.ErrVersion], or [event.ErrCorrupt] if the batch is damaged or
// cut, has a gap, or begins with another sequence than that of its name. fn may then
// have been called for the events before the error.
func Decode(data []byte, name Name, fn func(*journal.Event) error) error {
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxSize))
	if err != nil {
		return fmt.Errorf("create zstd decoder: %w", err)
	}
	defer dec.Close()
	raw, err := dec.DecodeAll(data, nil)
	if err != nil {
		return fmt.Errorf("%w: decompress: %w", event.ErrCorrupt, err)
	}
	if len(raw) == 0 {
		return fmt.Errorf("%w: batch contains no event", event.ErrCorrupt)
	}
	for next := name.First; len(raw) > 0; next++ {
		record, n := protowire.ConsumeBytes(raw)
		if n < 0 {
			return fmt.Errorf("%w: invalid length of a record", event.ErrCorrupt)
		}
		raw = raw[n:]
		ev, err := event.Unmarshal(record)
		if err != nil {
			return err
		}
		if ev.Sequence != next {
			return fmt.Errorf("%w: got event %d, want %d", event.ErrCorrupt, ev.Sequence, next)
		}
		if err := fn(ev); err != nil {
			return err
		}
	}
	return nil
}
