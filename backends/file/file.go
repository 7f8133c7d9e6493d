// Package file is the backend driver that keeps objects as files in a
// directory: on a local disk, or on a network volume that has hard links.
//
// The object "a/b" is the file Dir/a/b and nothing else, so that cp, rsync and
// tar are fit tools for it. Objects appear by link(2) after their content has
// been fsynced, and so are whole or absent whatever crashes. Symbolic links and
// other special files in Dir are no objects.
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

// staleAfter is the time without a write after which a temporary file is taken
// for the remains of a crash. Were its writer alive after all, its Put would
// return an error and leave nothing.
const staleAfter = time.Hour

// Backend is a directory of objects.
type Backend struct {
	dir      string // absolute
	location string
	readOnly bool
}

var (
	_ backends.Backend = (*Backend)(nil)
	_ backends.Local   = (*Backend)(nil)
)

// New opens the backend, creating its directory durably if it is missing, and
// clears away what crashed writers left there more than an hour ago. A
// directory that can only be read is fine for List and Get.
func New(cfg Config) (*Backend, error) {
	if cfg.Dir == "" {
		return nil, &backends.Error{Op: "open", Backend: "file:", Err: errors.New("set the directory: Config.Dir is empty")}
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, &backends.Error{Op: "open", Backend: "file:", Err: err}
	}
	u := url.URL{Scheme: "file", Path: filepath.ToSlash(dir)}
	b := &Backend{dir: dir, location: u.String(), readOnly: cfg.ReadOnly}
	if cfg.ReadOnly {
		if err := b.present("open", ""); err != nil {
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

// removeStale removes temporary files of dead writers. They are never listed,
// so that failing to remove them is no reason not to open: a restore from a
// read-only volume must work.
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

// path returns the file of a valid key.
func (b *Backend) path(key string) string {
	return filepath.Join(b.dir, filepath.FromSlash(key))
}

// begin checks what every operation on a key checks first.
func (b *Backend) begin(ctx context.Context, op, key string) error {
	if err := ctx.Err(); err != nil {
		return b.fail(op, key, err)
	}
	if err := backends.ValidKey(key); err != nil {
		return b.fail(op, key, err)
	}
	if b.readOnly && op != "get" {
		return b.fail(op, key, fmt.Errorf("%w: the backend was opened for reading", backends.ErrPermission))
	}
	return b.present(op, key)
}

// present returns an error unless the backend's directory exists. Without it,
// an unmounted or removed store would look like an empty one.
func (b *Backend) present(op, key string) error {
	info, err := os.Stat(b.dir)
	if err == nil && !info.IsDir() {
		err = &fs.PathError{Op: "stat", Path: b.dir, Err: syscall.ENOTDIR}
	}
	if missing(err) {
		err = fmt.Errorf("find the directory of the backend: %w; mount or restore it", err)
	}
	if err != nil {
		return b.fail(op, key, err)
	}
	return nil
}

// fail wraps err with its place, and with a sentinel and advice where there is
// one. The cause stays visible to errors.Is.
func (b *Backend) fail(op, key string, err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		err = fmt.Errorf("%w: %w; give the user of this process access to %s and what is in it",
			backends.ErrPermission, err, b.dir)
	case errors.Is(err, syscall.ENOSPC):
		err = fmt.Errorf("%w; free space on the volume of %s", err, b.dir)
	}
	return &backends.Error{Op: op, Backend: b.location, Key: key, Err: err}
}

// missing reports whether err means that there is no such file: also when the
// key has segments below what is itself an object.
func missing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// IsLocal reports that the store is a directory; see [backends.Local].
func (b *Backend) IsLocal() bool { return true }
