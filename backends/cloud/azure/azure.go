// Package azure implements a backend driver that stores objects in a container of
// Azure Blob Storage.
//
// The object "a/b" is the block blob prefix/a/b and nothing else. The driver creates
// blobs with the condition If-None-Match: *, so that the store refuses one of two
// writers; a large blob is staged in blocks, which one request with that condition
// commits. It sends the MD5 of each blob, and a CRC64 of each block, which the store
// verifies. It verifies the MD5 again when it reads a whole object. Blocks that a crash left are no blob, and expire after a week.
//
// The driver needs the role Storage Blob Data Contributor on the container; to read,
// Storage Blob Data Reader.
package azure

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/backends/cloud/internal/bucket"
	"github.com/xdswal/xdswal/internal/objectstore"
)

// New opens a backend. It makes no request to the store, so it succeeds while the
// store is down.
func New(_ context.Context, cfg Config) (backends.Backend, error) {
	shared, err := cfg.shared().Check(kind)
	if err == nil {
		cfg, err = cfg.withEnvironment()
	}
	if err != nil {
		return nil, &backends.Error{Op: "open", Backend: "azblob:", Err: err}
	}
	location := kind.Location(shared, cfg.Account)
	s, err := newStore(shared, cfg)
	if err != nil {
		return nil, &backends.Error{Op: "open", Backend: location, Err: err}
	}
	return bucket.New(shared, s, location), nil
}

func newStore(shared bucket.Config, cfg Config) (*store, error) {
	tr, err := shared.Transport()
	if err != nil {
		return nil, err
	}
	options := &container.ClientOptions{ClientOptions: azcore.ClientOptions{
		Transport: objectstore.Client(tr),
		Retry: policy.RetryOptions{
			MaxRetries: int32(shared.MaxAttempts) - 1, RetryDelay: bucket.MinBackoff, MaxRetryDelay: bucket.MaxBackoff,
		},
	}}
	if options.Retry.MaxRetries == 0 {
		options.Retry.MaxRetries = -1 // 0 is the SDK's default.
	}
	service := shared.Endpoint
	if service == "" {
		service = "https://" + cfg.Account + ".blob.core.windows.net"
	}
	s := &store{maxAttempts: shared.MaxAttempts}
	if cfg.AccountKey != "" {
		key, err := container.NewSharedKeyCredential(cfg.Account, cfg.AccountKey)
		if err != nil {
			return nil, errors.New("account key is not base64; correct AZURE_STORAGE_KEY")
		}
		s.container, err = container.NewClientWithSharedKeyCredential(service+"/"+shared.Name, key, options)
		return s, err
	}
	if strings.HasPrefix(service, "http:") {
		return nil, errors.New("endpoint is plain http, over which no token is sent; write https://, or set AZURE_STORAGE_KEY")
	}
	if cfg.Credential == nil {
		cfg.Credential, err = azidentity.NewDefaultAzureCredential(nil)
		if err != nil {
			return nil, fmt.Errorf("find credentials: %s; %s", bucket.Clean(err.Error()), credentialsAdvice)
		}
	}
	s.container, err = container.NewClient(service+"/"+shared.Name, credential{cfg.Credential}, options)
	return s, err
}
