package gcs

import (
	"net/http"
	"net/url"
	"regexp"
	"time"

	"google.golang.org/api/option"

	"github.com/xdswal/xdswal/backends/cloud/internal/bucket"
)

// Config configures a backend. The zero value of a field selects its default. New
// returns an error for every other value that is out of range.
type Config struct {
	// Bucket is the name of an existing bucket. Required.
	Bucket string
	// Prefix is prepended to all keys with a slash: with the prefix "x/y" the
	// object "a" is "x/y/a" in the bucket. It must be a valid key. Default: none,
	// the backend is the whole bucket.
	Prefix string
	// Endpoint is the URL of a store other than Google's, as scheme, host and port.
	// Requests to an http endpoint have no credentials, which everybody on the way
	// could read: it is for emulators. Default: that of Google.
	Endpoint string
	// ClientOptions are options of Google's API clients that select credentials,
	// such as option.WithTokenSource. Default: the Application Default Credentials.
	ClientOptions []option.ClientOption
	// MaxAttempts is the maximum number of attempts of a request, from 1. The
	// driver waits 0.1 to 5 seconds between attempts. Default: 5.
	MaxAttempts int
	// IdleTimeout is the time without a byte sent or received after which an
	// attempt fails, from 1 ms. Default: 1 minute.
	IdleTimeout time.Duration
	// WrapTransport wraps the transport of requests to the store, for tracing or
	// counting. It must not return nil. Its result is called concurrently.
	// Default: none.
	WrapTransport func(http.RoundTripper) http.RoundTripper
	// ReadOnly makes Put and Delete return backends.ErrPermission.
	ReadOnly bool
}

var kind = &bucket.Kind{
	Scheme: "gs",
	Noun:   "bucket",
	Names:  regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]$`),
	Form:   "3 to 222 bytes of a-z 0-9 . _ -",
	Usage:  "gs://bucket/prefix?endpoint=https://host:port",
}

func (c Config) shared() bucket.Config {
	return bucket.Config{
		Name: c.Bucket, Prefix: c.Prefix, Endpoint: c.Endpoint, MaxAttempts: c.MaxAttempts,
		IdleTimeout: c.IdleTimeout, WrapTransport: c.WrapTransport, ReadOnly: c.ReadOnly,
	}
}

// ParseURL returns the Config for a URL of the form
//
//	gs://bucket/prefix?endpoint=https://host:port
//
// The prefix and the endpoint are optional. A URL must not contain credentials. Errors
// of ParseURL contain the path and no other part of the URL.
func ParseURL(u *url.URL) (Config, error) {
	var cfg Config
	var err error
	cfg.Bucket, cfg.Prefix, err = bucket.ParseURL(u, kind, map[string]*string{"endpoint": &cfg.Endpoint})
	if err == nil {
		_, err = cfg.shared().Check(kind)
	}
	if err != nil {
		return Config{}, kind.URLError(u, err)
	}
	return cfg, nil
}
