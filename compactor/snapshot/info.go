package snapshot

import (
	"time"

	"github.com/xdswal/xdswal/journal/event"
)

// Info tells the hooks of those who read and write snapshots about one of
// them in one place.
type Info struct {
	// Location is the directory or the backend, Name the snapshot's name.
	Location string
	Name     string
	Sequence event.Sequence
	// Nodes, Resources and ResourceBytes count what is in it; they are 0
	// where it was not looked into.
	Nodes         int
	Resources     int
	ResourceBytes int64
	// Bytes is the size of the file.
	Bytes int64
	// Duration and Err are set when the work has ended.
	Duration time.Duration
	Err      error
}
