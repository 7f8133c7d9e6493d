package s3

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// Delete removes an object; see [backends.Backend]. In a bucket with versions
// the store keeps it as a version that is no longer current.
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
