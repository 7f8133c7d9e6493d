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

// Get reads a range of an object; see [backends.Backend]. The reader resumes
// when its connection breaks, as long as the object is the same. If the object
// is read whole, and the store knows its CRC32C, the reader checks that before
// it yields the last bytes. An object deleted meanwhile is read to the end
// unless the connection breaks.
func (b *Backend) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := b.begin(ctx, "get", key); err != nil {
		return nil, err
	}
	if offset < 0 {
		return nil, b.fail(ctx, "get", key, fmt.Errorf("%w: the offset is %d", backends.ErrRange, offset))
	}
	res, err := b.request(ctx, key, offset, length, "")
	if isUnsatisfiable(err) {
		return b.getNothing(ctx, key, offset, length, err)
	}
	if err != nil {
		return nil, b.fail(ctx, "get", key, err)
	}
	if outside(offset, length, res.total) {
		_ = res.body.Close()
		return nil, b.fail(ctx, "get", key, rangeError(offset, length, res.total))
	}
	if length < 0 {
		length = res.total - offset
	}
	if length > 0 && res.offset != offset {
		_ = res.body.Close()
		return nil, b.fail(ctx, "get", key, fmt.Errorf("the store sent bytes from %d on, where those from %d on were asked for", res.offset, offset))
	}
	r := &reader{ctx: ctx, b: b, key: key, res: res, offset: offset, end: offset + length}
	if length == res.total && res.hasCRC {
		r.sum = newSum()
	}
	return r, nil
}

// getNothing decides about a range that begins at the end of the object or
// after it, which the store does not serve: the contract allows an empty one at
// the end.
func (b *Backend) getNothing(ctx context.Context, key string, offset, length int64, cause error) (io.ReadCloser, error) {
	head, err := b.head(ctx, key)
	if err != nil {
		return nil, b.fail(ctx, "get", key, err)
	}
	if head.ContentLength == nil {
		return nil, b.fail(ctx, "get", key, cause)
	}
	if outside(offset, length, *head.ContentLength) {
		return nil, b.fail(ctx, "get", key, rangeError(offset, length, *head.ContentLength))
	}
	return &reader{ctx: ctx, b: b, key: key, res: &response{body: io.NopCloser(strings.NewReader(""))}, offset: offset, end: offset}, nil
}

func outside(offset, length, total int64) bool { return offset > total || length > total-offset }

func rangeError(offset, length, total int64) error {
	return fmt.Errorf("%w: %d bytes at %d, the object has %d", backends.ErrRange, max(length, 0), offset, total)
}

// response is an answer to a request for a range.
type response struct {
	body   io.ReadCloser
	offset int64 // of the first byte of body in the object
	total  int64 // the size of the whole object
	etag   string
	crc    uint32 // CRC32C of the whole object
	hasCRC bool
}

// request asks for the bytes [offset, offset+length), where a negative length
// means to the end, and of none at least for one, since no store serves an
// empty range. With an etag it asks for the object that has it and for no other.
func (b *Backend) request(ctx context.Context, key string, offset, length int64, etag string) (*response, error) {
	in := &s3.GetObjectInput{Bucket: &b.cfg.Bucket, Key: aws.String(b.objectKey(key))}
	switch {
	case offset == 0 && length < 0:
		// Without a range the answer has the checksum of the whole.
	case length < 0 || length > math.MaxInt64-offset:
		in.Range = aws.String(fmt.Sprintf("bytes=%d-", offset))
	default:
		in.Range = aws.String(fmt.Sprintf("bytes=%d-%d", offset, offset+max(length, 1)-1))
	}
	if etag != "" {
		in.IfMatch = &etag
	}
	// The input's own field for this would make the SDK check the answer too,
	// whose error could not be told from a broken connection.
	out, err := b.client.GetObject(ctx, in, s3.WithAPIOptions(smithyhttp.SetHeaderValue("x-amz-checksum-mode", "ENABLED")))
	if err != nil {
		return nil, err
	}
	res := &response{body: out.Body, etag: aws.ToString(out.ETag)}
	if err := res.locate(out); err != nil {
		_ = out.Body.Close()
		return nil, err
	}
	res.crc, res.hasCRC = wholeCRC(out)
	return res, nil
}

// locate finds out which bytes of the object the answer has.
func (r *response) locate(out *s3.GetObjectOutput) error {
	if out.ContentRange == nil {
		if out.ContentLength == nil || *out.ContentLength < 0 {
			return errors.New("the store did not say how long the object is")
		}
		r.total = *out.ContentLength
		return nil
	}
	var last int64
	if _, err := fmt.Sscanf(*out.ContentRange, "bytes %d-%d/%d", &r.offset, &last, &r.total); err != nil {
		return fmt.Errorf("the store sent the unknown range %.60q", *out.ContentRange)
	}
	return nil
}

// wholeCRC returns the CRC32C of the whole object, if the answer has it. That
// of an object in parts may be one of the parts' checksums: "...-3".
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
