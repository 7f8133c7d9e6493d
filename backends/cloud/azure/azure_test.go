package azure_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/backends/backendtest"
	"github.com/xdswal/xdswal/backends/cloud/azure"
	"github.com/xdswal/xdswal/backends/cloud/internal/cloudtest"
)

// start returns the configuration for a server with a container.
func start(t *testing.T) azure.Config {
	t.Helper()
	return azure.Config{
		Container: cloudtest.Bucket, Endpoint: cloudtest.Azure(t), Prefix: cloudtest.Prefix(t),
		Account: cloudtest.AzureAccount, AccountKey: cloudtest.AzureKey,
	}
}

func open(t *testing.T, cfg azure.Config) backends.Backend {
	t.Helper()
	b, err := azure.New(t.Context(), cfg)
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
	}, true)
}
