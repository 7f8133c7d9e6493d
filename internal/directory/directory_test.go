package directory

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/backends/backendtest"
	"github.com/xdswal/xdswal/internal/catalog"
	"github.com/xdswal/xdswal/internal/durable"
	"github.com/xdswal/xdswal/internal/durable/durabletest"
)

// traceEnv makes the test binary set a directory aside below another one.
const traceEnv = "XDSWAL_TEST_TRACE"

func TestMain(m *testing.M) {
	if dir := os.Getenv(traceEnv); dir != "" {
		if err := setAsideOne(dir); err != nil {
			panic(err)
		}
		return
	}
	os.Exit(m.Run())
}

// setAsideOne sets aside all that a data directory contains.
func setAsideOne(dir string) error {
	for _, name := range []string{journalDir, snapshotDir} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name, "file"), nil, 0o600); err != nil {
			return err
		}
	}
	if err := writeMetadata(dir, Metadata{Format: format, StoreID: "s", Epoch: 1}); err != nil {
		return err
	}
	d, err := Open(dir)
	if err != nil {
		return err
	}
	t := NewTakeover(d, TakeoverOptions{Logger: slog.New(slog.DiscardHandler)})
	durabletest.Mark(dir, "set aside")
	if err := t.setAside(catalog.Epoch{}); err != nil {
		return err
	}
	return d.Close()
}

// The metadata is away durably before anything else moves: a crash in between must not
// leave the identity of a store without its data.
func TestSetAsideIsDurable(t *testing.T) {
	_, got, found := strings.Cut(durabletest.Trace(t, traceEnv), "set aside:\n")
	require.True(t, found)
	got = regexp.MustCompile(`superseded-\w+\.\w+`).ReplaceAllString(got, "aside")
	require.Equal(t, strings.TrimSpace(`
openat D/..
fsync D/..
mkdirat D/aside
openat D
fsync D
renameat D/xdswal.json D/aside/xdswal.json
openat D/aside
fsync D/aside
openat D
fsync D
openat D
fsync D
renameat D/journal D/aside/journal
renameat D/snapshots D/aside/snapshots
openat D/aside
fsync D/aside
openat D
fsync D
`), strings.TrimSpace(withoutReads(got)))
}

// withoutReads drops the reading of directories, which changes nothing.
func withoutReads(trace string) string {
	var lines []string
	for line := range strings.Lines(trace) {
		if strings.HasPrefix(line, "openat D/journal") || strings.HasPrefix(line, "openat D/snapshots") {
			continue
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "")
}

// After Close another process may have the directory: nothing is written any more.
func TestUpdateAfterClose(t *testing.T) {
	dir := t.TempDir()
	d, err := Open(dir)
	require.NoError(t, err)
	require.NoError(t, d.Update(func(m *Metadata) { m.Format, m.StoreID, m.Epoch = format, "s", 1 }))
	_, err = Open(dir)
	require.ErrorIs(t, err, durable.ErrLocked)
	require.NoError(t, d.Close())
	require.NoError(t, d.Close())

	next, err := Open(dir)
	require.NoError(t, err)
	require.NoError(t, next.Update(func(m *Metadata) { m.Epoch = 2 }))
	require.ErrorIs(t, d.Update(func(m *Metadata) { m.Claimed = true }), errReleased)
	require.ErrorIs(t, d.removeMetadata(), errReleased)
	read, err := Read(dir)
	require.NoError(t, err)
	require.EqualValues(t, 2, read.Epoch)
	require.Equal(t, next.Metadata(), read.meta)
	require.NoError(t, next.Close())
}

// A directory whose claim was not answered claims the same epoch again.
func TestClaimAgain(t *testing.T) {
	m := newMetadata(nil, 0, "").next(0)
	again := m.next(5)
	require.Equal(t, m.Epoch, again.Epoch)
	require.Equal(t, m.Token, again.Token)
	again.Claimed = true
	later := again.next(7)
	require.Equal(t, m.Epoch+1, later.Epoch)
	require.NotEqual(t, m.Token, later.Token)
	require.Equal(t, m.Epoch, later.Parent)
	require.Equal(t, m.Token, later.ParentToken)
	require.EqualValues(t, 7, later.From)

	b := backendtest.NewMemory()
	require.NoError(t, catalog.Claim(context.Background(), b, m.Claim()))
	leads, err := later.leads(b, m.Claim())
	require.NoError(t, err)
	require.True(t, leads)
}
