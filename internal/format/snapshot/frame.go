package snapshot

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"

	"github.com/klauspost/compress/zstd"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/journal"
)

// source splits a file into frames.
type source struct {
	r      io.Reader
	err    error // the error of r, nil if r ended
	offset int64
	prev   uint32 // checksum of the previous info
}

// Read reads from r and records its error. If that is io.ErrUnexpectedEOF, or wraps
// io.EOF, the file is not cut: an HTTP body returns such errors when its connection
// breaks.
func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.offset += int64(n)
	if err != io.EOF { // io.ReadFull also compares with ==.
		s.err = err
	}
	return n, err
}

// errEnd means that the file ended after a frame.
var errEnd = errors.New("end of file")

// next reads the next frame into f.
func (s *source) next(f *frame) error {
	var head [infoSize]byte
	if n, err := io.ReadFull(s, head[:]); err != nil {
		if n == 0 && s.err == nil {
			return errEnd
		}
		return s.cut()
	}
	var err error
	if f.info, err = parseInfo(head[:], s.prev); err != nil {
		return err
	}
	s.prev = infoChecksum(head[:])
	size := int(f.info.compressed)
	f.packed = slices.Grow(f.packed[:0], size)[:size]
	if _, err := io.ReadFull(s, f.packed); err != nil {
		return s.cut()
	}
	return nil
}

// cut returns the error for a file that ends within a frame.
func (s *source) cut() error {
	if s.err != nil {
		return s.err
	}
	return fmt.Errorf("%w: file ends within a frame: the file was cut", event.ErrCorrupt)
}

// frame is a frame that is decoded. Its memory is reused for later frames.
type frame struct {
	info        info
	packed, raw []byte
	decoded     chan error // receives the result of decode

	records   []record
	resources []*journal.Resource
	typeURL   string // of the last type record
}

// record is a SnapshotRecord, or a run of consecutive resource records.
type record struct {
	kind    protowire.Number
	header  *Header
	trailer *Trailer
	node    node
	typ     typ

	first, end int   // the run in the frame's resources
	bytes      int64 // sum of the sizes of the run's resources
}

// decode decompresses the frame and parses its records. The records contain no part
// of the frame's buffers.
func (f *frame) decode(dec *zstd.Decoder) error {
	if got := crc32.Checksum(f.packed, castagnoli); got != f.info.crc {
		return fmt.Errorf("%w: got frame checksum %08x, want %08x", event.ErrCorrupt, got, f.info.crc)
	}
	raw, err := dec.DecodeAll(f.packed, slices.Grow(f.raw[:0], int(f.info.raw)))
	if err != nil {
		return fmt.Errorf("%w: decompress: %w", event.ErrCorrupt, err)
	}
	f.raw = raw
	if len(raw) != int(f.info.raw) {
		return fmt.Errorf("%w: got a frame of %d bytes, want %d", event.ErrCorrupt, len(raw), f.info.raw)
	}
	if len(raw) == 0 {
		return fmt.Errorf("%w: frame is empty", event.ErrCorrupt)
	}
	f.records, f.resources, f.typeURL = f.records[:0], f.resources[:0], ""
	for len(raw) > 0 {
		message, n := protowire.ConsumeBytes(raw)
		if n < 0 {
			return fmt.Errorf("%w: invalid length of a record", event.ErrCorrupt)
		}
		raw = raw[n:]
		kind, wire, n := protowire.ConsumeTag(message)
		if n < 0 || wire != protowire.BytesType {
			return fmt.Errorf("%w: invalid record", event.ErrCorrupt)
		}
		body, m := protowire.ConsumeBytes(message[n:])
		if m < 0 || n+m != len(message) {
			return fmt.Errorf("%w: invalid record", event.ErrCorrupt)
		}
		if err := f.add(kind, body); err != nil {
			return err
		}
	}
	return nil
}

func (f *frame) add(kind protowire.Number, body []byte) error {
	if kind == recordResource {
		return f.addResource(body)
	}
	f.records = append(f.records, record{kind: kind})
	rec := &f.records[len(f.records)-1]
	switch kind {
	case recordHeader:
		rec.header = new(Header)
		return rec.header.unmarshal(body)
	case recordNode:
		return rec.node.unmarshal(body)
	case recordType:
		err := rec.typ.unmarshal(body)
		f.typeURL = rec.typ.url
		return err
	case recordTrailer:
		rec.trailer = new(Trailer)
		return rec.trailer.unmarshal(body)
	default:
		return fmt.Errorf("%w: unknown kind of record %d", event.ErrCorrupt, kind)
	}
}

func (f *frame) addResource(body []byte) error {
	if n := len(f.records); n == 0 || f.records[n-1].kind != recordResource {
		f.records = append(f.records, record{kind: recordResource, first: len(f.resources), end: len(f.resources)})
	}
	// Nearly every resource has the type URL of its type record, and shares it.
	r := &journal.Resource{TypeURL: f.typeURL}
	if err := event.ParseResource(body, r); err != nil {
		return err
	}
	run := &f.records[len(f.records)-1]
	if run.end > run.first && f.resources[run.end-1].Name >= r.Name {
		return fmt.Errorf("%w: resource %q: %w", event.ErrCorrupt, r.Name, errOrder)
	}
	f.resources = append(f.resources, r)
	run.end++
	run.bytes += r.Size()
	return nil
}
