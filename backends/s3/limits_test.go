package s3

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// An object of any size has at most 10,000 parts.
func TestPartSize(t *testing.T) {
	for _, size := range []int64{0, 1, defaultPartSize, 10_000*defaultPartSize - 1, 10_000 * defaultPartSize, 10_000*defaultPartSize + 1, 1 << 40, 5 << 40} {
		part := partSize(defaultPartSize, size)
		require.GreaterOrEqual(t, part, int64(defaultPartSize))
		require.LessOrEqual(t, (size+part-1)/part, int64(10_000), "size %d", size)
	}
}

func TestBackoff(t *testing.T) {
	for attempt := 1; attempt < 100; attempt++ {
		d := backoff(attempt)
		require.GreaterOrEqual(t, d, 100*time.Millisecond)
		require.LessOrEqual(t, d, maxBackoff)
	}
}
