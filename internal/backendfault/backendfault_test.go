package backendfault_test

import (
	"bytes"
	"io"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/backends/backendtest"
	"github.com/xdswal/xdswal/internal/backendfault"
)

// Without faults the wrapper passes the conformance suite.
func TestNoFaults(t *testing.T) {
	backendtest.Run(t, func(*testing.T) backends.Backend {
		return &backendfault.Backend{Backend: backendtest.NewMemory()}
	})
}

func TestFaults(t *testing.T) {
	// The state before each call is one object, "old"; the call works on key.
	for _, c := range []struct {
		name  string
		op    backendfault.Op
		fault backendfault.Fault
		call  func(*testing.T, backends.Backend) error
		after []string
	}{
		{"put, absent", backendfault.OpPut, backendfault.FailAbsent, putNew, []string{"old"}},
		{"put, present", backendfault.OpPut, backendfault.FailPresent, putNew, []string{"new", "old"}},
		{"get, absent", backendfault.OpGet, backendfault.FailAbsent, getOld, []string{"old"}},
		{"get, present", backendfault.OpGet, backendfault.FailPresent, readHalf, []string{"old"}},
		{"list, absent", backendfault.OpList, backendfault.FailAbsent, listAll, []string{"old"}},
		{"list, present", backendfault.OpList, backendfault.FailPresent, listAll, []string{"old"}},
		{"delete, absent", backendfault.OpDelete, backendfault.FailAbsent, deleteOld, []string{"old"}},
		{"delete, present", backendfault.OpDelete, backendfault.FailPresent, deleteOld, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			inner := backendtest.NewMemory()
			require.NoError(t, inner.Put(t.Context(), "old", bytes.NewReader([]byte("content"))))
			f := &backendfault.Backend{Backend: inner, Fault: func(op backendfault.Op, _ string) backendfault.Fault {
				require.Equal(t, c.op, op)
				return c.fault
			}}
			err := c.call(t, f)
			require.ErrorIs(t, err, backendfault.ErrInjected)
			var e *backends.Error
			require.ErrorAs(t, err, &e)
			require.Equal(t, string(c.op), e.Op)
			require.Equal(t, 1, f.Calls(c.op))
			require.Equal(t, 1, f.Injected(c.op))
			require.Equal(t, c.after, keys(t, inner))
		})
	}
}

// An error of the wrapped backend is never replaced by an injected one.
func TestRealErrors(t *testing.T) {
	f := &backendfault.Backend{
		Backend: backendtest.NewMemory(),
		Fault:   func(backendfault.Op, string) backendfault.Fault { return backendfault.FailPresent },
	}
	_, err := f.Get(t.Context(), "missing", 0, -1)
	require.ErrorIs(t, err, backends.ErrNotFound)
	require.ErrorIs(t, f.Delete(t.Context(), "../x"), backends.ErrKey)
	require.Zero(t, f.Injected(backendfault.OpGet)+f.Injected(backendfault.OpDelete))
}

// Calls are counted while they overlap.
func TestConcurrent(t *testing.T) {
	f := &backendfault.Backend{
		Backend: backendtest.NewMemory(),
		Fault:   func(backendfault.Op, string) backendfault.Fault { return backendfault.FailAbsent },
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
	require.Equal(t, 16, f.Calls(backendfault.OpDelete))
	require.Equal(t, 16, f.Injected(backendfault.OpDelete))
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
