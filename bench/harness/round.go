package harness

import (
	"runtime"
	"runtime/debug"
	"time"
)

// Round is one run of one candidate.
type Round struct {
	// Number counts from 1. Round 0 is the warm-up, whose figures are dropped.
	Number int
	// Window is the duration of the work of a candidate that works for a fixed time.
	Window time.Duration
	// HeapProfile is called after the heap was measured; it may be nil.
	HeapProfile func()

	values map[string]float64
	heap   uint64
}

// Report sets the value of a metric in this round.
func (r *Round) Report(metric string, value float64) {
	if r.values == nil {
		r.values = map[string]float64{}
	}
	r.values[metric] = value
}

// ReportTime sets the value of a metric in milliseconds.
func (r *Round) ReportTime(metric string, d time.Duration) {
	r.Report(metric, float64(d)/float64(time.Millisecond))
}

// ReportHeap sets the value of a metric to the growth of the heap since the start of
// the round, in MiB, and returns it in bytes. The caller keeps alive what is counted.
func (r *Round) ReportHeap(metric string) float64 {
	grown := float64(heapInUse()) - float64(r.heap)
	r.Report(metric, grown/(1<<20))
	if r.HeapProfile != nil {
		r.HeapProfile()
	}
	return grown
}

// begin brings the heap to the same condition before every round: it collects the
// garbage of the last candidate, empties its pools and returns the memory to the
// system, so that a restore pays for fresh pages as in a new process.
func (r *Round) begin() {
	debug.FreeOSMemory()
	r.heap = heapInUse()
}

// heapInUse returns the size of the live objects in bytes. Objects that finalizers and
// pools keep through the first collection are freed by the second.
func heapInUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
