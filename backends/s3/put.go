package s3

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/xdswal/xdswal/backends"
)

// putIDName is the metadata of an object that says which Put created it.
const putIDName = "xdswal-put"

// Put creates an object; see [backends.Backend]. Bodies of up to PartSize are
// sent in one request, larger ones as multipart uploads. A crash leaves the
// object whole or missing, and perhaps parts, which Sweep removes, and so may a
// network that loses answers. A Put whose ctx is done may take some seconds to
// remove its parts.
//
// A Put whose answer was lost, and which then finds its own object, returns nil.
func (b *Backend) Put(ctx context.Context, key string, body io.ReadSeeker) error {
	if err := b.begin(ctx, "put", key); err != nil {
		return err
	}
	p := put{b: b, key: key, id: rand.Text()}
	start, err := body.Seek(0, io.SeekCurrent)
	if err != nil {
		return p.bodyError(err)
	}
	end, err := body.Seek(0, io.SeekEnd)
	if err != nil {
		return p.bodyError(err)
	}
	for attempt := 1; ; attempt++ {
		if _, err := body.Seek(start, io.SeekStart); err != nil {
			return p.bodyError(err)
		}
		again, err := p.once(ctx, body, end-start)
		if !again || attempt >= b.cfg.MaxAttempts {
			return err
		}
		if err := pause(ctx, backoff(attempt)); err != nil {
			return b.fail(ctx, "put", key, err)
		}
	}
}

// put is one call of Put.
type put struct {
	b   *Backend
	key string
	id  string // random
	// blocked counts how often a directory stood where the object should go.
	blocked int
}

// maxBlocked is how often a Put tries again where a directory is in its way: a
// store on a file system may come upon one while others delete below it.
const maxBlocked = 3

// once uploads the body, of about size bytes, from its current offset. It
// reports whether its error may be gone if all is done again.
func (p *put) once(ctx context.Context, body io.Reader, size int64) (again bool, err error) {
	in := p.b.putInput(p.key, p.id)
	if p.b.unconditional.Load() {
		if err := p.refuseTaken(ctx); err != nil {
			return false, err
		}
	} else {
		in.IfNoneMatch = aws.String("*")
	}
	r := &bodyReader{ctx: ctx, r: body}
	err = p.b.upload(ctx, in, r, size)
	switch {
	case err == nil:
		return false, nil
	case r.err != nil:
		// Not explained: what the caller's body says is nothing about
		// the store.
		return false, p.bodyError(r.err)
	case isConflict(err):
		// Two writers at once may make the store refuse either for now. A
		// multipart upload cannot be completed after that, but only begun
		// anew.
		return true, p.b.fail(ctx, "put", p.key, err)
	case isCode(err, "ExistingObjectIsDirectory"):
		p.blocked++
		return p.blocked < maxBlocked, p.b.fail(ctx, "put", p.key, err)
	case isTaken(err) || isUploadGone(err) || isCut(err):
		return p.judge(ctx, err)
	default:
		return false, p.b.fail(ctx, "put", p.key, err)
	}
}

func (b *Backend) putInput(key, id string) *s3.PutObjectInput {
	in := &s3.PutObjectInput{
		Bucket:               &b.cfg.Bucket,
		Key:                  aws.String(b.objectKey(key)),
		Metadata:             map[string]string{putIDName: id},
		ChecksumAlgorithm:    types.ChecksumAlgorithmCrc32c,
		ServerSideEncryption: types.ServerSideEncryption(b.cfg.SSE),
		StorageClass:         types.StorageClass(b.cfg.StorageClass),
	}
	if b.cfg.KMSKeyID != "" {
		in.SSEKMSKeyId = &b.cfg.KMSKeyID
	}
	return in
}

// judge decides what it means that the key is taken, that a multipart upload is
// no more, or that the connection was cut. This Put may have created the object
// itself, in an attempt whose answer was lost. And a store that refuses a request
// may close the connection before it has read the body, which can lose its
// answer too.
func (p *put) judge(ctx context.Context, cause error) (again bool, err error) {
	head, err := p.b.head(ctx, p.key)
	switch {
	case err == nil && head.Metadata[putIDName] == p.id:
		return false, nil
	case err == nil, isHeadMissing(err) && isTaken(cause):
		exists := &failure{text: backends.ErrExists.Error() + requestOf(cause), is: backends.ErrExists, err: cause}
		return false, p.b.fail(ctx, "put", p.key, exists)
	case isHeadMissing(err), isCut(cause) && statusOf(err) == 0:
		// Where the SDK has tried again what was cut, that is enough.
		var attempts *retry.MaxAttemptsError
		again = isCut(cause) && !errors.As(cause, &attempts)
		return again, p.b.fail(ctx, "put", p.key, cause)
	default:
		// What the look failed on is no statement about the Put.
		return false, p.b.fail(ctx, "put", p.key, fmt.Errorf("%w; and whether the object was created cannot be seen: %v", p.b.explain(ctx, cause), p.b.explain(ctx, err))) //nolint:errorlint // As said.
	}
}

// refuseTaken is the substitute for a condition, in stores that ignore those.
func (p *put) refuseTaken(ctx context.Context) error {
	head, err := p.b.head(ctx, p.key)
	switch {
	case isHeadMissing(err):
		return nil
	case err != nil:
		return p.b.fail(ctx, "put", p.key, fmt.Errorf("look whether the object exists: %w", p.b.explain(ctx, err)))
	case head.Metadata[putIDName] == p.id:
		return nil // Written again, with the same bytes.
	default:
		return p.b.fail(ctx, "put", p.key, backends.ErrExists)
	}
}

func (p *put) bodyError(err error) error {
	return &backends.Error{Op: "put", Backend: p.b.location, Key: p.key, Err: fmt.Errorf("read body: %w", err)}
}

// head asks for the description of an object. Its error is not explained yet.
// In an answer without a body a missing bucket looks like a missing object.
func (b *Backend) head(ctx context.Context, key string) (*s3.HeadObjectOutput, error) {
	return b.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &b.cfg.Bucket, Key: aws.String(b.objectKey(key))})
}

// bodyReader reads a body until ctx is done, and remembers the body's own error
// apart from all others.
type bodyReader struct {
	ctx context.Context
	r   io.Reader
	err error
}

func (b *bodyReader) Read(p []byte) (int, error) {
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := b.r.Read(p)
	if err == nil {
		return n, nil
	}
	if ctxErr := b.ctx.Err(); ctxErr != nil {
		return n, ctxErr // A body that ends as ctx does is not taken for whole.
	}
	if err != io.EOF {
		b.err = err
	}
	return n, err
}
