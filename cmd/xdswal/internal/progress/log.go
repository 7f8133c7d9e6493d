package progress

import (
	"log/slog"
	"sync"
	"time"

	"github.com/xdswal/xdswal/replay"
)

// DefaultInterval is how often a log, or a file, tells of a download.
const DefaultInterval = 5 * time.Second

// Log returns a callback for [replay.Hooks] that logs, at most once in the
// interval, how far a download is. One that takes less is not logged.
func Log(logger *slog.Logger, interval time.Duration) func(replay.Progress) {
	var m meter
	var mu sync.Mutex
	var last time.Time
	return func(p replay.Progress) {
		mu.Lock()
		defer mu.Unlock()
		if _, another := m.report(p); another || last.IsZero() {
			last = time.Now()
		}
		d, _ := m.download()
		if time.Since(last) < interval || d.done() {
			return
		}
		last = time.Now()
		attrs := []any{
			"location", d.Location, "what", d.what(), "bytes", d.Read, "total", d.Total,
			"percent", d.percent(), "bytes_per_second", int64(d.rate),
		}
		if left, ok := d.left(); ok {
			attrs = append(attrs, "left", left.Round(time.Second))
		}
		logger.Info("downloading", attrs...)
	}
}
