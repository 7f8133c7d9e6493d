//go:build unix

package harness

import (
	"syscall"
	"time"
)

// CPUTime returns the processor time that this process has used so far, its
// own and the system's. Unlike the time of the clock it hardly grows when other
// processes keep the machine busy. It is 0 where it is not known.
func CPUTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
