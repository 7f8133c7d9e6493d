package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/xdswal/xdswal/internal/envoytest"
)

// daemon is an xdswal serve that is restarted with one directory and the same addresses.
type daemon struct {
	binary, dir, xds, admin string

	log    *os.File
	http   *http.Client
	cmd    *exec.Cmd
	exited chan struct{} // closed when the process has exited
}

func newDaemon(ctx context.Context, binary, dir string) (*daemon, error) {
	d := &daemon{binary: binary, dir: filepath.Join(dir, "data"), http: &http.Client{Timeout: stepTimeout}}
	var err error
	if d.xds, err = envoytest.FreeAddr(ctx); err != nil {
		return nil, err
	}
	if d.admin, err = envoytest.FreeAddr(ctx); err != nil {
		return nil, err
	}
	d.log, err = os.Create(filepath.Join(dir, "daemon.log"))
	return d, err
}

// start starts the process, and waits until it serves.
func (d *daemon) start(ctx context.Context) error {
	d.cmd = exec.CommandContext(ctx, d.binary, "serve", "--dir", d.dir, "--xds-addr", d.xds, "--admin-addr", d.admin, "--log-level", "warn")
	d.cmd.Stdout, d.cmd.Stderr = d.log, d.log
	if err := d.cmd.Start(); err != nil {
		return fmt.Errorf("start the daemon: %w", err)
	}
	d.exited = make(chan struct{})
	go func(exited chan struct{}) {
		_ = d.cmd.Wait() // its end is what matters
		close(exited)
	}(d.exited)
	deadline := time.After(stepTimeout)
	for d.call(ctx, http.MethodGet, "/readyz", nil, nil) != nil {
		select {
		case <-d.exited:
			return fmt.Errorf("the daemon has exited; its log is %s", d.log.Name())
		case <-deadline:
			return fmt.Errorf("the daemon is not ready after %s; its log is %s", stepTimeout, d.log.Name())
		case <-time.After(2 * time.Millisecond):
		}
	}
	return nil
}

// kill ends the process with SIGKILL, and waits for its end.
func (d *daemon) kill() {
	if d.cmd == nil || d.cmd.Process == nil {
		return
	}
	_ = d.cmd.Process.Kill() // fails only after its end
	<-d.exited
	d.http.CloseIdleConnections()
}

// put replaces the node's resources. It returns when that is durable.
func (d *daemon) put(ctx context.Context, version int, resources []envoytest.Resource) error {
	body := map[string]any{"version": strconv.Itoa(version), "resources": resources}
	return d.call(ctx, http.MethodPut, "/v1/nodes/"+node+"/snapshot", body, nil)
}

// version returns the version of the node's resources.
func (d *daemon) version(ctx context.Context) (int, error) {
	var doc struct{ Version string }
	if err := d.call(ctx, http.MethodGet, "/v1/nodes/"+node+"/snapshot", nil, &doc); err != nil {
		return 0, err
	}
	return strconv.Atoi(doc.Version)
}

func (d *daemon) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+d.admin+path, body)
	if err != nil {
		return err
	}
	resp, err := d.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, bytes.TrimSpace(data))
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(data, out)
}
