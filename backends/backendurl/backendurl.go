// Package backendurl opens backends by URL. It is the one place that knows
// which scheme belongs to which driver, and so links all of them; a program
// that wants one driver only imports that driver.
//
//	file:///absolute/path                   a directory, see backends/file
//	s3://bucket/prefix?region=&endpoint=    a bucket, see backends/s3
package backendurl

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/backends/file"
	"github.com/xdswal/xdswal/backends/s3"
)

// drivers maps a URL scheme to what opens it. A new driver needs one line
// here and one in the package comment.
var drivers = map[string]func(ctx context.Context, u *url.URL, readOnly bool) (backends.Backend, error){
	"file": openFile,
	"s3":   openS3,
}

// Open opens the backend that rawURL stands for. Its errors show the scheme
// and the path and no other part of the URL, which may hold credentials.
func Open(ctx context.Context, rawURL string) (backends.Backend, error) {
	return open(ctx, rawURL, false)
}

// OpenReadOnly is Open for who only reads: nothing is created or cleaned up.
func OpenReadOnly(ctx context.Context, rawURL string) (backends.Backend, error) {
	return open(ctx, rawURL, true)
}

func open(ctx context.Context, rawURL string, readOnly bool) (backends.Backend, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("open backend: %w", err)
	}
	u, err := url.Parse(rawURL)
	if err != nil {
		// The parser's message quotes what it stumbled over: it may be the
		// password.
		return nil, fmt.Errorf("open backend: %w (not shown, as it may hold credentials); write %s", errURL, known())
	}
	if u.Scheme == "" {
		return nil, fmt.Errorf("open backend: %w: it has no scheme; write %s", errURL, known())
	}
	driver, ok := drivers[u.Scheme]
	if !ok {
		return nil, fmt.Errorf("open backend: unknown scheme %q; write %s", u.Scheme, known())
	}
	b, err := driver(ctx, u, readOnly)
	if err != nil {
		return nil, fmt.Errorf("open backend: %w", err)
	}
	return b, nil
}

var errURL = errors.New("not a backend URL")

// Schemes returns the schemes that Open knows, sorted.
func Schemes() []string {
	schemes := make([]string, 0, len(drivers))
	for s := range drivers {
		schemes = append(schemes, s)
	}
	slices.Sort(schemes)
	return schemes
}

// known returns the schemes for a message: "file://... or s3://...".
func known() string {
	return strings.Join(Schemes(), "://... or ") + "://..."
}

func openFile(_ context.Context, u *url.URL, readOnly bool) (backends.Backend, error) {
	cfg, err := file.ParseURL(u)
	if err != nil {
		return nil, err
	}
	cfg.ReadOnly = readOnly
	// Returned as it is, a nil *file.Backend would be a non-nil interface.
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
