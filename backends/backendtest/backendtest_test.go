package backendtest_test

import (
	"testing"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/backends/backendtest"
)

func TestMemory(t *testing.T) {
	backendtest.Run(t, func(*testing.T) backends.Backend { return backendtest.NewMemory() })
}
