package journal

import (
	"fmt"
	"time"
)

// SyncPolicy is when an update that has returned is on stable storage. The zero
// value is [SyncAlways]. Under every policy such an update survives a crash of
// the process.
type SyncPolicy struct {
	interval time.Duration
}

var (
	// SyncAlways returns from an update when it is on stable storage.
	SyncAlways = SyncPolicy{}
	// SyncNever leaves it to the operating system when updates reach stable
	// storage.
	SyncNever = SyncPolicy{interval: -1}
)

// SyncEvery brings updates to stable storage at most d after they have returned.
// A d of zero or less is [SyncAlways].
func SyncEvery(d time.Duration) SyncPolicy { return SyncPolicy{interval: max(0, d)} }

// Interval returns the longest time between the return of an update and its being
// on stable storage: 0 for [SyncAlways], and a negative duration for [SyncNever],
// which has no bound.
func (p SyncPolicy) Interval() time.Duration { return p.interval }

// String returns "always", "never" or the interval.
func (p SyncPolicy) String() string {
	switch {
	case p.interval == 0:
		return "always"
	case p.interval < 0:
		return "never"
	default:
		return p.interval.String()
	}
}

// ParseSyncPolicy parses what String returns.
func ParseSyncPolicy(s string) (SyncPolicy, error) {
	switch s {
	case "always":
		return SyncAlways, nil
	case "never":
		return SyncNever, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return SyncPolicy{}, fmt.Errorf("parse sync policy %q: use always, never, or a duration such as 100ms", s)
	}
	return SyncEvery(d), nil
}
