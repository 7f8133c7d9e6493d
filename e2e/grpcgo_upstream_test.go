package e2e

import (
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
)

// grpcModule is the module whose tests TestGRPCGoUpstream runs.
const grpcModule = "google.golang.org/grpc"

// grpcUpstream makes the management servers of grpc-go's tests use our cache and our server.
// Each expression must match.
var grpcUpstream = map[string][][2]string{
	"internal/testutils/xds/e2e/server.go":                  grpcManagementServer,
	"internal/xds/clients/internal/testutils/e2e/server.go": grpcManagementServer,
	// With -trimpath, by which a build in another directory is cached, its path is not known.
	"testdata/testdata.go": {
		{`"runtime"`, `"os"`},
		{`_, currentFile, _, _ := runtime\.Caller\(0\)`, ``},
		{`filepath\.Dir\(currentFile\)`, `os.Getenv("XDSWAL_E2E_GRPC_TESTDATA")`},
	},
}

var grpcManagementServer = [][2]string{
	{`v3cache\.NewSnapshotCache\(`, `newSnapshotCache(t, `},
	{`v3server\.NewServer\(`, `newServer(`},
	{`grpc\.NewServer\(\)`, `grpc.NewServer(grpcOptions()...)`},
}

// grpcPinned are tests that do not pass, by mode; docs/delivery.md has the reasons.
var grpcPinned = map[string]string{
	"stock":  "^$",
	"cache":  `^Test$/^ADS_NACKError_DuplicateSuppression$`,
	"server": `^Test$/^(ADS_NACKError_DuplicateSuppression|ADS_ResourcesAreRequestedAfterStreamRestart|DumpResources_ManyToOne|CSDS_NACK)$`,
}

// grpcPackages are tested by default: they update resources while clients watch them.
var grpcPackages = []string{"internal/xds/xdsdepmgr", "internal/xds/resolver", "xds/csds"}

// grpc-go's own xDS tests pass with our cache behind go-control-plane's server, and with our
// server. The module's source is copied, and the constructors of its management servers are
// replaced.
func TestGRPCGoUpstream(t *testing.T) {
	version := os.Getenv("XDSWAL_E2E_GRPCGO")
	modes, packages := []string{"cache", "server"}, grpcPackages
	if version == "" && raceEnabled {
		t.Skip("a build of grpc-go with the race detector takes minutes; set XDSWAL_E2E_GRPCGO for it")
	}
	dir := copyGRPC(t, version)
	if version != "" {
		modes, packages = append([]string{"stock"}, modes...), grpcTestPackages(t, dir)
	}
	binaries := buildGRPC(t, dir, packages)
	results := map[string]map[string]string{} // PASS or FAIL, by mode and test
	for _, mode := range modes {
		results[mode] = runGRPCTests(t, dir, mode, binaries)
	}
	for _, mode := range modes {
		passed, failed, only := 0, []string(nil), []string(nil)
		for name, outcome := range results[mode] {
			switch {
			case outcome == "PASS":
				passed++
			case outcome == "FAIL" && results["stock"][name] == "FAIL":
				failed = append(failed, name)
			case outcome == "FAIL":
				only = append(only, name)
			}
		}
		slices.Sort(failed)
		slices.Sort(only)
		t.Logf("%s: %d passed, %d fail with go-control-plane too %v", mode, passed, len(failed), failed)
		require.Positive(t, passed)
		if mode != "stock" {
			require.Empty(t, only, "with %s", mode)
		}
	}
}

// copyGRPC returns a copy of the module's source of a version, or of the version of our
// go.mod, with the changes of grpcUpstream.
func copyGRPC(t *testing.T, version string) string {
	t.Helper()
	query := exec.Command("go", "list", "-m", "-json", grpcModule)
	if version != "" {
		query = exec.Command("go", "mod", "download", "-json", grpcModule+"@"+version)
	}
	out, err := query.Output()
	require.NoError(t, err, "%s", out)
	var module struct{ Dir string }
	require.NoError(t, json.Unmarshal(out, &module))
	dir := t.TempDir()
	require.NoError(t, os.CopyFS(dir, os.DirFS(module.Dir)))
	shim, err := os.ReadFile(filepath.Join("testdata", "upstreamgrpc", "shim.go"))
	require.NoError(t, err)
	for name, replace := range grpcUpstream {
		path := filepath.Join(dir, filepath.FromSlash(name))
		source, err := os.ReadFile(path)
		require.NoError(t, err)
		writeFile(t, path, replaceAll(t, string(source), replace))
		if filepath.Base(name) == "server.go" {
			writeFile(t, filepath.Join(filepath.Dir(path), "xdswal_shim.go"), string(shim))
		}
	}
	// Our module joins theirs.
	ours, err := filepath.Abs("..")
	require.NoError(t, err)
	require.NoError(t, os.Chmod(filepath.Join(dir, "go.mod"), 0o600)) //nolint:gosec // The copy has the module cache's mode.
	grpcCommand(t, dir, "go", "mod", "edit", "-require=github.com/xdswal/xdswal@v0.0.0", "-replace=github.com/xdswal/xdswal="+ours)
	theirSums, err := os.ReadFile(filepath.Join(dir, "go.sum"))
	require.NoError(t, err)
	ourSums, err := os.ReadFile(filepath.Join("..", "go.sum"))
	require.NoError(t, err)
	writeFile(t, filepath.Join(dir, "go.sum"), string(theirSums)+string(ourSums))
	return dir
}

// writeFile replaces a file, which may be read-only.
func writeFile(t *testing.T, path, content string) {
	t.Helper()
	require.NoError(t, os.RemoveAll(path))
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
}

// grpcTestPackages returns the packages whose tests start a management server.
func grpcTestPackages(t *testing.T, dir string) []string {
	t.Helper()
	var packages []string
	require.NoError(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		if strings.Contains(string(source), "StartManagementServer(") {
			pkg, err := filepath.Rel(dir, filepath.Dir(path))
			require.NoError(t, err)
			packages = append(packages, filepath.ToSlash(pkg))
		}
		return err
	}))
	return slices.Compact(packages)
}

// buildGRPC builds the test binaries, and returns their paths by package.
func buildGRPC(t *testing.T, dir string, packages []string) map[string]string {
	t.Helper()
	args := []string{"test", "-c", "-trimpath", "-vet=off"}
	if raceEnabled {
		args = append(args, "-race")
	}
	out, binaries := t.TempDir(), map[string]string{}
	for _, pkg := range packages {
		binaries[pkg] = filepath.Join(out, strings.ReplaceAll(pkg, "/", "_")+".test")
		grpcCommand(t, dir, "go", append(args, "-o", binaries[pkg], "./"+pkg)...)
	}
	return binaries
}

// grpcCommand runs a command in the copy of the module.
func grpcCommand(t *testing.T, dir, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s %s:\n%s", name, strings.Join(args, " "), out)
}

var grpcOutcome = regexp.MustCompile(`(?m)^ *--- (PASS|FAIL): (\S+)`)

// runGRPCTests returns the outcomes of the tests.
func runGRPCTests(t *testing.T, dir, mode string, binaries map[string]string) map[string]string {
	t.Helper()
	args := []string{"-test.v", "-test.timeout=5m", "-test.skip=" + grpcPinned[mode]}
	var mu sync.Mutex // held to write results
	results := map[string]string{}
	var group errgroup.Group
	group.SetLimit(4)
	for pkg, binary := range binaries {
		group.Go(func() error {
			cmd := exec.Command(binary, args...)
			cmd.Dir = filepath.Join(dir, pkg)
			cmd.Env = append(os.Environ(), "XDSWAL_E2E_MODE="+mode, "XDSWAL_E2E_GRPC_TESTDATA="+filepath.Join(dir, "testdata"))
			out, err := cmd.CombinedOutput()
			mu.Lock()
			defer mu.Unlock()
			for _, m := range grpcOutcome.FindAllStringSubmatch(string(out), -1) {
				results[pkg+" "+m[2]] = m[1]
			}
			if err != nil {
				results[pkg] = "FAIL" // also if it ends before its tests
				t.Logf("%s with %s: %v\n%s", pkg, mode, err, out)
			}
			return nil
		})
	}
	require.NoError(t, group.Wait())
	return results
}
