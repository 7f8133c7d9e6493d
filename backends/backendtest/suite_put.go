package backendtest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/url"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/backends"
)

// String returns a URL without credentials.
func testLocation(t *testing.T, b backends.Backend) {
	require.NotEmpty(t, b.String())
	u, err := url.Parse(b.String())
	require.NoError(t, err)
	require.NotEmpty(t, u.Scheme)
	require.Nil(t, u.User, "a location must not contain credentials")
}

// Get returns, and List describes, the bytes that were put.
func testRoundTrip(t *testing.T, b backends.Backend) {
	content := noise(1, 100_000)
	for _, key := range []string{"a", "snapshots/1", "x/y/z/A-Z_a.z=0"} {
		put(t, b, key, content)
		require.Equal(t, content, get(t, b, key))
		objects := list(t, b, key)
		require.Len(t, objects, 1)
		require.Equal(t, key, objects[0].Key)
		require.Equal(t, int64(len(content)), objects[0].Size)
	}
}

// An object without bytes exists.
func testEmpty(t *testing.T, b backends.Backend) {
	put(t, b, "empty", nil)
	require.Empty(t, get(t, b, "empty"))
	objects := list(t, b, "")
	require.Len(t, objects, 1)
	require.Zero(t, objects[0].Size)
	err := b.Put(t.Context(), "empty", bytes.NewReader(nil))
	requireError(t, b, err, backends.ErrExists, "put", "empty")
}

// A body that is read in pieces of odd lengths is stored byte for byte.
func testLarge(t *testing.T, b backends.Backend) {
	content := noise(2, 32<<20)
	require.NoError(t, b.Put(t.Context(), "large", slowBody{ReadSeeker: bytes.NewReader(content)}))
	require.True(t, bytes.Equal(content, get(t, b, "large")), "content differs")
}

// Put starts at the current offset of the body.
func testBodyOffset(t *testing.T, b backends.Backend) {
	content := noise(3, 10_000)
	for _, offset := range []int64{1, 4096, 9_999, 10_000} {
		key := fmt.Sprintf("from-%d", offset)
		body := bytes.NewReader(content)
		_, err := body.Seek(offset, io.SeekStart)
		require.NoError(t, err)
		require.NoError(t, b.Put(t.Context(), key, body))
		require.Equal(t, content[offset:], append([]byte{}, get(t, b, key)...))
	}
}

// Put returns an error of the body, and leaves no object and nothing that prevents
// a later Put.
func testBodyFails(t *testing.T, b backends.Backend) {
	const size = 3 << 20
	errBody := errors.New("read failed")
	for _, at := range []int64{0, 1, 1 << 20, size} {
		body := slowBody{bytes.NewReader(noise(4, size)), func(offset int64) error {
			if offset >= at {
				return errBody
			}
			return nil
		}}
		err := b.Put(t.Context(), "dir/object", body)
		requireError(t, b, err, errBody, "put", "dir/object")
		require.NotErrorIs(t, err, backends.ErrExists)
		require.Empty(t, list(t, b, ""))
		requireMissing(t, b, "dir/object")
	}
	put(t, b, "dir/object", []byte("good"))
	require.Equal(t, []byte("good"), get(t, b, "dir/object"))
}

// Put never replaces an object, whether the new one is longer, shorter or equal.
func testCreateOnly(t *testing.T, b backends.Backend) {
	first := noise(5, 1000)
	put(t, b, "k", first)
	before := list(t, b, "")
	for _, second := range [][]byte{nil, first[:10], first, noise(6, 2000)} {
		err := b.Put(t.Context(), "k", bytes.NewReader(second))
		requireError(t, b, err, backends.ErrExists, "put", "k")
		require.Equal(t, first, get(t, b, "k"))
		require.Equal(t, before, list(t, b, ""))
	}
}

// Of concurrent Puts of one key exactly one succeeds, and the object is its own.
func testCreateRace(t *testing.T, b backends.Backend) {
	const racers = 16
	contentOf := func(racer int) []byte { return noise(byte(100+racer), 300_000+racer) }
	for round := range 4 {
		key := fmt.Sprintf("epochs/%d", round)
		errs := make([]error, racers)
		start := make(chan struct{})
		var wg sync.WaitGroup
		for i := range racers {
			wg.Add(1)
			go func() {
				defer wg.Done()
				<-start
				errs[i] = b.Put(t.Context(), key, slowBody{ReadSeeker: bytes.NewReader(contentOf(i))})
			}()
		}
		close(start)
		wg.Wait()
		winner := -1
		for i, err := range errs {
			if err == nil {
				require.Equal(t, -1, winner, "racers %d and %d both created %q", winner, i, key)
				winner = i
				continue
			}
			requireError(t, b, err, backends.ErrExists, "put", key)
		}
		require.NotEqual(t, -1, winner, "no racer created %q", key)
		require.True(t, bytes.Equal(contentOf(winner), get(t, b, key)), "the content must be the winner's")
	}
}
