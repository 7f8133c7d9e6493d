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

// reader reads [offset, end) of an object, over as many requests as it takes.
// It carries the context of its Get, since the contract lets that govern each
// Read.
type reader struct {
	ctx         context.Context
	b           *Backend
	key         string
	res         *response
	offset, end int64
	sum         hash.Hash32 // of what was read; nil if it is not to be checked
	broken      int         // how often the connection broke since the last byte
	err         error       // what every Read returns from now on
}

// Read reads on within the range, unless the context is done.
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
			// An error beside the bytes comes back at the next Read.
			return r.took(p[:n])
		}
		if err != nil {
			if err := r.resume(err); err != nil {
				return 0, r.stop(err)
			}
		}
	}
}

// took accounts for bytes that were read. It keeps the last ones back unless
// the checksum is right: who reads a known number of bytes never looks for an
// error after them.
func (r *reader) took(p []byte) (int, error) {
	r.offset += int64(len(p))
	r.broken = 0
	if r.sum == nil {
		return len(p), nil
	}
	r.sum.Write(p)
	if r.offset == r.end && r.sum.Sum32() != r.res.crc {
		return 0, r.stop(backends.ErrDamaged)
	}
	return len(p), nil
}

// resume asks for the rest of the range, after the connection broke.
func (r *reader) resume(cause error) error {
	_ = r.res.body.Close()
	if err := r.ctx.Err(); err != nil {
		return err
	}
	r.broken++
	if errors.Is(cause, io.EOF) {
		cause = io.ErrUnexpectedEOF
	}
	if r.res.etag == "" || r.broken >= r.b.cfg.MaxAttempts {
		return fmt.Errorf("read byte %d of %d, attempt %d: %w", r.offset, r.res.total, r.broken, cause)
	}
	if err := pause(r.ctx, backoff(r.broken)); err != nil {
		return err
	}
	next, err := r.b.request(r.ctx, r.key, r.offset, r.end-r.offset, r.res.etag)
	switch {
	case isTaken(err), isUnsatisfiable(err):
		return errors.New("the object was replaced while it was read")
	case err != nil:
		return fmt.Errorf("read on from byte %d of %d: %w", r.offset, r.res.total, r.b.explain(r.ctx, err))
	}
	if next.offset != r.offset || next.total != r.res.total {
		_ = next.body.Close()
		return fmt.Errorf("the store resumed with byte %d of %d, where %d of %d was asked for",
			next.offset, next.total, r.offset, r.res.total)
	}
	r.res.body = next.body
	return nil
}

// stop makes err the answer to this Read and all that follow.
func (r *reader) stop(err error) error {
	r.err = r.b.fail(r.ctx, "get", r.key, err)
	return r.err
}

// Close ends the request that is under way.
func (r *reader) Close() error {
	if r.err == nil {
		r.err = &backends.Error{Op: "get", Backend: r.b.location, Key: r.key, Err: fs.ErrClosed}
	}
	_ = r.res.body.Close() // What was not read is of no interest.
	return nil
}
