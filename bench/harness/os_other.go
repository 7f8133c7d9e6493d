//go:build !linux

package harness

import "os"

// Fdatasync makes a file durable.
func Fdatasync(f *os.File) error { return f.Sync() }

// Settle does nothing on this system.
func Settle() {}

// Memory measures nothing on this system.
type Memory struct{}

// StartMemory returns a Memory without a value.
func StartMemory() Memory { return Memory{} }

// Growth returns false.
func (Memory) Growth() (mib float64, ok bool) { return 0, false }
