package backendtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/xdswal/xdswal/backends"
)

// Memory is a backend in memory, for tests. It keeps the whole contract but
// durability, and accepts a key below a key, as object stores do.
type Memory struct {
	mu      sync.RWMutex
	objects map[string]memoryObject
}

type memoryObject struct {
	content []byte // never modified
	modTime time.Time
}

var _ backends.Backend = (*Memory)(nil)

// NewMemory returns an empty backend.
func NewMemory() *Memory {
	return &Memory{objects: map[string]memoryObject{}}
}

// String returns "memory:".
func (m *Memory) String() string { return "memory:" }

// Put creates an object; see [backends.Backend].
func (m *Memory) Put(ctx context.Context, key string, body io.ReadSeeker) error {
	if err := m.begin(ctx, "put", key); err != nil {
		return err
	}
	var content bytes.Buffer
	if _, err := io.Copy(&content, contextReader{ctx, body}); err != nil {
		return m.fail("put", key, fmt.Errorf("read body: %w", err))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	// Checked under the lock: who holds it last has the last word.
	if err := ctx.Err(); err != nil {
		return m.fail("put", key, err)
	}
	if _, ok := m.objects[key]; ok {
		return m.fail("put", key, backends.ErrExists)
	}
	m.objects[key] = memoryObject{content: content.Bytes(), modTime: time.Now()}
	return nil
}

// Get reads a range of an object; see [backends.Backend].
func (m *Memory) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := m.begin(ctx, "get", key); err != nil {
		return nil, err
	}
	m.mu.RLock()
	o, ok := m.objects[key]
	m.mu.RUnlock()
	if !ok {
		return nil, m.fail("get", key, backends.ErrNotFound)
	}
	size := int64(len(o.content))
	if length < 0 {
		length = size - offset
	}
	if offset < 0 || offset > size || length > size-offset {
		return nil, m.fail("get", key, backends.ErrRange)
	}
	return &memoryReader{m: m, key: key, r: contextReader{ctx, bytes.NewReader(o.content[offset : offset+length])}}, nil
}

// List lists objects; see [backends.Backend].
func (m *Memory) List(ctx context.Context, prefix string) ([]backends.Object, error) {
	if err := ctx.Err(); err != nil {
		return nil, m.fail("list", prefix, err)
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	var objects []backends.Object
	for key, o := range m.objects {
		if strings.HasPrefix(key, prefix) {
			objects = append(objects, backends.Object{Key: key, Size: int64(len(o.content)), ModTime: o.modTime})
		}
	}
	slices.SortFunc(objects, func(x, y backends.Object) int { return strings.Compare(x.Key, y.Key) })
	return objects, nil
}

// Delete removes an object; see [backends.Backend].
func (m *Memory) Delete(ctx context.Context, key string) error {
	if err := m.begin(ctx, "delete", key); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.objects, key)
	return nil
}

// begin checks what every operation on a key checks first.
func (m *Memory) begin(ctx context.Context, op, key string) error {
	if err := ctx.Err(); err != nil {
		return m.fail(op, key, err)
	}
	if err := backends.ValidKey(key); err != nil {
		return m.fail(op, key, err)
	}
	return nil
}

func (m *Memory) fail(op, key string, err error) error {
	return &backends.Error{Op: op, Backend: m.String(), Key: key, Err: err}
}

// memoryReader gives the errors of a range their place.
type memoryReader struct {
	m   *Memory
	key string
	r   io.Reader
}

func (r *memoryReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = r.m.fail("get", r.key, err)
	}
	return n, err
}

func (r *memoryReader) Close() error { return nil }

// contextReader fails once ctx is done.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (r contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}
