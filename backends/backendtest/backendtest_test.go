package backendtest_test

import (
	"bytes"
	"io"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/backends/backendtest"
)

func TestMemory(t *testing.T) {
	backendtest.Run(t, func(*testing.T) backends.Backend { return backendtest.NewMemory() })
}

// Without faults the wrapper is invisible.
func TestFaultyPassesThrough(t *testing.T) {
	backendtest.Run(t, func(*testing.T) backends.Backend {
		return &backendtest.Faulty{Backend: backendtest.NewMemory()}
	})
}

func TestFaulty(t *testing.T) {
	// The state before each call is one object, "old"; the call works on key.
	for _, c := range []struct {
		name  string
		op    backendtest.Op
		fault backendtest.Fault
		call  func(*testing.T, backends.Backend) error
		after []string
	}{
		{"put, absent", backendtest.OpPut, backendtest.FailAbsent, putNew, []string{"old"}},
		{"put, present", backendtest.OpPut, backendtest.FailPresent, putNew, []string{"new", "old"}},
		{"get, absent", backendtest.OpGet, backendtest.FailAbsent, getOld, []string{"old"}},
		{"get, present", backendtest.OpGet, backendtest.FailPresent, readHalf, []string{"old"}},
		{"list, absent", backendtest.OpList, backendtest.FailAbsent, listAll, []string{"old"}},
		{"list, present", backendtest.OpList, backendtest.FailPresent, listAll, []string{"old"}},
		{"delete, absent", backendtest.OpDelete, backendtest.FailAbsent, deleteOld, []string{"old"}},
		{"delete, present", backendtest.OpDelete, backendtest.FailPresent, deleteOld, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			inner := backendtest.NewMemory()
			require.NoError(t, inner.Put(t.Context(), "old", bytes.NewReader([]byte("content"))))
			f := &backendtest.Faulty{Backend: inner, Fault: func(op backendtest.Op, _ string) backendtest.Fault {
				require.Equal(t, c.op, op)
				return c.fault
			}}
			err := c.call(t, f)
			require.ErrorIs(t, err, backendtest.ErrInjected)
			var e *backends.Error
			require.ErrorAs(t, err, &e)
			require.Equal(t, string(c.op), e.Op)
			require.Equal(t, 1, f.Calls(c.op))
			require.Equal(t, 1, f.Injected(c.op))
			require.Equal(t, c.after, keys(t, inner))
		})
	}
}

// An error of the wrapped backend is never hidden behind an injected one.
func TestFaultyReturnsRealErrors(t *testing.T) {
	f := &backendtest.Faulty{
		Backend: backendtest.NewMemory(),
		Fault:   func(backendtest.Op, string) backendtest.Fault { return backendtest.FailPresent },
	}
	_, err := f.Get(t.Context(), "missing", 0, -1)
	require.ErrorIs(t, err, backends.ErrNotFound)
	require.ErrorIs(t, f.Delete(t.Context(), "../x"), backends.ErrKey)
	require.Zero(t, f.Injected(backendtest.OpGet)+f.Injected(backendtest.OpDelete))
}

// Counting is safe while calls overlap.
func TestFaultyConcurrent(t *testing.T) {
	f := &backendtest.Faulty{
		Backend: backendtest.NewMemory(),
		Fault:   func(backendtest.Op, string) backendtest.Fault { return backendtest.FailAbsent },
	}
	var wg sync.WaitGroup
	for range 16 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			_ = f.Delete(t.Context(), "k")
		}()
	}
	wg.Wait()
	require.Equal(t, 16, f.Calls(backendtest.OpDelete))
	require.Equal(t, 16, f.Injected(backendtest.OpDelete))
}

func putNew(t *testing.T, b backends.Backend) error {
	body := bytes.NewReader([]byte("content"))
	err := b.Put(t.Context(), "new", body)
	require.Zero(t, body.Len(), "a failed put must have used the body")
	return err
}

func getOld(t *testing.T, b backends.Backend) error {
	_, err := b.Get(t.Context(), "old", 0, -1)
	return err
}

func readHalf(t *testing.T, b backends.Backend) error {
	r, err := b.Get(t.Context(), "old", 0, -1)
	require.NoError(t, err)
	content, err := io.ReadAll(r)
	require.Equal(t, "con", string(content))
	require.NoError(t, r.Close())
	return err
}

func listAll(t *testing.T, b backends.Backend) error {
	objects, err := b.List(t.Context(), "")
	require.Empty(t, objects)
	return err
}

func deleteOld(t *testing.T, b backends.Backend) error {
	return b.Delete(t.Context(), "old")
}

func keys(t *testing.T, b backends.Backend) []string {
	t.Helper()
	objects, err := b.List(t.Context(), "")
	require.NoError(t, err)
	var keys []string
	for _, o := range objects {
		keys = append(keys, o.Key)
	}
	return keys
}
