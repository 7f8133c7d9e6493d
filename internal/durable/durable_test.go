package durable_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/internal/durable"
)

type writeFunc func(path string, write func(io.Writer) error) error

// writers are the two functions that write a file, for tests that apply to both.
var writers = map[string]writeFunc{"WriteFile": durable.WriteFile, "CreateFile": durable.CreateFile}

func content(s string) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := io.WriteString(w, s)
		return err
	}
}

// names returns the entries of dir.
func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// requireNoTemp requires an error without the name of a temporary file.
func requireNoTemp(t *testing.T, err error) {
	t.Helper()
	require.Error(t, err)
	require.NotContains(t, err.Error(), durable.TempPrefix)
}

func requireFile(t *testing.T, path, want string) {
	t.Helper()
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, want, string(got))
}

func TestWriters(t *testing.T) {
	for name, write := range writers {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "f")
			require.NoError(t, write(path, func(w io.Writer) error {
				require.Len(t, names(t, dir), 1)
				require.True(t, strings.HasPrefix(names(t, dir)[0], durable.TempPrefix))
				require.NoFileExists(t, path, "not published before it is whole")
				return content("hello")(w)
			}))
			requireFile(t, path, "hello")
			require.Equal(t, []string{"f"}, names(t, dir))
			info, err := os.Stat(path)
			require.NoError(t, err)
			require.Equal(t, fs.FileMode(0o600), info.Mode())
		})
	}
}

// A write that fails, or panics, leaves nothing.
func TestWritersFail(t *testing.T) {
	boom := errors.New("boom")
	for name, write := range writers {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "f")
			err := write(path, func(w io.Writer) error {
				return errors.Join(content("half")(w), boom)
			})
			require.ErrorIs(t, err, boom)
			require.ErrorContains(t, err, path)
			require.Empty(t, names(t, dir))
			require.Panics(t, func() { _ = write(path, func(io.Writer) error { panic(boom) }) })
			require.Empty(t, names(t, dir))
		})
		t.Run(name+" without a directory", func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "missing", "f")
			err := write(path, content("x"))
			require.ErrorIs(t, err, fs.ErrNotExist)
			requireNoTemp(t, err)
		})
		t.Run(name+" over a directory", func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, os.Mkdir(filepath.Join(dir, "f"), 0o700))
			requireNoTemp(t, write(filepath.Join(dir, "f"), content("x")))
			require.Equal(t, []string{"f"}, names(t, dir))
		})
	}
}

func TestWriteFileReplaces(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	require.NoError(t, durable.WriteFile(path, content("a longer first content")))
	require.NoError(t, durable.WriteFile(path, content("second")))
	requireFile(t, path, "second")
	boom := errors.New("boom")
	require.ErrorIs(t, durable.WriteFile(path, func(io.Writer) error { return boom }), boom)
	requireFile(t, path, "second")
	require.Equal(t, []string{"f"}, names(t, dir))
}

func TestCreateFileExists(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	require.NoError(t, durable.CreateFile(path, content("first")))
	err := durable.CreateFile(path, func(io.Writer) error {
		t.Error("nothing need be written for a path that exists")
		return nil
	})
	require.ErrorIs(t, err, fs.ErrExist)
	requireFile(t, path, "first")

	// The path may also appear during the write.
	late := filepath.Join(dir, "late")
	err = durable.CreateFile(late, func(w io.Writer) error {
		require.NoError(t, durable.CreateFile(late, content("faster")))
		return content("slower")(w)
	})
	require.ErrorIs(t, err, fs.ErrExist)
	requireFile(t, late, "faster")
	require.Equal(t, []string{"f", "late"}, names(t, dir))
}

func TestCreateFileRace(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	errs := make([]error, 16)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Add(1)
		go func() {
			defer wg.Done()
			errs[i] = durable.CreateFile(path, content(fmt.Sprint(i)))
		}()
	}
	wg.Wait()
	won := 0
	for i, err := range errs {
		if err == nil {
			won++
			requireFile(t, path, fmt.Sprint(i))
			continue
		}
		require.ErrorIs(t, err, fs.ErrExist)
	}
	require.Equal(t, 1, won)
	require.Equal(t, []string{"f"}, names(t, dir))
}

func TestMkdirAll(t *testing.T) {
	root := t.TempDir()
	path := filepath.Join(root, "a", "b", "c")
	for range 2 {
		require.NoError(t, durable.MkdirAll(path))
	}
	require.NoError(t, durable.MkdirAll(filepath.Join(root, "a", "x")+"/"))
	for p := path; p != root; p = filepath.Dir(p) {
		info, err := os.Stat(p)
		require.NoError(t, err)
		require.Equal(t, fs.ModeDir|0o700, info.Mode())
	}
	require.NoError(t, os.WriteFile(filepath.Join(root, "file"), nil, 0o600))
	require.ErrorIs(t, durable.MkdirAll(filepath.Join(root, "file")), syscall.ENOTDIR)
	require.ErrorIs(t, durable.MkdirAll(filepath.Join(root, "file", "x")), syscall.ENOTDIR)
	require.NoError(t, os.Symlink(path, filepath.Join(root, "link")))
	require.NoError(t, durable.MkdirAll(filepath.Join(root, "link", "d")))
	require.DirExists(t, filepath.Join(path, "d"))
}

func TestMkdirAllRelative(t *testing.T) {
	t.Chdir(t.TempDir())
	require.NoError(t, durable.MkdirAll("a/b"))
	require.NoError(t, durable.MkdirAll("."))
	require.DirExists(t, "a/b")
}

func TestMkdirAllRace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b", "c", "d")
	errs := make([]error, 16)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Add(1)
		go func() {
			defer wg.Done()
			errs[i] = durable.MkdirAll(path)
		}()
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
	require.DirExists(t, path)
}

func TestSyncDir(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, durable.SyncDir(dir))
	require.ErrorIs(t, durable.SyncDir(filepath.Join(dir, "missing")), fs.ErrNotExist)
}

func TestRemoveTemp(t *testing.T) {
	for _, c := range []struct {
		name   string
		remove func(dir string) error
		want   []string
	}{
		{"all", durable.RemoveTemp, []string{".tmp", ".tmp-dir", "f", "f.tmp-1"}},
		{
			"older", func(dir string) error { return durable.RemoveTempOlder(dir, time.Hour) },
			[]string{".tmp", ".tmp-dir", ".tmp-future", ".tmp-new", "f", "f.tmp-1"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, os.Mkdir(filepath.Join(dir, ".tmp-dir"), 0o700))
			now := time.Now()
			for name, mtime := range map[string]time.Time{
				".tmp-old":    now.Add(-2 * time.Hour),
				".tmp-new":    now,
				".tmp-future": now.Add(time.Hour),
				".tmp":        now.Add(-2 * time.Hour),
				"f":           now.Add(-2 * time.Hour),
				"f.tmp-1":     now.Add(-2 * time.Hour),
			} {
				path := filepath.Join(dir, name)
				require.NoError(t, os.WriteFile(path, nil, 0o600))
				require.NoError(t, os.Chtimes(path, mtime, mtime))
			}
			require.NoError(t, c.remove(dir))
			assert.Equal(t, c.want, names(t, dir))
			require.NoError(t, c.remove(dir))
		})
	}
	require.ErrorIs(t, durable.RemoveTemp(filepath.Join(t.TempDir(), "missing")), fs.ErrNotExist)
}
