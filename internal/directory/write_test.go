package directory_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/internal/directory"
	"github.com/xdswal/xdswal/internal/state"
)

// oneNode is a state with one node, at sequence 1.
func oneNode(t *testing.T) *state.State {
	t.Helper()
	s, err := xdswal.Open(t.Context(), xdswal.Options{MemoryOnly: true})
	require.NoError(t, err)
	snap, err := cachev3.NewSnapshot("1", nil)
	require.NoError(t, err)
	require.NoError(t, s.SnapshotCache(false, cachev3.IDHash{}, nil).SetSnapshot(t.Context(), "n", snap))
	return (*state.State)(s.State())
}

func TestWriteDirectory(t *testing.T) {
	st := oneNode(t)
	dir := filepath.Join(t.TempDir(), "a", "b")
	d, err := directory.Write(t.Context(), dir, st)
	require.NoError(t, err)
	read, err := directory.Read(dir)
	require.NoError(t, err)
	require.Equal(t, d, read)

	s, err := xdswal.Open(t.Context(), xdswal.Options{Dir: dir})
	require.NoError(t, err)
	require.Equal(t, st.Digest(), (*state.State)(s.State()).Digest())
	require.Equal(t, d.StoreID, s.Status().StoreID)
	require.Equal(t, d.Epoch, s.Status().Epoch)
	require.NoError(t, s.Close(t.Context()))

	// Two copies are two stores.
	other, err := directory.Write(t.Context(), filepath.Join(t.TempDir(), "c"), st)
	require.NoError(t, err)
	require.NotEqual(t, d.StoreID, other.StoreID)

	_, err = directory.Write(t.Context(), dir, st)
	require.ErrorContains(t, err, "write data directory "+dir+": directory is not empty")
}

// What a copy that was cut short leaves is no data directory, and is not
// written to again.
func TestWriteDirectoryCutShort(t *testing.T) {
	st := oneNode(t)
	dir := filepath.Join(t.TempDir(), "d")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := directory.Write(ctx, dir, st)
	require.ErrorIs(t, err, context.Canceled)
	_, err = directory.Read(dir)
	require.ErrorContains(t, err, "it is not a data directory of xdswal")
	snapshots, err := os.ReadDir(filepath.Join(dir, "snapshots"))
	require.NoError(t, err)
	require.Empty(t, snapshots)
	_, err = directory.Write(t.Context(), dir, st)
	require.ErrorContains(t, err, "directory is not empty")
}
