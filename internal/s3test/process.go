package s3test

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/internal/logtest"
)

// startTimeout is the time within which a program must answer after its start. It is
// long, because other tests may keep the machine busy.
const startTimeout = 30 * time.Second

// process is a program that a test started.
type process struct {
	cmd   *exec.Cmd
	log   logtest.Buffer
	ended chan struct{}
}

func startProcess(t testing.TB, env []string, binary string, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(binary, args...), ended: make(chan struct{})} //nolint:noctx // kill ends it.
	p.cmd.Env = env
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	require.NoError(t, p.cmd.Start())
	go func() {
		_ = p.cmd.Wait()
		close(p.ended)
	}()
	return p
}

// kill kills the process and waits for its end.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.ended
}

// waitFor waits until the process answers HTTP at endpoint.
func (p *process) waitFor(t testing.TB, endpoint string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, // Any answer suffices.
	}}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), startTimeout)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, endpoint, nil)
		require.NoError(t, err)
		res, err := client.Do(req)
		if err == nil {
			res.Body.Close()
			return
		}
		select {
		case <-p.ended:
			t.Fatalf("%s exited before it answered:\n%s", p.cmd.Path, &p.log)
		case <-ctx.Done():
			t.Fatalf("%s does not answer at %s after %v: %v\n%s", p.cmd.Path, endpoint, startTimeout, err, &p.log)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// freePort returns a port that is not in use.
func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // It takes no time.
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
