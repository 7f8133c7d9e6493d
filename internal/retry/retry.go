// Package retry is how this module waits between attempts: an exponential backoff
// with jitter, and a sleep that a context ends.
package retry

import (
	"context"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// Backoff returns the waits between attempts: about first, then twice as long each
// time, at most about most. Its NextBackOff returns the next wait, its Reset begins
// anew after a success. It is used by one goroutine.
func Backoff(first, most time.Duration) *backoff.ExponentialBackOff {
	return &backoff.ExponentialBackOff{
		InitialInterval: first, MaxInterval: most, Multiplier: 2, RandomizationFactor: 0.5,
	}
}

// Sleep waits for d. It returns false if ctx is done before.
func Sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
