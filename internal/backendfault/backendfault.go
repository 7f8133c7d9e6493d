// Package backendfault makes a backend fail on purpose, for the tests of this
// module. It wraps a backends.Backend and knows no driver. Invariant: it counts
// each fault that it injects, so that a test can compare that number with the
// errors that surfaced.
package backendfault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing/iotest"

	"github.com/xdswal/xdswal/backends"
)

// Op is a method of a backend, in the spelling of [backends.Error].
type Op string

// The methods that a [Backend] can fail.
const (
	OpPut    Op = "put"
	OpGet    Op = "get"
	OpList   Op = "list"
	OpDelete Op = "delete"
)

// Fault is the way in which one call fails.
type Fault int

const (
	// None passes the call through.
	None Fault = iota
	// FailAbsent fails the call without effect. A Put still reads its body, as
	// a failed upload does, so that a caller that retries without seeking back
	// is detected.
	FailAbsent
	// FailPresent fails the call after it took effect, as when the answer of a
	// remote store is lost. A Get returns a reader of the first half of its
	// range and then the error. A call that fails by itself returns its own
	// error, and no fault is injected.
	FailPresent
)

// While returns a [Backend.Fault] that fails all calls without effect while down is set.
func While(down *atomic.Bool) func(Op, string) Fault {
	return func(Op, string) Fault {
		if down.Load() {
			return FailAbsent
		}
		return None
	}
}

// ErrInjected is wrapped by every injected error.
var ErrInjected = errors.New("injected fault")

// Backend passes calls to another backend and fails those that Fault selects.
// All methods may be called concurrently.
type Backend struct {
	// Backend executes the calls.
	Backend backends.Backend
	// Fault returns the fault of each call; key is the prefix of a List. It
	// may be called concurrently. Nil injects no faults.
	Fault func(op Op, key string) Fault

	mu       sync.Mutex
	calls    map[Op]int
	injected map[Op]int
}

var _ backends.Backend = (*Backend)(nil)

// Calls returns the number of calls of op, failed or not.
func (b *Backend) Calls(op Op) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.calls[op]
}

// Injected returns the number of calls of op that Fault made fail.
func (b *Backend) Injected(op Op) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.injected[op]
}

// String returns the location of the wrapped backend.
func (b *Backend) String() string { return b.Backend.String() }

// Put implements [backends.Backend].
func (b *Backend) Put(ctx context.Context, key string, body io.ReadSeeker) error {
	fault := b.next(OpPut, key)
	if fault == FailAbsent {
		readAll(ctx, body)
		return b.inject(OpPut, key, fault)
	}
	if err := b.Backend.Put(ctx, key, body); err != nil || fault == None {
		return err
	}
	return b.inject(OpPut, key, fault)
}

// Get implements [backends.Backend].
func (b *Backend) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	fault := b.next(OpGet, key)
	if fault == FailAbsent {
		return nil, b.inject(OpGet, key, fault)
	}
	r, err := b.Backend.Get(ctx, key, offset, length)
	if err != nil || fault == None {
		return r, err
	}
	content, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil {
		return nil, err
	}
	half := bytes.NewReader(content[:len(content)/2])
	return io.NopCloser(io.MultiReader(half, iotest.ErrReader(b.inject(OpGet, key, fault)))), nil
}

// List implements [backends.Backend].
func (b *Backend) List(ctx context.Context, prefix string) ([]backends.Object, error) {
	fault := b.next(OpList, prefix)
	if fault == FailAbsent {
		return nil, b.inject(OpList, prefix, fault)
	}
	objects, err := b.Backend.List(ctx, prefix)
	if err != nil || fault == None {
		return objects, err
	}
	return nil, b.inject(OpList, prefix, fault)
}

// Delete implements [backends.Backend].
func (b *Backend) Delete(ctx context.Context, key string) error {
	fault := b.next(OpDelete, key)
	if fault == FailAbsent {
		return b.inject(OpDelete, key, fault)
	}
	if err := b.Backend.Delete(ctx, key); err != nil || fault == None {
		return err
	}
	return b.inject(OpDelete, key, fault)
}

// next counts a call and returns its fault.
func (b *Backend) next(op Op, key string) Fault {
	b.mu.Lock()
	if b.calls == nil {
		b.calls, b.injected = map[Op]int{}, map[Op]int{}
	}
	b.calls[op]++
	b.mu.Unlock()
	if b.Fault == nil {
		return None
	}
	return b.Fault(op, key)
}

// inject counts a fault and returns its error.
func (b *Backend) inject(op Op, key string, fault Fault) error {
	b.mu.Lock()
	b.injected[op]++
	b.mu.Unlock()
	when := "before it took effect"
	if fault == FailPresent {
		when = "after it took effect"
	}
	return &backends.Error{Op: string(op), Backend: b.String(), Key: key, Err: fmt.Errorf("%w %s", ErrInjected, when)}
}

// readAll reads r to its end, or until ctx is done.
func readAll(ctx context.Context, r io.Reader) {
	buf := make([]byte, 64<<10)
	for ctx.Err() == nil {
		if _, err := r.Read(buf); err != nil {
			return
		}
	}
}
