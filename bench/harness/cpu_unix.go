//go:build unix

package harness

import (
	"syscall"
	"time"
)

// CPUTime returns the user and system time that this process has used, or 0 if it is
// unknown. Unlike wall-clock time, it hardly depends on other processes.
func CPUTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
