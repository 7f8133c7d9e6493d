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

	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/journal"
)

// Sink receives a snapshot's contents in their order. The state's Builder is
// one.
type Sink interface {
	Node(cache, name string, seq journal.Sequence, at time.Time) error
	Type(url, version string) error
	// Resources adds resources to the type begun last. It may be called
	// several times for one type.
	Resources([]*journal.Resource) error
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
	h, err := readHeader(&source{r: r})
	if err != nil {
		return Header{}, fmt.Errorf("read snapshot header: %w", err)
	}
	return h, nil
}

func readHeader(src *source) (Header, error) {
	frame, err := src.next()
	if errors.Is(err, errEnd) {
		err = src.cut()
	}
	if err != nil {
		return Header{}, err
	}
	dec, err := newDecoder(1)
	if err != nil {
		return Header{}, err
	}
	defer dec.Close()
	p := frame.parse(dec)
	if p.err != nil {
		return Header{}, p.err
	}
	if len(p.records) != 1 || p.records[0].kind != recordHeader {
		return Header{}, fmt.Errorf("%w: first frame is not a header", event.ErrCorrupt)
	}
	return *p.records[0].header, nil
}

// Read decodes a snapshot into sinks that begin makes when the header is
// known. Frames are decoded in parallel while r is read; the memory in use
// beyond what the sink keeps is a few frames for each processor. Resources
// share their bytes with the decoded frames.
//
// Read fails with [event.ErrCorrupt] if the file is not, to the last byte,
// what a writer wrote, and with [event.ErrVersion] if a newer xdswal wrote it.
// An error of r, of begin or of the sink is passed through, and is neither;
// once the context is done, so is its cause.
func Read(ctx context.Context, r io.Reader, begin func(Header) (Sink, error)) (Contents, error) {
	workers := runtime.GOMAXPROCS(0)
	dec, err := newDecoder(workers)
	if err != nil {
		return Contents{}, err
	}
	defer dec.Close()
	rd := &reader{src: source{r: r}, dec: dec, begin: begin}
	if err := rd.read(ctx, 2*workers); err != nil {
		return rd.out, fmt.Errorf("read snapshot: %w", err)
	}
	return rd.out, nil
}

func newDecoder(concurrency int) (*zstd.Decoder, error) {
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(concurrency), zstd.WithDecoderMaxMemory(maxFrameSize))
	if err != nil {
		return nil, fmt.Errorf("make zstd decoder: %w", err)
	}
	return dec, nil
}

type reader struct {
	src   source
	dec   *zstd.Decoder
	begin func(Header) (Sink, error)
	sink  Sink
	out   Contents
	seen  Trailer // counts of what was decoded
	ended bool    // the trailer was read
	order order
}

// parsed is a decoded frame, or why it could not be decoded.
type parsed struct {
	records []record
	err     error
}

func (rd *reader) read(ctx context.Context, window int) error {
	var queue []chan parsed
	// The decoder must not be closed while it decodes.
	defer func() {
		for _, ch := range queue {
			<-ch
		}
	}()
	for frames, eof := 0, false; !eof || len(queue) > 0; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !eof && len(queue) < window {
			offset := rd.src.offset
			frame, err := rd.src.next()
			rd.out.Size = rd.src.offset
			if errors.Is(err, errEnd) {
				eof = true
				continue
			}
			if err != nil {
				return fmt.Errorf("frame %d, offset %d: %w", frames, offset, err)
			}
			frames++
			ch := make(chan parsed, 1)
			go func() { ch <- frame.parse(rd.dec) }()
			queue = append(queue, ch)
			continue
		}
		oldest := queue[0]
		queue = queue[1:]
		if err := rd.take(<-oldest); err != nil {
			return fmt.Errorf("frame %d: %w", frames-len(queue)-1, err)
		}
	}
	return rd.end()
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
		return rd.takeNode(&rec.node)
	case recordType:
		return rd.takeType(&rec.typ)
	case recordResource:
		return rd.takeResources(rec.resources)
	default:
		rd.out.Trailer, rd.ended = *rec.trailer, true
		return nil
	}
}

func (rd *reader) takeNode(n *node) error {
	if n.continued {
		return continues(rd.order.inNode && n.cache == rd.order.cache && n.name == rd.order.node)
	}
	if err := rd.order.toNode(n.cache, n.name); err != nil {
		return fmt.Errorf("%w: %w", event.ErrCorrupt, err)
	}
	rd.seen.Nodes++
	return rd.sink.Node(n.cache, n.name, n.seq, n.at)
}

func (rd *reader) takeType(t *typ) error {
	if t.continued {
		return continues(rd.order.inType && t.url == rd.order.url)
	}
	if err := rd.order.toType(t.url); err != nil {
		return fmt.Errorf("%w: %w", event.ErrCorrupt, err)
	}
	return rd.sink.Type(t.url, t.version)
}

func (rd *reader) takeResources(resources []*journal.Resource) error {
	if err := rd.order.toResources(resources[0].Name, resources[len(resources)-1].Name); err != nil {
		return fmt.Errorf("%w: %w", event.ErrCorrupt, err)
	}
	for _, r := range resources {
		rd.seen.Bytes += r.Size()
	}
	rd.seen.Resources += len(resources)
	return rd.sink.Resources(resources)
}

func continues(same bool) error {
	if same {
		return nil
	}
	return fmt.Errorf("%w: frame continues what the frame before it did not hold", event.ErrCorrupt)
}

func (rd *reader) end() error {
	if !rd.ended {
		return fmt.Errorf("%w: it ends without its trailer after %d bytes: the file was cut", event.ErrCorrupt, rd.out.Size)
	}
	t := rd.out.Trailer
	if t.Nodes != rd.seen.Nodes || t.Resources != rd.seen.Resources || t.Bytes != rd.seen.Bytes {
		return fmt.Errorf("%w: trailer counts %d nodes and %d resources of %d bytes, the file holds %d and %d of %d",
			event.ErrCorrupt, t.Nodes, t.Resources, t.Bytes, rd.seen.Nodes, rd.seen.Resources, rd.seen.Bytes)
	}
	return nil
}

// source cuts a file into frames.
type source struct {
	r      io.Reader
	err    error // why r failed, nil if it ended
	offset int64
	prev   uint32 // checksum of the info read last
}

// Read reads from r and remembers its error: one that says io.EOF or
// io.ErrUnexpectedEOF, as an HTTP body does when its connection breaks, does
// not mean that the file is short.
func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.offset += int64(n)
	if err != io.EOF { // A wrapped one is not the end, to io.ReadFull neither.
		s.err = err
	}
	return n, err
}

// errEnd says that the file ended where a frame would begin.
var errEnd = errors.New("end of file")

func (s *source) next() (rawFrame, error) {
	var head [infoSize]byte
	if n, err := io.ReadFull(s, head[:]); err != nil {
		if n == 0 && s.err == nil {
			return rawFrame{}, errEnd
		}
		return rawFrame{}, s.cut()
	}
	i, err := parseInfo(head[:], s.prev)
	if err != nil {
		return rawFrame{}, err
	}
	s.prev = infoChecksum(head[:])
	data := make([]byte, i.compressed)
	if _, err := io.ReadFull(s, data); err != nil {
		return rawFrame{}, s.cut()
	}
	return rawFrame{info: i, data: data}, nil
}

// cut returns why the file ended early.
func (s *source) cut() error {
	if s.err != nil {
		return s.err
	}
	return fmt.Errorf("%w: it ends within a frame: the file was cut", event.ErrCorrupt)
}

// rawFrame is a zstd frame with its info.
type rawFrame struct {
	info info
	data []byte
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

// record is a SnapshotRecord, or a run of resource records.
type record struct {
	kind      protowire.Number
	header    *Header
	trailer   *Trailer
	node      node
	typ       typ
	resources []*journal.Resource
}

func parseRecords(raw []byte) ([]record, error) {
	if len(raw) == 0 {
		return nil, fmt.Errorf("%w: empty frame", event.ErrCorrupt)
	}
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
	p.endRun()
	return p.records, nil
}

// parser gathers a frame's records. It allocates resources in slabs.
type parser struct {
	records []record
	slab    []journal.Resource
	all     []*journal.Resource // of the frame
	run     int                 // where in all the run that is open begins
	typeURL string
}

const slabSize = 128

func (p *parser) add(kind protowire.Number, body []byte) error {
	if kind == recordResource {
		return p.addResource(body)
	}
	p.endRun()
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
	if len(p.slab) == 0 {
		p.slab = make([]journal.Resource, slabSize)
	}
	r := &p.slab[0]
	p.slab = p.slab[1:]
	// Nearly every resource has the type of its group: share that string.
	r.TypeURL = p.typeURL
	if err := event.ParseResource(body, r); err != nil {
		return err
	}
	if len(p.all) > p.run && p.all[len(p.all)-1].Name >= r.Name {
		return fmt.Errorf("%w: resource %q: %w", event.ErrCorrupt, r.Name, errOrder)
	}
	p.all = append(p.all, r)
	return nil
}

// endRun makes one record of the resources since the last other record.
func (p *parser) endRun() {
	if end := len(p.all); end > p.run {
		p.records = append(p.records, record{kind: recordResource, resources: p.all[p.run:end:end]})
		p.run = end
	}
}
