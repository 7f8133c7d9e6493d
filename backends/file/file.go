// Package file implements a backend driver that stores objects as files in a
// directory, on a local disk or on a network volume that has hard links.
//
// The object "a/b" is the file Dir/a/b and nothing else, so cp, rsync and tar can
// copy a backend. Objects are written to a temporary file, fsynced, and published
// with link(2), so a crash leaves an object whole or missing. Symbolic links and
// other special files in Dir are not objects.
package file

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/internal/durable"
)

// staleAfter is the time since its last write after which New removes a temporary
// file. If its writer is alive, its Put returns an error and leaves no object.
const staleAfter = time.Hour

// Backend stores objects in a directory. It implements [backends.Backend] and
// [backends.Local].
type Backend struct {
	dir      string // absolute
	location string
	readOnly bool
}

var (
	_ backends.Backend = (*Backend)(nil)
	_ backends.Local   = (*Backend)(nil)
)

// New opens a backend. It creates the directory durably if it is missing, and
// removes temporary files that crashed writers left more than an hour ago. New
// succeeds on a directory without write permission, for List and Get.
func New(cfg Config) (*Backend, error) {
	err := cfg.check()
	dir := ""
	if err == nil {
		dir, err = filepath.Abs(cfg.Dir)
	}
	if err != nil {
		return nil, &backends.Error{Op: "open", Backend: "file:", Err: err}
	}
	u := url.URL{Scheme: "file", Path: filepath.ToSlash(dir)}
	b := &Backend{dir: dir, location: u.String(), readOnly: cfg.ReadOnly}
	if cfg.ReadOnly {
		if err := b.checkDir("open", ""); err != nil {
			return nil, err
		}
		return b, nil
	}
	if err := durable.MkdirAll(dir); err != nil {
		return nil, b.fail("open", "", err)
	}
	b.removeStale()
	return b, nil
}

// String returns the location as a file URL.
func (b *Backend) String() string { return b.location }

// IsLocal returns true; see [backends.Local].
func (b *Backend) IsLocal() bool { return true }

// removeStale removes temporary files of crashed writers. It ignores errors: the
// files are never listed, and a restore from a read-only volume must succeed.
func (b *Backend) removeStale() {
	dir, err := filepath.EvalSymlinks(b.dir) // WalkDir does not follow its root
	if err != nil {
		return
	}
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			_ = durable.RemoveTempOlder(path, staleAfter)
		}
		return nil
	})
}

// path returns the path of the file of a valid key.
func (b *Backend) path(key string) string {
	return filepath.Join(b.dir, filepath.FromSlash(key))
}

// begin makes the checks that are common to all methods with a key.
func (b *Backend) begin(ctx context.Context, op, key string) error {
	if err := ctx.Err(); err != nil {
		return b.fail(op, key, err)
	}
	if err := backends.ValidKey(key); err != nil {
		return b.fail(op, key, err)
	}
	if b.readOnly && op != "get" {
		return b.fail(op, key, fmt.Errorf("%w: the backend is read-only", backends.ErrPermission))
	}
	return b.checkDir(op, key)
}

// checkDir returns an error unless the directory of the backend exists. Without
// this check an unmounted volume would look like an empty store.
func (b *Backend) checkDir(op, key string) error {
	info, err := os.Stat(b.dir)
	if err == nil && !info.IsDir() {
		err = &fs.PathError{Op: "stat", Path: b.dir, Err: syscall.ENOTDIR}
	}
	if isMissing(err) {
		err = fmt.Errorf("find the directory of the backend: %w; mount or restore it", err)
	}
	if err != nil {
		return b.fail(op, key, err)
	}
	return nil
}

// fail returns err as a *backends.Error, with the error of the contract and advice
// for the causes that have them.
func (b *Backend) fail(op, key string, err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		err = fmt.Errorf("%w: %w; give the user of this process access to %s and its contents",
			backends.ErrPermission, err, b.dir)
	case errors.Is(err, syscall.ENOSPC):
		err = fmt.Errorf("%w; free space on the volume of %s", err, b.dir)
	}
	return &backends.Error{Op: op, Backend: b.location, Key: key, Err: err}
}

// isMissing reports whether err means that a file does not exist, including a file
// below a path that is a file.
func isMissing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// Delete implements [backends.Backend]. Directories that become empty remain,
// because a concurrent Put may be about to use them.
func (b *Backend) Delete(ctx context.Context, key string) error {
	if err := b.begin(ctx, "delete", key); err != nil {
		return err
	}
	path := b.path(key)
	if err := removeObject(path); err != nil {
		return b.fail("delete", key, err)
	}
	// A crash here leaves the object or not. Sync the directory even if nothing
	// was removed: an earlier Delete may have crashed at this point.
	if err := durable.SyncDir(filepath.Dir(path)); err != nil && !isMissing(err) {
		return b.fail("delete", key, err)
	}
	return nil
}

// removeObject removes path if it is a regular file. os.Remove alone would also
// remove an empty directory.
func removeObject(path string) error {
	info, err := os.Lstat(path)
	if isMissing(err) || err == nil && !info.Mode().IsRegular() {
		return nil
	}
	if err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !isMissing(err) {
		return err
	}
	return nil
}
