package s3test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// binary returns the path of a program: in .tools/bin of this directory or of one above
// it, where scripts/deps installs it, or else in PATH. Without the program the test
// skips, or fails in CI, where nobody would notice.
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
