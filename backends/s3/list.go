package s3

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/xdswal/xdswal/backends"
)

// List implements [backends.Backend], with one request for each 1,000 objects.
func (b *Backend) List(ctx context.Context, prefix string) ([]backends.Object, error) {
	if err := ctx.Err(); err != nil {
		return nil, b.fail(ctx, "list", prefix, err)
	}
	if !beginsKey(prefix) {
		return nil, nil
	}
	var objects []backends.Object
	in := &s3.ListObjectsV2Input{
		Bucket: &b.cfg.Bucket, Prefix: aws.String(b.objectKey(prefix)),
		// XML cannot represent every key that other programs may have created.
		EncodingType: types.EncodingTypeUrl,
	}
	for more := true; more; {
		page, err := b.client.ListObjectsV2(ctx, in)
		if err == nil {
			more, err = hasMore(page.IsTruncated, in.ContinuationToken, page.NextContinuationToken)
		}
		if err != nil {
			return nil, b.fail(ctx, "list", prefix, err)
		}
		in.ContinuationToken = page.NextContinuationToken
		for _, o := range page.Contents {
			objectKey := aws.ToString(o.Key)
			if page.EncodingType == types.EncodingTypeUrl {
				if objectKey, err = url.QueryUnescape(objectKey); err != nil {
					return nil, b.fail(ctx, "list", prefix, fmt.Errorf("decode a key: %w", err))
				}
			}
			key, ok := b.ownKey(objectKey)
			if !ok || !strings.HasPrefix(key, prefix) {
				continue
			}
			objects = append(objects, backends.Object{Key: key, Size: aws.ToInt64(o.Size), ModTime: aws.ToTime(o.LastModified)})
		}
	}
	// Some stores do not list in bytewise order.
	slices.SortFunc(objects, func(x, y backends.Object) int { return strings.Compare(x.Key, y.Key) })
	return objects, nil
}

// hasMore reports whether another page of a list follows, given the marker of this
// page and of the next. The SDK decodes an answer that is not a list, for example of
// a proxy, as an empty page; hasMore returns an error for it.
func hasMore(truncated *bool, marker, next *string) (bool, error) {
	switch {
	case truncated == nil:
		return false, fmt.Errorf("list: %w", errNotS3)
	case !*truncated:
		return false, nil
	case aws.ToString(next) == "" || aws.ToString(next) == aws.ToString(marker):
		return false, errors.New("the store truncated the list without a marker of the next page")
	}
	return true, nil
}

// beginsKey reports whether prefix is a prefix of some valid key.
func beginsKey(prefix string) bool {
	return backends.ValidKey(prefix) == nil || backends.ValidKey(prefix+"x") == nil
}

// Sweep implements [backends.Sweeper]: it aborts multipart uploads. The age of one is
// the difference between the clocks of the store and of this machine. Sweep continues
// after an upload that it cannot abort, and returns the errors joined.
func (b *Backend) Sweep(ctx context.Context, olderThan time.Duration, prefixes ...string) (int, error) {
	if err := b.checkWritable(ctx, "sweep", ""); err != nil {
		return 0, err
	}
	selected := func(key string) bool {
		return slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(key, prefix) })
	}
	before := time.Now().Add(-olderThan)
	in := &s3.ListMultipartUploadsInput{Bucket: &b.cfg.Bucket, Prefix: aws.String(b.objectKey(""))}
	var swept int
	var errs []error
	for more := true; more; {
		page, err := b.client.ListMultipartUploads(ctx, in)
		if err == nil {
			more, err = hasMore(page.IsTruncated, uploadMarker(in.KeyMarker, in.UploadIdMarker), uploadMarker(page.NextKeyMarker, page.NextUploadIdMarker))
		}
		if err != nil {
			return swept, errors.Join(append(errs, b.fail(ctx, "sweep", "", err))...)
		}
		in.KeyMarker, in.UploadIdMarker = page.NextKeyMarker, page.NextUploadIdMarker
		for _, u := range page.Uploads {
			key, ok := b.ownKey(aws.ToString(u.Key))
			if !ok || !selected(key) || u.Initiated == nil || u.Initiated.After(before) {
				continue
			}
			switch err := b.abort(ctx, *u.Key, aws.ToString(u.UploadId)); {
			case err == nil:
				swept++
			case !isUploadGone(err):
				errs = append(errs, b.fail(ctx, "sweep", key, err))
			}
		}
	}
	return swept, errors.Join(errs...)
}

// uploadMarker returns the two markers of a page of uploads as one.
func uploadMarker(key, upload *string) *string {
	if aws.ToString(key) == "" {
		return nil
	}
	return aws.String(*key + "\x00" + aws.ToString(upload))
}
