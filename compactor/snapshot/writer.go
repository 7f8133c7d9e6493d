package snapshot

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"runtime"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/xdswal/xdswal/journal/event"
)

// Writer writes a snapshot. Nodes, types and resources come sorted, as the
// state yields them. A writer is used by one goroutine; frames are compressed
// beside it, by half of the processors, so that a snapshot leaves room for
// those who serve.
type Writer struct {
	w       io.Writer
	enc     *zstd.Encoder
	buf     []byte // records of the frame that is open
	scratch []byte
	pending []chan []byte // frames being compressed, oldest first
	node    node
	typ     typ
	inType  bool
	trailer Trailer
	written int64
	err     error
}

// NewWriter returns a writer of a snapshot to w, and writes the header.
func NewWriter(w io.Writer, h Header) (*Writer, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(workers()), zstd.WithEncoderLevel(zstd.SpeedDefault))
	if err != nil {
		return nil, fmt.Errorf("make zstd encoder: %w", err)
	}
	sw := &Writer{w: w, enc: enc}
	sw.buf = appendRecord(sw.buf, recordHeader, h.marshal())
	sw.endFrame()
	return sw, sw.err
}

func workers() int { return max(1, runtime.GOMAXPROCS(0)/2) }

// Node begins a node.
func (w *Writer) Node(cache, name string, seq event.Sequence, at time.Time) error {
	w.node = node{cache: cache, name: name, seq: seq, at: at}
	w.inType = false
	w.trailer.Nodes++
	w.appendNode()
	return w.next()
}

// Type begins a type of the node begun last.
func (w *Writer) Type(url, version string) error {
	w.typ = typ{url: url, version: version}
	w.inType = true
	w.appendType()
	return w.next()
}

// Resource adds a resource to the type begun last.
func (w *Writer) Resource(r *event.Resource) error {
	w.buf = appendResourceRecord(w.buf, r)
	w.trailer.Resources++
	w.trailer.Bytes += r.Size()
	return w.next()
}

// Close writes the trailer with the digest of the state that was written. It
// does not close the underlying writer. The snapshot is whole only if Close
// returns nil.
func (w *Writer) Close(digest [32]byte) (Trailer, error) {
	defer w.enc.Close()
	if w.node.cache != "" && len(w.buf) > 0 {
		w.endFrame()
	}
	w.trailer.Digest = digest
	w.buf = appendRecord(w.buf[:0], recordTrailer, w.trailer.marshal())
	w.endFrame()
	for len(w.pending) > 0 {
		w.flushOldest()
	}
	return w.trailer, w.err
}

// Abort gives up the snapshot. It need not be called after Close.
func (w *Writer) Abort() {
	for _, ch := range w.pending {
		<-ch
	}
	w.pending = nil
	w.err = errors.New("snapshot writer was aborted")
	w.enc.Close()
}

// Written returns the number of compressed bytes written so far.
func (w *Writer) Written() int64 { return w.written }

func (w *Writer) appendNode() {
	w.scratch = w.node.append(w.scratch[:0])
	w.buf = appendRecord(w.buf, recordNode, w.scratch)
}

func (w *Writer) appendType() {
	w.scratch = w.typ.append(w.scratch[:0])
	w.buf = appendRecord(w.buf, recordType, w.scratch)
}

// next ends a frame that is large enough and begins the one after it with
// the node and the type that are open.
func (w *Writer) next() error {
	if w.err != nil || len(w.buf) < targetFrameSize {
		return w.err
	}
	w.endFrame()
	w.node.continued, w.typ.continued = true, true
	w.appendNode()
	if w.inType {
		w.appendType()
	}
	return w.err
}

func (w *Writer) endFrame() {
	if len(w.buf) > maxFrameSize {
		w.err = fmt.Errorf("write snapshot: a resource of %d bytes exceeds the limit of %d", len(w.buf), maxFrameSize)
		return
	}
	for len(w.pending) > workers() {
		w.flushOldest()
	}
	raw := w.buf
	ch := make(chan []byte, 1)
	w.pending = append(w.pending, ch)
	go func() { ch <- compress(w.enc, raw) }()
	w.buf = make([]byte, 0, targetFrameSize+targetFrameSize/4)
}

func (w *Writer) flushOldest() {
	frame := <-w.pending[0]
	w.pending = w.pending[1:]
	if w.err != nil {
		return
	}
	n, err := w.w.Write(frame)
	w.written += int64(n)
	if err != nil {
		w.err = fmt.Errorf("write snapshot: %w", err)
	}
}

// compress returns an info and the zstd frame that it tells of.
func compress(enc *zstd.Encoder, raw []byte) []byte {
	out := make([]byte, infoSize, infoSize+len(raw)/3)
	out = enc.EncodeAll(raw, out)
	i := info{
		compressed: uint32(len(out) - infoSize),
		raw:        uint32(len(raw)),
		crc:        crc32.Checksum(out[infoSize:], castagnoli),
	}
	i.append(out[:0])
	return out
}
