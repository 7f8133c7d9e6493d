package durable_test

import (
	"bufio"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/internal/durable"
)

// lockEnv makes the test binary a process that locks the path that it names, prints the
// result, and holds the lock until it is killed.
const lockEnv = "XDSWAL_TEST_HOLD_LOCK"

func holdLock(path string) {
	l, err := durable.Lock(path)
	fmt.Println(err)
	_, _ = bufio.NewReader(os.Stdin).ReadByte()
	_ = l.Unlock()
}

func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "LOCK")
	for range 2 {
		l, err := durable.Lock(path)
		require.NoError(t, err)
		info, err := os.Stat(path)
		require.NoError(t, err)
		require.Equal(t, fs.FileMode(0o600), info.Mode())

		second, err := durable.Lock(path)
		require.ErrorIs(t, err, durable.ErrLocked)
		require.ErrorContains(t, err, path)
		require.Nil(t, second)

		require.NoError(t, l.Unlock())
		require.ErrorIs(t, l.Unlock(), os.ErrClosed)
		require.FileExists(t, path)
	}
}

func TestLockMissingDirectory(t *testing.T) {
	_, err := durable.Lock(filepath.Join(t.TempDir(), "missing", "LOCK"))
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NotErrorIs(t, err, durable.ErrLocked)
}

func TestLockRace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "LOCK")
	locks := make([]*durable.LockFile, 16)
	var wg sync.WaitGroup
	for i := range locks {
		wg.Add(1)
		go func() {
			defer wg.Done()
			locks[i], _ = durable.Lock(path)
		}()
	}
	wg.Wait()
	held := 0
	for _, l := range locks {
		if l != nil {
			held++
			require.NoError(t, l.Unlock())
		}
	}
	require.Equal(t, 1, held)
}

// A lock that another process holds is refused, and is free after that process is
// killed.
func TestLockOtherProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "LOCK")
	exe, err := os.Executable()
	require.NoError(t, err)
	holder := exec.CommandContext(t.Context(), exe)
	holder.Env = append(os.Environ(), lockEnv+"="+path)
	_, err = holder.StdinPipe()
	require.NoError(t, err)
	out, err := holder.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, holder.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "<nil>\n", line)

	_, err = durable.Lock(path)
	require.ErrorIs(t, err, durable.ErrLocked)

	require.NoError(t, holder.Process.Kill())
	_ = holder.Wait()
	l, err := durable.Lock(path)
	require.NoError(t, err)
	require.NoError(t, l.Unlock())
}
