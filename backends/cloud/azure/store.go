package azure

import (
	"context"
	"crypto/md5" //nolint:gosec // The store's checksum of a blob; no protection against forgery.
	"errors"
	"fmt"
	"hash"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"github.com/xdswal/xdswal/backends/cloud/internal/bucket"
)

const (
	// putIDName is the metadata of a blob that identifies the Put that created it.
	putIDName = "xdswalput"
	// blockSize and concurrency, the number of blocks that are sent at a time, bound the
	// memory of a Create: the SDK holds a block up to four times to compute its CRC64.
	blockSize   = 4 << 20
	concurrency = 4
	minBlock    = 1 << 20 // of the SDK
	maxBlocks   = 50_000  // of Azure, in a blob
)

// store makes the requests of the driver.
type store struct {
	container   *container.Client
	maxAttempts int
}

func (s *store) NewHash() hash.Hash { return md5.New() }

// Create uploads a blob of less than a block with one request, and a larger one in
// blocks. The request that commits the blocks makes the blob appear, and is the one that
// the store refuses if the blob exists. The commit of one writer, or the blob of one that
// needs no blocks, discards the blocks of others.
func (s *store) Create(ctx context.Context, name string, u *bucket.Upload) error {
	body, err := u.Body()
	if err != nil {
		return err
	}
	options := &blockblob.UploadStreamOptions{
		BlockSize: max(minBlock, min(u.Size+1, blockSize), u.Size/maxBlocks+1), Concurrency: concurrency,
		HTTPHeaders: &blob.HTTPHeaders{BlobContentMD5: u.Sum, BlobContentType: to.Ptr("application/octet-stream")},
		Metadata:    map[string]*string{putIDName: &u.ID},
		AccessConditions: &blob.AccessConditions{
			ModifiedAccessConditions: &blob.ModifiedAccessConditions{IfNoneMatch: to.Ptr(azcore.ETagAny)},
		},
	}
	// The store verifies the MD5 of a blob in one request, and refuses another checksum
	// beside it. It does not verify that of a list of blocks.
	if u.Size >= options.BlockSize {
		options.TransactionalValidation = blob.TransferValidationTypeComputeCRC64()
	}
	_, err = s.container.NewBlockBlobClient(name).UploadStream(ctx, body, options)
	return err
}

func (s *store) Open(ctx context.Context, name string, offset, length int64) (*bucket.Object, error) {
	res, err := s.container.NewBlobClient(name).DownloadStream(ctx, &blob.DownloadStreamOptions{
		Range: blob.HTTPRange{Offset: offset, Count: max(length, blob.CountToEnd)},
	})
	if err != nil {
		return nil, err
	}
	object := &bucket.Object{Size: -1, Sum: res.ContentMD5}
	switch {
	case res.ContentRange != nil:
		object.Sum = res.BlobContentMD5
		_, err = fmt.Sscanf(*res.ContentRange, "bytes %d-%d/%d", &object.Offset, new(int64), &object.Size)
	case res.ContentLength != nil:
		object.Size = *res.ContentLength
	}
	if err != nil || object.Size < 0 {
		_ = res.Body.Close()
		return nil, errors.New("the store sent no length of the blob")
	}
	object.Body = res.NewRetryReader(ctx, &blob.RetryReaderOptions{MaxRetries: int32(s.maxAttempts)})
	return object, nil
}

func (s *store) Stat(ctx context.Context, name string) (bucket.Info, error) {
	res, err := s.container.NewBlobClient(name).GetProperties(ctx, nil)
	if err != nil {
		return bucket.Info{}, err
	}
	if res.ContentLength == nil {
		return bucket.Info{}, errors.New("the store sent no length of the blob")
	}
	info := bucket.Info{Name: name, Size: *res.ContentLength}
	for key, value := range res.Metadata {
		if strings.EqualFold(key, putIDName) && value != nil { // It was a header.
			info.ID = *value
		}
	}
	return info, nil
}

func (s *store) List(ctx context.Context, prefix string, each func(bucket.Info)) error {
	pages := s.container.NewListBlobsFlatPager(&container.ListBlobsFlatOptions{Prefix: &prefix})
	for marker := ""; pages.More(); {
		page, err := pages.NextPage(ctx)
		switch {
		case err != nil:
			return err
		case page.Segment == nil:
			return errors.New("answer is not from Azure Blob Storage; check the endpoint and proxies")
		case page.NextMarker != nil && *page.NextMarker != "" && *page.NextMarker == marker:
			return errors.New("the store sent the same page of the list twice")
		case page.NextMarker != nil:
			marker = *page.NextMarker
		}
		for _, item := range page.Segment.BlobItems {
			if item.Name == nil || item.Properties == nil || item.Properties.ContentLength == nil || item.Properties.LastModified == nil {
				return errors.New("the store sent an incomplete list")
			}
			if kind := item.Properties.ResourceType; kind != nil && *kind == "directory" {
				continue // in an account with a hierarchical namespace
			}
			each(bucket.Info{Name: *item.Name, Size: *item.Properties.ContentLength, ModTime: *item.Properties.LastModified})
		}
	}
	return nil
}

func (s *store) Delete(ctx context.Context, name string) error {
	_, err := s.container.NewBlobClient(name).Delete(ctx, nil)
	return err
}
