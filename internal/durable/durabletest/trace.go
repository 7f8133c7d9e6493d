// Package durabletest tests durability without crashing the machine: it lists the
// system calls of a process, which show an fsync that is missing or too early.
package durabletest

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// traced are the system calls that Trace lists: those that change a file or a directory
// or make a change durable, and openat, which may be part of either.
const traced = "openat,write,pwrite64,ftruncate,fsync,fdatasync,renameat,renameat2,linkat,unlinkat,mkdirat,newfstatat"

// markPrefix is the prefix of the names of nonexistent files whose stat is a mark in
// the trace.
const markPrefix = "mark:"

// Mark adds a title to the trace of this process. dir is the directory that is
// traced.
func Mark(dir, title string) {
	_, _ = os.Lstat(filepath.Join(dir, markPrefix+title))
}

// Trace runs this test binary as another process, with the environment variable env set
// to a new directory dir, which TestMain must check. It returns the system calls on dir
// and its parent in order, one per line:
//
//	title:             a Mark
//	openat D/T         a temporary file in dir
//	write D/T
//	renameat D/T D/f
//	fsync D
//	fsync D/..
//
// It skips the test without strace. The traced process should make its calls in one
// goroutine.
func Trace(t *testing.T, env string) string {
	t.Helper()
	strace, err := exec.LookPath("strace")
	if err != nil || runtime.GOOS != "linux" {
		t.Skip("needs strace on Linux")
	}
	exe, err := os.Executable()
	require.NoError(t, err)
	dir, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	out := filepath.Join(t.TempDir(), "trace")
	cmd := exec.CommandContext(t.Context(), strace, "-f", "-y", "-s", "4096", "-o", out, "-e", "trace="+traced, exe)
	cmd.Env = append(os.Environ(), env+"="+dir)
	if msg, err := cmd.CombinedOutput(); err != nil {
		if strings.Contains(string(msg), "ptrace") {
			t.Skipf("strace is not allowed here: %s", msg)
		}
		t.Fatalf("run %s under strace: %v: %s", exe, err, msg)
	}
	raw, err := os.ReadFile(out)
	require.NoError(t, err)
	var lines []string
	for line := range strings.Lines(string(raw)) {
		if s := summary(dir, line); s != "" {
			lines = append(lines, s)
		}
	}
	return strings.Join(lines, "\n")
}

var (
	callName = regexp.MustCompile(`(\w+)\(`)
	callPath = regexp.MustCompile(`["<](/[^">]*)[">]`)
	tempName = regexp.MustCompile(`\.tmp-\d+`)
)

// summary returns the line of Trace for one call, or "" for a call that is not listed.
func summary(dir, line string) string {
	call, _, _ := strings.Cut(line, ") = ")
	name := callName.FindStringSubmatch(call)
	if name == nil {
		return ""
	}
	words := []string{name[1]}
	for _, m := range callPath.FindAllStringSubmatch(call, -1) {
		path := m[1]
		switch {
		case path == filepath.Dir(dir):
			words = append(words, "D/..")
		case path == dir, strings.HasPrefix(path, dir+"/"):
			words = append(words, tempName.ReplaceAllString("D"+path[len(dir):], "T"))
		}
	}
	switch {
	case len(words) == 1:
		return ""
	case name[1] == "newfstatat":
		// Only marks are listed: a stat changes nothing.
		if _, title, ok := strings.Cut(words[1], markPrefix); ok {
			return title + ":"
		}
		return ""
	}
	return strings.Join(words, " ")
}
