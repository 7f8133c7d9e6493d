// Package download reads objects of a backend faster than one stream: it fetches parts
// of a large object, or many small objects, concurrently, and returns them in order. It
// does not decode them. Invariants: memory is bounded, and a broken connection is never
// taken for the end of an object.
package download

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/xdswal/xdswal/backends"
)

const (
	// PartSize is the size of the parts that Open fetches, in bytes.
	PartSize = 8 << 20
	// Parallel is the number of parts that Open fetches ahead.
	Parallel = 4
)

// Open returns a reader of the object key, which has size bytes. An object of up to
// [PartSize] is one request. Of a larger one [Parallel] parts are in memory, and the part
// that is being read. If ctx is done, Read returns its cause. The reader is used by one
// goroutine, and must be closed.
func Open(ctx context.Context, b backends.Backend, key string, size int64) (io.ReadCloser, error) {
	if size <= PartSize {
		return b.Get(ctx, key, 0, -1)
	}
	ctx, cancel := context.WithCancel(ctx)
	parts := (size + PartSize - 1) / PartSize
	fetch := func(ctx context.Context, i int64, buf []byte) ([]byte, error) {
		offset := i * PartSize
		return get(ctx, b, key, offset, min(PartSize, size-offset), buf)
	}
	return &reader{ahead: newAhead(ctx, parts, Parallel, fetch), cancel: cancel}, nil
}

func get(ctx context.Context, b backends.Backend, key string, offset, length int64, buf []byte) ([]byte, error) {
	r, err := b.Get(ctx, key, offset, length)
	if err != nil {
		return nil, notEnd(err)
	}
	defer r.Close()
	if int64(cap(buf)) < length {
		buf = make([]byte, length)
	}
	buf = buf[:length]
	if _, err := io.ReadFull(r, buf); err != nil {
		return nil, fmt.Errorf("read %s in %s at %d: %w", key, b, offset, notEnd(err))
	}
	return buf, nil
}

// notEnd returns err so that it is not io.EOF: the end of a part or of a connection is
// not the end of the object.
func notEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: %v", io.ErrUnexpectedEOF, err) //nolint:errorlint // err must not match io.EOF.
	}
	return err
}

// reader returns the bytes of the parts of an object in order.
type reader struct {
	ahead  *ahead
	cancel context.CancelFunc
	buf    []byte // current part; reused for a later one
	rest   []byte // unread bytes of buf
	err    error
}

func (r *reader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		var ok bool
		if r.buf, ok, r.err = r.ahead.next(r.buf); !ok && r.err == nil {
			r.err = io.EOF
		}
		r.rest = r.buf
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// Close cancels the requests for parts ahead.
func (r *reader) Close() error {
	r.cancel()
	return nil
}

// Object is an object that Each reads whole.
type Object struct {
	Key  string
	Size int64
}

// Each calls fn for each of objects in order, with its content or the error of reading it,
// and fetches up to parallel of them ahead. fn must not retain the content. Each returns
// the first error of fn, or the cause of ctx.
func Each(ctx context.Context, b backends.Backend, objects []Object, parallel int, fn func(i int, data []byte, err error) error) error {
	ctx, cancel := context.WithCancel(ctx)
	a := newAhead(ctx, int64(len(objects)), parallel, func(ctx context.Context, i int64, buf []byte) ([]byte, error) {
		return whole(ctx, b, objects[i], buf)
	})
	defer cancel()
	var data []byte
	for i := range objects {
		var err error
		data, _, err = a.next(data)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := fn(i, data, err); err != nil {
			return err
		}
	}
	return nil
}

// whole reads an object to its end, where the backend verifies its checksum. It retries a
// damaged object once, because the damage may be on the network.
func whole(ctx context.Context, b backends.Backend, o Object, buf []byte) ([]byte, error) {
	data, err := once(ctx, b, o, buf)
	if errors.Is(err, backends.ErrDamaged) {
		return once(ctx, b, o, buf)
	}
	return data, err
}

// once reads an object to its end and returns an error unless it has the listed size.
func once(ctx context.Context, b backends.Backend, o Object, buf []byte) ([]byte, error) {
	r, err := b.Get(ctx, o.Key, 0, -1)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if int64(cap(buf)) < o.Size+1 {
		buf = make([]byte, o.Size+1)
	}
	// An error that wraps io.EOF is a broken connection, not the end.
	n, err := io.ReadFull(r, buf[:o.Size+1])
	switch {
	case err == nil:
		return nil, fmt.Errorf("read %s in %s: got more bytes than the %d that were listed", o.Key, b, o.Size)
	case err != io.EOF && err != io.ErrUnexpectedEOF: //nolint:errorlint // io.ReadFull returns exactly these at the end.
		return nil, fmt.Errorf("read %s in %s: %w", o.Key, b, notEnd(err))
	case int64(n) != o.Size:
		return nil, fmt.Errorf("read %s in %s: got %d bytes, want the %d that were listed", o.Key, b, n, o.Size)
	}
	return buf[:n], nil
}

// ahead fetches numbered pieces concurrently and returns them in order.
type ahead struct {
	ctx    context.Context
	left   int64           // pieces that next has not returned
	pieces chan chan piece // in order
	spare  chan []byte     // buffers to reuse
}

type piece struct {
	data []byte
	err  error
}

// newAhead starts to fetch n pieces. Its goroutines end when all pieces are returned or
// ctx is done.
func newAhead(ctx context.Context, n int64, parallel int, fetch func(ctx context.Context, i int64, buf []byte) ([]byte, error)) *ahead {
	// The piece that waits to be sent to the channel is fetched too.
	a := &ahead{ctx: ctx, left: n, pieces: make(chan chan piece, parallel-1), spare: make(chan []byte, parallel)}
	go func() {
		for i := range n {
			ch := make(chan piece, 1)
			select {
			case <-ctx.Done():
				return
			case a.pieces <- ch:
			}
			go func() {
				var buf []byte
				select {
				case buf = <-a.spare:
				default:
				}
				data, err := fetch(ctx, i, buf)
				ch <- piece{data, err}
			}()
		}
	}()
	return a
}

// next returns the next piece, or false after the last. It reuses the memory of previous,
// the piece that it returned before.
func (a *ahead) next(previous []byte) ([]byte, bool, error) {
	if previous != nil {
		select {
		case a.spare <- previous:
		default:
		}
	}
	if a.left == 0 {
		return nil, false, nil
	}
	a.left--
	var ch chan piece
	select {
	case ch = <-a.pieces:
	case <-a.ctx.Done():
		return nil, false, context.Cause(a.ctx)
	}
	select {
	case p := <-ch:
		return p.data, true, p.err
	case <-a.ctx.Done():
		return nil, false, context.Cause(a.ctx)
	}
}
