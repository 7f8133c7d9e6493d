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

// copyBuffer is how many bytes are copied between two looks at the context.
const copyBuffer = 256 << 10

// Put creates an object; see [backends.Backend]. A crash before it returns
// leaves the object whole or missing, and perhaps a temporary file, which a
// later New removes.
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
		// Kept from fail and putError: an fs.ErrExist or ErrPermission of
		// the caller's body says nothing about this store.
		return &backends.Error{Op: "put", Backend: b.location, Key: key, Err: fmt.Errorf("read body: %w", bodyErr)}
	default:
		return b.fail("put", key, putError(path, err))
	}
}

// makeDir creates dir and makes the whole path to it durable, up to b.dir. The
// directories may exist and still not be durable: another Put, here or in
// another process, may have created them a moment ago.
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

// putError gives the errors of creating path their meaning in the contract.
func putError(path string, err error) error {
	if errors.Is(err, syscall.ENOTDIR) {
		return fmt.Errorf("%w: a leading part of it is an object", backends.ErrKey)
	}
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	if info, statErr := os.Lstat(path); statErr == nil && info.IsDir() {
		return fmt.Errorf("%w: there are objects below it", backends.ErrKey)
	}
	return backends.ErrExists
}

// copyBody copies body to w until its end, or until ctx is done. It returns
// errors of reading body apart from all others.
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
