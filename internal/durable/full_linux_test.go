package durable_test

import (
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// An error of writing to a full volume is ENOSPC, without the name of a temporary file.
func TestVolumeFull(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("xdswal-test", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("mount a small volume: %v", err)
	}
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(dir, 0)) })
	for name, write := range writers {
		t.Run(name, func(t *testing.T) {
			err := write(filepath.Join(dir, "f"), func(w io.Writer) error {
				_, err := w.Write(make([]byte, 1<<20))
				return err
			})
			require.ErrorIs(t, err, syscall.ENOSPC)
			requireNoTemp(t, err)
			entries, err := os.ReadDir(dir)
			require.NoError(t, err)
			require.Empty(t, entries)
		})
	}
}
