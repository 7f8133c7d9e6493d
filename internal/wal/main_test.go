package wal_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/internal/wal"
	"github.com/xdswal/xdswal/journal"
)

// childEnv makes the test binary another process: its value is a mode, a
// journal's directory and a sync policy, with tabs between.
const childEnv = "XDSWAL_TEST_JOURNAL_CHILD"

// children are what such a process does.
var children = map[string]func(dir string, policy journal.SyncPolicy) error{
	"hold":   holdChild,
	"append": appendChild,
	"faults": faultsChild,
	"take":   takeChild,
}

func TestMain(m *testing.M) {
	if args := os.Getenv(childEnv); args != "" {
		fields := strings.Split(args, "\t")
		policy, err := journal.ParseSyncPolicy(fields[2])
		if err == nil {
			err = children[fields[0]](fields[1], policy)
		}
		fmt.Println(err)
		if err != nil {
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// holdChild has a journal open until its input ends.
func holdChild(dir string, policy journal.SyncPolicy) error {
	j, err := wal.Open(dir, wal.Options{Sync: policy})
	fmt.Println(err)
	_, _ = io.Copy(io.Discard, os.Stdin)
	if err != nil {
		return err
	}
	return j.Close()
}

// child is this test binary as another process.
type child struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout *bufio.Reader
	stderr bytes.Buffer
}

// startChild starts a child, under the program and arguments in wrap, if any.
func startChild(t testing.TB, mode, dir, policy string, wrap ...string) *child {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	args := append(wrap, exe)
	c := &child{cmd: exec.Command(args[0], args[1:]...)}
	c.cmd.Env = append(os.Environ(), childEnv+"="+strings.Join([]string{mode, dir, policy}, "\t"))
	c.cmd.Stderr = &c.stderr
	c.stdin, err = c.cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := c.cmd.StdoutPipe()
	require.NoError(t, err)
	c.stdout = bufio.NewReader(stdout)
	require.NoError(t, c.cmd.Start())
	t.Cleanup(func() { _ = c.cmd.Process.Kill() })
	return c
}

// line returns the next line of output.
func (c *child) line(t testing.TB) string {
	t.Helper()
	line, err := c.stdout.ReadString('\n')
	if err != nil {
		_ = c.cmd.Process.Kill()
		_ = c.cmd.Wait() // the error output is whole now
		t.Fatalf("read from child: %v: %s", err, c.stderr.String())
	}
	return strings.TrimSuffix(line, "\n")
}

// rest returns the whole lines that are left, once the child has ended.
func (c *child) rest(t testing.TB) []string {
	t.Helper()
	out, err := io.ReadAll(c.stdout)
	require.NoError(t, err)
	_ = c.cmd.Wait()
	lines := strings.Split(string(out), "\n")
	return lines[:len(lines)-1]
}

// kill kills the child and waits for its end.
func (c *child) kill(t testing.TB) {
	t.Helper()
	require.NoError(t, c.cmd.Process.Kill())
	c.rest(t)
}
