package durable

import (
	"errors"
	"fmt"
	"os"
)

// ErrLocked is returned by [Lock] while another holder has the lock.
var ErrLocked = errors.New("locked by another process or by another open in this one")

// LockFile is a held lock. It must be kept, and released with
// [LockFile.Unlock]; the system releases it too when the process ends,
// however it ends.
type LockFile struct {
	f *os.File
}

// Lock takes the exclusive advisory lock on the file at path, which it creates
// with mode 0600 if it is missing. It never waits: while another process, or
// another Lock in this process, holds the lock it returns [ErrLocked].
//
// The lock is flock(2) of the open file: it excludes those who call Lock and
// no one else, and the file's content and existence mean nothing. On network
// file systems it is as good as their flock.
func Lock(path string) (*LockFile, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	if err := lock(f); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return &LockFile{f: f}, nil
}

// Unlock releases the lock. The file stays: were it removed, one process could
// hold the lock of the removed file and another that of its successor. A second
// Unlock returns [os.ErrClosed] and changes nothing.
func (l *LockFile) Unlock() error {
	// Closing alone would not do while a child process, forked a moment ago
	// and not yet replaced by exec, shares the open file.
	err := unlock(l.f)
	if closeErr := l.f.Close(); closeErr != nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("unlock %s: %w", l.f.Name(), err)
	}
	return nil
}
