package s3test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// binary returns the path of a program: that of scripts/deps in .tools/bin of
// this directory or one above it, or else one on the PATH. Without it the test
// skips, but in CI it fails, where it would otherwise go unnoticed.
func binary(t testing.TB, name string) string {
	t.Helper()
	dir, err := os.Getwd()
	require.NoError(t, err)
	for {
		path := filepath.Join(dir, ".tools", "bin", name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			break
		}
		dir = parent
	}
	path, err := exec.LookPath(name)
	if err == nil {
		return path
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("needs %s; run make deps", name)
	}
	t.Skipf("needs %s; run make deps", name)
	return ""
}
