// Package lograte bounds how often something is logged that others cause, such as clients
// or a disk that fails.
package lograte

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// Limiter logs the first lines of a kind, and then one a second, with the number of those
// that were omitted before it. It is safe for concurrent use.
type Limiter struct {
	sometimes rate.Sometimes
	omitted   atomic.Int64
}

// New returns a limiter that logs all of the first lines.
func New(first int) *Limiter {
	return &Limiter{sometimes: rate.Sometimes{First: first, Interval: time.Second}}
}

// Log logs a line, or counts it as omitted.
func (l *Limiter) Log(logger *slog.Logger, level slog.Level, msg string, args ...any) {
	logged := false
	l.sometimes.Do(func() {
		logged = true
		if n := l.omitted.Swap(0); n > 0 {
			args = append(args, "omitted", n)
		}
		logger.Log(context.Background(), level, msg, args...)
	})
	if !logged {
		l.omitted.Add(1)
	}
}
