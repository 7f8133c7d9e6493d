package backendtest_test

import (
	"testing"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/backends/backendtest"
	"github.com/xdswal/xdswal/backends/file"
)

// The conformance test of a driver. In the package of the driver it is a function
// TestConformance of a _test.go file.
func ExampleRun() {
	testConformance := func(t *testing.T) {
		backendtest.Run(t, func(t *testing.T) backends.Backend {
			b, err := file.New(file.Config{Dir: t.TempDir()}) // your driver here
			if err != nil {
				t.Fatal(err)
			}
			return b
		})
	}
	_ = testConformance // go test calls it
	// Output:
}
