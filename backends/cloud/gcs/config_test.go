package gcs_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/backends/cloud/gcs"
	"github.com/xdswal/xdswal/backends/cloud/internal/cloudtest"
)

func TestParseURL(t *testing.T) {
	for raw, want := range map[string]gcs.Config{
		"gs://bucket":      {Bucket: "bucket"},
		"gs://bucket/":     {Bucket: "bucket"},
		"gs://bucket/a/b/": {Bucket: "bucket", Prefix: "a/b"},
		"gs://my_bucket.x/a?endpoint=http://host:4443": {Bucket: "my_bucket.x", Prefix: "a", Endpoint: "http://host:4443"},
	} {
		u, err := url.Parse(raw)
		require.NoError(t, err)
		got, err := gcs.ParseURL(u)
		require.NoError(t, err, raw)
		require.Equal(t, want, got)
	}
	for raw, want := range map[string]string{
		"s3://bucket":           `scheme is "s3"`,
		"gs://me:hidden@bucket": "URL has a user or a password",
		"gs:bucket":             "URL has no bucket",
		"gs:///a":               "URL has no bucket",
		"gs://bucket:80":        "URL has a port",
		"gs://bucket#hidden":    "URL has a fragment",
		"gs://B/a":              "bucket is not 3 to 222 bytes",
		"gs://bucket/a//b":      "prefix is not a valid key",
		"gs://bucket/" + strings.Repeat("a", 512):  "prefix is too long",
		"gs://bucket?token=hidden":                 `unknown parameters ["token"]`,
		"gs://bucket?endpoint=":                    `parameter "endpoint" is empty`,
		"gs://bucket?endpoint=a&endpoint=b":        `parameter "endpoint" is given 2 times`,
		"gs://bucket?endpoint=host":                "endpoint is not of the form",
		"gs://bucket?endpoint=http://u:hidden@h":   "endpoint has a user or a password",
		"gs://bucket?endpoint=http://h/path":       "endpoint has more than scheme, host and port",
		"gs://bucket?endpoint=http://h?sig=hidden": "endpoint has a query",
		"gs://bucket?%zz":                          "query is malformed",
	} {
		u, err := url.Parse(raw)
		require.NoError(t, err)
		_, err = gcs.ParseURL(u)
		require.ErrorContains(t, err, want, raw)
		require.ErrorContains(t, err, "; write gs://bucket/prefix?endpoint=https://host:port")
		require.NotContains(t, err.Error(), "hidden")
	}
}

func TestConfig(t *testing.T) {
	for want, cfg := range map[string]gcs.Config{
		"bucket is empty":                       {},
		"maximum of attempts is out of range":   {Bucket: "bucket", MaxAttempts: -1},
		"idle timeout is out of range: got 1ns": {Bucket: "bucket", IdleTimeout: 1},
	} {
		_, err := gcs.New(t.Context(), cfg)
		require.ErrorContains(t, err, "open gs:: "+want)
	}
}

// Nothing changes the store through a read-only backend.
func TestReadOnly(t *testing.T) {
	cfg := start(t)
	require.NoError(t, open(t, cfg).Put(t.Context(), "k", strings.NewReader("x")))
	cfg.ReadOnly = true
	b := open(t, cfg)
	require.ErrorIs(t, b.Put(t.Context(), "new", strings.NewReader("x")), backends.ErrPermission)
	require.ErrorIs(t, b.Delete(t.Context(), "k"), backends.ErrPermission)
	objects, err := b.List(t.Context(), "")
	require.NoError(t, err)
	require.Len(t, objects, 1)
	require.Equal(t, "gs://"+cloudtest.Bucket+"/"+cfg.Prefix+"?endpoint="+cfg.Endpoint, b.String())
}
