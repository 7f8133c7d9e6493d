package gcs_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/backends/backendtest"
	"github.com/xdswal/xdswal/backends/cloud/gcs"
	"github.com/xdswal/xdswal/backends/cloud/internal/cloudtest"
)

// start returns the configuration for a server with a bucket.
func start(t *testing.T) gcs.Config {
	t.Helper()
	return gcs.Config{Bucket: cloudtest.Bucket, Endpoint: cloudtest.GCS(t), Prefix: cloudtest.Prefix(t)}
}

func open(t *testing.T, cfg gcs.Config) backends.Backend {
	t.Helper()
	b, err := gcs.New(t.Context(), cfg)
	require.NoError(t, err)
	return b
}

func TestConformance(t *testing.T) {
	cfg := start(t)
	backendtest.Run(t, func(t *testing.T) backends.Backend {
		cfg.Prefix = cloudtest.Prefix(t)
		return open(t, cfg)
	})
}

func TestFaults(t *testing.T) {
	cfg := start(t)
	cfg.MaxAttempts = 3
	cloudtest.Faults(t, func(t *testing.T, wrap func(http.RoundTripper) http.RoundTripper) backends.Backend {
		cfg.Prefix, cfg.WrapTransport = cloudtest.Prefix(t), wrap
		return open(t, cfg)
	}, false)
}
