package backendfault_test

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/backends/backendtest"
	"github.com/xdswal/xdswal/internal/backendfault"
)

// The answer to a Put is lost, and the retry finds the object that the first
// attempt created.
func ExampleBackend() {
	ctx := context.Background()
	first := true
	b := &backendfault.Backend{
		Backend: backendtest.NewMemory(),
		Fault: func(op backendfault.Op, _ string) backendfault.Fault {
			if op == backendfault.OpPut && first {
				first = false
				return backendfault.FailPresent
			}
			return backendfault.None
		},
	}
	fmt.Println(b.Put(ctx, "snap/1", strings.NewReader("x")))
	err := b.Put(ctx, "snap/1", strings.NewReader("x"))
	fmt.Println(errors.Is(err, backends.ErrExists), b.Injected(backendfault.OpPut))
	// Output:
	// put "snap/1" in memory:: injected fault after it took effect
	// true 1
}
