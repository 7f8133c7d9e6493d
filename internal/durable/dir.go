package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// SyncDir makes the entries of the directory at path durable: files created, renamed,
// linked and removed in it before the call. It does not sync the content of those
// files, or the entry of path in its parent.
func SyncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	if err := d.Sync(); err != nil {
		_ = d.Close()
		return fmt.Errorf("sync directory: %w", err)
	}
	if err := d.Close(); err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	return nil
}

// MkdirAll creates the directory path and its missing parents with mode 0700, and makes
// each entry durable before it creates the next. A crash leaves a leading part of the
// path.
//
// MkdirAll also syncs the entry of the lowest directory that exists, because an earlier
// process may have crashed between creating and syncing it. It assumes that directories
// above are durable. A caller that may run concurrently with another creator of the same
// path calls [SyncDir] on those itself.
func MkdirAll(path string) error {
	if err := mkdirAll(filepath.Clean(path)); err != nil {
		return fmt.Errorf("create directory %s: %w", path, err)
	}
	return nil
}

func mkdirAll(path string) error {
	parent := filepath.Dir(path)
	info, err := os.Stat(path)
	switch {
	case err == nil && !info.IsDir():
		return &fs.PathError{Op: "mkdir", Path: path, Err: syscall.ENOTDIR}
	case err == nil:
		// A process that cannot read the parent did not create path.
		if err := SyncDir(parent); err != nil && !errors.Is(err, fs.ErrPermission) {
			return err
		}
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return err
	case parent == path:
		return err
	}
	if err := mkdirAll(parent); err != nil {
		return err
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return mkdirAll(path) // created concurrently
		}
		return err
	}
	// A crash here leaves path or not. It is empty.
	return SyncDir(parent)
}

// RemoveTemp deletes the temporary files that crashed writers left in dir, but not in
// its subdirectories. The caller must ensure that no writer uses dir, for example with
// a lock, or else use [RemoveTempOlder].
//
// The removal is not fsynced: files that reappear after a crash are removed next time.
func RemoveTemp(dir string) error {
	return removeTemp(dir, func(fs.FileInfo) bool { return true })
}

// RemoveTempOlder is like [RemoveTemp] for temporary files that were not modified for
// at least age, in directories that other writers use. A writer whose file is removed
// gets an error from [WriteFile] or [CreateFile], without other effect.
func RemoveTempOlder(dir string, age time.Duration) error {
	limit := time.Now().Add(-age)
	return removeTemp(dir, func(i fs.FileInfo) bool { return !i.ModTime().After(limit) })
}

func removeTemp(dir string, stale func(fs.FileInfo) bool) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("remove temporary files in %s: %w", dir, withoutName(err))
	}
	var errs []error
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), TempPrefix) || !e.Type().IsRegular() {
			continue
		}
		info, err := e.Info()
		if err == nil && stale(info) {
			err = os.Remove(filepath.Join(dir, e.Name()))
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, withoutName(err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove temporary files in %s: %w", dir, err)
	}
	return nil
}
