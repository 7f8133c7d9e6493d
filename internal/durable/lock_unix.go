//go:build unix && !aix && !solaris

package durable

import (
	"errors"
	"os"
	"syscall"
)

func lock(f *os.File) error {
	err := flock(f, syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return ErrLocked
	}
	return err
}

func unlock(f *os.File) error {
	return flock(f, syscall.LOCK_UN)
}

// flock uses SyscallConn, which keeps the descriptor open during the call even if the
// file is closed concurrently.
func flock(f *os.File, how int) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var callErr error
	if err := conn.Control(func(fd uintptr) {
		for {
			callErr = syscall.Flock(int(fd), how)
			if !errors.Is(callErr, syscall.EINTR) {
				return
			}
		}
	}); err != nil {
		return err
	}
	return os.NewSyscallError("flock", callErr)
}
