// Package s3 is the backend driver that keeps objects in a bucket of Amazon S3
// or of a store that speaks its protocol.
//
// The object "a/b" is the S3 object prefix/a/b and nothing else. Objects are
// created by requests with "If-None-Match: *", so that the store itself sees to
// it that of two writers one is refused. Their CRC32C goes with them, is checked
// by the store, and is checked again when a whole object is read.
//
// The driver needs the permissions s3:GetObject, s3:ListBucket, s3:PutObject and
// s3:AbortMultipartUpload, s3:DeleteObject to delete, and
// s3:ListBucketMultipartUploads to sweep. A rule of the bucket's life cycle that
// aborts incomplete multipart uploads is a fine companion to Sweep.
package s3

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync/atomic"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/xdswal/xdswal/backends"
)

// Backend is a bucket, or what is under a prefix in it. It is safe for
// concurrent use.
type Backend struct {
	cfg      Config // with defaults
	client   *s3.Client
	location string
	// unconditional is set once the store is known to ignore conditions.
	unconditional atomic.Bool
}

var (
	_ backends.Backend            = (*Backend)(nil)
	_ backends.ConditionalCreator = (*Backend)(nil)
	_ backends.Sweeper            = (*Backend)(nil)
)

// New opens the backend. It makes no request to the store, which may be down.
func New(ctx context.Context, cfg Config) (*Backend, error) {
	if err := cfg.check(); err != nil {
		return nil, &backends.Error{Op: "open", Backend: "s3:", Err: err}
	}
	b := &Backend{cfg: cfg.withDefaults()}
	var err error
	if b.client, err = newClient(ctx, b.cfg); err != nil {
		return nil, &backends.Error{Op: "open", Backend: location(b.cfg.Bucket, b.cfg.Prefix, b.cfg.Endpoint), Err: err}
	}
	// The endpoint may be from the environment.
	endpoint := ""
	if base := b.client.Options().BaseEndpoint; base != nil {
		endpoint = *base
	}
	if err := checkEndpoint(endpoint); err != nil {
		return nil, &backends.Error{Op: "open", Backend: location(b.cfg.Bucket, b.cfg.Prefix, ""), Err: fmt.Errorf("%w; correct AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL or the profile", err)}
	}
	b.location = location(b.cfg.Bucket, b.cfg.Prefix, endpoint)
	return b, nil
}

// String returns the location as an S3 URL, with the endpoint if it is not that
// of AWS.
func (b *Backend) String() string { return b.location }

func location(bucket, prefix, endpoint string) string {
	u := url.URL{Scheme: "s3", Host: bucket, Path: prefix}
	if endpoint != "" {
		// Colons and slashes may stand in a query, and are easier to read.
		u.RawQuery = "endpoint=" + strings.NewReplacer("%3A", ":", "%2F", "/").Replace(url.QueryEscape(strings.TrimSuffix(endpoint, "/")))
	}
	return u.String()
}

// objectKey returns the key in the bucket of a valid key, or of the beginning
// of one.
func (b *Backend) objectKey(key string) string {
	if b.cfg.Prefix == "" {
		return key
	}
	return b.cfg.Prefix + "/" + key
}

// ownKey is the inverse of objectKey. It is not ok for what is none of ours.
func (b *Backend) ownKey(objectKey string) (key string, ok bool) {
	key, ok = strings.CutPrefix(objectKey, b.objectKey(""))
	return key, ok && backends.ValidKey(key) == nil
}

// begin checks what every operation on a key checks first.
func (b *Backend) begin(ctx context.Context, op, key string) error {
	if err := ctx.Err(); err != nil {
		return b.fail(ctx, op, key, err)
	}
	if err := backends.ValidKey(key); err != nil {
		return b.fail(ctx, op, key, err)
	}
	if op != "get" {
		return b.writable(ctx, op, key)
	}
	return nil
}

// writable returns an error if the backend was opened for reading.
func (b *Backend) writable(ctx context.Context, op, key string) error {
	if b.cfg.ReadOnly {
		return b.fail(ctx, op, key, fmt.Errorf("%w: the backend was opened for reading", backends.ErrPermission))
	}
	return nil
}

// fail gives err its place, and the words and the sentinel that belong to it.
func (b *Backend) fail(ctx context.Context, op, key string, err error) error {
	var placed *backends.Error
	if errors.As(err, &placed) {
		return err
	}
	return &backends.Error{Op: op, Backend: b.location, Key: key, Err: b.explain(ctx, err)}
}
