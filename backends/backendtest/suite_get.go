package backendtest

import (
	"bytes"
	"io"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/backends"
)

const rangeSize = 1 << 20

// Get returns exactly the range that was requested.
func testRanges(t *testing.T, b backends.Backend) {
	content := noise(7, rangeSize)
	put(t, b, "k", content)
	for _, c := range []struct {
		name           string
		offset, length int64
		want           []byte
	}{
		{"whole", 0, rangeSize, content},
		{"whole, to the end", 0, -1, content},
		{"start", 0, 100, content[:100]},
		{"middle", 70_000, 300_000, content[70_000:370_000]},
		{"one byte", 12_345, 1, content[12_345:12_346]},
		{"end", rangeSize - 100, 100, content[rangeSize-100:]},
		{"to the end", rangeSize - 100, -1, content[rangeSize-100:]},
		{"to the end, most negative", rangeSize - 100, math.MinInt64, content[rangeSize-100:]},
		{"last byte", rangeSize - 1, -1, content[rangeSize-1:]},
		{"zero length at the start", 0, 0, nil},
		{"zero length in the middle", 5000, 0, nil},
		{"zero length at the end", rangeSize, 0, nil},
		{"nothing to the end", rangeSize, -1, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := read(t.Context(), b, "k", c.offset, c.length)
			require.NoError(t, err)
			require.True(t, bytes.Equal(c.want, got), "at %d: got %d bytes, want %d", c.offset, len(got), len(c.want))
		})
	}
}

// Get itself refuses a range that is not wholly inside the object.
func testRangesOutside(t *testing.T, b backends.Backend) {
	put(t, b, "k", noise(8, rangeSize))
	put(t, b, "empty", nil)
	for _, c := range []struct {
		name, key      string
		offset, length int64
	}{
		{"one byte too long", "k", 0, rangeSize + 1},
		{"begins inside, ends outside", "k", rangeSize - 10, 11},
		{"begins at the end", "k", rangeSize, 1},
		{"begins past the end", "k", rangeSize + 1, 1},
		{"begins past the end, zero length", "k", rangeSize + 1, 0},
		{"begins past the end, to the end", "k", rangeSize + 1, -1},
		{"negative offset", "k", -1, 1},
		{"negative offset, to the end", "k", -1, -1},
		{"sum overflows", "k", 1, math.MaxInt64},
		{"greatest offset", "k", math.MaxInt64, math.MaxInt64},
		{"empty object", "empty", 0, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := b.Get(t.Context(), c.key, c.offset, c.length)
			if err == nil {
				_ = r.Close()
			}
			requireError(t, b, err, backends.ErrRange, "get", c.key)
		})
	}
}

// A reader may be closed before its end, and the object remains readable.
func testCloseEarly(t *testing.T, b backends.Backend) {
	content := noise(9, 4<<20)
	put(t, b, "k", content)
	for range 20 {
		r, err := b.Get(t.Context(), "k", 0, -1)
		require.NoError(t, err)
		head := make([]byte, 1000)
		_, err = io.ReadFull(r, head)
		require.NoError(t, err)
		require.Equal(t, content[:1000], head)
		require.NoError(t, r.Close())
	}
	require.True(t, bytes.Equal(content, get(t, b, "k")))
}

// A key that was never put is missing, even if other keys share its beginning.
func testMissing(t *testing.T, b backends.Backend) {
	requireMissing(t, b, "nothing")
	requireMissing(t, b, "nothing/at/all")
	put(t, b, "dir/object", []byte("x"))
	for _, key := range []string{"d", "dir", "dir/o", "dir/objects", "dir/object/x", "dir/object.x"} {
		requireMissing(t, b, key)
	}
	// A missing key takes precedence over a range outside.
	_, err := b.Get(t.Context(), "nothing", 10, 10)
	requireError(t, b, err, backends.ErrNotFound, "get", "nothing")
	require.Empty(t, list(t, b, "nothing"))
}
