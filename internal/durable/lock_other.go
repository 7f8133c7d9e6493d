//go:build !unix || aix || solaris

package durable

import (
	"errors"
	"fmt"
	"os"
	"runtime"
)

func lock(*os.File) error {
	return fmt.Errorf("%w: no flock on %s", errors.ErrUnsupported, runtime.GOOS)
}

func unlock(*os.File) error { return nil }
