package backendtest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/backends"
)

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

// requireMissing checks that a key is missing for every method that could tell.
func requireMissing(t *testing.T, b backends.Backend, key string) {
	t.Helper()
	_, err := b.Get(t.Context(), key, 0, -1)
	requireError(t, b, err, backends.ErrNotFound, "get", key)
	require.NotContains(t, keysOf(t, b, key), key)
}

// requireError checks the identity and the place of an error.
func requireError(t *testing.T, b backends.Backend, err, target error, op, key string) {
	t.Helper()
	require.ErrorIs(t, err, target)
	var e *backends.Error
	require.ErrorAs(t, err, &e, "errors must be *backends.Error")
	assert.Equal(t, op, e.Op)
	assert.Equal(t, b.String(), e.Backend)
	assert.Equal(t, key, e.Key)
}

// noise is size bytes, without pattern and different for each seed, that are
// computed as they are read. Reads are short and of odd lengths, as readers
// may be that are not files.
type noise struct {
	seed         uint64
	size, offset int64
	onRead       func(offset int64) error // may be nil
}

func (n *noise) Read(p []byte) (int, error) {
	if n.onRead != nil {
		if err := n.onRead(n.offset); err != nil {
			return 0, err
		}
	}
	if n.offset >= n.size {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), n.size-n.offset, 65_537)]
	n.fill(p)
	n.offset += int64(len(p))
	return len(p), nil
}

// fill writes the bytes at n.offset: the words mix(seed, 0), mix(seed, 1), and
// so on, of 8 bytes each.
func (n *noise) fill(p []byte) {
	index, skip := n.seed<<40+uint64(n.offset)/8, n.offset%8
	var word [8]byte
	for len(p) > 0 {
		binary.LittleEndian.PutUint64(word[:], mix(index))
		p = p[copy(p, word[skip:]):]
		index, skip = index+1, 0
	}
}

func (n *noise) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += n.offset
	case io.SeekEnd:
		offset += n.size
	}
	if offset < 0 {
		return 0, errors.New("seek before the start")
	}
	n.offset = offset
	return offset, nil
}

// mix is the output function of SplitMix64 (Steele, Lea, Flood 2014).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// noiseBytes returns what a noise yields.
func noiseBytes(seed uint64, size int64) []byte {
	content, err := io.ReadAll(&noise{seed: seed, size: size})
	if err != nil {
		panic(err)
	}
	return content
}

// withPrefix returns the keys that begin with prefix, sorted.
func withPrefix(keys []string, prefix string) []string {
	var out []string
	for _, k := range keys {
		if strings.HasPrefix(k, prefix) {
			out = append(out, k)
		}
	}
	slices.Sort(out)
	return out
}
