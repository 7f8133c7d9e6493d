package progress

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/xdswal/xdswal/replay"
)

// Times of a display.
const (
	// shortest is what a download takes that is worth a line that stays.
	shortest = 2 * time.Second
	// terminalDelay and terminalEvery are when a terminal first shows a
	// download, and how often it does then.
	terminalDelay = 500 * time.Millisecond
	terminalEvery = 200 * time.Millisecond
)

// Display shows people how a download is coming along: on a terminal in one line
// that is written over, elsewhere in a line each few seconds. It shows nothing of
// one that is short.
type Display struct {
	out      io.Writer
	terminal bool
	// shortest, delay and every are the constants above, but in tests.
	shortest, delay, every time.Duration

	meter meter
	mu    sync.Mutex // of out
	width int        // of the line that is to be written over
	next  time.Time  // when the next line is due, zero for the delay

	stop chan struct{}
	done sync.WaitGroup
}

// Show returns a display on out, which is standard error as a rule. Stop ends
// it, and nothing else may write to out before that.
func Show(out io.Writer) *Display {
	d := &Display{out: out, terminal: IsTerminal(out), shortest: shortest, delay: DefaultInterval, every: DefaultInterval}
	if d.terminal {
		d.delay, d.every = terminalDelay, terminalEvery
	}
	return d.start()
}

func (d *Display) start() *Display {
	d.stop = make(chan struct{})
	d.done.Add(1)
	go func() {
		defer d.done.Done()
		d.run()
	}()
	return d
}

// IsTerminal reports whether somebody watches what is written.
func IsTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// Report takes what a download has come to; see [replay.Hooks].
func (d *Display) Report(p replay.Progress) {
	if before, another := d.meter.report(p); another {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.end(before)
	}
}

// Stop shows what the last download has come to.
func (d *Display) Stop() {
	close(d.stop)
	d.done.Wait()
	if last, ok := d.meter.download(); ok {
		d.end(last)
	}
}

func (d *Display) run() {
	tick := time.NewTicker(min(d.delay, d.every) / 2)
	defer tick.Stop()
	for {
		select {
		case <-d.stop:
			return
		case <-tick.C:
			d.tick()
		}
	}
}

func (d *Display) tick() {
	d.mu.Lock()
	defer d.mu.Unlock()
	now, ok := d.meter.download()
	if !ok || now.done() || now.elapsed < d.delay || time.Now().Before(d.next) {
		return
	}
	d.next = time.Now().Add(d.every)
	d.line(now.progress(), false)
}

// end shows how a download ended, if it was not short.
func (d *Display) end(last download) {
	d.next = time.Time{}
	switch {
	case last.done() && last.elapsed >= d.shortest:
		d.line(last.summary(), true)
	case d.width > 0 && last.done():
		d.line("", false) // on a terminal it leaves no trace
		fmt.Fprint(d.out, "\r")
	case d.width > 0:
		fmt.Fprintln(d.out) // what stopped it comes below
	}
	d.width = 0
}

// line writes a line, over the one before on a terminal.
func (d *Display) line(text string, stays bool) {
	if !d.terminal {
		fmt.Fprintln(d.out, text)
		return
	}
	padding := strings.Repeat(" ", max(0, d.width-len(text)))
	fmt.Fprint(d.out, "\r", text, padding)
	d.width = len(text)
	if stays {
		fmt.Fprintln(d.out)
	}
}

func (d download) progress() string {
	eta := "stalled"
	if left, ok := d.left(); ok {
		eta = left.Round(time.Second).String() + " left"
	}
	return fmt.Sprintf("downloading %s: %d%%, %s of %s, %s/s, %s",
		d.what(), d.percent(), Size(d.Read), Size(d.Total), Size(int64(d.rate)), eta)
}

func (d download) summary() string {
	return fmt.Sprintf("downloaded %s: %s in %s, %s/s", d.what(), Size(d.Total), d.elapsed.Round(100*time.Millisecond), Size(int64(d.rate)))
}

// Size returns a number of bytes in a readable form.
func Size(n int64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	value, unit := float64(n), -1
	for value >= 1024 && unit < len(units)-1 {
		value, unit = value/1024, unit+1
	}
	return fmt.Sprintf("%.1f %ciB", value, units[unit])
}
