package backendtest_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/backends/backendtest"
	"github.com/xdswal/xdswal/backends/file"
)

// A driver's whole conformance test. In the driver's package this function
// stands in a _test.go file, and its name begins with Test.
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

// The answer to a Put is lost, and the retry meets the object that the first
// attempt made.
func ExampleFaulty() {
	ctx := context.Background()
	first := true
	b := &backendtest.Faulty{
		Backend: backendtest.NewMemory(),
		Fault: func(op backendtest.Op, _ string) backendtest.Fault {
			if op == backendtest.OpPut && first {
				first = false
				return backendtest.FailPresent
			}
			return backendtest.None
		},
	}
	fmt.Println(b.Put(ctx, "snap/1", strings.NewReader("x")))
	err := b.Put(ctx, "snap/1", strings.NewReader("x"))
	fmt.Println(errors.Is(err, backends.ErrExists), b.Injected(backendtest.OpPut))
	// Output:
	// put "snap/1" in memory:: injected fault after it took effect
	// true 1
}
