package harness

import (
	"os"
	"syscall"
)

// Fdatasync makes the content of a file durable, and of its metadata what is
// needed to read it.
func Fdatasync(f *os.File) error { return syscall.Fdatasync(int(f.Fd())) }
