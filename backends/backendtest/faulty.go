package backendtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/xdswal/xdswal/backends"
)

// Op is a method of a backend, in the spelling of [backends.Error].
type Op string

// The operations that [Faulty] can make fail.
const (
	OpPut    Op = "put"
	OpGet    Op = "get"
	OpList   Op = "list"
	OpDelete Op = "delete"
)

// Fault is what befalls one call.
type Fault int

const (
	// None lets the call through.
	None Fault = iota
	// FailAbsent makes the call fail without effect. A Put still reads its
	// body, as a failed upload does: who retries without seeking back is
	// found out.
	FailAbsent
	// FailPresent makes the call take effect and then fail, as when the
	// answer of a remote store is lost. A Get so afflicted yields the first
	// half of its range and then the error. If the call fails by itself, it
	// returns that error, and no fault is injected.
	FailPresent
)

// ErrInjected is what every injected error wraps.
var ErrInjected = errors.New("injected fault")

// Faulty is a backend that fails where Fault says so.
type Faulty struct {
	// Backend does the work.
	Backend backends.Backend
	// Fault decides the fate of each call; key is the prefix of a list. It
	// may be called concurrently. Nil means that nothing fails.
	Fault func(op Op, key string) Fault

	mu       sync.Mutex
	calls    map[Op]int
	injected map[Op]int
}

var _ backends.Backend = (*Faulty)(nil)

// Calls returns how many calls of op were made, whatever became of them.
func (f *Faulty) Calls(op Op) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[op]
}

// Injected returns how many calls of op were made to fail. A test compares it
// with the errors that surfaced, lest one was swallowed, or none injected.
func (f *Faulty) Injected(op Op) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.injected[op]
}

// String returns the location of the wrapped backend.
func (f *Faulty) String() string { return f.Backend.String() }

// Put creates an object, or fails.
func (f *Faulty) Put(ctx context.Context, key string, body io.ReadSeeker) error {
	fault := f.decide(OpPut, key)
	if fault == FailAbsent {
		_, _ = io.Copy(io.Discard, contextReader{ctx, body})
		return f.inject(OpPut, key, fault)
	}
	if err := f.Backend.Put(ctx, key, body); err != nil || fault == None {
		return err
	}
	return f.inject(OpPut, key, fault)
}

// Get reads a range, or fails.
func (f *Faulty) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	fault := f.decide(OpGet, key)
	if fault == FailAbsent {
		return nil, f.inject(OpGet, key, fault)
	}
	r, err := f.Backend.Get(ctx, key, offset, length)
	if err != nil || fault == None {
		return r, err
	}
	content, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil {
		return nil, err
	}
	half := bytes.NewReader(content[:len(content)/2])
	return io.NopCloser(io.MultiReader(half, failingReader{f.inject(OpGet, key, fault)})), nil
}

// List lists objects, or fails.
func (f *Faulty) List(ctx context.Context, prefix string) ([]backends.Object, error) {
	fault := f.decide(OpList, prefix)
	if fault == FailAbsent {
		return nil, f.inject(OpList, prefix, fault)
	}
	objects, err := f.Backend.List(ctx, prefix)
	if err != nil || fault == None {
		return objects, err
	}
	return nil, f.inject(OpList, prefix, fault)
}

// Delete removes an object, or fails.
func (f *Faulty) Delete(ctx context.Context, key string) error {
	fault := f.decide(OpDelete, key)
	if fault == FailAbsent {
		return f.inject(OpDelete, key, fault)
	}
	if err := f.Backend.Delete(ctx, key); err != nil || fault == None {
		return err
	}
	return f.inject(OpDelete, key, fault)
}

// decide counts a call and asks for its fate.
func (f *Faulty) decide(op Op, key string) Fault {
	f.mu.Lock()
	if f.calls == nil {
		f.calls, f.injected = map[Op]int{}, map[Op]int{}
	}
	f.calls[op]++
	f.mu.Unlock()
	if f.Fault == nil {
		return None
	}
	return f.Fault(op, key)
}

// inject counts a fault and returns its error.
func (f *Faulty) inject(op Op, key string, fault Fault) error {
	f.mu.Lock()
	f.injected[op]++
	f.mu.Unlock()
	when := "before it took effect"
	if fault == FailPresent {
		when = "after it took effect"
	}
	return &backends.Error{Op: string(op), Backend: f.String(), Key: key, Err: fmt.Errorf("%w %s", ErrInjected, when)}
}

type failingReader struct{ err error }

func (r failingReader) Read([]byte) (int, error) { return 0, r.err }
