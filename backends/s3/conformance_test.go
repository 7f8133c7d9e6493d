package s3_test

import (
	"testing"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/backends/backendtest"
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
