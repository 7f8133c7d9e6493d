package backendtest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
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

// largeSize is the size of an object that drivers write in several parts.
const largeSize = 17 << 20

// Put never replaces an object with one that is written in parts, even if the other one
// was created meanwhile.
func testCreateOnlyLarge(t *testing.T, b backends.Backend) {
	content := noise(7, largeSize)
	put(t, b, "small", []byte("first"))
	err := b.Put(t.Context(), "small", bytes.NewReader(content))
	requireError(t, b, err, backends.ErrExists, "put", "small")
	require.Equal(t, []byte("first"), get(t, b, "small"))

	put(t, b, "large", content)
	err = b.Put(t.Context(), "large", bytes.NewReader(noise(8, largeSize)))
	requireError(t, b, err, backends.ErrExists, "put", "large")
	require.True(t, bytes.Equal(content, get(t, b, "large")), "content differs")

	created := false
	body := slowBody{bytes.NewReader(content), func(offset int64) error {
		if offset < largeSize/2 || created {
			return nil
		}
		created = true
		return b.Put(t.Context(), "meanwhile", bytes.NewReader([]byte("first")))
	}}
	err = b.Put(t.Context(), "meanwhile", body)
	requireError(t, b, err, backends.ErrExists, "put", "meanwhile")
	require.Equal(t, []byte("first"), get(t, b, "meanwhile"))
	require.Len(t, list(t, b, ""), 3)
}

// Of concurrent Puts of one key exactly one succeeds, and the object is its own.
func testCreateRace(t *testing.T, b backends.Backend) {
	weak := probe(t, b)
	for round := range 4 {
		race(t, b, fmt.Sprintf("epochs/%d", round), 16, 300_000, weak)
	}
}

func testCreateRaceLarge(t *testing.T, b backends.Backend) {
	race(t, b, "snapshots/1", 4, largeSize, probe(t, b))
}

// race puts one key concurrently. If the store is weak, several Puts may succeed, and the
// object is that of one of them.
func race(t *testing.T, b backends.Backend, key string, racers, size int, weak bool) {
	t.Helper()
	contents, errs := make([][]byte, racers), make([]error, racers)
	for i := range contents {
		contents[i] = noise(byte(100+i), size+i)
	}
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range racers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			<-start
			errs[i] = b.Put(t.Context(), key, slowBody{ReadSeeker: bytes.NewReader(contents[i])})
		}()
	}
	close(start)
	wg.Wait()
	var winners []int
	for i, err := range errs {
		if err == nil {
			winners = append(winners, i)
		} else {
			requireError(t, b, err, backends.ErrExists, "put", key)
		}
	}
	require.NotEmpty(t, winners, "no racer created %q", key)
	require.True(t, weak || len(winners) == 1, "racers %d created %q", winners, key)
	got := get(t, b, key)
	require.True(t, slices.ContainsFunc(winners, func(i int) bool { return bytes.Equal(contents[i], got) }), "the content must be a winner's")
}
