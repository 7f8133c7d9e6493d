// Package cloudurl opens backends by URL, as backendurl does, and those of Google
// Cloud Storage and Azure Blob Storage too. It links all drivers; a program that needs
// one imports that instead.
//
//	gs://bucket/prefix?endpoint=                      a bucket, see backends/cloud/gcs
//	azblob://container/prefix?account=&endpoint=      a container, see backends/cloud/azure
//	file://..., s3://...                              see backends/backendurl
package cloudurl

import (
	"context"
	"fmt"
	"net/url"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/backends/backendurl"
	"github.com/xdswal/xdswal/backends/cloud/azure"
	"github.com/xdswal/xdswal/backends/cloud/gcs"
)

// Open opens the backend at rawURL. Its errors contain the scheme and the path and no
// other part of rawURL, which may contain credentials.
func Open(ctx context.Context, rawURL string) (backends.Backend, error) {
	return open(ctx, rawURL, false)
}

// OpenReadOnly is like [Open], but creates and removes nothing. Methods of the backend
// that change it return backends.ErrPermission.
func OpenReadOnly(ctx context.Context, rawURL string) (backends.Backend, error) {
	return open(ctx, rawURL, true)
}

func open(ctx context.Context, rawURL string, readOnly bool) (backends.Backend, error) {
	// backendurl reports a URL that cannot be parsed, without quoting it.
	scheme := ""
	u, err := url.Parse(rawURL)
	if err == nil {
		scheme = u.Scheme
	}
	var b backends.Backend
	switch scheme {
	case "gs":
		var cfg gcs.Config
		if cfg, err = gcs.ParseURL(u); err == nil {
			cfg.ReadOnly = readOnly
			b, err = gcs.New(ctx, cfg)
		}
	case "azblob":
		var cfg azure.Config
		if cfg, err = azure.ParseURL(u); err == nil {
			cfg.ReadOnly = readOnly
			b, err = azure.New(ctx, cfg)
		}
	default:
		return openOther(ctx, rawURL, scheme, readOnly)
	}
	if err != nil {
		return nil, fmt.Errorf("open backend: %w", err)
	}
	return b, nil
}

// moreSchemes continues the message of backendurl, which ends with those that it knows.
const moreSchemes = " or azblob://... or gs://..."

func openOther(ctx context.Context, rawURL, scheme string, readOnly bool) (backends.Backend, error) {
	fn := backendurl.Open
	if readOnly {
		fn = backendurl.OpenReadOnly
	}
	b, err := fn(ctx, rawURL)
	if err != nil && scheme != "file" && scheme != "s3" {
		return nil, fmt.Errorf("%w%s", err, moreSchemes)
	}
	return b, err
}
