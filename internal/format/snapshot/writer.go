package snapshot

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"runtime"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/xdswal/xdswal/journal"
)

// Writer writes a snapshot. Nodes, types and resources must be added in sorted order,
// as the state yields them. One goroutine uses a Writer. Frames are compressed in
// parallel by half of the processors, so that the others can serve updates meanwhile.
type Writer struct {
	w       io.Writer
	enc     *zstd.Encoder
	buf     []byte // records of the open frame
	scratch []byte
	pending []chan packedFrame // frames being compressed, oldest first
	spare   []packedFrame      // written frames, for reuse of their memory
	order   order
	node    node
	typ     typ
	trailer Trailer
	written int64
	prev    uint32 // checksum of the previous info
	err     error
}

// packedFrame is a frame that is compressed. packed begins with space for the info.
type packedFrame struct {
	raw, packed []byte
	info        info
}

// NewWriter returns a writer of a snapshot to w, and writes the header.
func NewWriter(w io.Writer, h Header) (*Writer, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(workers()), zstd.WithEncoderLevel(zstd.SpeedDefault))
	if err != nil {
		return nil, fmt.Errorf("create zstd encoder: %w", err)
	}
	sw := &Writer{w: w, enc: enc}
	sw.buf, err = appendMessage(sw.buf, recordHeader, h.message())
	_ = sw.check(err)
	sw.endFrame()
	return sw, sw.err
}

func workers() int { return max(1, runtime.GOMAXPROCS(0)/2) }

// Node begins a node.
func (w *Writer) Node(cache, name string, seq journal.Sequence, at time.Time) error {
	if err := w.check(w.order.toNode(cache, name)); err != nil {
		return err
	}
	w.node = node{cache: cache, name: name, seq: seq, at: at}
	w.trailer.Nodes++
	w.appendNode()
	return w.endFullFrame()
}

// Type begins a type of the last node.
func (w *Writer) Type(url, version string) error {
	if err := w.check(w.order.toType(url)); err != nil {
		return err
	}
	if len(w.buf) == 0 {
		w.appendNode()
	}
	w.typ = typ{url: url, version: version}
	w.appendType()
	return w.endFullFrame()
}

// Resource adds a resource to the last type.
func (w *Writer) Resource(r *journal.Resource) error {
	if err := w.check(w.order.toResources(r.Name, r.Name)); err != nil {
		return err
	}
	if len(w.buf) == 0 {
		w.appendNode()
		w.appendType()
	}
	w.buf = appendResourceRecord(w.buf, r)
	w.trailer.Resources++
	w.trailer.Bytes += r.Size()
	return w.endFullFrame()
}

// check records the first error. All later calls return it, because a snapshot
// without the record that failed would be incomplete.
func (w *Writer) check(err error) error {
	if w.err == nil && err != nil {
		w.err = fmt.Errorf("write snapshot: %w", err)
	}
	return w.err
}

// Close writes the trailer with the digest of the written state, and returns it. It
// does not close the underlying writer. The snapshot is complete only if the error is
// nil.
func (w *Writer) Close(digest [32]byte) (Trailer, error) {
	defer func() { _ = w.enc.Close() }() // It has no stream to end.
	w.endFrame()
	w.trailer.Digest = digest
	var err error
	w.buf, err = appendMessage(w.buf, recordTrailer, w.trailer.message())
	_ = w.check(err)
	w.endFrame()
	for len(w.pending) > 0 {
		w.flushOldest()
	}
	return w.trailer, w.err
}

// Abort ends an incomplete snapshot and releases its memory. It is not needed after
// Close.
func (w *Writer) Abort() {
	for _, ch := range w.pending {
		<-ch
	}
	w.pending = nil
	w.err = errors.New("write snapshot: aborted")
	_ = w.enc.Close()
}

// Written returns the number of compressed bytes written so far.
func (w *Writer) Written() int64 { return w.written }

// appendNode and appendType append the record of the open node or type. After the
// first time, which is at the beginning of a frame, the record is marked continued.
func (w *Writer) appendNode() {
	w.scratch = w.node.append(w.scratch[:0])
	w.buf = appendRecord(w.buf, recordNode, w.scratch)
	w.node.continued = true
}

func (w *Writer) appendType() {
	w.scratch = w.typ.append(w.scratch[:0])
	w.buf = appendRecord(w.buf, recordType, w.scratch)
	w.typ.continued = true
}

func (w *Writer) endFullFrame() error {
	if len(w.buf) >= targetFrameSize {
		w.endFrame()
	}
	return w.err
}

// endFrame starts the compression of the open frame, unless it is empty. To limit
// the frames in memory, it first writes the oldest ones.
func (w *Writer) endFrame() {
	if len(w.buf) == 0 || w.err != nil {
		return
	}
	if len(w.buf) > maxFrameSize {
		w.err = fmt.Errorf("write snapshot: the last resource makes a frame of %d bytes, the limit is %d", len(w.buf), maxFrameSize)
		return
	}
	for len(w.pending) > workers() {
		w.flushOldest()
	}
	f := packedFrame{raw: w.buf}
	w.buf = nil
	if n := len(w.spare); n > 0 {
		w.buf, f.packed = w.spare[n-1].raw[:0], w.spare[n-1].packed
		w.spare = w.spare[:n-1]
	}
	ch := make(chan packedFrame, 1)
	w.pending = append(w.pending, ch)
	go func() { ch <- f.compress(w.enc) }()
}

// flushOldest writes the oldest frame. Its info is completed here because its
// checksum continues that of the previous frame.
func (w *Writer) flushOldest() {
	f := <-w.pending[0]
	w.pending = w.pending[1:]
	w.spare = append(w.spare, f)
	if w.err != nil {
		return
	}
	f.info.append(f.packed[:0], w.prev)
	w.prev = infoChecksum(f.packed)
	n, err := w.w.Write(f.packed)
	w.written += int64(n)
	if err != nil {
		w.err = fmt.Errorf("write snapshot: %w", err)
	}
}

func (f packedFrame) compress(enc *zstd.Encoder) packedFrame {
	if cap(f.packed) < infoSize {
		f.packed = make([]byte, infoSize, infoSize+len(f.raw)/3)
	}
	f.packed = enc.EncodeAll(f.raw, f.packed[:infoSize])
	f.info = info{
		compressed: uint32(len(f.packed) - infoSize),
		raw:        uint32(len(f.raw)),
		crc:        crc32.Checksum(f.packed[infoSize:], castagnoli),
	}
	return f
}
