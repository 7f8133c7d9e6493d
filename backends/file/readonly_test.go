package file_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/backends/file"
)

// A read-only backend creates, changes and removes nothing.
func TestReadOnly(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	_, err := file.New(file.Config{Dir: filepath.Join(dir, "missing"), ReadOnly: true})
	require.Error(t, err)
	require.NoDirExists(t, filepath.Join(dir, "missing"))

	w, err := file.New(file.Config{Dir: dir})
	require.NoError(t, err)
	require.NoError(t, w.Put(ctx, "a", strings.NewReader("x")))
	stale := filepath.Join(dir, ".tmp-1")
	require.NoError(t, os.WriteFile(stale, nil, 0o600))
	long := time.Now().Add(-48 * time.Hour)
	require.NoError(t, os.Chtimes(stale, long, long))

	r, err := file.New(file.Config{Dir: dir, ReadOnly: true})
	require.NoError(t, err)
	require.FileExists(t, stale)
	objects, err := r.List(ctx, "")
	require.NoError(t, err)
	require.Len(t, objects, 1)
	require.ErrorIs(t, r.Put(ctx, "b", strings.NewReader("x")), backends.ErrPermission)
	require.ErrorIs(t, r.Delete(ctx, "a"), backends.ErrPermission)
	objects, err = r.List(ctx, "")
	require.NoError(t, err)
	require.Len(t, objects, 1)
}
