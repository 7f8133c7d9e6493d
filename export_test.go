package xdswal

import (
	"testing"
	"time"
)

// SetRelistInterval sets the listing interval of followers that are opened later, until
// the test ends.
func SetRelistInterval(t testing.TB, d time.Duration) {
	was := relistInterval
	relistInterval = d
	t.Cleanup(func() { relistInterval = was })
}
