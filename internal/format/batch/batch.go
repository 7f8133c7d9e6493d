// Package batch is the format of the journal's tail as it is shipped to a
// backend: consecutive events in one immutable object.
//
// An object is one zstd frame of journal records (internal/event/xdswal.proto),
// each preceded by its length as a varint, as they stand in the journal: with
// magic, format, sequence and checksum of their own. Plain "zstd -dc" reads it.
// Its name tells the epoch and the first sequence, so whoever has applied event
// N knows the name of the object with event N+1 without listing.
//
// Every record is verified by its checksum, the records follow each other
// without a gap, and zstd's own checksum tells a frame that was cut.
package batch

import (
	"bytes"
	"fmt"

	"github.com/klauspost/compress/zstd"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/journal"
)

// Name is the name of a batch: its writer's epoch and its first sequence. Names
// sort as text in the order of their epochs and then of their sequences.
type Name struct {
	Epoch uint64
	First journal.Sequence
}

// nameKind begins the name.
const nameKind = "events"

// String returns for example "events-0000000003-00000000000000001234.zst".
func (n Name) String() string {
	return event.FormatName(nameKind, n.Epoch, n.First)
}

// ParseName parses the last element of a batch's key. It reports false for what
// is not a batch's name.
func ParseName(s string) (Name, bool) {
	epoch, seq, ok := event.ParseName(nameKind, s)
	return Name{Epoch: epoch, First: seq}, ok
}

// maxSize bounds what a reader allocates for one batch. A batch exceeds a few
// MiB only where one record does.
const maxSize = 1 << 30

// Writer gathers records into a batch, in memory. It is used by one goroutine.
type Writer struct {
	enc         *zstd.Encoder
	raw, packed []byte
	first, last journal.Sequence
}

// NewWriter returns a writer of an empty batch.
func NewWriter() (*Writer, error) {
	// Beside updates, on one processor: what is new each second is small, and
	// most of it repeats.
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(1<<20))
	if err != nil {
		return nil, fmt.Errorf("make zstd encoder: %w", err)
	}
	return &Writer{enc: enc}, nil
}

// Reset begins a new, empty batch. What Bytes returned is not valid any more.
func (w *Writer) Reset() {
	if cap(w.raw) > 4*targetSize {
		w.raw, w.packed = nil, nil // of a very large record
	}
	w.raw, w.first, w.last = w.raw[:0], 0, 0
}

// targetSize is the size in bytes of the records at which a batch is full.
const targetSize = 8 << 20

// Full reports whether the batch is to be shipped before more is added.
func (w *Writer) Full() bool { return len(w.raw) >= targetSize }

// Add adds a record, which must have the sequence after the one before it. The
// record is copied.
func (w *Writer) Add(seq journal.Sequence, record []byte) error {
	if w.first == 0 {
		w.first = seq
	} else if seq != w.last+1 {
		return fmt.Errorf("write batch: event %d after %d", seq, w.last)
	}
	w.raw = protowire.AppendVarint(w.raw, uint64(len(record)))
	w.raw = append(w.raw, record...)
	w.last = seq
	return nil
}

// Bounds return the first and the last sequence added, 0 and 0 if there is none.
func (w *Writer) Bounds() (first, last journal.Sequence) { return w.first, w.last }

// Bytes returns the batch. It is valid until the next call of Bytes or Reset.
func (w *Writer) Bytes() []byte {
	w.packed = w.enc.EncodeAll(w.raw, w.packed[:0])
	return w.packed
}

// Decode calls fn for the events of a batch, in order. A batch that does not
// begin with the sequence that its name says, has a gap, is cut or damaged is
// [event.ErrCorrupt]; fn may have been called for the events before that. The
// events may be kept.
func Decode(data []byte, name Name, fn func(*journal.Event) error) error {
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxSize))
	if err != nil {
		return fmt.Errorf("make zstd decoder: %w", err)
	}
	defer dec.Close()
	raw, err := dec.DecodeAll(data, nil)
	if err != nil {
		return fmt.Errorf("%w: decompress: %w", event.ErrCorrupt, err)
	}
	if len(raw) == 0 {
		return fmt.Errorf("%w: it holds no event", event.ErrCorrupt)
	}
	for next := name.First; len(raw) > 0; next++ {
		record, n := protowire.ConsumeBytes(raw)
		if n < 0 {
			return fmt.Errorf("%w: bad length of a record", event.ErrCorrupt)
		}
		raw = raw[n:]
		// A copy: a resource that stays must not keep the whole batch.
		ev, err := event.Unmarshal(bytes.Clone(record))
		if err != nil {
			return err
		}
		if ev.Sequence != next {
			return fmt.Errorf("%w: event %d where %d should stand", event.ErrCorrupt, ev.Sequence, next)
		}
		if err := fn(ev); err != nil {
			return err
		}
	}
	return nil
}
