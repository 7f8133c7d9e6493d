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

// StopFollowing waits until a follower that was closed does not poll any more.
func StopFollowing(s *Store) error { return s.follower.Stop() }
