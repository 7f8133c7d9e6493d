package backendtest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/xdswal/xdswal/backends"
)

// NewMemory returns an empty backend in memory, for tests of code that uses a
// backend. It implements the whole contract except durability, and accepts a key
// below another key, as object stores do.
func NewMemory() backends.Backend {
	return &memory{objects: map[string]memoryObject{}}
}

type memory struct {
	mu      sync.RWMutex
	objects map[string]memoryObject
}

type memoryObject struct {
	content []byte // never modified
	modTime time.Time
}

func (m *memory) String() string { return "memory:" }

func (m *memory) Put(ctx context.Context, key string, body io.ReadSeeker) error {
	if err := m.begin(ctx, "put", key); err != nil {
		return err
	}
	content, err := io.ReadAll(&memoryReader{m, ctx, "put", key, body})
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	// ctx may be done since the last Read, or since waiting for the lock began.
	if err := ctx.Err(); err != nil {
		return m.fail("put", key, err)
	}
	if _, ok := m.objects[key]; ok {
		return m.fail("put", key, backends.ErrExists)
	}
	m.objects[key] = memoryObject{content: content, modTime: time.Now()}
	return nil
}

func (m *memory) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
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
	content := bytes.NewReader(o.content[offset : offset+length])
	return io.NopCloser(&memoryReader{m, ctx, "get", key, content}), nil
}

func (m *memory) List(ctx context.Context, prefix string) ([]backends.Object, error) {
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

func (m *memory) Delete(ctx context.Context, key string) error {
	if err := m.begin(ctx, "delete", key); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.objects, key)
	return nil
}

// begin returns the error of ctx or of key that every method checks first.
func (m *memory) begin(ctx context.Context, op, key string) error {
	if err := ctx.Err(); err != nil {
		return m.fail(op, key, err)
	}
	if err := backends.ValidKey(key); err != nil {
		return m.fail(op, key, err)
	}
	return nil
}

func (m *memory) fail(op, key string, err error) error {
	return &backends.Error{Op: op, Backend: m.String(), Key: key, Err: err}
}

// memoryReader reads the body of a Put, or the range of a Get, until ctx is done.
// Its errors are those of the method op.
type memoryReader struct {
	m       *memory
	ctx     context.Context
	op, key string
	r       io.Reader
}

func (r *memoryReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, r.m.fail(r.op, r.key, err)
	}
	n, err := r.r.Read(p)
	if err != nil && err != io.EOF { //nolint:errorlint // A wrapped io.EOF is not the end.
		err = r.m.fail(r.op, r.key, fmt.Errorf("read body: %w", err))
	}
	return n, err
}
