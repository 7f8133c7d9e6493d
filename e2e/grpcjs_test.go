package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestGRPCJS is TestGRPCGo with the xDS client of Node.js, an independent implementation.
func TestGRPCJS(t *testing.T) {
	node, dir := installGRPCJS(t)
	runGRPC(t, 2, func() *exec.Cmd {
		return exec.Command(node, filepath.Join(dir, "client.js"), grpcTarget)
	}, func(*daemon) {})
}

// installGRPCJS installs the pinned packages from the npm registry, and returns the path
// of node and the directory of the client.
func installGRPCJS(t *testing.T) (node, dir string) {
	t.Helper()
	if testing.Short() {
		t.Skip("-short installs no packages")
	}
	var paths []string
	for _, tool := range []string{"node", "npm"} {
		path, err := exec.LookPath(tool)
		if err != nil {
			t.Skipf("%s is not installed", tool)
		}
		paths = append(paths, path)
	}
	dir = t.TempDir()
	for _, name := range []string{"package.json", "package-lock.json", ".npmrc", "client.js"} {
		data, err := os.ReadFile(filepath.Join("grpcjs", name))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), data, 0o600))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, paths[1], "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	cmd.Dir, cmd.WaitDelay = dir, 5*time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		if os.Getenv("CI") != "" {
			require.NoError(t, err, "npm ci: %s", out)
		}
		t.Skipf("npm ci: %v\n%s", err, out)
	}
	return paths[0], dir
}
