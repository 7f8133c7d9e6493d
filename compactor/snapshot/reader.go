package snapshot

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"runtime"
	"time"

	"github.com/klauspost/compress/zstd"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/xdswal/xdswal/journal/event"
)

// Sink receives a snapshot's contents in their order. The state's Builder is
// one.
type Sink interface {
	Node(cache, name string, seq event.Sequence, at time.Time) error
	Type(url, version string) error
	// Resources adds resources to the type begun last. It may be called
	// several times for one type.
	Resources([]*event.Resource) error
}

// Contents is what [Read] found.
type Contents struct {
	Header  Header
	Trailer Trailer
	// Size is the length of the file in bytes.
	Size int64
}

// ReadHeader reads no more than the first frame of a snapshot.
func ReadHeader(r io.Reader) (Header, error) {
	var h Header
	frame, _, err := readFrame(r)
	if err != nil {
		return h, fmt.Errorf("read snapshot header: %w", cut(err))
	}
	dec, err := newDecoder(1)
	if err != nil {
		return h, err
	}
	defer dec.Close()
	raw, err := frame.decompress(dec)
	if err != nil {
		return h, fmt.Errorf("read snapshot header: %w", err)
	}
	if err := h.parse(raw); err != nil {
		return h, fmt.Errorf("read snapshot header: %w", err)
	}
	return h, nil
}

// Read decodes a snapshot into sinks that begin makes when the header is
// known. Frames are decoded in parallel while r is read; the memory in use
// beyond what the sink keeps is a few frames for each processor. What the sink
// receives shares its bytes with the decoded frames.
//
// Read fails with [event.ErrCorrupt] if the file is not, to the last byte,
// what a writer wrote, with [event.ErrVersion] if a newer xdswal wrote it, and
// with the context's error once that is done.
func Read(ctx context.Context, r io.Reader, begin func(Header) (Sink, error)) (Contents, error) {
	workers := runtime.GOMAXPROCS(0)
	dec, err := newDecoder(workers)
	if err != nil {
		return Contents{}, err
	}
	defer dec.Close()
	rd := &reader{r: r, dec: dec, begin: begin}
	return rd.read(ctx, 2*workers)
}

func newDecoder(concurrency int) (*zstd.Decoder, error) {
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(concurrency), zstd.WithDecoderMaxMemory(maxFrameSize))
	if err != nil {
		return nil, fmt.Errorf("make zstd decoder: %w", err)
	}
	return dec, nil
}

type reader struct {
	r     io.Reader
	dec   *zstd.Decoder
	begin func(Header) (Sink, error)
	sink  Sink
	out   Contents
	seen  Trailer // counts of what was decoded
	ended bool    // the trailer was read
	node  node
	typ   typ
}

// parsed is a decoded frame, or why it could not be decoded.
type parsed struct {
	records []record
	err     error
}

func (rd *reader) read(ctx context.Context, window int) (Contents, error) {
	var queue []chan parsed
	// Frames that are still being decoded when read returns end by
	// themselves: their channels have room.
	for frames, eof := 0, false; !eof || len(queue) > 0; {
		if err := ctx.Err(); err != nil {
			return rd.out, fmt.Errorf("read snapshot: %w", context.Cause(ctx))
		}
		if !eof && len(queue) < window {
			frame, n, err := readFrame(rd.r)
			rd.out.Size += int64(n)
			if errors.Is(err, io.EOF) {
				eof = true
				continue
			}
			if err != nil {
				return rd.out, fmt.Errorf("read snapshot: frame %d, offset %d: %w", frames, rd.out.Size-int64(n), cut(err))
			}
			frames++
			ch := make(chan parsed, 1)
			go func() { ch <- frame.parse(rd.dec) }()
			queue = append(queue, ch)
			continue
		}
		if err := rd.take(<-queue[0]); err != nil {
			return rd.out, fmt.Errorf("read snapshot: frame %d: %w", frames-len(queue), err)
		}
		queue = queue[1:]
	}
	return rd.out, rd.end()
}

// take passes a frame's records to the sink.
func (rd *reader) take(p parsed) error {
	if p.err != nil {
		return p.err
	}
	for i := range p.records {
		if rd.ended {
			return fmt.Errorf("%w: record after the trailer", event.ErrCorrupt)
		}
		if err := rd.takeRecord(&p.records[i]); err != nil {
			return err
		}
	}
	return nil
}

func (rd *reader) takeRecord(rec *record) error {
	if (rd.sink == nil) != (rec.kind == recordHeader) {
		return fmt.Errorf("%w: header is not the first record", event.ErrCorrupt)
	}
	switch rec.kind {
	case recordHeader:
		rd.out.Header = *rec.header
		sink, err := rd.begin(*rec.header)
		rd.sink = sink
		return err
	case recordNode:
		if rec.node.continued {
			return rd.continues(rec.node.cache == rd.node.cache && rec.node.name == rd.node.name)
		}
		rd.node, rd.typ = rec.node, typ{}
		rd.seen.Nodes++
		return corrupt(rd.sink.Node(rec.node.cache, rec.node.name, rec.node.seq, rec.node.at))
	case recordType:
		if rec.typ.continued {
			return rd.continues(rec.typ.url == rd.typ.url)
		}
		rd.typ = rec.typ
		return corrupt(rd.sink.Type(rec.typ.url, rec.typ.version))
	case recordResource:
		for _, r := range rec.resources {
			rd.seen.Bytes += r.Size()
		}
		rd.seen.Resources += len(rec.resources)
		return corrupt(rd.sink.Resources(rec.resources))
	default:
		rd.out.Trailer, rd.ended = *rec.trailer, true
		return nil
	}
}

// corrupt marks a sink's refusal of an order that no writer writes.
func corrupt(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", event.ErrCorrupt, err)
}

func (rd *reader) continues(same bool) error {
	if same {
		return nil
	}
	return fmt.Errorf("%w: frame continues what the frame before it did not hold", event.ErrCorrupt)
}

func (rd *reader) end() error {
	if !rd.ended {
		return fmt.Errorf("read snapshot: %w: it ends without its trailer after %d bytes: the file was cut", event.ErrCorrupt, rd.out.Size)
	}
	t := rd.out.Trailer
	if t.Nodes != rd.seen.Nodes || t.Resources != rd.seen.Resources || t.Bytes != rd.seen.Bytes {
		return fmt.Errorf("read snapshot: %w: trailer counts %d nodes and %d resources, the file holds %d and %d",
			event.ErrCorrupt, t.Nodes, t.Resources, rd.seen.Nodes, rd.seen.Resources)
	}
	return nil
}

// rawFrame is a zstd frame with its info.
type rawFrame struct {
	info info
	data []byte
}

// readFrame reads one frame and returns how many bytes it took. It returns
// io.EOF only where a frame would begin.
func readFrame(r io.Reader) (rawFrame, int, error) {
	var head [infoSize]byte
	n, err := io.ReadFull(r, head[:])
	if err != nil {
		return rawFrame{}, n, err
	}
	i, err := parseInfo(head[:])
	if err != nil {
		return rawFrame{}, n, err
	}
	data := make([]byte, i.compressed)
	m, err := io.ReadFull(r, data)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return rawFrame{info: i, data: data}, n + m, err
}

// cut says of an early end what it means.
func cut(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: it ends within a frame: the file was cut", event.ErrCorrupt)
	}
	return err
}

func (f rawFrame) decompress(dec *zstd.Decoder) ([]byte, error) {
	if crc32.Checksum(f.data, castagnoli) != f.info.crc {
		return nil, fmt.Errorf("%w: checksum of a frame differs", event.ErrCorrupt)
	}
	raw, err := dec.DecodeAll(f.data, make([]byte, 0, f.info.raw))
	if err != nil {
		return nil, fmt.Errorf("%w: decompress: %w", event.ErrCorrupt, err)
	}
	if len(raw) != int(f.info.raw) {
		return nil, fmt.Errorf("%w: frame holds %d bytes, its information says %d", event.ErrCorrupt, len(raw), f.info.raw)
	}
	return raw, nil
}

func (f rawFrame) parse(dec *zstd.Decoder) parsed {
	raw, err := f.decompress(dec)
	if err != nil {
		return parsed{err: err}
	}
	records, err := parseRecords(raw)
	return parsed{records: records, err: err}
}

func (h *Header) parse(raw []byte) error {
	records, err := parseRecords(raw)
	if err != nil {
		return err
	}
	if len(records) != 1 || records[0].kind != recordHeader {
		return fmt.Errorf("%w: first frame is not a header", event.ErrCorrupt)
	}
	*h = *records[0].header
	return nil
}

// record is a SnapshotRecord, or a run of resource records.
type record struct {
	kind      protowire.Number
	header    *Header
	trailer   *Trailer
	node      node
	typ       typ
	resources []*event.Resource
}

func parseRecords(raw []byte) ([]record, error) {
	var p parser
	for len(raw) > 0 {
		message, n := protowire.ConsumeBytes(raw)
		if n < 0 {
			return nil, fmt.Errorf("%w: bad length of a record", event.ErrCorrupt)
		}
		raw = raw[n:]
		kind, wire, n := protowire.ConsumeTag(message)
		if n < 0 || wire != protowire.BytesType {
			return nil, fmt.Errorf("%w: bad record", event.ErrCorrupt)
		}
		body, m := protowire.ConsumeBytes(message[n:])
		if m < 0 || n+m != len(message) {
			return nil, fmt.Errorf("%w: bad record", event.ErrCorrupt)
		}
		if err := p.add(kind, body); err != nil {
			return nil, err
		}
	}
	return p.records, nil
}

// parser gathers a frame's records. It allocates resources in slabs.
type parser struct {
	records []record
	slab    []event.Resource
	typeURL string
}

const slabSize = 128

func (p *parser) add(kind protowire.Number, body []byte) error {
	if kind == recordResource {
		return p.addResource(body)
	}
	p.records = append(p.records, record{kind: kind})
	rec := &p.records[len(p.records)-1]
	switch kind {
	case recordHeader:
		rec.header = new(Header)
		return rec.header.unmarshal(body)
	case recordNode:
		return rec.node.unmarshal(body)
	case recordType:
		err := rec.typ.unmarshal(body)
		p.typeURL = rec.typ.url
		return err
	case recordTrailer:
		rec.trailer = new(Trailer)
		return rec.trailer.unmarshal(body)
	default:
		return fmt.Errorf("%w: unknown kind of record %d", event.ErrCorrupt, kind)
	}
}

func (p *parser) addResource(body []byte) error {
	if n := len(p.records); n == 0 || p.records[n-1].kind != recordResource {
		p.records = append(p.records, record{kind: recordResource})
	}
	if len(p.slab) == 0 {
		p.slab = make([]event.Resource, slabSize)
	}
	r := &p.slab[0]
	p.slab = p.slab[1:]
	// Nearly every resource has the type of its group: share that string.
	r.TypeURL = p.typeURL
	rec := &p.records[len(p.records)-1]
	rec.resources = append(rec.resources, r)
	return event.ParseResource(body, r)
}
