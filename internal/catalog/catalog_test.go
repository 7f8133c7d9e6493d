package catalog_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/internal/catalog"
	"github.com/xdswal/xdswal/internal/format/snapshot"
)

// names are of snapshots, and of what else may lie beside them.
var names = []string{
	snapshot.Name{Epoch: 1, Sequence: 7}.String(),
	snapshot.Name{Epoch: 2, Sequence: 7}.String(),
	snapshot.Name{Epoch: 3, Sequence: 5}.String(),
	snapshot.Name{Epoch: 1, Sequence: 11}.String(),
	".tmp-1234",
	"snapshot-1-2.zst",
	snapshot.Name{Epoch: 1, Sequence: 12}.String() + ".bak",
	"README",
}

// newestFirst are the snapshots among them.
var newestFirst = []snapshot.Name{{Epoch: 1, Sequence: 11}, {Epoch: 2, Sequence: 7}, {Epoch: 1, Sequence: 7}, {Epoch: 3, Sequence: 5}}

func TestLocal(t *testing.T) {
	dir := t.TempDir()
	for _, name := range names {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600))
	}
	got, err := catalog.Local(dir)
	require.NoError(t, err)
	require.Len(t, got, len(newestFirst))
	for i, want := range newestFirst {
		require.Equal(t, want, got[i].Name)
		require.Equal(t, filepath.Join(dir, want.String()), got[i].Path)
		require.EqualValues(t, len(want.String()), got[i].Size)
		require.WithinDuration(t, time.Now(), got[i].Written, time.Minute)
	}

	got, err = catalog.Local(filepath.Join(dir, "missing"))
	require.NoError(t, err)
	require.Empty(t, got)
	_, err = catalog.Local(filepath.Join(dir, "README"))
	require.ErrorContains(t, err, "list snapshots")
}
