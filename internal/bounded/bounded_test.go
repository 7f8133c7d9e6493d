package bounded_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/internal/bounded"
)

type callee struct{}

func (callee) String() string { return "the volume" }

func TestCall(t *testing.T) {
	failure := errors.New("failure")
	got, err := bounded.Call(t.Context(), callee{}, func(context.Context) (int, error) { return 7, failure })
	require.Equal(t, 7, got)
	require.Same(t, failure, err)

	cause := errors.New("the cause")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	// A function that returns after its context is done: its result is returned.
	got, err = bounded.Call(ctx, callee{}, func(ctx context.Context) (int, error) { <-ctx.Done(); return 8, nil })
	require.Equal(t, 8, got)
	require.NoError(t, err)

	hang := make(chan struct{})
	defer close(hang)
	start := time.Now()
	_, err = bounded.Call(ctx, callee{}, func(context.Context) (int, error) { <-hang; return 9, nil })
	require.ErrorIs(t, err, cause)
	require.ErrorContains(t, err, "the volume does not return")
	require.GreaterOrEqual(t, time.Since(start), bounded.Grace)

	require.Same(t, failure, bounded.Do(t.Context(), callee{}, func(context.Context) error { return failure }))
}

func TestAcquire(t *testing.T) {
	cause := errors.New("the cause")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	slot := make(chan struct{}, 1)
	require.NoError(t, bounded.Acquire(ctx, slot), "an empty slot is filled though ctx is done")
	require.ErrorIs(t, bounded.Acquire(ctx, slot), cause)

	acquired := make(chan error)
	go func() { acquired <- bounded.Acquire(t.Context(), slot) }()
	<-slot
	require.NoError(t, <-acquired)
}
