//go:build !linux

package harness

// Memory measures nothing here.
type Memory struct{}

// StartMemory does nothing here.
func StartMemory() Memory { return Memory{} }

// Growth is never ok here.
func (Memory) Growth() (mib float64, ok bool) { return 0, false }

// Settle does nothing here.
func Settle() {}
