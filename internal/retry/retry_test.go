package retry_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/internal/retry"
)

func TestBackoff(t *testing.T) {
	b := retry.Backoff(100*time.Millisecond, time.Second)
	for range 2 {
		for _, about := range []time.Duration{100, 200, 400, 800, 1000, 1000} {
			about *= time.Millisecond
			require.InDelta(t, float64(about), float64(b.NextBackOff()), float64(about)/2)
		}
		b.Reset()
	}
}

func TestSleep(t *testing.T) {
	require.True(t, retry.Sleep(t.Context(), time.Nanosecond))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.False(t, retry.Sleep(ctx, time.Hour))
}
