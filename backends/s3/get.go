package s3

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/xdswal/xdswal/backends"
)

// Get implements [backends.Backend]. If the connection breaks, the reader resumes
// with another request, which fails if the object was deleted or replaced. If the
// range is the whole object and the store has its CRC32C, the reader verifies it
// before it returns the last bytes.
func (b *Backend) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := b.begin(ctx, "get", key); err != nil {
		return nil, err
	}
	if offset < 0 {
		return nil, b.fail(ctx, "get", key, fmt.Errorf("%w: the offset is %d", backends.ErrRange, offset))
	}
	res, err := b.request(ctx, key, offset, length, "")
	if isUnsatisfiable(err) {
		return b.getAtEnd(ctx, key, offset, length, err)
	}
	if err != nil {
		return nil, b.fail(ctx, "get", key, err)
	}
	err = checkRange(offset, length, res.total)
	if length < 0 {
		length = res.total - offset
	}
	if err == nil && length > 0 && res.offset != offset {
		err = fmt.Errorf("the store sent another range: got offset %d, want %d", res.offset, offset)
	}
	if err != nil {
		_ = res.body.Close()
		return nil, b.fail(ctx, "get", key, err)
	}
	r := &reader{ctx: ctx, b: b, key: key, res: res, offset: offset, end: offset + length}
	if length == res.total && res.hasCRC {
		r.sum = newSum()
	}
	return r, nil
}

// getAtEnd returns the reader for a range that begins at the end of the object, or
// ErrRange for one that begins after it. The store refused the range with cause in
// either case, but the contract allows an empty range at the end.
func (b *Backend) getAtEnd(ctx context.Context, key string, offset, length int64, cause error) (io.ReadCloser, error) {
	head, err := b.head(ctx, key)
	switch {
	case err != nil:
	case head.ContentLength == nil:
		err = cause
	default:
		err = checkRange(offset, length, *head.ContentLength)
	}
	if err == nil && (length > 0 || length < 0 && offset < *head.ContentLength) {
		err = errors.New("the object was replaced while it was read")
	}
	if err != nil {
		return nil, b.fail(ctx, "get", key, err)
	}
	return &reader{ctx: ctx, b: b, key: key, res: &response{body: io.NopCloser(strings.NewReader(""))}, offset: offset, end: offset}, nil
}

func checkRange(offset, length, total int64) error {
	if offset > total || length > total-offset {
		return fmt.Errorf("%w: %d bytes at offset %d, the object has %d bytes", backends.ErrRange, max(length, 0), offset, total)
	}
	return nil
}

// response is an answer to a request for a range.
type response struct {
	body   io.ReadCloser
	offset int64 // of the first byte of body in the object
	total  int64 // size of the whole object
	etag   string
	crc    uint32 // CRC32C of the whole object, if hasCRC
	hasCRC bool
}

// request requests the bytes [offset, offset+length) of an object. A negative length
// means to the end. A length of 0 requests one byte, because stores serve no empty
// ranges. If etag is not empty, the request fails unless the object has that etag.
func (b *Backend) request(ctx context.Context, key string, offset, length int64, etag string) (*response, error) {
	in := &s3.GetObjectInput{Bucket: &b.cfg.Bucket, Key: aws.String(b.objectKey(key))}
	switch {
	case offset == 0 && length < 0:
		// Only an answer without a range has the checksum of the whole object.
	case length < 0 || length > math.MaxInt64-offset:
		in.Range = aws.String(fmt.Sprintf("bytes=%d-", offset))
	default:
		in.Range = aws.String(fmt.Sprintf("bytes=%d-%d", offset, offset+max(length, 1)-1))
	}
	if etag != "" {
		in.IfMatch = &etag
	}
	// With in.ChecksumMode the SDK would verify the answer too, and its error could
	// not be distinguished from that of a broken connection.
	out, err := b.client.GetObject(ctx, in, s3.WithAPIOptions(smithyhttp.SetHeaderValue("x-amz-checksum-mode", "ENABLED")))
	if err != nil {
		return nil, err
	}
	res := &response{body: out.Body, etag: aws.ToString(out.ETag)}
	if err := res.parseRange(out); err != nil {
		_ = out.Body.Close()
		return nil, err
	}
	res.crc, res.hasCRC = wholeCRC(out)
	return res, nil
}

// parseRange sets offset and total from the answer.
func (r *response) parseRange(out *s3.GetObjectOutput) error {
	if out.ContentRange == nil {
		if out.ContentLength == nil || *out.ContentLength < 0 {
			return errors.New("the store sent no length of the object")
		}
		r.total = *out.ContentLength
		return nil
	}
	var last int64
	if _, err := fmt.Sscanf(*out.ContentRange, "bytes %d-%d/%d", &r.offset, &last, &r.total); err != nil {
		return fmt.Errorf("the store sent a malformed range %.60q", *out.ContentRange)
	}
	return nil
}

// wholeCRC returns the CRC32C of the whole object, if the answer has it. The
// checksum of a multipart object may instead be one of the checksums of its parts.
func wholeCRC(out *s3.GetObjectOutput) (crc uint32, ok bool) {
	if out.ChecksumType == types.ChecksumTypeComposite {
		return 0, false
	}
	sum, err := base64.StdEncoding.DecodeString(aws.ToString(out.ChecksumCRC32C))
	if err != nil || len(sum) != 4 {
		return 0, false
	}
	return binary.BigEndian.Uint32(sum), true
}
