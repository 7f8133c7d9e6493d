package xdswal_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/xdswal/xdswal"

type goPackage struct {
	ImportPath string
	Imports    []string
	Deps       []string
	Standard   bool
}

func goList(t *testing.T, args ...string) map[string]goPackage {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Imports,Deps,Standard"}, args...)...)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		require.NoError(t, err, "go list: %s", exit.Stderr)
	}
	require.NoError(t, err)
	packages := map[string]goPackage{}
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			return packages
		}
		require.NoError(t, err)
		packages[p.ImportPath] = p
	}
}

// A control plane that embeds xdswal with the file driver links nothing of AWS,
// of a command line or of a metrics library.
func TestNoHeavyDependencies(t *testing.T) {
	for _, root := range []string{".", "./backends/file", "./xdscache", "./backends/backendtest"} {
		for _, p := range goList(t, root) {
			for _, dep := range p.Deps {
				for _, heavy := range []string{"aws", "smithy", "cobra", "prometheus", "opentelemetry.io/otel"} {
					require.NotContains(t, dep, heavy, "%s depends on it", p.ImportPath)
				}
			}
		}
	}
}

// Imports among our packages are those of the table in ARCHITECTURE.md: arrows
// point at small packages, and only the root composes.
func TestImports(t *testing.T) {
	allowed := map[string][]string{
		// What a user names.
		"journal":   {},
		"compactor": {"journal"},
		"replay":    {"compactor", "internal/state", "journal"},
		"backends":  {},
		// Formats and data.
		"internal/event":           {"journal"},
		"internal/state":           {"journal"},
		"internal/format":          {"internal/event", "journal"},
		"internal/format/snapshot": {"internal/event", "internal/event/eventpb", "internal/format", "internal/state", "journal"},
		"internal/format/batch":    {"internal/event", "internal/format", "journal"},
		"internal/catalog":         {"backends", "internal/event", "internal/format/", "internal/retry", "journal"},
		// Plumbing.
		"internal/bounded":     {},
		"internal/durable":     {},
		"internal/hook":        {},
		"internal/httpidle":    {},
		"internal/retry":       {},
		"internal/download":    {"backends"},
		"internal/lograte":     {},
		"internal/objectstore": {},
		"internal/option":      {},
		"internal/cachelog":    {"internal/state", "journal"},
		"internal/feed":        {"internal/state", "journal"},
		// Test support.
		"internal/backendfault": {"backends"},
		"internal/envoytest":    {},
		"internal/demo":         {"internal/envoytest"},
		"internal/stores":       {"backends", "backends/backendurl", "backends/s3", "internal/envoytest", "journal"},
		// Machinery.
		"internal/wal":      {"internal/durable", "internal/event", "internal/hook", "internal/wal/internal/", "journal"},
		"internal/compact":  {"compactor", "internal/bounded", "internal/catalog", "internal/durable", "internal/format/snapshot", "internal/hook", "internal/retry", "internal/state", "journal"},
		"internal/restore":  {"backends", "compactor", "internal/catalog", "internal/download", "internal/event", "internal/format/snapshot", "internal/hook", "internal/state", "journal", "replay"},
		"internal/ship":     {"backends", "compactor", "internal/bounded", "internal/catalog", "internal/event", "internal/format/", "internal/hook", "internal/retry", "journal"},
		"internal/eventlog": {"internal/cachelog", "internal/hook", "internal/retry", "internal/state", "internal/wal", "journal"},
		"internal/directory": {
			"backends", "internal/bounded", "internal/catalog", "internal/durable", "internal/event",
			"internal/format/snapshot", "internal/restore", "internal/state", "journal", "replay",
		},
		"internal/follow": {
			"backends", "internal/bounded", "internal/catalog", "internal/event", "internal/format/batch", "internal/restore",
			"internal/retry", "internal/state", "journal", "replay",
		},
		"backends/file": {"backends", "internal/durable"},
		"backends/s3":   {"backends", "internal/httpidle", "internal/objectstore", "internal/retry"},
		"xdscache":      {"internal/cachelog", "internal/feed", "internal/state", "journal", "replay"},
		"xdsserver":     {"internal/feed", "internal/hook", "internal/lograte", "internal/option", "internal/state", "journal"},
		// Only the root composes.
		"": {"backends", "compactor", "internal/", "journal", "replay", "xdscache"},
	}
	args := make([]string, 0, len(allowed))
	for name := range allowed {
		args = append(args, "./"+name)
	}
	packages := goList(t, args...)
	require.Len(t, packages, len(allowed))
	for _, p := range packages {
		name := strings.Trim(strings.TrimPrefix(p.ImportPath, module), "/")
		for _, imported := range p.Imports {
			ours, ok := strings.CutPrefix(imported, module+"/")
			if !ok {
				continue
			}
			require.True(t, slices.ContainsFunc(allowed[name], func(a string) bool {
				return ours == a || (strings.HasSuffix(a, "/") && strings.HasPrefix(ours, a))
			}), "%q must not import %q", name, ours)
		}
	}
	// The codec needs nothing but the model and protobuf's wire format.
	for _, imported := range packages[module+"/internal/event"].Imports {
		require.True(t, !strings.Contains(imported, ".") || imported == "google.golang.org/protobuf/encoding/protowire" || imported == module+"/journal", imported)
	}
	// bbolt is the journal's alone.
	for _, p := range goList(t, "./...") {
		if slices.Contains(p.Imports, "go.etcd.io/bbolt") {
			require.True(t, strings.HasPrefix(p.ImportPath, module+"/internal/wal") || strings.HasPrefix(p.ImportPath, module+"/bench"), p.ImportPath)
		}
	}
}
