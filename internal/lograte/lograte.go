// Package lograte bounds how often something is logged that others cause, such as clients
// or a disk that fails.
package lograte

import (
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// Limiter allows the first lines of a kind, and then one a second. It is safe for
// concurrent use.
type Limiter struct {
	sometimes rate.Sometimes
	omitted   atomic.Int64
}

// New returns a limiter that allows all of the first lines.
func New(first int) *Limiter {
	return &Limiter{sometimes: rate.Sometimes{First: first, Interval: time.Second}}
}

// Allow reports whether a line may be logged, and the number of those that were omitted
// since the last one that was.
func (l *Limiter) Allow() (omitted int64, ok bool) {
	l.sometimes.Do(func() { omitted, ok = l.omitted.Swap(0), true })
	if !ok {
		l.omitted.Add(1)
	}
	return omitted, ok
}
