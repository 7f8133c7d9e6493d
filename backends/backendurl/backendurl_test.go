package backendurl_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/backends/backendurl"
	"github.com/xdswal/xdswal/backends/file"
	"github.com/xdswal/xdswal/backends/s3"
)

func TestOpenFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	b, err := backendurl.Open(t.Context(), "file://"+filepath.ToSlash(dir))
	require.NoError(t, err)
	require.IsType(t, &file.Backend{}, b)
	require.DirExists(t, dir)
}

// Opening a bucket makes no request, so its store may be down.
func TestOpenS3(t *testing.T) {
	const url = "s3://bucket/a/prefix?endpoint=http://127.0.0.1:1"
	b, err := backendurl.Open(t.Context(), url)
	require.NoError(t, err)
	require.IsType(t, &s3.Backend{}, b)
	require.Equal(t, url, b.String())

	b, err = backendurl.OpenReadOnly(t.Context(), url)
	require.NoError(t, err)
	require.ErrorIs(t, b.Delete(t.Context(), "k"), backends.ErrPermission)
}

func TestOpenRefuses(t *testing.T) {
	occupied := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(occupied, nil, 0o600))
	for _, c := range []struct{ name, raw, want string }{
		{"empty", "", "it has no scheme; write file://..."},
		{"plain path", "/var/lib/xdswal", "it has no scheme"},
		{"unknown scheme", "ftp://me:secret@host/path?key=secret", `unknown scheme "ftp"; write file://...`},
		{"bad port", "s3://id:secret/bucket", "not a backend URL"},
		{"bad escape", "s3://id:secret%zz@bucket", "not a backend URL"},
		{"bad user", "s3://id:sec ret@bucket", "not a backend URL"},
		{"control byte", "file:///secret\n", "not a backend URL"},
		{"credentials for a file", "file://me:secret@/var", "URL has a host"},
		{"parameters for a file", "file:///var?key=secret", "unknown parameters"},
		{"credentials for S3", "s3://id:secret@bucket/x", "URL has a user or a password"},
		{"credentials for the endpoint", "s3://bucket/x?endpoint=https://id:secret@host", "endpoint has a user or a password"},
		{"parameters for S3", "s3://bucket/x?key=secret", "unknown parameters"},
		{"unusable file", "file://" + occupied, "not a directory"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, err := backendurl.Open(t.Context(), c.raw)
			require.ErrorContains(t, err, "open backend: ")
			require.ErrorContains(t, err, c.want)
			require.Nil(t, b)
			require.NotContains(t, err.Error(), "sec")
		})
	}
}

func TestOpenContextDone(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir := filepath.Join(t.TempDir(), "store")
	_, err := backendurl.Open(ctx, "file://"+dir)
	require.ErrorIs(t, err, context.Canceled)
	require.NoDirExists(t, dir)
}

func ExampleOpen() {
	_, err := backendurl.Open(context.Background(), "ftp://user:password@host/path")
	fmt.Println(err)
	// Output: open backend: unknown scheme "ftp"; write file://... or s3://...
}
