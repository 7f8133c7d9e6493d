package durable_test

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/internal/durable"
	"github.com/xdswal/xdswal/internal/durable/durabletest"
)

// traceEnv makes the test binary call each function in the directory that it names.
const traceEnv = "XDSWAL_TEST_TRACE"

func traced(dir string) {
	mark := func(title string) { durabletest.Mark(dir, title) }
	must := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	mark("WriteFile")
	must(durable.WriteFile(filepath.Join(dir, "w"), content("x")))
	mark("CreateFile")
	must(durable.CreateFile(filepath.Join(dir, "c"), content("x")))
	mark("CreateFile, exists")
	if err := durable.CreateFile(filepath.Join(dir, "c"), content("x")); !errors.Is(err, fs.ErrExist) {
		panic(err)
	}
	mark("MkdirAll")
	must(durable.MkdirAll(filepath.Join(dir, "a", "b")))
	mark("MkdirAll, exists")
	must(durable.MkdirAll(filepath.Join(dir, "a", "b")))
}

// wantTrace is the list of the comments of the functions. D is the directory, T a
// temporary file in it.
const wantTrace = `
WriteFile:
openat D/T
write D/T
fsync D/T
renameat D/T D/w
openat D
fsync D
CreateFile:
openat D/T
write D/T
fsync D/T
linkat D/T D/c
unlinkat D/T
openat D
fsync D
CreateFile, exists:
openat D
fsync D
MkdirAll:
openat D/..
fsync D/..
mkdirat D/a
openat D
fsync D
mkdirat D/a/b
openat D/a
fsync D/a
MkdirAll, exists:
openat D/a
fsync D/a
`

func TestSystemCalls(t *testing.T) {
	require.Equal(t, strings.TrimSpace(wantTrace), durabletest.Trace(t, traceEnv))
}
