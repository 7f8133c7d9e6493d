package s3

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// Sweep aborts multipart uploads; see [backends.Sweeper]. How old one is, is the
// difference of the store's clock and ours. It goes on after an upload that it
// cannot abort.
func (b *Backend) Sweep(ctx context.Context, olderThan time.Duration, prefixes ...string) (int, error) {
	if err := b.writable(ctx, "sweep", ""); err != nil {
		return 0, err
	}
	ours := func(key string) bool {
		return slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(key, prefix) })
	}
	before := time.Now().Add(-olderThan)
	in := &s3.ListMultipartUploadsInput{Bucket: &b.cfg.Bucket, Prefix: aws.String(b.objectKey(""))}
	var swept int
	var failed error
	for more := true; more; {
		page, err := b.client.ListMultipartUploads(ctx, in)
		if err == nil {
			more, err = goesOn(page.IsTruncated, joined(in.KeyMarker, in.UploadIdMarker), joined(page.NextKeyMarker, page.NextUploadIdMarker))
		}
		if err != nil {
			return swept, errors.Join(failed, b.fail(ctx, "sweep", "", err))
		}
		in.KeyMarker, in.UploadIdMarker = page.NextKeyMarker, page.NextUploadIdMarker
		for _, u := range page.Uploads {
			key, ok := b.ownKey(aws.ToString(u.Key))
			if !ok || !ours(key) || u.Initiated == nil || u.Initiated.After(before) {
				continue
			}
			switch err := b.abort(ctx, *u.Key, aws.ToString(u.UploadId)); {
			case err == nil:
				swept++
			case !isUploadGone(err):
				failed = errors.Join(failed, b.fail(ctx, "sweep", key, err))
			}
		}
	}
	return swept, failed
}

// joined returns the two markers as one.
func joined(key, upload *string) *string {
	if aws.ToString(key) == "" {
		return nil
	}
	return aws.String(*key + "\x00" + aws.ToString(upload))
}
