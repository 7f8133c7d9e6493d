// Package bounded ends calls that do not heed their context, as a write to a
// network volume that hangs does not: nothing can interrupt it.
package bounded

import (
	"context"
	"fmt"
	"time"
)

// Grace is how long a call may take to return once its context is done.
const Grace = time.Second

// Do is [Call] for what returns an error alone.
func Do(ctx context.Context, callee fmt.Stringer, fn func(context.Context) error) error {
	_, err := Call(ctx, callee, func(ctx context.Context) (struct{}, error) { return struct{}{}, fn(ctx) })
	return err
}

// Call returns what fn, which calls the callee, returns. If fn does not return
// within [Grace] of the end of ctx, it is left to itself, and the error names the
// callee and has the context's cause.
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
