//go:build !linux

package harness

import "os"

// Fdatasync makes a file durable.
func Fdatasync(f *os.File) error { return f.Sync() }
