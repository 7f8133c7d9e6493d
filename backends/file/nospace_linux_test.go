package file_test

import (
	"bytes"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// A Put on a full volume fails with ENOSPC and leaves nothing; a later one succeeds.
func TestVolumeFull(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("xdswal-test", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("mount a small volume: %v", err)
	}
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(dir, 0)) })
	b := open(t, dir)
	err := b.Put(t.Context(), "a/big", bytes.NewReader(make([]byte, 2<<20)))
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.ErrorContains(t, err, "free space on the volume of "+dir)
	objects, err := b.List(t.Context(), "")
	require.NoError(t, err)
	require.Empty(t, objects)
	require.NoError(t, b.Put(t.Context(), "a/big", bytes.NewReader(make([]byte, 1<<19))))
}
