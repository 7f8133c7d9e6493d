package s3

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

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
	in := &s3.ListObjectsV2Input{
		Bucket: &b.cfg.Bucket, Prefix: aws.String(b.objectKey(prefix)),
		// XML cannot hold every key that somebody may have put there.
		EncodingType: types.EncodingTypeUrl,
	}
	for more := true; more; {
		page, err := b.client.ListObjectsV2(ctx, in)
		if err != nil {
			return nil, b.fail(ctx, "list", prefix, err)
		}
		if more, err = goesOn(page.IsTruncated, in.ContinuationToken, page.NextContinuationToken); err != nil {
			return nil, b.fail(ctx, "list", prefix, err)
		}
		in.ContinuationToken = page.NextContinuationToken
		for _, o := range page.Contents {
			objectKey := aws.ToString(o.Key)
			if page.EncodingType == types.EncodingTypeUrl {
				if objectKey, err = url.QueryUnescape(objectKey); err != nil {
					return nil, b.fail(ctx, "list", prefix, fmt.Errorf("the store listed a key that is not encoded as it says: %w", err))
				}
			}
			key, ok := b.ownKey(objectKey)
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

// goesOn reports whether another page of a list follows, from the marker of this
// page and that of the next. An answer that is no list at all, of a proxy for
// example, is to the SDK one that is empty, and must not pass for that.
func goesOn(truncated *bool, marker, next *string) (bool, error) {
	switch {
	case truncated == nil:
		return false, fmt.Errorf("list: %w", errNotS3)
	case !*truncated:
		return false, nil
	case aws.ToString(next) == "" || aws.ToString(next) == aws.ToString(marker):
		return false, errors.New("the store cut the list and did not say where to go on")
	}
	return true, nil
}

// beginsKey reports whether a valid key begins with prefix.
func beginsKey(prefix string) bool {
	return backends.ValidKey(prefix) == nil || backends.ValidKey(prefix+"x") == nil
}
