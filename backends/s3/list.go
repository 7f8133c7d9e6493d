package s3

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/xdswal/xdswal/backends"
)

// List lists objects; see [backends.Backend]. It makes a request for each
// thousand objects, and holds all that it returns in memory.
func (b *Backend) List(ctx context.Context, prefix string) ([]backends.Object, error) {
	if err := ctx.Err(); err != nil {
		return nil, b.fail(ctx, "list", prefix, err)
	}
	if !beginsKey(prefix) {
		return nil, nil
	}
	var objects []backends.Object
	pages := s3.NewListObjectsV2Paginator(b.client, &s3.ListObjectsV2Input{
		Bucket: &b.cfg.Bucket, Prefix: aws.String(b.objectKey(prefix)),
	})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, b.fail(ctx, "list", prefix, err)
		}
		if aws.ToBool(page.IsTruncated) && page.NextContinuationToken == nil {
			return nil, b.fail(ctx, "list", prefix, errors.New("the store cut the list and did not say where to go on"))
		}
		for _, o := range page.Contents {
			key, ok := b.ownKey(aws.ToString(o.Key))
			if !ok || !strings.HasPrefix(key, prefix) {
				continue
			}
			objects = append(objects, backends.Object{Key: key, Size: aws.ToInt64(o.Size), ModTime: aws.ToTime(o.LastModified)})
		}
	}
	// Not every store lists in the order of bytes.
	slices.SortFunc(objects, func(x, y backends.Object) int { return strings.Compare(x.Key, y.Key) })
	return objects, nil
}

// beginsKey reports whether a valid key begins with prefix.
func beginsKey(prefix string) bool {
	return backends.ValidKey(prefix) == nil || backends.ValidKey(prefix+"x") == nil
}
