package resourcedir_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal"
	_ "github.com/xdswal/xdswal/cmd/xdswal/internal/envoytypes"
	"github.com/xdswal/xdswal/cmd/xdswal/internal/resourcedir"
	"github.com/xdswal/xdswal/internal/logtest"
	"github.com/xdswal/xdswal/xdscache"
)

const secret = "c2VjcmV0LXByaXZhdGUta2V5"

// logs is a log that is read while it is written.
type logs = logtest.Buffer

// follower is a loader at work.
type follower struct {
	dir   string
	logs  *logs
	store *xdswal.Store
	cache *xdscache.SnapshotCache
}

func follow(t *testing.T, dir string) *follower {
	t.Helper()
	s, err := xdswal.Open(t.Context(), xdswal.Options{MemoryOnly: true})
	require.NoError(t, err)
	f := &follower{dir: dir, logs: &logs{}, store: s, cache: s.SnapshotCache(false, cachev3.IDHash{}, nil)}
	loader := &resourcedir.Loader{
		Dir: dir, Interval: 5 * time.Millisecond, MaxBytes: 4096, Cache: f.cache,
		Logger: slog.New(slog.NewTextHandler(f.logs, nil)),
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		loader.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		require.NotContains(t, f.logs.String(), secret)
		require.NotContains(t, f.logs.String(), "failed to")
	})
	return f
}

// write puts a file in place as a whole.
func (f *follower) write(t *testing.T, name, content string) {
	t.Helper()
	tmp := filepath.Join(f.dir, ".new")
	require.NoError(t, os.WriteFile(tmp, []byte(content), 0o600))
	require.NoError(t, os.Rename(tmp, filepath.Join(f.dir, name)))
}

func (f *follower) version(node string) string {
	if n := f.cache.GetNode(node); n != nil {
		return n.Type(resourcev3.ClusterType).Version()
	}
	return ""
}

func (f *follower) waitVersion(t *testing.T, node, version string) {
	t.Helper()
	require.Eventually(t, func() bool { return f.version(node) == version }, 10*time.Second, time.Millisecond, "%s: %s", node, f.logs)
}

func (f *follower) waitLog(t *testing.T, want string) {
	t.Helper()
	require.Eventually(t, func() bool { return strings.Contains(f.logs.String(), want) }, 10*time.Second, time.Millisecond, "%s", f.logs)
}

// pass waits until the directory was looked at anew: a file that comes now is
// loaded in a later scan than this one.
func (f *follower) pass(t *testing.T) {
	t.Helper()
	for i := range 2 { // one may have been under way
		version := fmt.Sprint(time.Now().UnixNano(), i)
		f.write(t, "zz-probe.yaml", document(version))
		f.waitVersion(t, "zz-probe", version)
	}
}

func document(version string, clusters ...string) string {
	out := fmt.Sprintf("version: %q\nresources:\n", version)
	for _, c := range append([]string{"a"}, clusters...) {
		out += fmt.Sprintf("- {\"@type\": %s, name: %s}\n", resourcev3.ClusterType, c)
	}
	return out
}

func TestLoadsAndFollows(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "one.yaml"), []byte(document("1")), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "two.yml"), []byte(document("1")), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "three.json"), []byte(`{"version":"1","resources":[{"@type":"`+resourcev3.ClusterType+`","name":"a"}]}`), 0o600))
	for _, name := range []string{"README.md", ".hidden.yaml", ".yaml", "x.yaml.swp", "x.yaml~"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(document("1")), 0o600))
	}
	f := follow(t, dir)
	for _, node := range []string{"one", "two", "three"} {
		f.waitVersion(t, node, "1")
	}
	f.write(t, "one.yaml", document("2", "b"))
	f.waitVersion(t, "one", "2")
	require.Equal(t, 2, f.cache.GetNode("one").NumResources())
	f.write(t, "four.yaml", document("1"))
	f.waitVersion(t, "four", "1")
	f.pass(t)
	nodes := 0
	for range f.cache.Nodes() {
		nodes++
	}
	require.Equal(t, 5, nodes, "the four and the probe")
}

func TestWhatDidNotChangeIsNotLoadedAgain(t *testing.T) {
	f := follow(t, t.TempDir())
	f.write(t, "n.yaml", document("1"))
	f.waitVersion(t, "n", "1")
	_, err := f.cache.Clear(t.Context(), "n")
	require.NoError(t, err)
	f.pass(t)
	require.Nil(t, f.cache.GetNode("n"))
	require.Equal(t, 1, strings.Count(f.logs.String(), "node=n "))
}

func TestAMalformedFileLeavesItsNode(t *testing.T) {
	for name, bad := range map[string]string{
		"malformed":     "version: \"2\"\nresources: [" + secret,
		"unknown field": document("2") + "- {\"@type\": " + resourcev3.ClusterType + ", name: b, alt_stat_nam: " + secret + "}\n",
		"no version":    "resources: []\n",
		"empty":         "",
		"too large":     document("2") + strings.Repeat("#"+secret+"\n", 400),
	} {
		t.Run(name, func(t *testing.T) {
			f := follow(t, t.TempDir())
			f.write(t, "n.yaml", document("1"))
			f.write(t, "other.yaml", document("1"))
			f.waitVersion(t, "n", "1")
			f.write(t, "n.yaml", bad)
			f.waitLog(t, "n.yaml")
			f.waitLog(t, "resource file was not loaded; its node is unchanged")
			f.pass(t)
			require.Equal(t, "1", f.version("n"))
			require.Equal(t, 1, strings.Count(f.logs.String(), "was not loaded"), "logged once")

			f.write(t, "n.yaml", document("3"))
			f.waitVersion(t, "n", "3")
		})
	}
}

func TestAFileThatDisappearsLeavesItsNode(t *testing.T) {
	f := follow(t, t.TempDir())
	f.write(t, "n.yaml", document("1"))
	f.waitVersion(t, "n", "1")
	require.NoError(t, os.Remove(filepath.Join(f.dir, "n.yaml")))
	f.pass(t)
	require.Equal(t, "1", f.version("n"))
	f.write(t, "n.yaml", document("2"))
	f.waitVersion(t, "n", "2")
}

func TestADirectoryThatComesAndGoes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "later")
	f := follow(t, dir)
	f.waitLog(t, "resource directory cannot be read")
	require.NoError(t, os.Mkdir(dir, 0o700))
	f.write(t, "n.yaml", document("1"))
	f.waitVersion(t, "n", "1")
	require.Equal(t, 1, strings.Count(f.logs.String(), "cannot be read"), "logged once")

	require.NoError(t, os.RemoveAll(dir))
	require.Eventually(t, func() bool { return strings.Count(f.logs.String(), "cannot be read") == 2 }, 10*time.Second, time.Millisecond)
	require.Equal(t, "1", f.version("n"))
	require.NoError(t, os.Mkdir(dir, 0o700))
	f.write(t, "n.yaml", document("2"))
	f.waitVersion(t, "n", "2")
}

func TestTwoFilesOfOneNode(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "n.json"), []byte(`{"version":"json","resources":[]}`), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "n.yaml"), []byte(document("yaml")), 0o600))
	f := follow(t, dir)
	f.waitLog(t, `already has a file: n.json`)
	f.pass(t)
	require.Equal(t, "json", f.version("n"))
	require.Equal(t, 1, strings.Count(f.logs.String(), "already has a file"), "logged once")

	// The other one is the node's once it is the only one.
	require.NoError(t, os.Remove(filepath.Join(dir, "n.json")))
	f.waitVersion(t, "n", "yaml")
}

func TestSymbolicLinksThatChangeAsOne(t *testing.T) {
	f := follow(t, t.TempDir())
	for i, version := range []string{"1", "22"} {
		target := filepath.Join(f.dir, fmt.Sprint("..", i))
		require.NoError(t, os.Mkdir(target, 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(target, "n.yaml"), []byte(document(version)), 0o600))
		tmp := filepath.Join(f.dir, ".tmp")
		require.NoError(t, os.Symlink(target, tmp))
		require.NoError(t, os.Rename(tmp, filepath.Join(f.dir, "..data")))
		if i == 0 {
			require.NoError(t, os.Symlink("..data/n.yaml", filepath.Join(f.dir, "n.yaml")))
		}
		f.waitVersion(t, "n", version)
	}
}

func TestWhatIsNotAFile(t *testing.T) {
	f := follow(t, t.TempDir())
	require.NoError(t, os.Mkdir(filepath.Join(f.dir, "dir.yaml"), 0o700))
	f.waitLog(t, "not a regular file")
	require.NoError(t, os.Symlink("nowhere", filepath.Join(f.dir, "dangling.yaml")))
	f.pass(t)
	require.Equal(t, 1, strings.Count(f.logs.String(), "was not loaded"))
}

// A directory whose files cannot be read, or a store that takes nothing, is no
// reason to fill the log.
func TestWhatIsTriedAgainIsToldOnce(t *testing.T) {
	f := follow(t, t.TempDir())
	s, err := xdswal.Open(t.Context(), xdswal.Options{MemoryOnly: true})
	require.NoError(t, err)
	require.NoError(t, s.Close(t.Context()))
	out := &logs{}
	loader := &resourcedir.Loader{
		Dir: f.dir, Interval: time.Millisecond, MaxBytes: 4096, Logger: slog.New(slog.NewTextHandler(out, nil)),
		Cache: s.SnapshotCache(false, cachev3.IDHash{}, nil),
	}
	f.write(t, "n.yaml", document("1"))
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	loader.Run(ctx)
	require.Equal(t, 1, strings.Count(out.String(), "retry=true"), "%s", out)
}

// Changes within a tick of the file system's clock, of the same size, in place.
func TestQuickChangesAreSeen(t *testing.T) {
	f := follow(t, t.TempDir())
	path := filepath.Join(f.dir, "n.yaml")
	for i := range 30 {
		version := fmt.Sprint(100 + i)
		require.NoError(t, os.WriteFile(path, []byte(document(version)), 0o600))
		f.waitVersion(t, "n", version)
	}
}
