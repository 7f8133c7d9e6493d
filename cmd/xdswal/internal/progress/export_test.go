package progress

import (
	"io"
	"time"
)

// ShowFast is Show with other times than people want.
func ShowFast(out io.Writer, terminal bool, shortest, delay, every time.Duration) *Display {
	return (&Display{out: out, terminal: terminal, shortest: shortest, delay: delay, every: every}).start()
}
