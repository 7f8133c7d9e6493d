package durable

import (
	"errors"
	"fmt"
	"os"
)

// ErrLocked is returned by [Lock] while the lock is held.
var ErrLocked = errors.New("locked by another process or by another open in this one")

// LockFile is a held lock. The holder must keep a reference to it until it calls
// [LockFile.Unlock]. The system also releases the lock when the process ends.
type LockFile struct {
	f *os.File
}

// Lock acquires the exclusive advisory lock on the file at path, which it creates with
// mode 0600 if it is missing. It does not wait: while another process, or another call
// in this process, holds the lock, it returns [ErrLocked].
//
// The lock is flock(2) of the open file. It excludes only other callers of Lock, and the
// content and the existence of the file have no meaning. On a network file system it is
// as reliable as flock there.
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

// Unlock releases the lock. A second Unlock returns [os.ErrClosed] and changes nothing.
//
// Unlock does not remove the file: one process could then lock the removed file, and
// another process its successor.
func (l *LockFile) Unlock() error {
	// Close alone does not release the lock while a child process, between fork and
	// exec, shares the open file.
	err := unlock(l.f)
	if closeErr := l.f.Close(); closeErr != nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("unlock %s: %w", l.f.Name(), err)
	}
	return nil
}
