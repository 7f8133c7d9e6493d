// Package s3 implements a backend driver that stores objects in a bucket of Amazon
// S3 or of a store with the same protocol.
//
// The object "a/b" is the S3 object prefix/a/b and nothing else. The driver creates
// objects with "If-None-Match: *", so that the store refuses one of two writers. It
// sends a CRC32C of each object or part in a header, which the store verifies, and
// verifies it again when a whole object is read.
//
// The driver needs the permissions s3:GetObject, s3:ListBucket, s3:PutObject and
// s3:AbortMultipartUpload, for Delete s3:DeleteObject, and for Sweep
// s3:ListBucketMultipartUploads. A lifecycle rule of the bucket that aborts
// incomplete multipart uploads can replace Sweep.
//
// All use of the AWS SDK is in this package.
package s3

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/xdswal/xdswal/backends"
)

// Backend stores objects in a bucket, or below a prefix of one. It implements
// [backends.Backend], [backends.ConditionalCreator] and [backends.Sweeper].
type Backend struct {
	cfg      Config // with defaults
	client   *s3.Client
	location string
	// unconditional is true if the store is known to ignore conditions, replacesInParts
	// if it does so when a multipart upload completes.
	unconditional, replacesInParts atomic.Bool
	weakness                       atomic.Value // string; see Weakness

	mu   sync.Mutex
	seen map[string]time.Time // when a Sweep has first found an upload, by its id
}

var (
	_ backends.Backend            = (*Backend)(nil)
	_ backends.ConditionalCreator = (*Backend)(nil)
	_ backends.Sweeper            = (*Backend)(nil)
)

// New opens a backend. It makes no request to the store, so it succeeds while the
// store is down.
func New(ctx context.Context, cfg Config) (*Backend, error) {
	if err := cfg.check(); err != nil {
		return nil, &backends.Error{Op: "open", Backend: "s3:", Err: err}
	}
	b := &Backend{cfg: cfg.withDefaults()}
	var err error
	if b.client, err = newClient(ctx, b.cfg); err != nil {
		return nil, &backends.Error{Op: "open", Backend: location(b.cfg.Bucket, b.cfg.Prefix, b.cfg.Endpoint), Err: err}
	}
	// The SDK may have read the endpoint from the environment.
	endpoint := aws.ToString(b.client.Options().BaseEndpoint)
	if err := checkEndpoint(endpoint); err != nil {
		return nil, &backends.Error{
			Op: "open", Backend: location(b.cfg.Bucket, b.cfg.Prefix, ""),
			Err: fmt.Errorf("endpoint %w; correct AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL or the profile", err),
		}
	}
	b.location = location(b.cfg.Bucket, b.cfg.Prefix, endpoint)
	return b, nil
}

// String returns the location as an S3 URL, with the endpoint if it is not that of
// AWS.
func (b *Backend) String() string { return b.location }

func location(bucket, prefix, endpoint string) string {
	u := url.URL{Scheme: "s3", Host: bucket, Path: prefix}
	if endpoint != "" {
		// A query may contain colons and slashes, which are easier to read.
		u.RawQuery = "endpoint=" + strings.NewReplacer("%3A", ":", "%2F", "/").Replace(url.QueryEscape(strings.TrimSuffix(endpoint, "/")))
	}
	return u.String()
}

// objectKey returns the key in the bucket for a key or for a prefix of keys.
func (b *Backend) objectKey(key string) string {
	if b.cfg.Prefix == "" {
		return key
	}
	return b.cfg.Prefix + "/" + key
}

// ownKey is the inverse of objectKey. ok is false for objects that are not of this
// backend.
func (b *Backend) ownKey(objectKey string) (key string, ok bool) {
	key, ok = strings.CutPrefix(objectKey, b.objectKey(""))
	return key, ok && backends.ValidKey(key) == nil
}

// begin makes the checks that are common to all methods with a key.
func (b *Backend) begin(ctx context.Context, op, key string) error {
	if err := ctx.Err(); err != nil {
		return b.fail(ctx, op, key, err)
	}
	if err := backends.ValidKey(key); err != nil {
		return b.fail(ctx, op, key, err)
	}
	if op == "get" {
		return nil
	}
	return b.checkWritable(ctx, op, key)
}

func (b *Backend) checkWritable(ctx context.Context, op, key string) error {
	if b.cfg.ReadOnly {
		return b.fail(ctx, op, key, fmt.Errorf("%w: the backend is read-only", backends.ErrPermission))
	}
	return nil
}

// fail returns err, explained, as a *backends.Error. An err that is one already is
// returned unchanged.
func (b *Backend) fail(ctx context.Context, op, key string, err error) error {
	if isA[*backends.Error](err) {
		return err
	}
	return &backends.Error{Op: op, Backend: b.location, Key: key, Err: b.explain(ctx, err)}
}

// Delete implements [backends.Backend]. In a bucket with versioning the store keeps
// the object as a noncurrent version.
func (b *Backend) Delete(ctx context.Context, key string) error {
	if err := b.begin(ctx, "delete", key); err != nil {
		return err
	}
	_, err := b.client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &b.cfg.Bucket, Key: aws.String(b.objectKey(key))})
	if err != nil && !isMissing(err) {
		return b.fail(ctx, "delete", key, err)
	}
	return nil
}
