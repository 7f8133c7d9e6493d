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

// TempPrefix is the prefix of the name of a file that is being written and is not
// published under its own name yet.
const TempPrefix = ".tmp-"

// WriteFile replaces or creates the file at path with the bytes that write writes.
//
// Readers see the whole old or the whole new content. After WriteFile has returned nil,
// the new content survives a crash. After an error the old content is in place, with
// one exception: if the last fsync fails, the new content is in place and may not
// survive a crash.
//
// write is called once and must not retain its argument. WriteFile may be called
// concurrently for one path; the last rename wins.
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
		return fmt.Errorf("write file %s: %w", path, withoutName(err))
	}
	// A crash here leaves the old content or the new.
	if err := SyncDir(filepath.Dir(path)); err != nil {
		return fmt.Errorf("write file %s: %w", path, err)
	}
	return nil
}

// CreateFile creates the file at path with the bytes that write writes. If path exists,
// it returns an error that wraps [fs.ErrExist] and does not change path.
//
// The file appears whole or not at all. Of concurrent calls for one path, in any number
// of processes, exactly one succeeds. After CreateFile has returned nil or fs.ErrExist,
// the file at path survives a crash, so a caller that retries can rely on either result.
// After any other error path does not exist, with one exception: if the last fsync
// fails, the file is in place and may not survive a crash.
//
// write is called at most once, and not if path exists at the start. It must not retain
// its argument. The file system must support hard links.
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
	// A crash here leaves path absent or whole. A temporary name that cannot be
	// removed is a second name of the file, which RemoveTemp removes later.
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

// existing makes the entry at path durable and returns fs.ErrExist: the process that
// linked it may not have fsynced the directory yet.
func existing(path string) error {
	if err := SyncDir(filepath.Dir(path)); err != nil {
		return fmt.Errorf("create file %s: %w", path, err)
	}
	return fmt.Errorf("create file %s: %w", path, fs.ErrExist)
}

// linkHint adds advice to the error of a file system without link(2). FAT and some
// network file systems return EPERM, which alone suggests a problem of permissions.
func linkHint(err error) error {
	err = withoutName(err)
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
		return "", withoutName(err)
	}
	done := false
	defer func() {
		if !done {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	if err := write(tempWriter{f}); err != nil {
		return "", err
	}
	// Do not retry a failed fsync: the kernel may have dropped the dirty pages, and
	// a second fsync would succeed without writing them.
	if err := f.Sync(); err != nil {
		return "", withoutName(err)
	}
	if err := f.Close(); err != nil {
		return "", withoutName(err)
	}
	done = true
	return f.Name(), nil
}

// tempWriter writes to a temporary file and returns errors without its name.
type tempWriter struct{ f *os.File }

func (w tempWriter) Write(p []byte) (int, error) {
	n, err := w.f.Write(p)
	return n, withoutName(err)
}

// withoutName returns an error of package os without the name of the file: the operator
// cannot find a temporary file that no longer exists.
func withoutName(err error) error {
	if err == nil {
		return nil
	}
	var path *fs.PathError
	var link *os.LinkError
	switch {
	case errors.As(err, &path):
		return fmt.Errorf("%s: %w", path.Op, path.Err)
	case errors.As(err, &link):
		return fmt.Errorf("%s: %w", link.Op, link.Err)
	}
	return err
}
