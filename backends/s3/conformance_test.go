package s3_test

import (
	"context"
	"net/url"
	"os"
	"path"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/backends/backendtest"
	"github.com/xdswal/xdswal/backends/s3"
	"github.com/xdswal/xdswal/internal/s3test"
)

func TestConformance(t *testing.T) {
	srv := start(t)
	backendtest.Run(t, func(t *testing.T) backends.Backend {
		cfg := config(srv)
		cfg.Prefix = t.Name()
		return open(t, cfg)
	})
}

// Over TLS, and in the whole of a bucket, in parts of the default size.
func TestConformanceTLS(t *testing.T) {
	backendtest.Run(t, func(t *testing.T) backends.Backend {
		cfg := config(start(t, s3test.WithTLS()))
		cfg.Prefix, cfg.PartSize = "", 0
		return open(t, cfg)
	})
}

// TestConformanceElsewhere runs the suite against the store that XDSWAL_TEST_S3
// names, as a URL, below its prefix.
func TestConformanceElsewhere(t *testing.T) {
	raw := os.Getenv("XDSWAL_TEST_S3")
	if raw == "" {
		t.Skip("XDSWAL_TEST_S3 names no store")
	}
	u, err := url.Parse(raw)
	require.NoError(t, err)
	run := strconv.FormatInt(time.Now().UnixNano(), 36)
	backendtest.Run(t, func(t *testing.T) backends.Backend {
		cfg, err := s3.ParseURL(u)
		require.NoError(t, err)
		cfg.Prefix = path.Join(cfg.Prefix, run, t.Name())
		b := open(t, cfg)
		t.Cleanup(func() {
			objects, err := b.List(context.Background(), "")
			require.NoError(t, err)
			for _, o := range objects {
				require.NoError(t, b.Delete(context.Background(), o.Key))
			}
		})
		return b
	})
}
