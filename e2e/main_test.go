package e2e

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// helperEnv makes the test binary run as a gRPC client; see grpc_helper_test.go.
const helperEnv = "XDSWAL_E2E_GRPC_TARGET"

// binDir is the directory of the built daemon.
var binDir string

func TestMain(m *testing.M) {
	if target := os.Getenv(helperEnv); target != "" {
		os.Exit(runGRPCClient(target))
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	var err error
	if binDir, err = os.MkdirTemp("", "xdswal-e2e-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(binDir)
	return m.Run()
}

var build = sync.OnceValues(func() (string, error) {
	statSources()
	path := filepath.Join(binDir, "xdswal")
	args := []string{"build", "-o", path}
	if raceEnabled {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, "github.com/xdswal/xdswal/cmd/xdswal")...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the daemon: %w\n%s", err, out)
	}
	return path, nil
})

// statSources stats the sources of the module. The test cache records these calls, so a
// cached result is not used after a change of the daemon.
func statSources() {
	_ = filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() && path != ".." && strings.HasPrefix(entry.Name(), ".") {
			return fs.SkipDir
		}
		if err == nil && filepath.Ext(path) == ".go" {
			_, _ = os.Stat(path)
		}
		return nil
	})
}

// binary returns the path of the xdswal command, which is built once.
func binary(t testing.TB) string {
	t.Helper()
	path, err := build()
	require.NoError(t, err)
	return path
}
