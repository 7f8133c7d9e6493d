package file_test

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/backends/file"
	"github.com/xdswal/xdswal/internal/durable/durabletest"
)

// traceEnv makes the test binary use a backend in the directory that it names.
const traceEnv = "XDSWAL_TEST_TRACE"

func TestMain(m *testing.M) {
	if dir := os.Getenv(traceEnv); dir != "" {
		traced(dir)
		return
	}
	os.Exit(m.Run())
}

func traced(dir string) {
	must := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	ctx := context.Background()
	b, err := file.New(file.Config{Dir: dir})
	must(err)
	durabletest.Mark(dir, "put")
	must(b.Put(ctx, "a/b/1", body("x")))
	durabletest.Mark(dir, "put beside")
	must(b.Put(ctx, "a/b/2", body("x")))
	durabletest.Mark(dir, "put at the top")
	must(b.Put(ctx, "3", body("x")))
	durabletest.Mark(dir, "delete")
	must(b.Delete(ctx, "a/b/1"))
	durabletest.Mark(dir, "delete again")
	must(b.Delete(ctx, "a/b/1"))
}

// wantTrace begins with the first Put. D is the directory, T a temporary file.
const wantTrace = `
put:
openat D/..
fsync D/..
mkdirat D/a
openat D
fsync D
mkdirat D/a/b
openat D/a
fsync D/a
openat D
fsync D
openat D/a/b/T
write D/a/b/T
fsync D/a/b/T
linkat D/a/b/T D/a/b/1
unlinkat D/a/b/T
openat D/a/b
fsync D/a/b
put beside:
openat D/a
fsync D/a
openat D
fsync D
openat D/a/b/T
write D/a/b/T
fsync D/a/b/T
linkat D/a/b/T D/a/b/2
unlinkat D/a/b/T
openat D/a/b
fsync D/a/b
put at the top:
openat D/T
write D/T
fsync D/T
linkat D/T D/3
unlinkat D/T
openat D
fsync D
delete:
unlinkat D/a/b/1
openat D/a/b
fsync D/a/b
delete again:
openat D/a/b
fsync D/a/b
`

// When Put and Delete return, their effect is durable, including every directory on
// the path to the object.
func TestSystemCalls(t *testing.T) {
	got := durabletest.Trace(t, traceEnv)
	_, got, _ = strings.Cut(got, "put:")
	require.Equal(t, strings.TrimSpace(wantTrace), "put:"+got)
}
