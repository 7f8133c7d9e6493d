// Package progress tells people who wait for a download how far it is.
package progress

import (
	"sync"
	"time"

	"github.com/xdswal/xdswal/replay"
)

// download tells how far a download is.
type download struct {
	replay.Progress
	// elapsed is how long ago it began or, if it is done, how long it took.
	elapsed time.Duration
	// rate is in bytes a second, of late.
	rate float64
}

func (d download) what() string {
	if d.Name == "" {
		return "batches"
	}
	return "snapshot"
}

// percent returns how much of it is there, rounded down.
func (d download) percent() int64 {
	if d.Total <= 0 {
		return 100
	}
	return int64(100 * float64(d.Read) / float64(d.Total))
}

func (d download) done() bool { return d.Read >= d.Total }

// left returns how long the rest takes at this rate, false if nothing comes.
func (d download) left() (time.Duration, bool) {
	if d.rate <= 0 {
		return 0, d.done()
	}
	return time.Duration(float64(d.Total-d.Read) / d.rate * float64(time.Second)), true
}

// The rate is that of the last window, of which a sample is kept now and then.
const (
	window      = 5 * time.Second
	sampleEvery = 250 * time.Millisecond
)

// meter measures one download after another. Its methods are safe for
// concurrent use.
type meter struct {
	mu         sync.Mutex
	now        replay.Progress
	begun, end time.Time // begun is zero before the first download, end until one is done
	samples    []sample  // oldest first
}

type sample struct {
	at   time.Time
	read int64
}

// report takes what a download has come to. If it is another one than before, it
// returns that one too.
func (m *meter) report(p replay.Progress) (before download, another bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	at := time.Now()
	if p.Location != m.now.Location || p.Name != m.now.Name || p.Total != m.now.Total || p.Read < m.now.Read || m.begun.IsZero() {
		if another = !m.begun.IsZero(); another {
			before = m.measure()
		}
		m.begun, m.end, m.samples = at, time.Time{}, []sample{{at, p.Read}}
	}
	m.now = p
	if p.Read >= p.Total && m.end.IsZero() {
		m.end = at
	}
	if last := m.samples[len(m.samples)-1]; at.Sub(last.at) >= sampleEvery {
		m.samples = append(m.samples, sample{at, p.Read})
	}
	for len(m.samples) > 1 && at.Sub(m.samples[1].at) >= window {
		m.samples = m.samples[1:]
	}
	return before, another
}

// download returns how far the newest download is, false if there is none.
func (m *meter) download() (download, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.begun.IsZero() {
		return download{}, false
	}
	return m.measure(), true
}

func (m *meter) measure() download {
	d := download{Progress: m.now, elapsed: time.Since(m.begun)}
	if !m.end.IsZero() {
		d.elapsed = m.end.Sub(m.begun)
		if d.elapsed > 0 {
			d.rate = float64(d.Read) / d.elapsed.Seconds()
		}
		return d
	}
	// One that stands still becomes slower by the moment.
	if first := m.samples[0]; time.Since(first.at) > 0 {
		d.rate = float64(m.now.Read-first.read) / time.Since(first.at).Seconds()
	}
	return d
}
