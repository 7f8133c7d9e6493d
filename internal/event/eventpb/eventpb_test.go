package eventpb_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/internal/event/eventpb"
)

const root = "../../.."

// Only tests and the snapshot format import this package.
func TestImportedBySnapshotOnly(t *testing.T) {
	require.FileExists(t, filepath.Join(root, "go.mod"))
	files := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "testdata" || len(d.Name()) > 2 && d.Name()[0] == '.') {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		files++
		if filepath.Dir(path) == filepath.Join(root, "internal", "format", "snapshot") {
			return nil
		}
		for _, spec := range file.Imports {
			if spec.Path.Value == `"github.com/xdswal/xdswal/internal/event/eventpb"` {
				t.Errorf("%s imports eventpb", path)
			}
		}
		return nil
	})
	require.NoError(t, err)
	require.Greater(t, files, 10)
}

// The committed code is generated from xdswal.proto.
func TestGeneratedIsFresh(t *testing.T) {
	for _, tool := range []string{"protoc", "protoc-gen-go"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	out := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "go", "run", "./gen", "-proto", "../xdswal.proto", "-out", out)
	msg, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", msg)
	require.Equal(t, code(t, "."), code(t, out))
	require.Equal(t, "xdswal.v1", string(eventpb.File_xdswal_proto.Package()))
}

// code returns the generated file without its leading comment, which contains the
// versions of the tools.
func code(t *testing.T, dir string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "xdswal.pb.go"))
	require.NoError(t, err)
	_, code, ok := strings.Cut(string(b), "\npackage ")
	require.True(t, ok)
	return code
}
