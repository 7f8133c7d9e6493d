package harness

import (
	"os"
	"strconv"
	"strings"
	"syscall"
)

// Memory measures the most memory that the process has in use at a time.
type Memory struct{ before int64 }

// StartMemory begins anew with what is in use now. Only one Memory at a time
// means anything.
func StartMemory() Memory {
	// Sets the peak to what is in use. Where it may not be written, the peak is
	// that of all time, and the growth too large rather than too small.
	_ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0)
	return Memory{before: residentKiB("VmRSS")}
}

// Growth returns by how much more than at the start was in use at most, in MiB.
// It is not ok where that is not known.
func (m Memory) Growth() (mib float64, ok bool) {
	peak := residentKiB("VmHWM")
	return float64(peak-m.before) / 1024, peak != 0 && m.before != 0
}

func residentKiB(field string) int64 {
	value, _, _ := strings.Cut(procField("/proc/self/status", field), " ")
	n, _ := strconv.ParseInt(value, 10, 64)
	return n
}

// Settle waits until what was written to files is on stable storage, so that
// one candidate does not pay for what another has left to the system to write.
func Settle() { syscall.Sync() }
