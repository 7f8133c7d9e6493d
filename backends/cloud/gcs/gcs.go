// Package gcs implements a backend driver that stores objects in a bucket of Google
// Cloud Storage.
//
// The object "a/b" is the object prefix/a/b and nothing else. The driver creates
// objects with the condition ifGenerationMatch=0, so that the store refuses one of two
// writers; a large object is a resumable upload with the same condition. It sends the
// CRC32C of each object, which the store verifies, and verifies it again when a whole
// object is read. An upload that a crash interrupted is no object, costs nothing, and
// expires after a week.
//
// The driver needs the permissions storage.objects.create, get and list, and for
// Delete storage.objects.delete: together the role Storage Object User.
//
// It uses Google's client of the JSON API, google.golang.org/api/storage/v1, on which
// cloud.google.com/go/storage is built. The latter also links gRPC's xDS client and an
// exporter of OpenTelemetry, and its reader resumes a broken answer without a bound.
package gcs

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"golang.org/x/oauth2"
	"google.golang.org/api/option"
	storage "google.golang.org/api/storage/v1"
	htransport "google.golang.org/api/transport/http"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/backends/cloud/internal/bucket"
	"github.com/xdswal/xdswal/internal/objectstore"
)

// New opens a backend. It makes no request to the store, so it succeeds while the
// store is down. It may ask the metadata server of the machine whether there is one.
func New(ctx context.Context, cfg Config) (backends.Backend, error) {
	shared, err := cfg.shared().Check(kind)
	if err != nil {
		return nil, &backends.Error{Op: "open", Backend: "gs:", Err: err}
	}
	location := kind.Location(shared, "")
	s, err := newStore(ctx, shared, cfg.ClientOptions)
	if err != nil {
		return nil, &backends.Error{Op: "open", Backend: location, Err: err}
	}
	return bucket.New(shared, s, location), nil
}

// tokenTimeout bounds a request for a token.
const tokenTimeout = time.Minute

func newStore(ctx context.Context, cfg bucket.Config, options []option.ClientOption) (*store, error) {
	tr, err := cfg.Transport()
	if err != nil {
		return nil, err
	}
	scope := storage.DevstorageReadWriteScope
	if cfg.ReadOnly {
		scope = storage.DevstorageReadOnlyScope
	}
	if strings.HasPrefix(cfg.Endpoint, "http:") {
		options = []option.ClientOption{option.WithoutAuthentication()}
	}
	options = append([]option.ClientOption{option.WithScopes(scope), option.WithTelemetryDisabled()}, options...)
	// The context of the credentials is that of every later request for a token, which
	// everything waits for.
	tokens := context.WithValue(context.WithoutCancel(ctx), oauth2.HTTPClient, &http.Client{Timeout: tokenTimeout})
	if tr, err = htransport.NewTransport(tokens, tr, options...); err != nil {
		return nil, fmt.Errorf("find credentials: %s; %s", bucket.Clean(err.Error()), credentialsAdvice)
	}
	options = []option.ClientOption{option.WithHTTPClient(objectstore.Client(tr))}
	if cfg.Endpoint != "" {
		options = append(options, option.WithEndpoint(cfg.Endpoint+"/storage/v1/"))
	}
	service, err := storage.NewService(ctx, options...)
	if err != nil {
		return nil, err
	}
	return &store{bucket: cfg.Name, objects: service.Objects, maxAttempts: cfg.MaxAttempts}, nil
}
