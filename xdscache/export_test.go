package xdscache

import (
	"testing"
	"time"
)

// NumKnownStates returns the number of clients' states that are remembered.
func (c *SnapshotCache) NumKnownStates() (n int) {
	c.watches.known.byMap.Range(func(any, any) bool {
		n++
		return true
	})
	return n
}

// SetHoldSnapshot sets how long GetSnapshot keeps a result, for the time of a test.
func SetHoldSnapshot(t testing.TB, d time.Duration) {
	before := holdSnapshot
	holdSnapshot = d
	t.Cleanup(func() { holdSnapshot = before })
}
