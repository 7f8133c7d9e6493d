package xdswal

import (
	"testing"
	"time"
)

// SetRelistInterval makes followers that are opened later list more often, until the
// test ends.
func SetRelistInterval(t testing.TB, d time.Duration) {
	was := relistInterval
	relistInterval = d
	t.Cleanup(func() { relistInterval = was })
}
