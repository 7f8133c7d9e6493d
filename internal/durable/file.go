package durable

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// TempPrefix begins the name of every file that is being written and is not
// yet published under its own name.
const TempPrefix = ".tmp-"

// WriteFile replaces path, or creates it, with what write writes.
//
// Readers see the old content or the new, whole, never a mixture. Once
// WriteFile returns nil the new content survives a crash. On an error the old
// content stays, with one exception: when the last fsync fails, the new
// content is in place and may or may not survive a crash.
//
// write is called once and must not keep its argument. Concurrent calls for
// one path are safe; the last rename wins.
//
// The system calls, in order, and what a crash after each leaves:
//
//	openat(dir/.tmp-N, O_RDWR|O_CREAT|O_EXCL|O_CLOEXEC, 0600)
//	write ...        path is old; dir/.tmp-N may exist, with any content
//	fsync(tmp)       path is old; dir/.tmp-N may exist
//	close(tmp)
//	fstatat(path)    so that a directory is refused
//	renameat         path is old or new, both whole
//	openat(dir)
//	fsync(dir)       path is new
//	close(dir)
func WriteFile(path string, write func(io.Writer) error) error {
	tmp, err := writeTemp(path, write)
	if err != nil {
		return fmt.Errorf("write file %s: %w", path, err)
	}
	// A crash here leaves the old content and a temporary file.
	if err := os.Rename(tmp, path); err != nil {
		_ = os.Remove(tmp)
		return fmt.Errorf("write file %s: %w", path, err)
	}
	// A crash here leaves the old content or the new.
	if err := SyncDir(filepath.Dir(path)); err != nil {
		return fmt.Errorf("write file %s: %w", path, err)
	}
	return nil
}

// CreateFile creates path with what write writes, or returns an error that is
// [fs.ErrExist] and leaves what is at path untouched.
//
// The file appears whole or not at all, and of any number of concurrent
// callers, in any number of processes, exactly one succeeds. Once CreateFile
// returns nil, or fs.ErrExist, the file at path survives a crash: whoever
// retries after an unclear outcome can rely on either answer. On any other
// error path does not exist, with one exception: when the last fsync fails,
// the file is in place and may or may not survive a crash.
//
// write is called at most once, and not at all if path exists beforehand; it
// must not keep its argument. The file system must have hard links.
//
// The system calls, in order, and what a crash after each leaves:
//
//	fstatat(path)    ENOENT, else: fsync(dir), and fs.ErrExist
//	openat(dir/.tmp-N, O_RDWR|O_CREAT|O_EXCL|O_CLOEXEC, 0600)
//	write ...        no path; dir/.tmp-N may exist, with any content
//	fsync(tmp)       no path; dir/.tmp-N may exist
//	close(tmp)
//	linkat           path is absent or whole; dir/.tmp-N may be a second name
//	                 of it. EEXIST: unlinkat, fsync(dir), and fs.ErrExist
//	unlinkat(tmp)    path is absent or whole
//	openat(dir)
//	fsync(dir)       path is whole
//	close(dir)
func CreateFile(path string, write func(io.Writer) error) error {
	if _, err := os.Lstat(path); err == nil {
		return existing(path)
	}
	tmp, err := writeTemp(path, write)
	if err != nil {
		return fmt.Errorf("create file %s: %w", path, err)
	}
	// A crash here leaves no path and a temporary file.
	err = os.Link(tmp, path)
	// A crash here leaves path absent or whole. If the temporary name cannot
	// be removed it is only a second name, and RemoveTemp will take it.
	_ = os.Remove(tmp)
	if errors.Is(err, fs.ErrExist) {
		return existing(path)
	}
	if err != nil {
		return fmt.Errorf("create file %s: %w", path, linkHint(err))
	}
	if err := SyncDir(filepath.Dir(path)); err != nil {
		return fmt.Errorf("create file %s: %w", path, err)
	}
	return nil
}

// existing makes the entry at path durable before reporting that it exists:
// whoever linked it may not have come as far as its own fsync.
func existing(path string) error {
	if err := SyncDir(filepath.Dir(path)); err != nil {
		return fmt.Errorf("create file %s: %w", path, err)
	}
	return fmt.Errorf("create file %s: %w", path, fs.ErrExist)
}

// linkHint says what is wrong where link(2) is not implemented; FAT and some
// network file systems answer EPERM, which alone looks like a matter of modes.
func linkHint(err error) error {
	if errors.Is(err, syscall.EPERM) || errors.Is(err, errors.ErrUnsupported) {
		return fmt.Errorf("%w (use a file system that has hard links)", err)
	}
	return err
}

// writeTemp writes and fsyncs a temporary file beside path and returns its
// name. On an error, or a panic of write, it leaves no file.
func writeTemp(path string, write func(io.Writer) error) (name string, err error) {
	f, err := os.CreateTemp(filepath.Dir(path), TempPrefix+"*") // mode 0600
	if err != nil {
		return "", err
	}
	done := false
	defer func() {
		if !done {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	if err := write(f); err != nil {
		return "", err
	}
	// After a failed fsync the kernel may have dropped the dirty pages, so
	// that a second fsync would succeed and lie. The file is given up.
	if err := f.Sync(); err != nil {
		return "", err
	}
	if err := f.Close(); err != nil {
		return "", err
	}
	done = true
	return f.Name(), nil
}
