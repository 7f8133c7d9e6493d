// Package cloudurl registers the drivers for Google Cloud Storage and Azure Blob Storage
// with package backendurl, which then opens their URLs too. Import it for that alone.
//
//	gs://bucket/prefix?endpoint=                      a bucket, see backends/cloud/gcs
//	azblob://container/prefix?account=&endpoint=      a container, see backends/cloud/azure
package cloudurl

import (
	"context"
	"net/url"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/backends/backendurl"
	"github.com/xdswal/xdswal/backends/cloud/azure"
	"github.com/xdswal/xdswal/backends/cloud/gcs"
)

func init() {
	backendurl.Register("gs", openGCS)
	backendurl.Register("azblob", openAzure)
}

func openGCS(ctx context.Context, u *url.URL, readOnly bool) (backends.Backend, error) {
	cfg, err := gcs.ParseURL(u)
	if err != nil {
		return nil, err
	}
	cfg.ReadOnly = readOnly
	return gcs.New(ctx, cfg)
}

func openAzure(ctx context.Context, u *url.URL, readOnly bool) (backends.Backend, error) {
	cfg, err := azure.ParseURL(u)
	if err != nil {
		return nil, err
	}
	cfg.ReadOnly = readOnly
	return azure.New(ctx, cfg)
}
