package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/cmd/xdswal/internal/config"
)

// settings are flags of each kind that the daemon has.
type settings struct {
	dir      string
	interval time.Duration
	keep     int
	failOpen bool
	config   string
}

func newFlags() (*settings, *pflag.FlagSet) {
	s, f := &settings{}, pflag.NewFlagSet("serve", pflag.ContinueOnError)
	f.StringVar(&s.dir, "dir", "", "")
	f.DurationVar(&s.interval, "compact-interval", time.Minute, "")
	f.IntVar(&s.keep, "keep-snapshots", 3, "")
	f.BoolVar(&s.failOpen, "fail-open", false, "")
	f.BoolP("help", "h", false, "")
	f.StringVar(&s.config, config.FileFlag, "", "")
	return s, f
}

// apply applies a file, an environment and a command line.
func apply(t *testing.T, file string, env map[string]string, args ...string) (*settings, string, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "xdswal.yaml")
	if file != "" {
		require.NoError(t, os.WriteFile(path, []byte(file), 0o600))
		args = append(args, "--config", path)
	}
	s, f := newFlags()
	require.NoError(t, f.Parse(args))
	_, err := config.Apply(f, func(key string) (string, bool) {
		v, ok := env[key]
		return v, ok
	})
	return s, path, err
}

func TestPrecedence(t *testing.T) {
	const file = "dir: from-file\ncompact-interval: 3s\nkeep-snapshots: 7\nfail-open: true\n"
	s, _, err := apply(t, file, nil)
	require.NoError(t, err)
	require.Equal(t, settings{"from-file", 3 * time.Second, 7, true, s.config}, *s)

	s, _, err = apply(t, file, map[string]string{"XDSWAL_DIR": "from-env", "XDSWAL_COMPACT_INTERVAL": "2s", "OTHER_DIR": "x"})
	require.NoError(t, err)
	require.Equal(t, settings{"from-env", 2 * time.Second, 7, true, s.config}, *s)

	s, _, err = apply(t, file, map[string]string{"XDSWAL_DIR": "from-env", "XDSWAL_COMPACT_INTERVAL": "2s"}, "--dir", "from-flag", "--fail-open=false")
	require.NoError(t, err)
	require.Equal(t, settings{"from-flag", 2 * time.Second, 7, false, s.config}, *s)

	// A flag that is set to its default is set.
	s, _, err = apply(t, file, nil, "--keep-snapshots=3")
	require.NoError(t, err)
	require.Equal(t, 3, s.keep)
}

func TestFileFromTheEnvironment(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.yaml")
	require.NoError(t, os.WriteFile(path, []byte("dir: d"), 0o600))
	s, _, err := apply(t, "", map[string]string{"XDSWAL_CONFIG": path})
	require.NoError(t, err)
	require.Equal(t, "d", s.dir)
	_, _, err = apply(t, "", map[string]string{"XDSWAL_CONFIG": path + "x"})
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorContains(t, err, path+"x")
}

func TestFilesWithoutSettings(t *testing.T) {
	for _, file := range []string{"# nothing\n", "\n\n", "{}\n"} {
		_, _, err := apply(t, file, nil)
		require.NoError(t, err, "%q", file)
	}
}

func TestBadFiles(t *testing.T) {
	for _, tc := range []struct{ name, file, want string }{
		{"unknown key", "dir: x\n\ncompact_interval: 3s\n", `PATH:3: unknown key "compact_interval"; the keys are the names of the flags`},
		{"the file's own flag", "config: other.yaml\n", `PATH:1: unknown key "config"`},
		{"help", "dir: x\nhelp: true\n", `PATH:2: unknown key "help"`},
		{"duplicate key", "dir: x\n# again\ndir: y\n", `PATH:3: duplicate key "dir", first set in line 1`},
		{"bad duration", "dir: x\ncompact-interval: soon\n", `PATH:2: "compact-interval": invalid argument "soon"`},
		{"number without a unit", "compact-interval: 10\n", `PATH:1: "compact-interval"`},
		{"bad number", "keep-snapshots: many\n", `PATH:1: "keep-snapshots"`},
		{"list", "dir:\n- x\n", `PATH:1: "dir": want a single value`},
		{"mapping", "dir: {a: b}\n", `PATH:1: "dir": want a single value`},
		{"no value", "keep-snapshots: 3\ndir:\n", `PATH:2: "dir": want a single value`},
		{"null", "dir: null\n", `PATH:1: "dir": want a single value`},
		{"not a mapping", "- dir\n", `PATH:1: want a mapping of settings, like "dir: /var/lib/xdswal"`},
		{"two documents", "dir: x\n---\ndir: y\n", "PATH: more than one YAML document"},
		{"not YAML", "dir: [\n", "PATH: yaml: line "},
		{"too large", "# " + strings.Repeat("x", 1<<20), "PATH is larger than 1048576 bytes"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, path, err := apply(t, tc.file, nil)
			require.ErrorContains(t, err, strings.ReplaceAll(tc.want, "PATH", path))
			require.ErrorContains(t, err, "read configuration: ")
			require.NotContains(t, err.Error(), "failed to")
		})
	}
}

// A key that a flag overrides must be a key all the same.
func TestOverriddenKeysAreChecked(t *testing.T) {
	_, path, err := apply(t, "dir: x\ndri: y\n", nil, "--dir", "z")
	require.ErrorContains(t, err, path+`:2: unknown key "dri"`)
}

func TestBadEnvironment(t *testing.T) {
	_, _, err := apply(t, "", map[string]string{"XDSWAL_KEEP_SNAPSHOTS": "many", "XDSWAL_COMPACT_INTERVAL": "soon"})
	require.ErrorContains(t, err, "environment variable XDSWAL_KEEP_SNAPSHOTS: ")
	require.ErrorContains(t, err, "environment variable XDSWAL_COMPACT_INTERVAL: ")
}

func TestOrigins(t *testing.T) {
	path := filepath.Join(t.TempDir(), "xdswal.yaml")
	require.NoError(t, os.WriteFile(path, []byte("dir: d\n\nkeep-snapshots: 7\ncompact-interval: 3s\n"), 0o600))
	_, f := newFlags()
	require.NoError(t, f.Parse([]string{"--config", path, "--dir", "e"}))
	origins, err := config.Apply(f, func(key string) (string, bool) { return "2s", key == "XDSWAL_COMPACT_INTERVAL" })
	require.NoError(t, err)
	require.Equal(t, "--dir", origins.Name("dir"), "the file was overridden")
	require.Equal(t, "environment variable XDSWAL_COMPACT_INTERVAL", origins.Name("compact-interval"))
	require.Equal(t, path+`:3: "keep-snapshots"`, origins.Name("keep-snapshots"))
	require.Equal(t, "--fail-open", origins.Name("fail-open"), "its default holds")
}

func TestEnvName(t *testing.T) {
	require.Equal(t, "XDSWAL_MAX_JOURNAL_BYTES", config.EnvName("max-journal-bytes"))
}
