package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// timeout bounds waits that are short unless the test fails.
const timeout = 60 * time.Second

// daemon is an xdswal serve that is restarted with one directory and the same addresses.
type daemon struct {
	t     testing.TB
	dir   string
	xds   string
	admin string
	flags []string
	http  *http.Client

	log     *os.File
	process *exec.Cmd
	exited  chan struct{} // closed when the process has exited
	err     error         // of the process, after it has exited
}

// newDaemon returns a daemon that is not started.
func newDaemon(t testing.TB, flags ...string) *daemon {
	t.Helper()
	d := &daemon{
		t:   t,
		dir: filepath.Join(t.TempDir(), "data"), xds: freeAddr(t), admin: freeAddr(t), flags: flags,
		http: &http.Client{
			Transport: &http.Transport{MaxIdleConnsPerHost: 128},
			Timeout:   timeout,
		},
	}
	var err error
	d.log, err = os.Create(filepath.Join(t.TempDir(), "daemon.log"))
	require.NoError(t, err)
	t.Cleanup(func() {
		if d.running() {
			_ = d.process.Process.Kill()
			<-d.exited
		}
		d.http.CloseIdleConnections()
		if log := d.logged(); t.Failed() {
			t.Logf("end of the daemon's log:\n%s", log[max(0, len(log)-16<<10):])
		}
		d.log.Close()
	})
	return d
}

// reserved are the addresses that freeAddr has returned.
var reserved sync.Map

// freeAddr returns a loopback address with a free port. The port is outside the range for
// outgoing connections, so that it is still free while the daemon is down.
func freeAddr(t testing.TB) string {
	t.Helper()
	for range 1000 {
		addr := fmt.Sprintf("127.0.0.1:%d", 12_000+rand.IntN(20_000))
		if _, taken := reserved.LoadOrStore(addr, true); taken {
			continue
		}
		if l, err := net.Listen("tcp", addr); err == nil {
			require.NoError(t, l.Close())
			return addr
		}
	}
	require.Fail(t, "no free port")
	return ""
}

// launch starts the process and does not wait until it serves.
func (d *daemon) launch() {
	d.t.Helper()
	require.False(d.t, d.running(), "the daemon is running")
	args := []string{"serve", "--dir", d.dir, "--xds-addr", d.xds, "--admin-addr", d.admin}
	cmd := exec.Command(binary(d.t), append(args, d.flags...)...)
	cmd.Stdout, cmd.Stderr = d.log, d.log
	// A data race ends the daemon and fails the test.
	cmd.Env = append(os.Environ(), "GORACE=halt_on_error=1")
	require.NoError(d.t, cmd.Start())
	exited := make(chan struct{})
	d.process, d.exited = cmd, exited
	go func() {
		d.err = cmd.Wait()
		close(exited)
	}()
}

// start starts the process and waits until it serves.
func (d *daemon) start() {
	d.t.Helper()
	d.launch()
	d.awaitReady()
}

func (d *daemon) awaitReady() {
	d.t.Helper()
	poll := time.NewTicker(2 * time.Millisecond)
	defer poll.Stop()
	deadline := time.After(timeout)
	for !d.ready() {
		select {
		case <-d.exited:
			require.FailNow(d.t, "the daemon exited before it was ready", "%v", d.err)
		case <-deadline:
			require.FailNow(d.t, "the daemon is not ready")
		case <-poll.C:
		}
	}
}

func (d *daemon) ready() bool {
	resp, err := d.http.Get("http://" + d.admin + "/readyz")
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode == http.StatusOK
}

func (d *daemon) running() bool {
	if d.process == nil {
		return false
	}
	select {
	case <-d.exited:
		return false
	default:
		return true
	}
}

// kill ends the process with SIGKILL.
func (d *daemon) kill() {
	d.t.Helper()
	require.True(d.t, d.running(), "the daemon has exited: %v", d.err)
	require.NoError(d.t, d.process.Process.Kill())
	d.await("kill -9")
	var exit *exec.ExitError
	require.ErrorAs(d.t, d.err, &exit)
	require.Equal(d.t, syscall.SIGKILL, exit.Sys().(syscall.WaitStatus).Signal(), "the daemon has exited: %v", d.err)
}

// terminate ends the process with SIGTERM.
func (d *daemon) terminate() {
	d.t.Helper()
	require.True(d.t, d.running(), "the daemon has exited: %v", d.err)
	require.NoError(d.t, d.process.Process.Signal(syscall.SIGTERM))
	d.await("SIGTERM")
	require.NoError(d.t, d.err)
}

func (d *daemon) await(what string) {
	d.t.Helper()
	select {
	case <-d.exited:
	case <-time.After(timeout):
		require.FailNow(d.t, "the daemon still runs after "+what)
	}
	d.http.CloseIdleConnections()
}

// loseMachine deletes the data directory.
func (d *daemon) loseMachine() {
	d.t.Helper()
	require.NoError(d.t, os.RemoveAll(d.dir))
}

// awaitShipped waits until all events are shipped, if the daemon has a backend.
func (d *daemon) awaitShipped() {
	d.t.Helper()
	require.Eventually(d.t, func() bool {
		s := d.status()
		return s.Backend.Location == "" || s.Backend.Shipped >= s.Seq
	}, timeout, 5*time.Millisecond)
}

func (d *daemon) logged() []byte {
	log, err := os.ReadFile(d.log.Name())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		d.t.Log(err)
	}
	return bytes.TrimSpace(log)
}
