// Package backendurl opens backends by URL. It maps schemes to drivers and
// therefore links the drivers of this module; a program that needs one driver imports
// that driver instead. [Register] adds others.
//
//	file:///absolute/path                   a directory, see backends/file
//	s3://bucket/prefix?region=&endpoint=    a bucket, see backends/s3
package backendurl

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/backends/file"
	"github.com/xdswal/xdswal/backends/s3"
)

// drivers maps a URL scheme to its driver. A new driver also needs a line in the
// package comment.
var (
	mu      sync.RWMutex
	drivers = map[string]func(ctx context.Context, u *url.URL, readOnly bool) (backends.Backend, error){
		"file": openFile,
		"s3":   openS3,
	}
)

// Register makes the URLs of a scheme known. driver opens the backend at a URL; its errors
// must not contain credentials that the URL may have. Register panics if the scheme has a
// driver.
func Register(scheme string, driver func(ctx context.Context, u *url.URL, readOnly bool) (backends.Backend, error)) {
	mu.Lock()
	defer mu.Unlock()
	if _, twice := drivers[scheme]; twice {
		panic(fmt.Sprintf("backendurl: the scheme %q is registered twice", scheme))
	}
	drivers[scheme] = driver
}

// Open opens the backend at rawURL. Its errors contain the scheme and the path and
// no other part of rawURL, which may contain credentials.
func Open(ctx context.Context, rawURL string) (backends.Backend, error) {
	return open(ctx, rawURL, false)
}

// OpenReadOnly is like [Open], but creates and removes nothing. Methods of the
// backend that change it return backends.ErrPermission.
func OpenReadOnly(ctx context.Context, rawURL string) (backends.Backend, error) {
	return open(ctx, rawURL, true)
}

var errURL = errors.New("not a backend URL")

func open(ctx context.Context, rawURL string, readOnly bool) (backends.Backend, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("open backend: %w", err)
	}
	u, err := url.Parse(rawURL)
	if err != nil {
		// The message of the parser quotes part of the URL, possibly the
		// password.
		return nil, fmt.Errorf("open backend: %w (not shown, it may contain credentials); write %s", errURL, knownURLs())
	}
	if u.Scheme == "" {
		return nil, fmt.Errorf("open backend: %w: it has no scheme; write %s", errURL, knownURLs())
	}
	mu.RLock()
	driver, ok := drivers[u.Scheme]
	mu.RUnlock()
	if !ok {
		return nil, fmt.Errorf("open backend: unknown scheme %q; write %s", u.Scheme, knownURLs())
	}
	b, err := driver(ctx, u, readOnly)
	if err != nil {
		return nil, fmt.Errorf("open backend: %w", err)
	}
	return b, nil
}

// knownURLs returns the forms of URLs for a message: "file://... or s3://...".
func knownURLs() string {
	mu.RLock()
	defer mu.RUnlock()
	return strings.Join(slices.Sorted(maps.Keys(drivers)), "://... or ") + "://..."
}

func openFile(_ context.Context, u *url.URL, readOnly bool) (backends.Backend, error) {
	cfg, err := file.ParseURL(u)
	if err != nil {
		return nil, err
	}
	cfg.ReadOnly = readOnly
	// A nil *file.Backend must not become a non-nil interface.
	b, err := file.New(cfg)
	if err != nil {
		return nil, err
	}
	return b, nil
}

func openS3(ctx context.Context, u *url.URL, readOnly bool) (backends.Backend, error) {
	cfg, err := s3.ParseURL(u)
	if err != nil {
		return nil, err
	}
	cfg.ReadOnly = readOnly
	b, err := s3.New(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return b, nil
}
