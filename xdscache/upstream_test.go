package xdscache_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// go-control-plane's own tests run on our caches. Their files are read from the module
// cache, our constructors replace theirs, and messages are compared by proto.Equal. Each
// other change has its reason in the rows below.
var upstreamTests = []struct {
	name  string
	files []string // below pkg
	shim  string
	// replace holds regular expressions and replacements. Each must match.
	replace [][2]string
	minimum int // tests that have to pass
}{
	{
		name:  "snapshot",
		files: []string{"cache/v3/simple_test.go", "cache/v3/delta_test.go", "cache/v3/fixtures_test.go", "cache/v3/resource_test.go"},
		shim:  "snapshot_shim_test.go",
		replace: [][2]string{
			{`cache\.NewSnapshotCache\(`, `newSnapshotCache(t, `},
			{`cache\.NewSnapshotCacheWithHeartbeating\(ctx, `, `newHeartbeatingCache(ctx, t, `},
			{`reflect\.DeepEqual\(`, `protoEqual(`},
			// Our responses have the methods of theirs, and are of another type.
			{`\(\*cache\.RawResponse\)`, `(rawResources)`},
			{`\(\*cache\.RawDeltaResponse\)`, `(rawResources)`},
			// They pin that an update fails if a client does not read: it waits for no client.
			// The response is sent when the client reads, with the context of the update that
			// it was first due after.
			{`require\.EqualError\(t, err, context\.Canceled\.Error\(\)\)`, `require.NoError(t, err)`},
			{`assert\.Equal\(t, "bar", response\.GetContext\(\)\.Value\(testKey\{\}\)\)`, `assert.NotNil(t, response.GetContext())`},
			// They pin that each node id that a client has claimed stays in memory for ever: here
			// the status of a node that does not exist goes with its last watch.
			{`assert\.NotEmptyf\(t, (c\.GetStatusKeys\(\)|keys), `, `assert.Emptyf(t, $1, `},
			{`count := c\.GetStatusInfo\(key\)\.GetNum\w+\(\)(\s+assert\.LessOrEqualf)`, `count := numWatches(c, key)$1`},
		},
		minimum: 16,
	},
	{
		name:  "linear",
		files: []string{"cache/v3/linear_test.go"},
		shim:  "linear_shim_test.go",
		replace: [][2]string{
			{`reflect\.DeepEqual\(`, `protoEqual(`},
			// Private fields are replaced by public methods.
			{`range out\.resources\b`, `range out.GetRawResources()`},
			{`r\.\(\*RawResponse\)`, `r.(rawResources)`},
			{`res\.resource\b`, `res.Resource`},
			{`assert\.Len\(t, c\.wildcardWatches, (\d+)\)`, `assert.Equal(t, $1, c.NumWildcardWatches())`},
			{`assert\.Len\(t, cache\.resourceWatches\[("\w")\], (\d+)\)`, `assert.Equal(t, $2, cache.numResourceWatches($1))`},
			{`assert\.Empty\(t, cache\.resourceWatches\[("\w")\]\)`, `assert.Zero(t, cache.numResourceWatches($1))`},
			{`\bc\.resources\b`, `c.GetResources()`},
			// They expect that a resource that is set again unchanged is sent again. Ours
			// is not, so each resource is made different.
			{`return wrapperspb\.String\(s\)`, `return wrapperspb.String(fmt.Sprint(s, made.Add(1)))`},
			{
				`return &endpoint\.ClusterLoadAssignment\{ClusterName: name\}`,
				`return &endpoint.ClusterLoadAssignment{ClusterName: name, Endpoints: []*endpoint.LocalityLbEndpoints{{Priority: made.Add(1)}}}`,
			},
		},
		minimum: 19,
	},
	{
		name:  "integration",
		files: []string{"integration/ttl_integration_test.go"},
		shim:  "integration_shim_test.go",
		replace: [][2]string{
			{`cache\.NewSnapshotCacheWithHeartbeating\(ctx, `, `newHeartbeatingCache(ctx, t, `},
			// Use a free port.
			{`"tcp", ":9999"\)`, `"tcp", "127.0.0.1:0")`},
			{`NewClient\(":9999"`, `NewClient(l.Addr().String()`},
		},
		minimum: 1,
	},
}

func TestUpstream(t *testing.T) {
	upstream := command(t, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/envoyproxy/go-control-plane")
	overlay := map[string]string{}
	here, err := os.Getwd()
	require.NoError(t, err)
	dir := t.TempDir()
	args := []string{"test", "-c", "-vet=off", "-o", dir, "-overlay", filepath.Join(dir, "overlay.json")}
	if raceEnabled() {
		args = append(args, "-race")
	}
	for _, u := range upstreamTests {
		pkg := "upstream" + u.name
		args = append(args, "./"+pkg)
		for name, source := range upstreamSources(t, filepath.Join(strings.TrimSpace(upstream), "pkg"), u.files, u.replace) {
			path := filepath.Join(dir, pkg+"_"+name)
			require.NoError(t, os.WriteFile(path, []byte(source), 0o600))
			overlay[filepath.Join(here, pkg, name)] = path
		}
		overlay[filepath.Join(here, pkg, u.shim)] = filepath.Join(here, "testdata", "upstream", u.shim)
	}
	list, err := json.Marshal(map[string]any{"Replace": overlay})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "overlay.json"), list, 0o600))
	command(t, "go", args...)

	passed := regexp.MustCompile(`(?m)^--- PASS`)
	for _, u := range upstreamTests {
		t.Run(u.name, func(t *testing.T) {
			t.Parallel()
			// One of the tests needs this many parallel tests.
			out := command(t, filepath.Join(dir, "upstream"+u.name+".test"), "-test.v", "-test.parallel=100", "-test.timeout=2m")
			require.GreaterOrEqual(t, len(passed.FindAllString(out, -1)), u.minimum, "tests ran: %s", out)
			require.NotContains(t, out, "--- SKIP")
		})
	}
}

func upstreamSources(t *testing.T, pkg string, files []string, replace [][2]string) map[string]string {
	sources := map[string]string{}
	matched := make([]bool, len(replace))
	for _, file := range files {
		b, err := os.ReadFile(filepath.Join(pkg, filepath.FromSlash(file)))
		require.NoError(t, err)
		source := string(b)
		for i, r := range replace {
			expr := regexp.MustCompile(r[0])
			if expr.MatchString(source) {
				matched[i] = true
				source = expr.ReplaceAllString(source, r[1])
			}
		}
		if strings.Contains(source, "\t\"reflect\"\n") {
			source += "\nvar _ reflect.Kind\n"
		}
		sources[filepath.Base(file)] = source
	}
	for i, r := range replace {
		require.True(t, matched[i], "%s is not in go-control-plane's tests any more", r[0])
	}
	return sources
}

// command runs a command and returns its output.
func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	require.NoError(t, err, "%s %s:\n%s", name, strings.Join(args, " "), out)
	return string(out)
}

// raceEnabled reports whether this test has the race detector.
func raceEnabled() bool {
	info, _ := debug.ReadBuildInfo()
	if info == nil {
		return false
	}
	for _, s := range info.Settings {
		if s.Key == "-race" {
			return s.Value == "true"
		}
	}
	return false
}
