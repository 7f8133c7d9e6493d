package xdswal_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// exported is the number of exported identifiers of each package that others can
// import: constants, variables, functions and types, without methods and fields. A new
// one is a promise for as long as the major version lasts, so it is added here by hand.
var exported = map[string]int{
	"":                     19,
	"backends":             14,
	"backends/backendtest": 2,
	"backends/backendurl":  3,
	"backends/file":        4,
	"backends/s3":          4,
	"compactor":            11,
	"journal":              16,
	"replay":               8,
	"telemetry/prometheus": 2,
	"xdscache":             14,
	"xdsserver":            10,
}

// maxExported bounds their sum.
const maxExported = 110

func TestPublicFace(t *testing.T) {
	got, sum := map[string]int{}, 0
	for path := range goList(t, "./...") {
		dir := strings.Trim(strings.TrimPrefix(path, module), "/")
		if strings.Contains(path+"/", "/internal/") || strings.HasPrefix(dir, "examples") || strings.HasPrefix(dir, "cmd") {
			continue
		}
		if n := len(exportedNames(t, dir)); n > 0 {
			got[dir] = n
			sum += n
		}
	}
	require.Equal(t, slices.Sorted(maps.Keys(exported)), slices.Sorted(maps.Keys(got)))
	for dir, n := range got {
		require.Equal(t, exported[dir], n, "package %q: %q", dir, exportedNames(t, dir))
	}
	require.LessOrEqual(t, sum, maxExported)
}

func exportedNames(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	require.NoError(t, err)
	var names []string
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		for _, decl := range file.Decls {
			names = append(names, declared(decl)...)
		}
	}
	return slices.DeleteFunc(names, func(name string) bool { return !ast.IsExported(name) })
}

func declared(decl ast.Decl) (names []string) {
	switch decl := decl.(type) {
	case *ast.FuncDecl:
		if decl.Recv == nil {
			names = append(names, decl.Name.Name)
		}
	case *ast.GenDecl:
		for _, spec := range decl.Specs {
			switch spec := spec.(type) {
			case *ast.TypeSpec:
				names = append(names, spec.Name.Name)
			case *ast.ValueSpec:
				for _, name := range spec.Names {
					names = append(names, name.Name)
				}
			}
		}
	}
	return names
}
