package bucket

import (
	"bytes"
	"context"
	"errors"
	"hash"
	"io"
)

// body reads the body of a Put until ctx is done, from the offset at which it was
// passed. It records an error of the body itself.
type body struct {
	ctx   context.Context
	r     io.ReadSeeker
	sum   hash.Hash // of the bytes since the last rewind
	start int64
	size  int64
	want  []byte // sum of the whole body, after measure
	err   error
}

// measure reads the whole body, for its size and checksum.
func (b *body) measure() error {
	if b.start, b.err = b.r.Seek(0, io.SeekCurrent); b.err != nil {
		return b.err
	}
	size, err := io.Copy(io.Discard, b)
	if err != nil {
		return err
	}
	b.size, b.want = size, b.sum.Sum(nil)
	return nil
}

func (b *body) rewind() error {
	b.sum.Reset()
	_, b.err = b.r.Seek(b.start, io.SeekStart)
	return b.err
}

var errChanged = errors.New("it changed while it was read")

func (b *body) Read(p []byte) (int, error) {
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := b.r.Read(p)
	b.sum.Write(p[:n])
	if err == nil {
		return n, nil
	}
	if ctxErr := b.ctx.Err(); ctxErr != nil {
		return n, ctxErr // The end of the body may be an effect of ctx.
	}
	if errors.Is(err, io.EOF) && b.want != nil && !bytes.Equal(b.sum.Sum(nil), b.want) {
		err = errChanged // Otherwise the store would keep a wrong checksum.
	}
	if err != io.EOF { //nolint:errorlint // A wrapped io.EOF is not the end.
		b.err = err
		err = &bodyError{err}
	}
	return n, err
}

// bodyError is an error of the body, which no other attempt can mend.
type bodyError struct{ error }

func (e *bodyError) Unwrap() error { return e.error }
