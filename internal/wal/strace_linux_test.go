package wal_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/internal/wal"
	"github.com/xdswal/xdswal/journal"
)

// Killed at a system call, a process loses no committed event.
func TestKillAtSystemCalls(t *testing.T) {
	strace := findStrace(t)
	calls := []string{"pwrite64", "fdatasync", "fsync", "renameat", "ftruncate", "write"}
	counts := []int{1, 2, 4, 7, 11}
	if raceEnabled {
		counts = []int{1, 3}
	}
	for _, mode := range []string{"append", "take"} {
		for i, call := range calls {
			t.Run(mode+" "+call, func(t *testing.T) {
				for n, count := range counts {
					policy := policies[(i+n)%len(policies)]
					dir := t.TempDir()
					c := startChild(t, mode, dir, policy.String(),
						strace, "-f", "-qq", "-o", os.DevNull, "-e", "trace="+call,
						"-e", fmt.Sprintf("inject=%s:signal=SIGKILL:when=%d", call, count))
					b := newBook(1)
					for lines := 0; lines < 300; lines++ { // some calls never come so often
						line, err := c.stdout.ReadString('\n')
						if err != nil {
							break
						}
						b.read(t, strings.TrimSuffix(line, "\n"))
					}
					killTracee(t, c)
					for _, line := range c.rest(t) {
						b.read(t, line)
					}
					if _, err := os.Stat(filepath.Join(dir, "LOCK")); err != nil {
						continue // killed before it began
					}
					j := open(t, dir, wal.Options{Sync: policy, SegmentBytes: minSegment})
					b.survives(t, j, 1)
					b.verify(t, j, dir, 1)
				}
			})
		}
	}
}

func findStrace(t testing.TB) string {
	t.Helper()
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("no strace here")
	}
	if out, err := exec.CommandContext(t.Context(), strace, "-qq", "-o", os.DevNull, "true").CombinedOutput(); err != nil {
		t.Skipf("strace is not allowed here: %v: %s", err, out)
	}
	return strace
}

// killTracee kills what strace runs; strace ends with it.
func killTracee(t testing.TB, c *child) {
	t.Helper()
	pid := c.cmd.Process.Pid
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return // it has ended
	}
	for _, field := range strings.Fields(string(data)) {
		tracee, err := strconv.Atoi(field)
		require.NoError(t, err)
		_ = syscall.Kill(tracee, syscall.SIGKILL)
	}
}

// An error of any system call that makes data durable poisons the journal or
// fails the operation; no committed event is lost, and no other event is found.
func TestInjectedErrors(t *testing.T) {
	strace := findStrace(t)
	counts := []int{1, 3, 6, 10}
	if raceEnabled {
		counts = []int{1, 4}
	}
	for i, c := range []struct{ name, call, errno, path string }{
		{"fdatasync EIO", "fdatasync", "EIO", ""},
		{"fsync EIO", "fsync", "EIO", ""},
		{"fsync of the directory EIO", "fsync", "EIO", "."},
		{"pwrite64 EIO", "pwrite64", "EIO", ""},
		{"pwrite64 ENOSPC", "pwrite64", "ENOSPC", ""},
		{"write of the log ENOSPC", "write", "ENOSPC", "staged"},
		{"ftruncate EIO", "ftruncate", "EIO", ""},
		{"renameat EIO", "renameat", "EIO", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			faults := 0
			for n, count := range counts {
				policy := policies[(i+n)%len(policies)]
				if c.path == "staged" || c.call == "ftruncate" { // none with other policies
					policy = journal.SyncEvery(2 * time.Millisecond)
				}
				dir := t.TempDir()
				args := []string{
					strace, "-f", "-qq", "-o", os.DevNull, "-e", "trace=" + c.call,
					"-e", fmt.Sprintf("inject=%s:error=%s:when=%d", c.call, c.errno, count),
				}
				if c.path != "" {
					args = append(args, "-P", filepath.Join(dir, c.path))
				}
				child := startChild(t, "faults", dir, policy.String(), args...)
				b := newBook(1)
				lines := child.rest(t)
				require.NotEmpty(t, lines)
				require.Equal(t, "<nil>", lines[len(lines)-1], "%s, %s at call %d: %s", policy, c.call, count, child.stderr.String())
				for _, line := range lines {
					if strings.HasPrefix(line, "fault:") {
						faults++
						continue
					}
					b.read(t, line)
				}
				b.verifyClosed(t, dir, 1)
			}
			t.Logf("%d errors surfaced", faults)
			if c.call != "renameat" { // without a new segment the old one grows
				require.Positive(t, faults, "no injected error surfaced")
			}
		})
	}
}
