// Package download reads objects of a backend faster than one stream does:
// parts of a large one, or many small ones, are fetched several at a time and
// yielded in order, in bounded memory.
package download

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/xdswal/xdswal/backends"
)

// Defaults of Open.
const (
	// PartSize is the size in bytes of the parts that are fetched at a time.
	PartSize = 8 << 20
	// Parallel is how many parts are fetched ahead.
	Parallel = 4
)

// Open returns a reader of an object of a size. At most [Parallel] parts of
// [PartSize] are held in memory, and one more that is being read. The reader is
// used by one goroutine and must be closed; ctx ends it.
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

// notEnd keeps the end of a part or of a connection, where more should come,
// from being taken for the end of the object.
func notEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: %v", io.ErrUnexpectedEOF, err) //nolint:errorlint // It is not to be found.
	}
	return err
}

// reader yields the parts of an object.
type reader struct {
	ahead  *ahead
	cancel context.CancelFunc
	buf    []byte // being read, kept to be used again
	rest   []byte
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

// Close ends what is fetched ahead.
func (r *reader) Close() error {
	r.cancel()
	return nil
}

// Object is an object to read whole.
type Object struct {
	Key  string
	Size int64
}

// Each calls fn with the contents of objects, in their order, or with why they
// could not be read, while it fetches up to parallel of them ahead. The contents
// may not be kept. It ends with the first error of fn, or of ctx.
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

// whole reads an object to its end, so that the backend's checksum of it is
// looked at, and refuses one of another size than it had when it was listed.
// Bytes that were damaged on the way are not so twice.
func whole(ctx context.Context, b backends.Backend, o Object, buf []byte) ([]byte, error) {
	data, err := once(ctx, b, o, buf)
	if errors.Is(err, backends.ErrDamaged) {
		return once(ctx, b, o, buf)
	}
	return data, err
}

func once(ctx context.Context, b backends.Backend, o Object, buf []byte) ([]byte, error) {
	r, err := b.Get(ctx, o.Key, 0, -1)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if int64(cap(buf)) < o.Size+1 {
		buf = make([]byte, o.Size+1)
	}
	// An error that wraps io.EOF is not the end: a connection broke.
	n, err := io.ReadFull(r, buf[:o.Size+1])
	switch {
	case err == nil:
		return nil, fmt.Errorf("read %s in %s: it is longer than the %d bytes that were listed", o.Key, b, o.Size)
	case err != io.EOF && err != io.ErrUnexpectedEOF: //nolint:errorlint // That is what io.ReadFull says of the end.
		return nil, fmt.Errorf("read %s in %s: %w", o.Key, b, notEnd(err))
	case int64(n) != o.Size:
		return nil, fmt.Errorf("read %s in %s: it has %d bytes, %d were listed", o.Key, b, n, o.Size)
	}
	return buf[:n], nil
}

// ahead fetches numbered pieces several at a time and yields them in order.
type ahead struct {
	ctx    context.Context
	left   int64           // pieces to yield
	pieces chan chan piece // in order
	spare  chan []byte
}

type piece struct {
	data []byte
	err  error
}

// newAhead begins to fetch. It ends when all pieces were taken or ctx is done.
func newAhead(ctx context.Context, n int64, parallel int, fetch func(ctx context.Context, i int64, buf []byte) ([]byte, error)) *ahead {
	// One more piece stands between the channel and whoever takes it.
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

// next returns the next piece, false after the last. It takes the one before
// back, to use its memory again.
func (a *ahead) next(before []byte) ([]byte, bool, error) {
	if before != nil {
		select {
		case a.spare <- before:
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
