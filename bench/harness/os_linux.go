package harness

import (
	"os"
	"strconv"
	"strings"
	"syscall"
)

// Fdatasync makes the content of a file durable, and the metadata that is required to
// read it.
func Fdatasync(f *os.File) error { return syscall.Fdatasync(int(f.Fd())) }

// Settle waits until all written files are on stable storage, so that one candidate
// does not pay for the writes of another.
func Settle() { syscall.Sync() }

// Memory measures the peak of the process's resident memory. The peak is one per
// process, so only one Memory at a time is valid.
type Memory struct{ before int64 }

// StartMemory resets the peak to the resident memory of now.
func StartMemory() Memory {
	// If this cannot be written, the peak is that of the whole process, and the
	// growth is too large rather than too small.
	_ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0)
	return Memory{before: residentKiB("VmRSS")}
}

// Growth returns the peak since the start, less the resident memory at the start, in
// MiB. ok is false if it is unknown.
func (m Memory) Growth() (mib float64, ok bool) {
	peak := residentKiB("VmHWM")
	return float64(peak-m.before) / 1024, peak != 0 && m.before != 0
}

func residentKiB(field string) int64 {
	value, _, _ := strings.Cut(procField("/proc/self/status", field), " ")
	n, _ := strconv.ParseInt(value, 10, 64)
	return n
}
