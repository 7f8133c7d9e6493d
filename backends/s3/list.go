package s3

import (
	"cmp"
	"context"
	"crypto/rand"
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
// the difference between the clocks of the store and of this machine, or the time since
// an earlier Sweep of this Backend has found it, if that is longer: some stores do not
// record when an upload began. Sweep continues after an upload that it cannot abort, and
// returns the errors joined. If the store does not list its uploads, Sweep fails.
func (b *Backend) Sweep(ctx context.Context, olderThan time.Duration, prefixes ...string) (int, error) {
	if err := b.checkWritable(ctx, "sweep", ""); err != nil {
		return 0, err
	}
	selected := func(key string) bool {
		return key == sweepKey || key == probeKey || slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(key, prefix) })
	}
	uploads, err := b.uploads(ctx)
	if err != nil {
		return 0, b.fail(ctx, "sweep", "", err)
	}
	before := time.Now().Add(-olderThan)
	seen := b.seenSince(uploads)
	var swept int
	var errs []error
	for _, u := range uploads {
		key, ok := b.ownKey(aws.ToString(u.Key))
		old := u.Initiated != nil && !u.Initiated.After(before) || !seen[aws.ToString(u.UploadId)].After(before)
		if !ok || !selected(key) || !old {
			continue
		}
		switch err := b.abort(ctx, *u.Key, aws.ToString(u.UploadId)); {
		case err == nil:
			swept++
		case !isUploadGone(err):
			errs = append(errs, b.fail(ctx, "sweep", key, err))
		}
	}
	return swept, errors.Join(errs...)
}

// sweepKey is the key of the upload that a Sweep begins, to see that the store lists it.
const sweepKey = "probe/sweep"

// errNotListed is the error of a Sweep that does not find its own upload.
var errNotListed = errors.New("the store does not list multipart uploads in progress, so those that crashed cannot be found: let the store abort incomplete multipart uploads")

// uploads returns the multipart uploads in progress. Some stores take a prefix for a whole
// key, and list nothing: the list must contain an upload of this call. If it does not,
// the whole bucket is listed.
func (b *Backend) uploads(ctx context.Context) ([]types.MultipartUpload, error) {
	own := &partsClient{Client: b.client}
	if _, err := own.CreateMultipartUpload(ctx, uploadInput(b.putInput(sweepKey, rand.Text()))); err != nil {
		return nil, err
	}
	defer func() { _ = b.abort(ctx, b.objectKey(sweepKey), *own.uploadID) }() // a later Sweep finds it
	isOwn := func(u types.MultipartUpload) bool { return aws.ToString(u.UploadId) == *own.uploadID }
	for _, prefix := range slices.Compact([]string{b.objectKey(""), ""}) {
		uploads, err := b.listUploads(ctx, prefix)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(uploads, isOwn) {
			return slices.DeleteFunc(uploads, isOwn), nil
		}
	}
	return nil, errNotListed
}

func (b *Backend) listUploads(ctx context.Context, prefix string) ([]types.MultipartUpload, error) {
	in := &s3.ListMultipartUploadsInput{Bucket: &b.cfg.Bucket, Prefix: &prefix}
	var uploads []types.MultipartUpload
	for more := true; more; {
		page, err := b.client.ListMultipartUploads(ctx, in)
		if err == nil {
			more, err = hasMore(page.IsTruncated, uploadMarker(in.KeyMarker, in.UploadIdMarker), uploadMarker(page.NextKeyMarker, page.NextUploadIdMarker))
		}
		if err != nil {
			return nil, err
		}
		in.KeyMarker, in.UploadIdMarker = page.NextKeyMarker, page.NextUploadIdMarker
		uploads = append(uploads, page.Uploads...)
	}
	return uploads, nil
}

// seenSince returns when a Sweep has first found each of the uploads.
func (b *Backend) seenSince(uploads []types.MultipartUpload) map[string]time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	seen := map[string]time.Time{}
	for _, u := range uploads {
		id := aws.ToString(u.UploadId)
		seen[id] = cmp.Or(b.seen[id], time.Now())
	}
	b.seen = seen
	return seen
}

// uploadMarker returns the two markers of a page of uploads as one.
func uploadMarker(key, upload *string) *string {
	if aws.ToString(key) == "" {
		return nil
	}
	return aws.String(*key + "\x00" + aws.ToString(upload))
}
