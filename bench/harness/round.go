package harness

import (
	"runtime"
	"runtime/debug"
	"time"
)

// Round is one run of one candidate.
type Round struct {
	// Number counts from 1; round 0 is the warm-up, whose figures are dropped.
	Number int
	// Window is how long a candidate that works for a time is to work.
	Window time.Duration
	// HeapProfile is called when the heap was measured; nil for nothing.
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

// ReportTime sets the value of a metric that is given in milliseconds.
func (r *Round) ReportTime(metric string, d time.Duration) {
	r.Report(metric, float64(d)/float64(time.Millisecond))
}

// ReportHeap sets the value of a metric, given in MiB, to what the heap has
// grown by since the round began, and returns that in bytes. The caller keeps
// alive what is to count.
func (r *Round) ReportHeap(metric string) float64 {
	grown := float64(heapInUse()) - float64(r.heap)
	r.Report(metric, grown/(1<<20))
	if r.HeapProfile != nil {
		r.HeapProfile()
	}
	return grown
}

// begin brings the heap to where it is at the start of every round: what the
// candidate before has left is collected, its pools are emptied, and the
// memory is given back, so that a restore pays for fresh pages as it would in
// a process that has just started.
func (r *Round) begin() {
	debug.FreeOSMemory()
	r.heap = heapInUse()
}

// heapInUse returns the size of the live objects in bytes. The first
// collection may leave what finalizers and pools still hold; the second takes
// that too.
func heapInUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
