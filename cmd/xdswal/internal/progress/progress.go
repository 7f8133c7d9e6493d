// Package progress shows the progress of downloads, or logs it.
package progress

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/xdswal/xdswal/replay"
)

// DefaultInterval is the time between two lines in a log or a file.
const DefaultInterval = 5 * time.Second

// Display shows one download after another: on a terminal in one line that is
// overwritten, elsewhere in a line every few seconds.
type Display struct {
	out      io.Writer
	terminal bool
	interval time.Duration // between lines, and before the first one
	shortest time.Duration // of a download that gets a summary

	mu    sync.Mutex               // guards the fields below
	bar   *progressbar.ProgressBar // nil while nothing is downloaded
	timer *time.Timer              // calls show
	last  replay.Progress
	moved time.Time // when last was reported
}

// Show returns a display. Until Stop returns, nothing else may write to out.
func Show(out io.Writer) *Display {
	d := &Display{out: out, interval: DefaultInterval, shortest: 2 * time.Second}
	if f, ok := out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		d.terminal, d.interval = true, 500*time.Millisecond
	}
	return d
}

// Report is a callback for [replay.Hooks].
func (d *Display) Report(p replay.Progress) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if another(d.last, p) {
		d.end()
		w := io.Discard
		if d.terminal {
			w = d.out
		}
		bar := progressbar.NewOptions64(p.Total, progressbar.OptionSetWriter(w), progressbar.OptionSetWidth(10),
			progressbar.OptionSetTheme(progressbar.ThemeASCII), progressbar.OptionSetPredictTime(false),
			progressbar.OptionShowCount(), progressbar.OptionShowBytes(true), progressbar.OptionUseIECUnits(true))
		bar.StartWithoutRender()
		d.bar, d.timer = bar, time.AfterFunc(d.interval, func() { d.show(bar) })
	}
	if d.last, d.moved = p, time.Now(); p.Read >= p.Total {
		d.end()
	}
}

// another reports whether p is of another download than the report before it.
func another(before, p replay.Progress) bool {
	return p.Location != before.Location || p.Name != before.Name || p.Total != before.Total || p.Read < before.Read
}

func what(p replay.Progress) string {
	return map[bool]string{true: "batches", false: "snapshot"}[p.Name == ""]
}

// show writes a line, unless the download of bar has ended.
func (d *Display) show(bar *progressbar.ProgressBar) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.bar != bar {
		return
	}
	_ = bar.Set64(d.last.Read)
	left := "stalled"
	if s := bar.State(); s.CurrentNum > 0 && time.Since(d.moved) < DefaultInterval {
		left = fmt.Sprintf("%.0f s left", s.SecondsLeft)
	}
	bar.Describe("downloading " + what(d.last) + ", " + left)
	if !d.terminal {
		fmt.Fprintln(d.out, strings.TrimSpace(bar.String()))
	}
	d.timer.Reset(d.interval)
}

// Stop ends the display.
func (d *Display) Stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.end()
}

// end removes the line of a complete download, and writes a summary if it took long.
func (d *Display) end() {
	if d.bar == nil {
		return
	}
	d.timer.Stop()
	if took := d.bar.State().SecondsSince; d.last.Read >= d.last.Total {
		_ = d.bar.Clear()
		if took >= d.shortest.Seconds() {
			fmt.Fprintf(d.out, "downloaded %s: %s in %.1f s, %s/s\n", what(d.last),
				humanize.IBytes(uint64(d.last.Total)), took, humanize.IBytes(uint64(float64(d.last.Total)/took)))
		}
	} else if d.terminal && d.bar.String() != "" {
		fmt.Fprintln(d.out)
	}
	d.bar = nil
}

// Log returns a callback for [replay.Hooks] that logs the progress of a download
// at most once in each interval.
func Log(logger *slog.Logger, interval time.Duration) func(replay.Progress) {
	var mu sync.Mutex
	var last replay.Progress // at the last line, or at the start
	var at time.Time
	return func(p replay.Progress) {
		mu.Lock()
		defer mu.Unlock()
		if another(last, p) {
			last, at = p, time.Now()
		}
		took := time.Since(at)
		if took < interval || p.Read == last.Read || p.Read >= p.Total {
			return
		}
		rate := float64(p.Read-last.Read) / took.Seconds()
		last, at = p, time.Now()
		logger.Info("downloading", "location", p.Location, "what", what(p), "bytes", p.Read, "total", p.Total,
			"percent", 100*p.Read/p.Total, "bytes_per_second", int64(rate), "left", time.Duration(float64(p.Total-p.Read)/rate)*time.Second)
	}
}
