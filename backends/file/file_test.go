package file_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/backends/backendtest"
	"github.com/xdswal/xdswal/backends/file"
)

// open returns a backend in a directory, and checks at the end of the test that
// no temporary file is left in it.
func open(t *testing.T, dir string) *file.Backend {
	t.Helper()
	b, err := file.New(file.Config{Dir: dir})
	require.NoError(t, err)
	t.Cleanup(func() { assert.Empty(t, tempFiles(t, dir)) })
	return b
}

func tempFiles(t *testing.T, dir string) []string {
	t.Helper()
	var found []string
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasPrefix(d.Name(), ".tmp-") {
			found = append(found, path)
		}
		return nil
	}))
	return found
}

func body(s string) io.ReadSeeker { return strings.NewReader(s) }

func TestConformance(t *testing.T) {
	backendtest.Run(t, func(t *testing.T) backends.Backend {
		return open(t, filepath.Join(t.TempDir(), "store"))
	})
}

// Two backends on one directory behave like two processes that share it.
func TestTwoBackends(t *testing.T) {
	dir := t.TempDir()
	a, b := open(t, dir), open(t, dir)
	require.NoError(t, a.Put(t.Context(), "k", body("a")))
	require.ErrorIs(t, b.Put(t.Context(), "k", body("b")), backends.ErrExists)
	require.NoError(t, b.Delete(t.Context(), "k"))
	require.NoError(t, a.Put(t.Context(), "k", body("again")))
}

func TestModes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "store")
	b := open(t, dir)
	require.NoError(t, b.Put(t.Context(), "x/y", body("content")))
	for path, want := range map[string]fs.FileMode{
		filepath.Dir(dir):            fs.ModeDir | 0o700,
		dir:                          fs.ModeDir | 0o700,
		filepath.Join(dir, "x"):      fs.ModeDir | 0o700,
		filepath.Join(dir, "x", "y"): 0o600,
	} {
		info, err := os.Stat(path)
		require.NoError(t, err)
		assert.Equal(t, want, info.Mode(), path)
	}
}

// New resolves a relative directory.
func TestRelativeDir(t *testing.T) {
	parent := t.TempDir()
	t.Chdir(parent)
	b := open(t, "store")
	t.Chdir(t.TempDir())
	require.NoError(t, b.Put(t.Context(), "k", body("content")))
	require.FileExists(t, filepath.Join(parent, "store", "k"))
	require.Contains(t, b.String(), "file:///")
}

func TestNewRefuses(t *testing.T) {
	occupied := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(occupied, nil, 0o600))
	for _, c := range []struct {
		name, dir, want string
	}{
		{"no directory", "", "Config.Dir is empty"},
		{"zero byte", "a\x00b", "Config.Dir contains a zero byte"},
		{"a file", occupied, "not a directory"},
		{"below a file", filepath.Join(occupied, "x"), "not a directory"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, err := file.New(file.Config{Dir: c.dir})
			require.ErrorContains(t, err, c.want)
			require.Nil(t, b)
			var e *backends.Error
			require.ErrorAs(t, err, &e)
			require.Equal(t, "open", e.Op)
		})
	}
}

// New removes old temporary files and leaves new ones, and neither are objects.
func TestStaleTemps(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "a", "b"), 0o700))
	old := time.Now().Add(-2 * time.Hour)
	for _, name := range []string{".tmp-old", "a/b/.tmp-old", ".tmp-new", "a/b/.tmp-new", "a/object"} {
		path := filepath.Join(dir, filepath.FromSlash(name))
		require.NoError(t, os.WriteFile(path, []byte("x"), 0o600))
		if !strings.HasSuffix(name, "new") {
			require.NoError(t, os.Chtimes(path, old, old))
		}
	}
	link := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink(dir, link))
	b, err := file.New(file.Config{Dir: link})
	require.NoError(t, err)
	require.Equal(t, []string{filepath.Join(dir, ".tmp-new"), filepath.Join(dir, "a/b/.tmp-new")}, tempFiles(t, dir))
	for _, prefix := range []string{"", ".", ".tmp", ".tmp-", "a/", "a/b/.tmp"} {
		objects, err := b.List(t.Context(), prefix)
		require.NoError(t, err)
		for _, o := range objects {
			require.Equal(t, "a/object", o.Key)
		}
	}
}

// If the directory is gone, every method returns an error, and none creates it:
// the volume may not be mounted.
func TestDirectoryGone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	b, err := file.New(file.Config{Dir: dir})
	require.NoError(t, err)
	require.NoError(t, os.Remove(dir))

	_, listErr := b.List(t.Context(), "")
	_, getErr := b.Get(t.Context(), "k", 0, -1)
	for _, err := range []error{
		listErr, getErr, b.Put(t.Context(), "a/k", body("x")), b.Delete(t.Context(), "k"),
	} {
		require.ErrorIs(t, err, fs.ErrNotExist)
		require.NotErrorIs(t, err, backends.ErrNotFound)
		require.ErrorContains(t, err, "mount or restore it")
	}
	require.NoDirExists(t, dir)
}

// A file that another program truncates is an error, not a shorter object.
func TestFileCut(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir)
	require.NoError(t, b.Put(t.Context(), "k", body("0123456789")))
	r, err := b.Get(t.Context(), "k", 0, -1)
	require.NoError(t, err)
	require.NoError(t, os.Truncate(filepath.Join(dir, "k"), 4))
	content, err := io.ReadAll(r)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.Equal(t, "0123", string(content))
	require.NoError(t, r.Close())
}

// An object that is deleted while it is read is read to the end.
func TestDeleteWhileReading(t *testing.T) {
	b := open(t, t.TempDir())
	require.NoError(t, b.Put(t.Context(), "k", body("0123456789")))
	r, err := b.Get(t.Context(), "k", 2, 5)
	require.NoError(t, err)
	require.NoError(t, b.Delete(t.Context(), "k"))
	content, err := io.ReadAll(r)
	require.NoError(t, err)
	require.Equal(t, "23456", string(content))
	require.NoError(t, r.Close())
	_, err = r.Read(make([]byte, 1))
	require.Error(t, err)
}

func TestPermission(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root has every permission")
	}
	dir := t.TempDir()
	b := open(t, dir)
	require.NoError(t, b.Put(t.Context(), "k", body("x")))
	require.NoError(t, os.Chmod(dir, 0o500))
	t.Cleanup(func() { _ = os.Chmod(dir, 0o700) })
	for _, err := range []error{
		b.Put(t.Context(), "new", body("x")),
		b.Put(t.Context(), "a/new", body("x")),
		b.Delete(t.Context(), "k"),
	} {
		require.ErrorIs(t, err, backends.ErrPermission)
		require.ErrorIs(t, err, syscall.EACCES)
		require.ErrorContains(t, err, "give the user of this process access to "+dir)
	}
	// Reading and opening need no write permission.
	objects, err := open(t, dir).List(t.Context(), "")
	require.NoError(t, err)
	require.Len(t, objects, 1)
}

// An error of the body is returned wrapped, and is not reported as one of the store.
func TestBodyErrorIsNotTheStores(t *testing.T) {
	b := open(t, t.TempDir())
	for _, cause := range []error{fs.ErrExist, fs.ErrPermission, fs.ErrNotExist, syscall.ENOTDIR, io.ErrUnexpectedEOF} {
		t.Run(cause.Error(), func(t *testing.T) {
			err := b.Put(t.Context(), "k", failingBody{fmt.Errorf("read source: %w", cause)})
			require.ErrorIs(t, err, cause)
			for _, s := range []error{
				backends.ErrExists, backends.ErrPermission, backends.ErrNotFound, backends.ErrKey,
			} {
				require.NotErrorIs(t, err, s)
			}
		})
	}
}

// A context that is cancelled with the last byte of the body still fails the Put.
func TestContextDoneAtEnd(t *testing.T) {
	b := open(t, t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	err := b.Put(ctx, "k", cancellingBody{body("content"), cancel})
	require.ErrorIs(t, err, context.Canceled)
	_, err = b.Get(t.Context(), "k", 0, -1)
	require.ErrorIs(t, err, backends.ErrNotFound)
}

// cancellingBody calls cancel at its end.
type cancellingBody struct {
	io.ReadSeeker
	cancel func()
}

func (c cancellingBody) Read(p []byte) (int, error) {
	n, err := c.ReadSeeker.Read(p)
	if err != nil {
		c.cancel()
	}
	return n, err
}

type failingBody struct{ err error }

func (f failingBody) Read([]byte) (int, error)       { return 0, f.err }
func (f failingBody) Seek(int64, int) (int64, error) { return 0, nil }

func TestLocationIsEscaped(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a b#c?d%e")
	b := open(t, dir)
	require.NoError(t, b.Put(t.Context(), "k", bytes.NewReader(nil)))
	require.True(t, strings.HasSuffix(b.String(), "/a%20b%23c%3Fd%25e"), b.String())
}
