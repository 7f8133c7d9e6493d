package s3

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"io/fs"

	"github.com/xdswal/xdswal/backends"
)

func newSum() hash.Hash32 { return crc32.New(crc32.MakeTable(crc32.Castagnoli)) }

// reader reads [offset, end) of an object, with as many requests as necessary. It
// has the context of its Get, which applies to each Read.
type reader struct {
	ctx         context.Context
	b           *Backend
	key         string
	res         *response
	offset, end int64
	sum         hash.Hash32 // of the bytes read; nil if there is none to verify
	failures    int         // broken connections since the last byte
	err         error       // error of all later Reads
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
	if left := r.end - r.offset; int64(len(p)) > left {
		p = p[:left]
	}
	for {
		n, err := r.res.body.Read(p)
		if n > 0 || len(p) == 0 {
			// The next Read returns an error that came with the bytes.
			return r.accept(p[:n])
		}
		if err != nil {
			if err := r.resume(err); err != nil {
				return 0, r.stop(err)
			}
		}
	}
}

// accept records bytes that were read. It returns ErrDamaged instead of the last
// bytes if the checksum differs: a caller that reads a known number of bytes does not
// read the error after them.
func (r *reader) accept(p []byte) (int, error) {
	r.offset += int64(len(p))
	r.failures = 0
	if r.sum == nil {
		return len(p), nil
	}
	r.sum.Write(p)
	if r.offset == r.end && r.sum.Sum32() != r.res.crc {
		return 0, r.stop(backends.ErrDamaged)
	}
	return len(p), nil
}

// resume requests the rest of the range after the connection broke with cause.
func (r *reader) resume(cause error) error {
	_ = r.res.body.Close()
	if err := r.ctx.Err(); err != nil {
		return err
	}
	r.failures++
	if errors.Is(cause, io.EOF) {
		cause = io.ErrUnexpectedEOF
	}
	if r.res.etag == "" || r.failures >= r.b.cfg.MaxAttempts {
		return fmt.Errorf("read byte %d of %d, attempt %d: %w", r.offset, r.res.total, r.failures, cause)
	}
	if err := pause(r.ctx, backoff(r.failures)); err != nil {
		return err
	}
	next, err := r.b.request(r.ctx, r.key, r.offset, r.end-r.offset, r.res.etag)
	switch {
	case isTaken(err), isUnsatisfiable(err):
		return errors.New("the object was replaced while it was read")
	case err != nil:
		return fmt.Errorf("resume at byte %d of %d: %w", r.offset, r.res.total, r.b.explain(r.ctx, err))
	}
	if next.offset != r.offset || next.total != r.res.total {
		_ = next.body.Close()
		return fmt.Errorf("the store sent another range: got byte %d of %d, want byte %d of %d",
			next.offset, next.total, r.offset, r.res.total)
	}
	r.res.body = next.body
	return nil
}

// stop sets and returns the error of this Read and all later ones.
func (r *reader) stop(err error) error {
	r.err = r.b.fail(r.ctx, "get", r.key, err)
	return r.err
}

// Close ends the current request. Its error is ignored: the caller needs no more
// bytes.
func (r *reader) Close() error {
	if r.err == nil {
		r.err = &backends.Error{Op: "get", Backend: r.b.location, Key: r.key, Err: fs.ErrClosed}
	}
	_ = r.res.body.Close()
	return nil
}
