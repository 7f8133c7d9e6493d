package s3

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/s3/manager"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// A Put whose context is done continues for these short times before it returns.
const (
	lingerTimeout = 2 * time.Second // to finish sending parts
	abortTimeout  = 3 * time.Second // to abort the multipart upload
)

// upload creates the object of in with the bytes of r, about size of them. If check is not
// nil, it is called before a multipart upload is completed. The error of upload is not
// explained.
func (b *Backend) upload(ctx context.Context, in *s3.PutObjectInput, r *bodyReader, size int64, check func(context.Context) error) error {
	if size > b.cfg.PartSize {
		in.Body = r
		return b.uploadParts(ctx, in, size, check)
	}
	// One byte more than expected, to read the end of the body or its error.
	content := make([]byte, size+1)
	n, err := io.ReadFull(r, content)
	switch {
	case r.err != nil:
		return r.err
	case err == nil:
		return errors.New("the body grew while it was read")
	case !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
		return err
	}
	return b.putObject(ctx, in, content[:n], func(o *s3.Options) {
		o.Retryer = newRetryer(b.cfg.MaxAttempts, notIfBroken)
	})
}

// putObject creates the object of in with one request. The checksum is a header: without
// it the SDK sends one over TLS in a trailer after the body, which some stores refuse, and
// others store as a part of the object.
func (b *Backend) putObject(ctx context.Context, in *s3.PutObjectInput, content []byte, options ...func(*s3.Options)) error {
	sum := newSum()
	sum.Write(content)
	in.Body, in.ChecksumCRC32C = bytes.NewReader(content), encodeSum(sum)
	out, err := b.client.PutObject(ctx, in, options...)
	if err == nil && out.ETag == nil {
		return fmt.Errorf("PutObject: %w", errNotS3)
	}
	return err
}

func encodeSum(sum hash.Hash32) *string {
	return aws.String(base64.StdEncoding.EncodeToString(sum.Sum(nil)))
}

// uploadParts creates an object with a multipart upload, and aborts the upload if it
// fails. The request that completes the upload publishes the whole object, and is the
// one that the store refuses if the key exists.
func (b *Backend) uploadParts(ctx context.Context, in *s3.PutObjectInput, size int64, check func(context.Context) error) error {
	client := &partsClient{Client: b.client, check: check}
	uploader := manager.NewUploader(client, func(u *manager.Uploader) { //nolint:staticcheck // Its successor is not stable.
		u.PartSize = partSize(b.cfg.PartSize, size)
		u.Concurrency = b.cfg.Concurrency
		u.LeavePartsOnError = true // The manager would abort with ctx, which may be done.
	})
	_, err := uploader.Upload(ctx, in) //nolint:staticcheck // As above.
	if err == nil || client.uploadID == nil {
		return err
	}
	if abortErr := b.abort(ctx, *in.Key, *client.uploadID); abortErr != nil && !isUploadGone(abortErr) {
		return fmt.Errorf("%w (parts remain until a Sweep: %v)", b.explain(ctx, err), b.explain(context.WithoutCancel(ctx), abortErr)) //nolint:errorlint // It is not the cause.
	}
	return err
}

// abort aborts a multipart upload, even if ctx is done.
func (b *Backend) abort(ctx context.Context, objectKey, uploadID string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTimeout)
	defer cancel()
	_, err := b.client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{
		Bucket: &b.cfg.Bucket, Key: &objectKey, UploadId: &uploadID,
	})
	return err
}

// partSize returns the smallest size of parts, from least, with which size bytes have
// at most manager.MaxUploadParts parts.
func partSize(least, size int64) int64 {
	return max(least, size/int64(manager.MaxUploadParts)+1)
}

// partsClient is the client of one multipart upload. It records the id of the upload,
// and requests a checksum of the whole object instead of one of the checksums of the
// parts, which a reader of the object could not verify.
//
// Its requests outlive ctx by lingerTimeout: a store may accept a part after the
// upload was aborted, and an upload whose id is not known cannot be aborted.
type partsClient struct {
	*s3.Client
	check    func(context.Context) error // before the upload is completed; may be nil
	uploadID *string
}

func (c *partsClient) CreateMultipartUpload(
	ctx context.Context, in *s3.CreateMultipartUploadInput, options ...func(*s3.Options),
) (*s3.CreateMultipartUploadOutput, error) {
	lasting, cancel, err := linger(ctx)
	if err != nil {
		return nil, err
	}
	defer cancel()
	in.ChecksumType = types.ChecksumTypeFullObject
	out, err := c.Client.CreateMultipartUpload(lasting, in, options...)
	if err == nil && out.UploadId == nil {
		return nil, fmt.Errorf("CreateMultipartUpload: %w", errNotS3) // The manager would panic.
	}
	if err == nil {
		c.uploadID = out.UploadId
	}
	return out, err
}

// UploadPart sends the checksum of the part in a header, as putObject does.
func (c *partsClient) UploadPart(
	ctx context.Context, in *s3.UploadPartInput, options ...func(*s3.Options),
) (*s3.UploadPartOutput, error) {
	lasting, cancel, err := linger(ctx)
	if err != nil {
		return nil, err
	}
	defer cancel()
	sum := newSum()
	if _, err := io.Copy(sum, in.Body); err != nil {
		return nil, err
	}
	if _, err := in.Body.(io.Seeker).Seek(0, io.SeekStart); err != nil { // a part that the manager holds in memory
		return nil, err
	}
	in.ChecksumCRC32C = encodeSum(sum)
	return c.Client.UploadPart(lasting, in, options...)
}

// CompleteMultipartUpload checks the end of the answer: the store sends the status 200
// before the upload is complete.
func (c *partsClient) CompleteMultipartUpload(
	ctx context.Context, in *s3.CompleteMultipartUploadInput, options ...func(*s3.Options),
) (*s3.CompleteMultipartUploadOutput, error) {
	if c.check != nil {
		if err := c.check(ctx); err != nil {
			return nil, err
		}
	}
	out, err := c.Client.CompleteMultipartUpload(ctx, in, options...)
	if err == nil && out.ETag == nil {
		return nil, fmt.Errorf("CompleteMultipartUpload: %w", errNotS3)
	}
	return out, err
}

// linger returns a context that is done lingerTimeout after ctx is, or the error of
// ctx.
func linger(ctx context.Context) (context.Context, context.CancelFunc, error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	lasting, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(lingerTimeout, cancel) })
	return lasting, func() { stop(); cancel() }, nil
}
