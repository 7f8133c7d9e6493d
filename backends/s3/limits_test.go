package s3

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// However large an object is, 10,000 parts suffice.
func TestPartSize(t *testing.T) {
	for _, size := range []int64{0, 1, DefaultPartSize, 10_000*DefaultPartSize - 1, 10_000 * DefaultPartSize, 10_000*DefaultPartSize + 1, 1 << 40, 5 << 40} {
		part := partSize(DefaultPartSize, size)
		require.GreaterOrEqual(t, part, int64(DefaultPartSize))
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
