package wal_test

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/internal/durable"
	"github.com/xdswal/xdswal/internal/wal"
	"github.com/xdswal/xdswal/journal"
)

// breakFile makes every write through this process's open descriptors of a
// file fail: they are replaced by ones that are open for reading only.
func breakFile(t testing.TB, path string) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	broken := 0
	for _, e := range entries {
		target, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err != nil || target != path {
			continue
		}
		fd, err := strconv.Atoi(e.Name())
		require.NoError(t, err)
		readOnly, err := os.Open(path)
		require.NoError(t, err)
		require.NoError(t, syscall.Dup3(int(readOnly.Fd()), fd, syscall.O_CLOEXEC))
		require.NoError(t, readOnly.Close())
		broken++
	}
	require.Positive(t, broken, "%s is not open", path)
}

// After a write error no append succeeds until Recover; then what was
// committed is in the journal, and nothing else.
func TestPoison(t *testing.T) {
	for _, c := range []struct {
		name   string
		policy journal.SyncPolicy
		file   func(t *testing.T, dir string) string
		size   int
	}{
		{"segment, always", journal.SyncAlways, activePath, 100},
		{"segment, flushed in time", journal.SyncEvery(time.Millisecond), activePath, 100},
		{"segment, flushed when there is much", journal.SyncNever, activePath, 20_000},
		{"log, in time", journal.SyncEvery(time.Hour), logPath, 100},
		{"log, never", journal.SyncNever, logPath, 100},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			j := open(t, dir, wal.Options{Sync: c.policy, SegmentBytes: minSegment})
			b := newBook(1)
			for round := range 3 {
				b.fill(t, j, 5, 100)
				breakFile(t, c.file(t, dir))
				var err error
				for i := 0; err == nil; i++ {
					require.Less(t, i, 100_000)
					err = b.append(j, fmt.Sprintf("round-%d-%d", round, i), c.size)
				}
				require.ErrorIs(t, err, wal.ErrPoisoned)
				requirePlace(t, err, dir)
				_, err = b.faulty(j, 1, 10, func(int) {
					if c.file(t, dir) == logPath(t, dir) {
						repairFile(t, logPath(t, dir))
					}
				})
				require.NoError(t, err)
			}
			b.verify(t, j, dir, 1)
		})
	}
}

func activePath(t *testing.T, dir string) string {
	names := segments(t, dir)
	return filepath.Join(dir, names[len(names)-1])
}

func logPath(_ *testing.T, dir string) string { return filepath.Join(dir, "staged") }

// repairFile is the opposite of breakFile, for the log.
func repairFile(t testing.TB, path string) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	for _, e := range entries {
		if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err != nil || target != path {
			continue
		}
		fd, err := strconv.Atoi(e.Name())
		require.NoError(t, err)
		f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND, 0)
		require.NoError(t, err)
		require.NoError(t, syscall.Dup3(int(f.Fd()), fd, syscall.O_CLOEXEC))
		require.NoError(t, f.Close())
	}
}

// Close of a poisoned journal returns an error if events are not on stable storage;
// the next Open finds them.
func TestClosePoisoned(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir, wal.Options{Sync: journal.SyncEvery(time.Millisecond)})
	b := newBook(1)
	breakFile(t, activePath(t, dir))
	b.fill(t, j, 1, 100)
	require.Eventually(t, func() bool {
		stats, err := j.Stats()
		return err == nil && stats.Poisoned != nil
	}, patience, time.Millisecond, "the flush fails without another append")
	err := j.Close()
	require.ErrorContains(t, err, "not on stable storage")
	requirePlace(t, err, dir)
	require.ErrorIs(t, j.Recover(t.Context(), nil), wal.ErrClosed)
	b.verifyClosed(t, dir, 1)
}

func init() { children["limit"] = limitChild }

// limitChild runs into a limit of the size of files.
func limitChild(dir string, policy journal.SyncPolicy) error {
	signal.Ignore(syscall.SIGXFSZ)
	j, err := wal.Open(dir, wal.Options{Sync: policy, SegmentBytes: minSegment})
	if err != nil {
		return err
	}
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		return err
	}
	low := old
	low.Cur = 40_000
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &low); err != nil {
		return err
	}
	b := newBook(1)
	refused := 0
	n, err := b.faulty(j, 60, 3000, func(try int) {
		if try == 1 { // not at once: the new segment does not fit either
			refused++
			_ = syscall.Setrlimit(syscall.RLIMIT_FSIZE, &old)
		}
	})
	if err != nil {
		return err
	}
	if n == 0 || refused == 0 {
		return fmt.Errorf("%d faults, %d refusals", n, refused)
	}
	if err := j.Close(); err != nil {
		return err
	}
	for seq, id := range b.ids {
		fmt.Println(uint64(seq), id)
	}
	return nil
}

func init() { children["descriptors"] = descriptorsChild }

// descriptorsChild runs out of file descriptors when it rotates: the next
// segment is made already and gets its name, but the directory cannot be
// opened to make that durable.
func descriptorsChild(dir string, policy journal.SyncPolicy) error {
	const segmentBytes = 4 * minSegment // enough for the next to be made in time
	j, err := wal.Open(dir, wal.Options{Sync: policy, SegmentBytes: segmentBytes})
	if err != nil {
		return err
	}
	b := newBook(1)
	for i := 0; spareFile(dir) == ""; i++ {
		if err := b.append(j, fmt.Sprintf("before-%d", i), 500); err != nil {
			return err
		}
	}
	for deadline := time.Now().Add(patience); !spareReady(dir); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			return errors.New("next segment is not ready")
		}
	}
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
		return err
	}
	low := old
	low.Cur = 3
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &low); err != nil {
		return err
	}
	faults, err := b.faulty(j, 100, 3000, func(int) { _ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old) })
	_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old)
	if err != nil {
		return err
	}
	fmt.Println("faults:", faults)
	if err := j.Close(); err != nil {
		return err
	}
	for seq, id := range b.ids {
		fmt.Println(uint64(seq), id)
	}
	return nil
}

// spareFile returns the path of the next segment, if it is being made.
func spareFile(dir string) string {
	names, _ := filepath.Glob(filepath.Join(dir, durable.TempPrefix+"*"))
	if len(names) == 0 {
		return ""
	}
	return names[0]
}

// spareReady reports whether the next segment is made: it has its size, and is
// open again.
func spareReady(dir string) bool {
	f, err := os.Open(spareFile(dir))
	if err != nil {
		return false
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() < 4*minSegment {
		return false
	}
	return syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB) != nil
}

// If a crash may leave a new segment with or without its name, nothing more is
// committed to the old one.
func TestOutOfDescriptors(t *testing.T) {
	dir := t.TempDir()
	c := startChild(t, "descriptors", dir, "always")
	b := newBook(1)
	lines := c.rest(t)
	require.NotEmpty(t, lines)
	require.Equal(t, "<nil>", lines[len(lines)-1], c.stderr.String())
	require.Contains(t, lines, "faults: 1")
	for _, line := range lines {
		b.read(t, line)
	}
	b.verifyClosed(t, dir, 1)
}

func TestFileSizeLimit(t *testing.T) {
	for _, policy := range policies {
		t.Run(policy.String(), func(t *testing.T) {
			dir := t.TempDir()
			c := startChild(t, "limit", dir, policy.String())
			b := newBook(1)
			lines := c.rest(t)
			require.NotEmpty(t, lines)
			require.Equal(t, "<nil>", lines[len(lines)-1], c.stderr.String())
			for _, line := range lines {
				b.read(t, line)
			}
			require.Greater(t, b.last(), journal.Sequence(50))
			b.verifyClosed(t, dir, 1)
		})
	}
}

// Recover succeeds when a full disk has room again.
func TestDiskFull(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root may mount a small file system")
	}
	for _, policy := range policies {
		t.Run(policy.String(), func(t *testing.T) {
			disk := t.TempDir()
			if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=2m"); err != nil {
				t.Skipf("mounting is not allowed here: %v", err)
			}
			t.Cleanup(func() { require.NoError(t, syscall.Unmount(disk, 0)) })
			dir := filepath.Join(disk, "journal")
			j := open(t, dir, wal.Options{Sync: policy, SegmentBytes: minSegment})
			b := newBook(1)
			filler := filepath.Join(disk, "filler")
			require.NoError(t, os.WriteFile(filler, make([]byte, 1650<<10), 0o600))
			refused := 0
			faults, err := b.faulty(j, 60, 4000, func(try int) {
				if try == 1 {
					refused++
					require.NoError(t, os.Remove(filler))
				}
			})
			t.Logf("%d faults, %d refusals", faults, refused)
			require.NoError(t, err)
			require.Positive(t, faults)
			b.verify(t, j, dir, 1)
		})
	}
}
