package catalog

import (
	"fmt"
	"time"
)

// Defaults of [NewRetention].
const (
	DefaultKeepSnapshots = 3
	DefaultKeepFor       = time.Hour
)

// Retention is the rule for what is kept, in a directory and in a backend: the
// Count newest snapshots, and everything that is at most Age old. With an Age of 0
// nothing is kept for its age.
type Retention struct {
	Count int
	Age   time.Duration
}

// NewRetention returns the rule that the options KeepSnapshots and KeepFor set. 0 is
// the default; a negative keepFor keeps nothing for its age. The error names the
// option that is out of range.
func NewRetention(keepSnapshots int, keepFor time.Duration) (Retention, error) {
	switch {
	case keepSnapshots == 0:
		keepSnapshots = DefaultKeepSnapshots
	case keepSnapshots < 2:
		return Retention{}, fmt.Errorf("KeepSnapshots is %d, want at least 2: one snapshot may be damaged", keepSnapshots)
	}
	if keepFor == 0 {
		keepFor = DefaultKeepFor
	}
	return Retention{Count: keepSnapshots, Age: max(0, keepFor)}, nil
}

// Keeps reports whether a snapshot is kept. i is the number of newer snapshots.
func (r Retention) Keeps(i int, written time.Time) bool {
	return i < r.Count || r.KeepsAge(written)
}

// KeepsAge reports whether something is kept for its age alone.
func (r Retention) KeepsAge(written time.Time) bool {
	return r.Age > 0 && time.Since(written) <= r.Age
}
