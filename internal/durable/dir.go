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

// SyncDir makes the entries of the directory at path durable: files created,
// renamed, linked and removed in it before the call. It says nothing of the
// content of those files, nor of the entry of path in its own parent.
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

// MkdirAll creates the directory path, and those above it that are missing,
// with mode 0700, and makes each new entry durable before it creates the next.
// A crash leaves a leading part of the path.
//
// The entry of the lowest directory that exists already is fsynced too, since
// an earlier process may have died between creating and syncing it. Directories
// further up are taken to be durable: a caller that races another creator of
// the same path, and cannot bear the loss, calls [SyncDir] on those itself.
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
		// One who may not read the parent did not create path either.
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
			return mkdirAll(path) // another creator was faster
		}
		return err
	}
	// A crash here leaves path or not; nothing is in it yet.
	return SyncDir(parent)
}

// RemoveTemp deletes the temporary files that crashed writers left in dir. It
// does not descend into subdirectories. Call it while no writer is at work in
// dir, as after taking its lock; else use [RemoveTempOlder].
//
// The removal is not fsynced: what a crash brings back is removed next time.
func RemoveTemp(dir string) error {
	return removeTemp(dir, func(fs.FileInfo) bool { return true })
}

// RemoveTempOlder is [RemoveTemp] for temporary files not modified for at
// least age, for directories that live writers share. A writer whose file is
// removed gets an error from [WriteFile] or [CreateFile]; nothing is damaged.
func RemoveTempOlder(dir string, age time.Duration) error {
	limit := time.Now().Add(-age)
	return removeTemp(dir, func(i fs.FileInfo) bool { return !i.ModTime().After(limit) })
}

func removeTemp(dir string, stale func(fs.FileInfo) bool) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("remove temporary files: %w", err)
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
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove temporary files: %w", err)
	}
	return nil
}
