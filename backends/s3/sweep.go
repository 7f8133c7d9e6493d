package s3

import (
	"context"
	"errors"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// Sweep aborts multipart uploads of keys of this backend that were begun longer
// ago than olderThan, by the difference of the store's clock and ours; see
// [backends.Sweeper]. It goes on after an upload that it cannot abort.
func (b *Backend) Sweep(ctx context.Context, olderThan time.Duration) (int, error) {
	if err := b.writable(ctx, "sweep", ""); err != nil {
		return 0, err
	}
	before := time.Now().Add(-olderThan)
	pages := s3.NewListMultipartUploadsPaginator(b.client, &s3.ListMultipartUploadsInput{
		Bucket: &b.cfg.Bucket, Prefix: aws.String(b.objectKey("")),
	})
	var swept int
	var failed error
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return swept, errors.Join(failed, b.fail(ctx, "sweep", "", err))
		}
		for _, u := range page.Uploads {
			key, ok := b.ownKey(aws.ToString(u.Key))
			if !ok || u.Initiated == nil || u.Initiated.After(before) {
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
