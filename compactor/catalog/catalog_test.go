package catalog_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/backends/backendtest"
	"github.com/xdswal/xdswal/compactor/catalog"
	"github.com/xdswal/xdswal/compactor/snapshot"
	"github.com/xdswal/xdswal/journal/event"
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

func requireEntries(t *testing.T, got []catalog.Entry, path func(string) string) {
	t.Helper()
	require.Len(t, got, len(newestFirst))
	for i, want := range newestFirst {
		require.Equal(t, want, got[i].Name)
		require.Equal(t, path(want.String()), got[i].Path)
		require.EqualValues(t, len(want.String()), got[i].Size)
		require.WithinDuration(t, time.Now(), got[i].Written, time.Minute)
	}
}

func TestLocal(t *testing.T) {
	dir := t.TempDir()
	for _, name := range names {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600))
	}
	got, err := catalog.Local(dir)
	require.NoError(t, err)
	requireEntries(t, got, func(name string) string { return filepath.Join(dir, name) })

	got, err = catalog.Local(filepath.Join(dir, "missing"))
	require.NoError(t, err)
	require.Empty(t, got)
	_, err = catalog.Local(filepath.Join(dir, "README"))
	require.ErrorContains(t, err, "list snapshots")
}

func TestRemote(t *testing.T) {
	b := &backendtest.Faulty{Backend: backendtest.NewMemory()}
	put := func(key, content string) {
		require.NoError(t, b.Put(t.Context(), key, strings.NewReader(content)))
	}
	for _, name := range names[:4] {
		put(catalog.KeyPrefix+name, name)
	}
	// What lies elsewhere is not this store's to restore or to delete.
	other := snapshot.Name{Epoch: 9, Sequence: event.Sequence(99)}.String()
	put(other, other)
	put(catalog.KeyPrefix+"copies/"+other, other)
	put("x/"+catalog.KeyPrefix+other, other)
	put(catalog.KeyPrefix+"README", "")
	got, err := catalog.Remote(t.Context(), b)
	require.NoError(t, err)
	requireEntries(t, got, func(name string) string { return catalog.KeyPrefix + name })

	b.Fault = func(backendtest.Op, string) backendtest.Fault { return backendtest.FailAbsent }
	_, err = catalog.Remote(t.Context(), b)
	require.ErrorIs(t, err, backendtest.ErrInjected)
}
