package xdswal_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/backends/backendtest"
	"github.com/xdswal/xdswal/internal/cachelog"
)

// window is a backend whose Put is not atomic: it looks whether the key exists, and
// creates the object up to width later. The probe may find that or not.
type window struct {
	backends.Backend
	width time.Duration
	found bool         // by the probe
	mu    sync.RWMutex // guards replacing an object
}

func (w *window) ProbeConditionalCreate(context.Context) (bool, error) { return !w.found, nil }

func (w *window) Put(ctx context.Context, key string, body io.ReadSeeker) error {
	content, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	if r, err := w.Get(ctx, key, 0, 0); err == nil {
		_ = r.Close()
		return &backends.Error{Op: "put", Backend: w.String(), Key: key, Err: backends.ErrExists}
	}
	time.Sleep(rand.N(w.width))
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.Delete(ctx, key); err != nil {
		return err
	}
	return w.Backend.Put(ctx, key, bytes.NewReader(content))
}

func (w *window) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.Backend.Get(ctx, key, offset, length)
}

func (w *window) List(ctx context.Context, prefix string) ([]backends.Object, error) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.Backend.List(ctx, prefix)
}

// first is a store that may be the first one in its backend.
type first struct {
	*xdswal.Store
	nodes []string // nodes[i] was set by event i+1
}

// openFirst opens a store, and sets some nodes. It returns nil if another store has the
// backend already.
func openFirst(t *testing.T, b backends.Backend, name string) *first {
	opt := fast(b)
	opt.Dir, opt.SegmentBytes = t.TempDir(), small
	store, err := xdswal.Open(context.Background(), opt)
	if err != nil {
		assert.ErrorIs(t, err, xdswal.ErrFenced)
		return nil
	}
	s := &first{Store: store}
	t.Cleanup(func() {
		_ = s.Close(context.Background())
		forgetCaches(s.Store)
	})
	if s.State().Sequence() > 0 {
		return s // it has restored what the other one shipped
	}
	for i := range 5 {
		node := fmt.Sprint(name, i)
		err := snapshotCache(s.Store).SetSnapshot(context.Background(), node, clusters(t, "1", cluster(node)))
		if err != nil {
			assert.ErrorIs(t, err, xdswal.ErrFenced)
			break
		}
		s.nodes = append(s.nodes, node)
		if i == 2 {
			_, err := s.Compact(context.Background())
			assert.NoError(t, err)
		}
	}
	return s
}

// settle waits until everything is shipped or the store is fenced, and returns the nodes
// that were reported as shipped.
func (s *first) settle(t *testing.T) (shipped []string, fenced bool) {
	t.Helper()
	require.Eventually(t, func() bool {
		st := s.Status().Shipper
		return st.Fenced != nil || st.Shipped == s.State().Sequence()
	}, timeout, time.Millisecond)
	st := s.Status().Shipper
	return s.nodes[:min(int(st.Shipped), len(s.nodes))], st.Fenced != nil
}

// Two stores begin on an empty backend in the same instant. If the backend's conditional
// creation is not atomic, both may succeed: at most one of them continues, and nothing
// that either of them reported as shipped is lost.
func TestTwoFirstStarts(t *testing.T) {
	for name, row := range map[string]struct {
		width  time.Duration
		found  bool
		rounds int
	}{
		"found by the probe":     {100 * time.Millisecond, true, 10},
		"not found by the probe": {4 * time.Millisecond, false, 50},
	} {
		t.Run(name, func(t *testing.T) {
			for range row.rounds {
				t.Run("", func(t *testing.T) {
					if row.found {
						t.Parallel() // it waits
					}
					startTwo(t, &window{Backend: backendtest.NewMemory(), width: row.width, found: row.found})
				})
			}
		})
	}
}

func startTwo(t *testing.T, b *window) {
	stores := make([]*first, 2)
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range stores {
		wg.Add(1)
		go func() {
			defer wg.Done()
			<-start
			stores[i] = openFirst(t, b, string(rune('a'+i)))
		}()
	}
	close(start)
	wg.Wait()
	var shipped []string
	unfenced := 0
	for _, s := range stores {
		if s == nil {
			continue
		}
		nodes, fenced := s.settle(t)
		shipped = append(shipped, nodes...)
		if !fenced {
			unfenced++
		}
	}
	require.LessOrEqual(t, unfenced, 1)
	if len(shipped) == 0 {
		return // the backend may be empty
	}
	f, err := xdswal.Open(t.Context(), xdswal.Options{Follow: true, Backend: b})
	require.NoError(t, err)
	for _, node := range shipped {
		require.NotNil(t, f.State().Node(cachelog.SnapshotPrefix, node), "%s was reported as shipped", node)
	}
	closeStore(t, f)
}
