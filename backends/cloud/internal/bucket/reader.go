package bucket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"math"

	"github.com/xdswal/xdswal/backends"
)

// Get implements [backends.Backend]. If the range is the whole object, the reader
// verifies its checksum before it returns the last bytes.
func (b *Backend) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := b.begin(ctx, "get", key); err != nil {
		return nil, err
	}
	r, err := b.open(ctx, key, offset, length)
	if err != nil {
		return nil, b.fail(ctx, "get", key, err)
	}
	return r, nil
}

func (b *Backend) open(ctx context.Context, key string, offset, length int64) (*reader, error) {
	if offset < 0 {
		return nil, fmt.Errorf("%w: the offset is %d", backends.ErrRange, offset)
	}
	if length != 0 {
		count := length
		if length > math.MaxInt64-offset {
			count = -1 // It is outside, or an error comes first.
		}
		object, err := b.store.Open(ctx, b.name(key), offset, count)
		if err == nil {
			return b.newReader(ctx, key, object, offset, length)
		}
		if a := b.store.Answer("get", err); a == nil || !errors.Is(a.Is, ErrRange) {
			return nil, err
		}
	}
	// Stores serve no empty range, but the contract allows one at the end.
	info, err := b.store.Stat(ctx, b.name(key))
	if err == nil {
		err = checkRange(offset, length, info.Size)
	}
	if err == nil && (length > 0 || length < 0 && offset < info.Size) {
		err = errors.New("the object was replaced while it was read")
	}
	if err != nil {
		return nil, err
	}
	return &reader{ctx: ctx, b: b, key: key, body: io.NopCloser(bytes.NewReader(nil)), offset: offset, end: offset}, nil
}

func (b *Backend) newReader(ctx context.Context, key string, object *Object, offset, length int64) (*reader, error) {
	err := checkRange(offset, length, object.Size)
	if err == nil && object.Offset != offset {
		err = fmt.Errorf("the store sent another range: got offset %d, want %d", object.Offset, offset)
	}
	if err != nil {
		_ = object.Body.Close()
		return nil, err
	}
	if length < 0 {
		length = object.Size - offset
	}
	r := &reader{ctx: ctx, b: b, key: key, body: object.Body, offset: offset, end: offset + length}
	if length == object.Size && object.Sum != nil {
		r.sum, r.want = b.store.NewHash(), object.Sum
	}
	return r, nil
}

func checkRange(offset, length, size int64) error {
	if offset > size || length > size-offset {
		return fmt.Errorf("%w: %d bytes at offset %d, the object has %d bytes", backends.ErrRange, max(length, 0), offset, size)
	}
	return nil
}

// reader reads [offset, end) of an object. It has the context of its Get, which
// applies to each Read.
type reader struct {
	ctx         context.Context
	b           *Backend
	key         string
	body        io.ReadCloser
	offset, end int64
	sum         hash.Hash // of the bytes read; nil if there is none to verify
	want        []byte
	err         error // error of all later Reads
}

func (r *reader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	if err := r.ctx.Err(); err != nil {
		return 0, r.stop(err)
	}
	if r.offset == r.end {
		return 0, io.EOF
	}
	n, err := r.body.Read(p[:min(int64(len(p)), r.end-r.offset)])
	r.offset += int64(n)
	if r.sum != nil {
		r.sum.Write(p[:n])
		// The last bytes are not returned if the checksum differs: a caller that
		// reads a known number of bytes does not read the error after them.
		if r.offset == r.end && !bytes.Equal(r.sum.Sum(nil), r.want) {
			return 0, r.stop(backends.ErrDamaged)
		}
	}
	if n > 0 || err == nil {
		return n, nil // The next Read returns an error that came with bytes.
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return 0, r.stop(err)
}

// stop sets and returns the error of this Read and all later ones.
func (r *reader) stop(err error) error {
	r.err = r.b.fail(r.ctx, "get", r.key, err)
	return r.err
}

// Close ends the request. Its error is ignored: the caller needs no more bytes.
func (r *reader) Close() error {
	if r.err == nil {
		r.err = &backends.Error{Op: "get", Backend: r.b.location, Key: r.key, Err: fs.ErrClosed}
	}
	_ = r.body.Close()
	return nil
}
