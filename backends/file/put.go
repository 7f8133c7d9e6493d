package file

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/internal/durable"
)

// copyBuffer is the number of bytes copied between checks of the context.
const copyBuffer = 256 << 10

// Put implements [backends.Backend]. A crash before it returns leaves the object
// whole or missing, and possibly a temporary file, which a later New removes.
func (b *Backend) Put(ctx context.Context, key string, body io.ReadSeeker) error {
	if err := b.begin(ctx, "put", key); err != nil {
		return err
	}
	path := b.path(key)
	if err := b.makeDir(filepath.Dir(path)); err != nil {
		return b.fail("put", key, putError(path, err))
	}
	var bodyErr error
	err := durable.CreateFile(path, func(w io.Writer) error {
		var err error
		bodyErr, err = copyBody(ctx, w, body)
		return errors.Join(bodyErr, err)
	})
	switch {
	case err == nil:
		return nil
	case bodyErr != nil:
		// Not passed to fail and putError: an fs.ErrExist or fs.ErrPermission
		// of the caller's body is not an error of this store.
		return &backends.Error{Op: "put", Backend: b.location, Key: key, Err: fmt.Errorf("read body: %w", bodyErr)}
	default:
		return b.fail("put", key, putError(path, err))
	}
}

// makeDir creates dir and makes every entry on the path from b.dir to it durable.
// Directories that exist may not be durable yet: a concurrent Put, in this process
// or another, may just have created them.
func (b *Backend) makeDir(dir string) error {
	if dir == b.dir {
		return nil
	}
	if err := durable.MkdirAll(dir); err != nil {
		return err
	}
	for dir = filepath.Dir(dir); dir != b.dir; {
		dir = filepath.Dir(dir)
		if err := durable.SyncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

// putError returns the error of the contract for an error of creating path.
func putError(path string, err error) error {
	if errors.Is(err, syscall.ENOTDIR) {
		return fmt.Errorf("%w: a leading part of the key is an object", backends.ErrKey)
	}
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	if info, statErr := os.Lstat(path); statErr == nil && info.IsDir() {
		return fmt.Errorf("%w: objects exist below the key", backends.ErrKey)
	}
	return backends.ErrExists
}

// copyBody copies body to w until its end, or until ctx is done. bodyErr is the
// error of body; err is any other.
func copyBody(ctx context.Context, w io.Writer, body io.Reader) (bodyErr, err error) {
	buf := make([]byte, copyBuffer)
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		n, readErr := body.Read(buf)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return nil, err
			}
		}
		if errors.Is(readErr, io.EOF) {
			return nil, ctx.Err()
		}
		if readErr != nil {
			return readErr, nil
		}
	}
}
