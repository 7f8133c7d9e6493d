package journal

import (
	"fmt"
	"time"
)

// SyncPolicy defines when an update is on stable storage. The zero value is
// [SyncAlways]. With every policy, an update that has returned survives a crash of the
// process.
type SyncPolicy struct {
	interval time.Duration
}

var (
	// SyncAlways means that an update is on stable storage before it returns.
	SyncAlways = SyncPolicy{}
	// SyncNever means that the operating system decides when an update is on stable
	// storage.
	SyncNever = SyncPolicy{interval: -1}
)

// SyncEvery means that an update is on stable storage at most d after it has returned.
// A d of zero or less is [SyncAlways].
func SyncEvery(d time.Duration) SyncPolicy { return SyncPolicy{interval: max(0, d)} }

// Interval returns the maximum time after which an update that has returned is on
// stable storage: 0 for [SyncAlways], and a negative duration for [SyncNever], which
// has no maximum.
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

// ParseSyncPolicy parses the result of String.
func ParseSyncPolicy(s string) (SyncPolicy, error) {
	switch s {
	case "always":
		return SyncAlways, nil
	case "never":
		return SyncNever, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return SyncPolicy{}, fmt.Errorf("parse sync policy %q: use always, never or a positive duration such as 100ms", s)
	}
	return SyncEvery(d), nil
}
