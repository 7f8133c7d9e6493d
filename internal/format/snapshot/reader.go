package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/journal"
)

// Sink receives the contents of a snapshot in order. A state.Builder is a Sink.
type Sink interface {
	// Node begins a node.
	Node(cache, name string, seq journal.Sequence, at time.Time) error
	// Type begins a type of the last node.
	Type(url, version string) error
	// Resources adds resources to the last type, in one or more calls. The sink may
	// keep the resources, but not the slice.
	Resources([]*journal.Resource) error
}

// Contents describes a snapshot that was read.
type Contents struct {
	Header  Header
	Trailer Trailer
	// Size is the size of the file in bytes.
	Size int64
}

// ReadHeader returns the header of a snapshot. It reads only the first frame.
func ReadHeader(r io.Reader) (Header, error) {
	h, err := readHeader(&source{r: r})
	if err != nil {
		return Header{}, fmt.Errorf("read snapshot header: %w", err)
	}
	return h, nil
}

func readHeader(src *source) (Header, error) {
	var f frame
	err := src.next(&f)
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
	if err := f.decode(dec); err != nil {
		return Header{}, err
	}
	if len(f.records) != 1 || f.records[0].kind != recordHeader {
		return Header{}, fmt.Errorf("%w: first frame is not a header", event.ErrCorrupt)
	}
	return *f.records[0].header, nil
}

// Read decodes a snapshot into the sink that begin returns for its header. Frames
// are decoded in parallel while r is read. Beyond the resources, Read uses the memory
// of a few frames per processor. A resource keeps no part of its frame in memory.
//
// Read returns [event.ErrCorrupt] if the file is not, to the last byte, a file that a
// writer wrote, and [event.ErrVersion] if a newer xdswal wrote it. Errors of r, of
// begin and of the sink, and the cause of the context when it is done, are returned
// wrapped, and are neither of the two.
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
		return nil, fmt.Errorf("create zstd decoder: %w", err)
	}
	return dec, nil
}

type reader struct {
	src   source
	dec   *zstd.Decoder
	begin func(Header) (Sink, error)
	sink  Sink
	out   Contents
	seen  Trailer // counts of the decoded records
	ended bool    // the trailer was read
	order order
	spare []*frame // for reuse
}

func (rd *reader) read(ctx context.Context, window int) error {
	var queue []*frame
	// The decoder must not be closed while it decodes.
	defer func() {
		for _, f := range queue {
			<-f.decoded
		}
	}()
	for frames, eof := 0, false; !eof || len(queue) > 0; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !eof && len(queue) < window {
			offset := rd.src.offset
			f := rd.newFrame()
			err := rd.src.next(f)
			rd.out.Size = rd.src.offset
			if errors.Is(err, errEnd) {
				eof = true
				continue
			}
			if err != nil {
				return fmt.Errorf("frame %d, offset %d: %w", frames, offset, err)
			}
			frames++
			go func() { f.decoded <- f.decode(rd.dec) }()
			queue = append(queue, f)
			continue
		}
		oldest := queue[0]
		queue = queue[1:]
		err := <-oldest.decoded
		if err == nil {
			err = rd.add(oldest)
		}
		if err != nil {
			return fmt.Errorf("frame %d: %w", frames-len(queue)-1, err)
		}
		rd.reuse(oldest)
	}
	return rd.end()
}

func (rd *reader) newFrame() *frame {
	n := len(rd.spare)
	if n == 0 {
		return &frame{decoded: make(chan error, 1)}
	}
	f := rd.spare[n-1]
	rd.spare = rd.spare[:n-1]
	return f
}

func (rd *reader) reuse(f *frame) {
	if f.info.raw <= 4*targetFrameSize { // The buffers of a very large resource are freed.
		rd.spare = append(rd.spare, f)
	}
}

// add passes the records of a frame to the sink.
func (rd *reader) add(f *frame) error {
	for i := range f.records {
		if rd.ended {
			return fmt.Errorf("%w: record after the trailer", event.ErrCorrupt)
		}
		if err := rd.addRecord(&f.records[i], f.resources); err != nil {
			return err
		}
	}
	return nil
}

func (rd *reader) addRecord(rec *record, resources []*journal.Resource) error {
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
		return rd.addNode(&rec.node)
	case recordType:
		return rd.addType(&rec.typ)
	case recordResource:
		return rd.addResources(resources[rec.first:rec.end], rec.bytes)
	default:
		rd.out.Trailer, rd.ended = *rec.trailer, true
		return nil
	}
}

func (rd *reader) addNode(n *node) error {
	if n.continued {
		return continues(rd.order.inNode && n.cache == rd.order.cache && n.name == rd.order.node)
	}
	if err := rd.order.toNode(n.cache, n.name); err != nil {
		return fmt.Errorf("%w: %w", event.ErrCorrupt, err)
	}
	rd.seen.Nodes++
	return rd.sink.Node(n.cache, n.name, n.seq, n.at)
}

func (rd *reader) addType(t *typ) error {
	if t.continued {
		return continues(rd.order.inType && t.url == rd.order.url)
	}
	if err := rd.order.toType(t.url); err != nil {
		return fmt.Errorf("%w: %w", event.ErrCorrupt, err)
	}
	return rd.sink.Type(t.url, t.version)
}

func (rd *reader) addResources(resources []*journal.Resource, bytes int64) error {
	if err := rd.order.toResources(resources[0].Name, resources[len(resources)-1].Name); err != nil {
		return fmt.Errorf("%w: %w", event.ErrCorrupt, err)
	}
	rd.seen.Resources += len(resources)
	rd.seen.Bytes += bytes
	return rd.sink.Resources(resources)
}

func continues(same bool) error {
	if same {
		return nil
	}
	return fmt.Errorf("%w: frame continues another node or type than that of the previous frame", event.ErrCorrupt)
}

func (rd *reader) end() error {
	if !rd.ended {
		return fmt.Errorf("%w: trailer is missing after %d bytes: the file was cut", event.ErrCorrupt, rd.out.Size)
	}
	got, want := rd.seen, rd.out.Trailer
	if got.Nodes != want.Nodes || got.Resources != want.Resources || got.Bytes != want.Bytes {
		return fmt.Errorf("%w: got %d nodes and %d resources of %d bytes, want %d and %d of %d by the trailer",
			event.ErrCorrupt, got.Nodes, got.Resources, got.Bytes, want.Nodes, want.Resources, want.Bytes)
	}
	return nil
}
