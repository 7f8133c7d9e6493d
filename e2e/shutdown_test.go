package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestShutdown ends the daemon with SIGTERM while clients are connected: it writes a last
// snapshot, and the next start replays no event.
func TestShutdown(t *testing.T) {
	d := newDaemon(t)
	d.start()
	d.put("a", "1", everyType("one")...)
	require.EqualValues(t, 2, d.put("b", "1", everyType("two")...))
	before := fetchAll(t, dial(t, d), "a")
	held := openSotW(t, dial(t, d), "a")
	subscribeAll(held, nil)

	d.terminate()
	held.awaitEnd()
	snapshots := snapshotFiles(t, d)
	require.Len(t, snapshots, 1)

	d.start()
	restored := d.status().Restored
	require.EqualValues(t, 2, restored.SnapshotSeq)
	require.EqualValues(t, 2, restored.Seq)
	require.Zero(t, restored.Events)
	require.Equal(t, 2, restored.Nodes)
	requireSame(t, before, fetchAll(t, dial(t, d), "a"))

	d.terminate()
	require.Equal(t, snapshots, snapshotFiles(t, d), "without changes, no snapshot is written")

	d.start()
	require.EqualValues(t, 3, d.put("a", "2"))
	d.kill()
	require.Equal(t, snapshots, snapshotFiles(t, d), "a killed daemon writes no snapshot")
	d.start()
	restored = d.status().Restored
	require.EqualValues(t, 2, restored.SnapshotSeq)
	require.EqualValues(t, 3, restored.Seq)
	require.Equal(t, 1, restored.Events)
	d.terminate()
	verifyDir(t, d.dir)
}

func snapshotFiles(t *testing.T, d *daemon) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(d.dir, "snapshots"))
	require.NoError(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
