// Package bounded bounds waits: for calls that may not return when their context is
// done, such as a write to a network volume that hangs, which nothing can interrupt,
// and for a slot that another goroutine uses.
package bounded

import (
	"context"
	"fmt"
	"time"
)

// Grace is the time that a call has to return after its context is done.
const Grace = time.Second

// Acquire fills a slot, a channel of capacity 1, as soon as it is empty. The error is the
// cause of ctx if that ends first; an empty slot is filled even if ctx is done.
func Acquire(ctx context.Context, slot chan<- struct{}) error {
	select {
	case slot <- struct{}{}:
		return nil
	default:
	}
	select {
	case slot <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Do is [Call] for a function that returns only an error.
func Do(ctx context.Context, callee fmt.Stringer, fn func(context.Context) error) error {
	_, err := Call(ctx, callee, func(ctx context.Context) (struct{}, error) { return struct{}{}, fn(ctx) })
	return err
}

// Call calls fn in a goroutine and returns its results. If fn does not return within
// [Grace] after ctx is done, Call abandons the goroutine and returns an error that
// names callee and wraps the cause of ctx. fn may still take effect later.
func Call[T any](ctx context.Context, callee fmt.Stringer, fn func(context.Context) (T, error)) (T, error) {
	type result struct {
		v   T
		err error
	}
	done := make(chan result, 1)
	go func() {
		v, err := fn(ctx)
		done <- result{v, err}
	}()
	select {
	case r := <-done:
		return r.v, r.err
	case <-ctx.Done():
	}
	timer := time.NewTimer(Grace)
	defer timer.Stop()
	select {
	case r := <-done:
		return r.v, r.err
	case <-timer.C:
		var zero T
		return zero, fmt.Errorf("%s does not return: %w", callee, context.Cause(ctx))
	}
}
