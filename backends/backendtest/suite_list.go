package backendtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/backends"
)

// Lists are sorted bytewise by key, and prefixes are plain strings.
func testList(t *testing.T, b backends.Backend) {
	// '-' and '.' sort before '/', and '0' after it, so the order of keys
	// differs from the order in which directories are walked.
	keys := []string{
		"a-b", "a.b", "a/b", "a0", "A", "B/c", "snap/0009", "snap/0010", "snap/0010.sum",
		"snap/1", "snap-2/x", "snap=3", "snapper", "z/y/x/w/v", "z/y/x-1", "z/yy/x",
	}
	for _, key := range keys {
		put(t, b, key, []byte(key))
	}
	for _, prefix := range []string{
		"", "a", "a/", "a-", "s", "snap", "snap/", "snap/00", "snap/0010", "snap/0010.", "snap-",
		"z/y", "z/y/", "z/y/x", "z/y/x/w/v", "Z", "nothing", "nothing/below", "snap/0010/x",
		// No valid key begins with these; as paths, some lead out of a
		// directory.
		"/", "/a", "a//", "//", ".", "..", "../", "./a", "a/../snap/", ".tmp-", "a b", "é", "\x00", "a\x00/",
	} {
		t.Run(fmt.Sprintf("%q", prefix), func(t *testing.T) {
			want := slices.DeleteFunc(slices.Clone(keys), func(k string) bool { return !strings.HasPrefix(k, prefix) })
			require.ElementsMatch(t, want, keysOf(t, b, prefix))
		})
	}
}

// While Puts and Lists overlap, an object is listed whole or not at all, and always
// after its Put has returned.
func testListWhole(t *testing.T, b backends.Backend) {
	const writers, each, size = 4, 8, 256 << 10
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	listErr := make(chan error, 1)
	go func() { listErr <- listUntil(ctx, b, size) }()

	errs := make([]error, writers)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range each {
				key := fmt.Sprintf("w%d/%03d", w, i)
				err := b.Put(t.Context(), key, slowBody{ReadSeeker: bytes.NewReader(noise(byte(w*each+i), size))})
				if err == nil {
					err = wantListed(t.Context(), b, key)
				}
				errs[w] = errors.Join(errs[w], err)
			}
		}()
	}
	wg.Wait()
	stop()
	require.NoError(t, errors.Join(errs...))
	require.NoError(t, <-listErr)
	require.Len(t, list(t, b, ""), writers*each)
}

// listUntil lists until ctx is done, and returns an error if an object is not whole.
func listUntil(ctx context.Context, b backends.Backend, size int64) error {
	for {
		objects, err := b.List(ctx, "")
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if !sorted(objects) {
			return fmt.Errorf("list out of order: %v", objects)
		}
		for _, o := range objects {
			if o.Size != size || backends.ValidKey(o.Key) != nil {
				return fmt.Errorf("partial object listed: %+v", o)
			}
		}
	}
}

// wantListed returns an error unless key is listed.
func wantListed(ctx context.Context, b backends.Backend, key string) error {
	objects, err := b.List(ctx, key)
	if err != nil {
		return err
	}
	if len(objects) != 1 || objects[0].Key != key {
		return fmt.Errorf("object %q not listed after its Put: %v", key, objects)
	}
	return nil
}

// Delete removes one object. A missing key is not an error.
func testDelete(t *testing.T, b backends.Backend) {
	require.NoError(t, b.Delete(t.Context(), "never/there"))
	put(t, b, "dir/a", []byte("a"))
	put(t, b, "dir/ab", []byte("ab"))
	for range 3 {
		require.NoError(t, b.Delete(t.Context(), "dir/a"))
		requireMissing(t, b, "dir/a")
		require.Equal(t, []string{"dir/ab"}, keysOf(t, b, ""))
	}
	require.NoError(t, b.Delete(t.Context(), "dir"), "a key above an object is missing")
	require.NoError(t, b.Delete(t.Context(), "dir/ab/c"), "a key below an object is missing")
	require.Equal(t, []byte("ab"), get(t, b, "dir/ab"))
	require.NoError(t, b.Delete(t.Context(), "dir/ab"))
	require.NoError(t, b.Delete(t.Context(), "dir"))
	require.Empty(t, list(t, b, ""))
}

// A deleted key can be put again, with other content.
func testRecreate(t *testing.T, b backends.Backend) {
	for i := range 3 {
		content := noise(byte(i), 1000-i)
		put(t, b, "dir/k", content)
		require.Equal(t, content, get(t, b, "dir/k"))
		require.NoError(t, b.Delete(t.Context(), "dir/k"))
		requireMissing(t, b, "dir/k")
	}
}

// Every method refuses a key that is not valid.
func testBadKeys(t *testing.T, b backends.Backend) {
	for _, key := range badKeys {
		t.Run(fmt.Sprintf("%.20q", key), func(t *testing.T) {
			requireError(t, b, b.Put(t.Context(), key, bytes.NewReader([]byte("x"))), backends.ErrKey, "put", key)
			_, err := b.Get(t.Context(), key, 0, -1)
			requireError(t, b, err, backends.ErrKey, "get", key)
			requireError(t, b, b.Delete(t.Context(), key), backends.ErrKey, "delete", key)
		})
	}
	require.Empty(t, list(t, b, ""))
}

// The driver accepts the longest keys and segments that ValidKey accepts.
func testLongKeys(t *testing.T, b backends.Backend) {
	segment := strings.Repeat("s", maxSegmentLen)
	whole := strings.Repeat("t", 200) + "/" + segment + "/"
	whole += strings.Repeat("u", backends.MaxKeyLen-len(whole))
	for _, key := range []string{segment, whole} {
		require.NoError(t, backends.ValidKey(key))
		put(t, b, key, []byte(key))
		require.Equal(t, []byte(key), get(t, b, key))
		require.Equal(t, []string{key}, keysOf(t, b, key))
	}
}

// A key below another key is created or refused with ErrKey, and the other object
// is unchanged.
func testNestedKeys(t *testing.T, b backends.Backend) {
	for _, c := range []struct{ first, second string }{
		{"a", "a/b"}, {"c", "c/d/e"}, {"f/g", "f"}, {"h/i/j", "h"},
	} {
		t.Run(c.first+" then "+c.second, func(t *testing.T) {
			put(t, b, c.first, []byte("first"))
			requireMissing(t, b, c.second)
			require.NoError(t, b.Delete(t.Context(), c.second))
			err := b.Put(t.Context(), c.second, bytes.NewReader([]byte("second")))
			if err != nil {
				requireError(t, b, err, backends.ErrKey, "put", c.second)
				requireMissing(t, b, c.second)
			} else {
				assert.Equal(t, []byte("second"), get(t, b, c.second))
			}
			assert.Equal(t, []byte("first"), get(t, b, c.first))
		})
	}
}

// maxSegmentLen is the maximum length of a segment of a key; see [backends.ValidKey].
const maxSegmentLen = 255

var badKeys = []string{
	"", "/", "/a", "a/", "a//b", ".", "..", "a/.", "a/..", "../a", "a/../b", "./a",
	"a b", "a\x00", "a\n", "a\\b", "a:b", "a*", "a?", "a%2f", "a+b", "~", "é", "\xff",
	".tmp-", ".tmp-1", "a/.tmp-1", ".tmp-/a",
	strings.Repeat("k", maxSegmentLen+1),
	strings.Repeat("k/", backends.MaxKeyLen/2) + "k",
}
