package file

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/xdswal/xdswal/backends"
)

// Get implements [backends.Backend]. If the object is deleted, the reader still
// reads it to the end.
func (b *Backend) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := b.begin(ctx, "get", key); err != nil {
		return nil, err
	}
	f, size, err := openObject(b.path(key))
	if err != nil {
		return nil, b.fail("get", key, err)
	}
	if length < 0 {
		length = size - offset
	}
	if offset < 0 || offset > size || length > size-offset {
		_ = f.Close()
		return nil, b.fail("get", key, fmt.Errorf("%w: %d bytes at offset %d, the object has %d bytes",
			backends.ErrRange, max(length, 0), offset, size))
	}
	return &reader{ctx: ctx, b: b, key: key, f: f, offset: offset, end: offset + length}, nil
}

// openObject opens the regular file at path and returns its size. It calls Lstat
// first, because opening a FIFO would block.
func openObject(path string) (*os.File, int64, error) {
	info, err := os.Lstat(path)
	if isMissing(err) || err == nil && !info.Mode().IsRegular() {
		return nil, 0, backends.ErrNotFound
	}
	if err != nil {
		return nil, 0, err
	}
	f, err := os.Open(path)
	if isMissing(err) {
		return nil, 0, backends.ErrNotFound // deleted meanwhile
	}
	if err != nil {
		return nil, 0, err
	}
	return f, info.Size(), nil
}

// reader reads [offset, end) of f. It has the context of its Get, which applies to
// each Read.
type reader struct {
	ctx         context.Context
	b           *Backend
	key         string
	f           *os.File
	offset, end int64
}

func (r *reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, r.b.fail("get", r.key, err)
	}
	if r.offset == r.end {
		return 0, io.EOF
	}
	if left := r.end - r.offset; int64(len(p)) > left {
		p = p[:left]
	}
	n, err := r.f.ReadAt(p, r.offset)
	r.offset += int64(n)
	switch {
	case err == nil || r.offset == r.end:
		return n, nil
	case errors.Is(err, io.EOF):
		err = fmt.Errorf("%w: the file was truncated to %d bytes", io.ErrUnexpectedEOF, r.offset)
	}
	return n, r.b.fail("get", r.key, err)
}

func (r *reader) Close() error {
	if err := r.f.Close(); err != nil {
		return r.b.fail("get", r.key, err)
	}
	return nil
}
