package progress

import (
	"io"
	"time"
)

// ShowFast is Show with shorter times.
func ShowFast(out io.Writer, terminal bool, shortest, interval time.Duration) *Display {
	return &Display{out: out, terminal: terminal, interval: interval, shortest: shortest}
}
