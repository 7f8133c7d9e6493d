package envoytest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Options are the settings of an Envoy.
type Options struct {
	// Binary is the path of Envoy; see [Find].
	Binary string
	// Dir is a directory for the bootstrap and the log. The next Envoy may use it again.
	Dir string
	// Node is the node id.
	Node string
	// Server is the address of the xDS server.
	Server string
	// Protocol is how Envoy fetches clusters and listeners.
	Protocol Protocol
	// Keepalive is the interval of HTTP/2 pings to the xDS server; 0 sends none.
	Keepalive time.Duration
	// Bootstrap is a bootstrap in YAML, instead of the one that is made of the fields
	// above. The port of its admin interface is 0.
	Bootstrap []byte
}

// Envoy is a running Envoy.
type Envoy struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed when the process has exited
	err    error         // of the process, after it has exited
	log    string
	admin  string
	http   *http.Client
}

// startTimeout bounds the time until the admin interface answers.
const startTimeout = 30 * time.Second

// Start starts an Envoy and waits until its admin interface answers, which it does before
// the first configuration was fetched. The process ends at the latest when ctx is done.
func Start(ctx context.Context, o Options) (*Envoy, error) {
	bootstrap := o.Bootstrap
	if bootstrap == nil {
		var err error
		if bootstrap, err = json.Marshal(o.bootstrap()); err != nil { // JSON is YAML
			return nil, fmt.Errorf("marshal the bootstrap: %w", err)
		}
	}
	config, address := filepath.Join(o.Dir, "bootstrap.yaml"), filepath.Join(o.Dir, "admin-address")
	if err := os.WriteFile(config, bootstrap, 0o600); err != nil {
		return nil, err
	}
	e := &Envoy{
		exited: make(chan struct{}), log: filepath.Join(o.Dir, "envoy.log"),
		http: &http.Client{Timeout: startTimeout},
	}
	if err := os.Remove(address); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	log, err := os.Create(e.log)
	if err != nil {
		return nil, err
	}
	defer log.Close() // the process has its own descriptor
	// Without hot restart, Envoys share nothing and need no base id of their own.
	e.cmd = exec.CommandContext(ctx, o.Binary, "--config-path", config, "--admin-address-path", address,
		"--concurrency", "1", "--disable-hot-restart", "--drain-time-s", "1", "--log-level", "warning")
	e.cmd.Stdout, e.cmd.Stderr = log, log
	if err := e.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start envoy: %w", err)
	}
	go func() {
		e.err = e.cmd.Wait()
		close(e.exited)
	}()
	if err := e.awaitAdmin(ctx, address); err != nil {
		e.Stop()
		return nil, fmt.Errorf("start envoy: %w; its log:\n%s", err, e.Log())
	}
	return e, nil
}

// awaitAdmin waits until Envoy has written its admin address to a file, and answers there.
func (e *Envoy) awaitAdmin(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for {
		select {
		case <-e.exited:
			return fmt.Errorf("it has exited: %w", e.err)
		case <-ctx.Done():
			return fmt.Errorf("wait for its admin interface: %w", ctx.Err())
		case <-poll.C:
		}
		address, err := os.ReadFile(path)
		if err != nil || len(address) == 0 {
			continue
		}
		e.admin = strings.TrimSpace(string(address))
		if _, err := e.Stats(ctx, "server.live"); err == nil {
			return nil
		}
	}
}

// Stop ends the process with SIGKILL, and waits for its end.
func (e *Envoy) Stop() {
	_ = e.cmd.Process.Kill() // fails only after its end
	<-e.exited
	e.http.CloseIdleConnections()
}

// Exited is closed when the process has exited.
func (e *Envoy) Exited() <-chan struct{} { return e.exited }

// Log returns what Envoy has logged, at most the last 4 KiB.
func (e *Envoy) Log() string {
	log, err := os.ReadFile(e.log)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(log[max(0, len(log)-4<<10):]))
}
