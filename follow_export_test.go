package xdswal

import (
	"testing"
	"time"
)

// SetRelistEvery makes followers that are opened later list more often, until the
// test ends.
func SetRelistEvery(t testing.TB, every time.Duration) {
	was := relistEvery
	relistEvery = every
	t.Cleanup(func() { relistEvery = was })
}
