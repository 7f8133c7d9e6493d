package s3

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdkretry "github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/internal/objectstore"
)

const (
	// putIDName is the metadata of an object that identifies the Put that created
	// it.
	putIDName = "xdswal-put"
	// maxBlocked is the number of attempts of a Put that a directory blocks. A
	// store on a file system may see one while other writers delete below it.
	maxBlocked = 3
)

// Put implements [backends.Backend]. A body of up to PartSize bytes is one request, a
// larger one a multipart upload. A crash, or a network that loses answers, leaves the
// object whole or missing, and possibly parts, which Sweep removes. After ctx is done
// Put may take some seconds to remove its parts.
//
// If the answer to Put was lost and Put then finds that it created the object, it
// returns nil.
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
		again, err := p.try(ctx, body, end-start)
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
	b       *Backend
	key     string
	id      string // random
	blocked int    // attempts that a directory blocked
}

// try uploads the body, of about size bytes, from its current offset. again reports
// whether another attempt may succeed.
func (p *put) try(ctx context.Context, body io.Reader, size int64) (again bool, err error) {
	in := p.b.putInput(p.key, p.id)
	check := p.checkMissing
	if p.b.unconditional.Load() || size > p.b.cfg.PartSize && p.b.replacesInParts.Load() {
		if err := check(ctx); err != nil {
			return false, err
		}
	} else {
		in.IfNoneMatch, check = aws.String("*"), nil
	}
	r := &bodyReader{ctx: ctx, r: body}
	err = p.b.upload(ctx, in, r, size, check)
	checked, refused := as[*backends.Error](err)
	switch {
	case err == nil:
		return false, nil
	case refused:
		return false, checked
	case r.err != nil:
		// Not explained: an error of the body is not one of the store.
		return false, p.bodyError(r.err)
	case isConflict(err):
		// The store may refuse both of two concurrent writers for now. A multipart
		// upload cannot be completed after that; it must begin again.
		return true, p.b.fail(ctx, "put", p.key, err)
	case isCode(err, "ExistingObjectIsDirectory"):
		p.blocked++
		return p.blocked < maxBlocked, p.b.fail(ctx, "put", p.key, err)
	case isTaken(err) || isUploadGone(err) || isBroken(err):
		return p.resolve(ctx, err)
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

// resolve determines the result of an attempt that failed because the key exists, the
// multipart upload is gone, or the connection broke. An earlier request of this Put,
// whose answer was lost, may have created the object. A broken connection may also
// hide a refusal: the store may close it before it has read the body.
func (p *put) resolve(ctx context.Context, cause error) (again bool, err error) {
	head, err := p.b.head(ctx, p.key)
	switch {
	case err == nil && head.Metadata[putIDName] == p.id:
		return false, nil
	case err == nil, isHeadMissing(err) && isTaken(cause):
		exists := &objectstore.Failure{Text: backends.ErrExists.Error() + requestOf(cause), Is: backends.ErrExists, Err: cause}
		return false, p.b.fail(ctx, "put", p.key, exists)
	case isHeadMissing(err), isBroken(cause) && statusOf(err) == 0:
		// Do not repeat the attempts of the SDK.
		again = isBroken(cause) && !isA[*sdkretry.MaxAttemptsError](cause)
		return again, p.b.fail(ctx, "put", p.key, cause)
	default:
		// err is not wrapped, because it is not the error of the Put.
		err = fmt.Errorf("%w; checking whether the object was created: %v", p.b.explain(ctx, cause), p.b.explain(ctx, err)) //nolint:errorlint // As said.
		return false, p.b.fail(ctx, "put", p.key, err)
	}
}

// checkMissing returns a *backends.Error with ErrExists if the key exists, for stores that
// ignore conditions.
func (p *put) checkMissing(ctx context.Context) error {
	head, err := p.b.head(ctx, p.key)
	switch {
	case isHeadMissing(err):
		return nil
	case err != nil:
		return p.b.fail(ctx, "put", p.key, fmt.Errorf("check whether the object exists: %w", p.b.explain(ctx, err)))
	case head.Metadata[putIDName] == p.id:
		return nil // an earlier attempt created it, with the same bytes
	default:
		return p.b.fail(ctx, "put", p.key, backends.ErrExists)
	}
}

func (p *put) bodyError(err error) error {
	return &backends.Error{Op: "put", Backend: p.b.location, Key: p.key, Err: fmt.Errorf("read body: %w", err)}
}

// head requests the metadata of an object. Its error is not explained. The answer has
// no body, so a missing bucket looks like a missing object.
func (b *Backend) head(ctx context.Context, key string) (*s3.HeadObjectOutput, error) {
	return b.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &b.cfg.Bucket, Key: aws.String(b.objectKey(key))})
}

// bodyReader reads a body until ctx is done, and records the error of the body
// itself.
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
		return n, ctxErr // The end of the body may be an effect of ctx.
	}
	if err != io.EOF {
		b.err = err
	}
	return n, err
}
