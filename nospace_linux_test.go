package xdswal_test

import (
	"context"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/xdscache"
)

// smallVolume mounts a volume of a few megabytes.
func smallVolume(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("xdswal-test", dir, "tmpfs", 0, "size=8m"); err != nil {
		t.Skipf("mount a small volume: %v", err)
	}
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(dir, 0)) })
	return dir
}

// fillVolume uses all free space. The returned function frees it.
func fillVolume(t *testing.T, dir string) func() {
	t.Helper()
	path := filepath.Join(dir, "filler")
	f, err := os.Create(path)
	require.NoError(t, err)
	defer f.Close()
	for _, size := range []int{1 << 20, 4 << 10, 1} {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, size))
		}
	}
	require.ErrorIs(t, err, syscall.ENOSPC)
	return func() { require.NoError(t, os.Remove(path)) }
}

// On a full disk updates fail, and clients are still served. When there is space again,
// the store recovers, and no update that has returned is lost.
func TestDiskFull(t *testing.T) {
	dir := smallVolume(t)
	var h health
	s := openStore(t, xdswal.Options{Dir: filepath.Join(dir, "data"), KeepSnapshots: 2, KeepFor: xdswal.Off, Hooks: h.hooks()})
	c := snapshotCache(s)
	set(t, c, "n", bulk(1))
	free := fillVolume(t, dir)
	last := fillDisk(t, s, 2)
	requireVersion(t, c, last)
	require.ErrorIs(t, s.Status().Degraded, syscall.ENOSPC)
	require.Equal(t, h.recovered.Load()+1, h.degraded.Load())
	require.Error(t, c.SetSnapshot(context.Background(), "n", bulk(last+1)))
	requireVersion(t, c, last)
	requireServed(t, s)
	seq := s.Status().Sequence

	free()
	requireRecovery(t, c, last+1)
	require.Equal(t, seq+1, s.Status().Sequence)
	h.requireRecovered(t, s)
	for i := range 20 {
		set(t, c, "n", bulk(last+2+i))
	}
	requireVersion(t, c, last+21)
	requireSound(t, s)
}

// fillDisk updates a node until the disk is full and the journal has no prepared segment
// left to recover with. It returns the last update.
func fillDisk(t *testing.T, s *xdswal.Store, from int) int {
	t.Helper()
	for {
		last, err := fillJournal(t, snapshotCache(s), from)
		require.ErrorIs(t, err, xdswal.ErrJournalPoisoned)
		require.ErrorIs(t, err, syscall.ENOSPC)
		requireVersion(t, snapshotCache(s), last)
		end := time.Now().Add(time.Second)
		for s.Status().Degraded != nil {
			if time.Now().After(end) {
				return last
			}
			time.Sleep(time.Millisecond)
		}
		from = last + 1
	}
}

// requireRecovery waits until a node can be set.
func requireRecovery(t *testing.T, c *xdscache.SnapshotCache, version int) {
	t.Helper()
	require.Eventually(t, func() bool {
		return c.SetSnapshot(context.Background(), "n", bulk(version)) == nil
	}, timeout, 10*time.Millisecond)
	requireVersion(t, c, version)
}

// A store that was closed while the disk was full restores all updates that have returned.
func TestDiskFullAndRestart(t *testing.T) {
	dir := smallVolume(t)
	data := filepath.Join(dir, "data")
	s := openStore(t, xdswal.Options{Dir: data})
	set(t, snapshotCache(s), "n", bulk(1))
	free := fillVolume(t, dir)
	last := fillDisk(t, s, 2)
	// There may be space for a small snapshot.
	t.Log(s.Close(context.Background()))
	if s, err := xdswal.Open(context.Background(), xdswal.Options{Dir: data}); err == nil {
		requireVersion(t, snapshotCache(s), last)
		t.Log(s.Close(context.Background()))
	}
	free()
	s = openStore(t, xdswal.Options{Dir: data})
	requireVersion(t, snapshotCache(s), last)
	requireSound(t, s)
}

// With FailOpen, updates succeed while the disk is full, and are durable when there is
// space again.
func TestDiskFullFailOpen(t *testing.T) {
	dir := smallVolume(t)
	var h health
	opt := xdswal.Options{Dir: filepath.Join(dir, "data"), KeepSnapshots: 2, KeepFor: xdswal.Off, FailOpen: true, Hooks: h.hooks()}
	s := openStore(t, opt)
	c := snapshotCache(s)
	set(t, c, "n", bulk(1))
	free := fillVolume(t, dir)
	version := 1
	for s.Status().Degraded == nil {
		version++
		set(t, c, "n", bulk(version))
	}
	for range 20 {
		version++
		set(t, c, "n", bulk(version))
		requireVersion(t, c, version)
	}
	require.NoError(t, second(c.Clear(context.Background(), "gone")))
	require.ErrorIs(t, s.Status().Degraded, syscall.ENOSPC)
	require.EqualValues(t, 1, h.degraded.Load())
	require.Zero(t, h.recovered.Load())

	free()
	h.requireRecovered(t, s)
	require.EqualValues(t, 1, h.recovered.Load())
	// The recovery made the updates durable: they survive without a last snapshot.
	set(t, c, "n", bulk(version+1))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	require.ErrorIs(t, s.Close(ctx), context.Canceled)
	s = openStore(t, opt)
	requireVersion(t, snapshotCache(s), version+1)
	requireSound(t, s)
}
