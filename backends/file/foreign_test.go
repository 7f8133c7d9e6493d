//go:build darwin || linux

package file_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/backends"
)

// Names that are not valid keys, and files that are not regular, are not objects.
func TestForeignFiles(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir)
	require.NoError(t, b.Put(t.Context(), "k", body("content")))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "not a key"), nil, 0o600))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "lost+found"), 0o700))
	require.NoError(t, os.Symlink("k", filepath.Join(dir, "link")))
	require.NoError(t, os.Symlink("/", filepath.Join(dir, "root")))
	require.NoError(t, syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600))

	objects, err := b.List(t.Context(), "")
	require.NoError(t, err)
	require.Len(t, objects, 1)
	for _, key := range []string{"link", "fifo", "root"} {
		_, err = b.Get(t.Context(), key, 0, -1)
		require.ErrorIs(t, err, backends.ErrNotFound, key)
		require.NoError(t, b.Delete(t.Context(), key))
		_, err = os.Lstat(filepath.Join(dir, key))
		require.NoError(t, err, "Delete must remove nothing but objects")
	}
}
