// Package envoytest runs a real Envoy against an xDS server: for the tests of the daemon,
// and for the demo. An Envoy is started with a bootstrap that is made here, and observed
// through its admin interface. Beside it are an upstream and a client that count
// requests, and a proxy that cuts the connection to the xDS server.
//
// Everything listens on loopback.
package envoytest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
)

// ErrNotInstalled is the error of [Find] if there is no Envoy.
var ErrNotInstalled = errors.New("envoy is not installed; run make deps")

// Find returns the path of the Envoy binary: in .tools/bin of the working directory or of
// one above it, where scripts/deps installs it, or else in PATH.
func Find() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find envoy: %w", err)
	}
	for ; ; dir = filepath.Dir(dir) {
		path := filepath.Join(dir, ".tools", "bin", "envoy")
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path, nil
		}
		if dir == filepath.Dir(dir) {
			break
		}
	}
	path, err := exec.LookPath("envoy")
	if err != nil {
		return "", ErrNotInstalled
	}
	return path, nil
}

// reserved are the addresses that FreeAddr has returned.
var reserved sync.Map

// FreeAddr returns a loopback address with a free port. The port is outside the range for
// outgoing connections, so that it is still free while its listener is restarted.
func FreeAddr(ctx context.Context) (string, error) {
	for range 1000 {
		addr := fmt.Sprintf("127.0.0.1:%d", 12_000+rand.IntN(20_000))
		if _, taken := reserved.LoadOrStore(addr, true); taken {
			continue
		}
		if l, err := listen(ctx, addr); err == nil {
			return addr, l.Close()
		}
	}
	return "", errors.New("no free port on 127.0.0.1")
}

func listen(ctx context.Context, addr string) (net.Listener, error) {
	var lc net.ListenConfig
	return lc.Listen(ctx, "tcp", addr)
}
