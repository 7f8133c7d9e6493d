package backendtest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/backends"
)

// probe lets the driver learn what its store lacks, as every writer does at its start, and
// deletes what that left. It reports whether the store is weak; see
// [backends.ConditionalCreator].
func probe(t *testing.T, b backends.Backend) (weak bool) {
	t.Helper()
	p, ok := b.(backends.ConditionalCreator)
	if !ok {
		return false
	}
	before := keysOf(t, b, "")
	conditional, err := p.ProbeConditionalCreate(t.Context())
	require.NoError(t, err)
	for _, key := range keysOf(t, b, "") {
		if !slices.Contains(before, key) {
			require.NoError(t, b.Delete(t.Context(), key))
		}
	}
	return !conditional
}

func put(t *testing.T, b backends.Backend, key string, content []byte) {
	t.Helper()
	require.NoError(t, b.Put(t.Context(), key, bytes.NewReader(content)))
}

func get(t *testing.T, b backends.Backend, key string) []byte {
	t.Helper()
	content, err := read(t.Context(), b, key, 0, -1)
	require.NoError(t, err)
	return content
}

// read reads a range to its end.
func read(ctx context.Context, b backends.Backend, key string, offset, length int64) ([]byte, error) {
	r, err := b.Get(ctx, key, offset, length)
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(r)
	return content, errors.Join(err, r.Close())
}

func list(t *testing.T, b backends.Backend, prefix string) []backends.Object {
	t.Helper()
	objects, err := b.List(t.Context(), prefix)
	require.NoError(t, err)
	require.True(t, sorted(objects), "a list must be sorted by key, without duplicates: %v", objects)
	return objects
}

// sorted reports whether objects are in ascending order, each key once.
func sorted(objects []backends.Object) bool {
	for i := 1; i < len(objects); i++ {
		if objects[i-1].Key >= objects[i].Key {
			return false
		}
	}
	return true
}

func keysOf(t *testing.T, b backends.Backend, prefix string) []string {
	t.Helper()
	var keys []string
	for _, o := range list(t, b, prefix) {
		keys = append(keys, o.Key)
	}
	return keys
}

// requireMissing checks that Get and List agree that a key is missing.
func requireMissing(t *testing.T, b backends.Backend, key string) {
	t.Helper()
	_, err := b.Get(t.Context(), key, 0, -1)
	requireError(t, b, err, backends.ErrNotFound, "get", key)
	require.NotContains(t, keysOf(t, b, key), key)
}

// requireError checks that err wraps target and names op, b and key.
func requireError(t *testing.T, b backends.Backend, err, target error, op, key string) {
	t.Helper()
	require.ErrorIs(t, err, target)
	var e *backends.Error
	require.ErrorAs(t, err, &e, "errors must be *backends.Error")
	assert.Equal(t, op, e.Op)
	assert.Equal(t, b.String(), e.Backend)
	assert.Equal(t, key, e.Key)
}

// noise returns size bytes without a pattern, different for each seed.
func noise(seed byte, size int) []byte {
	content := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(content)
	return content
}

// slowBody is a body whose reads are short and of odd lengths, unlike those of a
// file.
type slowBody struct {
	io.ReadSeeker
	onRead func(offset int64) error // called before each Read; may be nil
}

func (b slowBody) Read(p []byte) (int, error) {
	if b.onRead != nil {
		offset, err := b.Seek(0, io.SeekCurrent)
		if err == nil {
			err = b.onRead(offset)
		}
		if err != nil {
			return 0, err
		}
	}
	return b.ReadSeeker.Read(p[:min(len(p), 65_537)])
}
