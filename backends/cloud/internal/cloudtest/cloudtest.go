// Package cloudtest starts the stores of the tests: fake-gcs-server and Azurite.
package cloudtest

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/internal/logtest"
)

// Bucket is the bucket, or the container, of the tests.
const Bucket = "xdswal-test"

// The well-known account of Azurite.
const (
	AzureAccount = "devstoreaccount1"
	AzureKey     = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)

// startTimeout is the time within which a program must answer after its start. It is
// long, because other tests may keep the machine busy.
const startTimeout = time.Minute

// GCS returns the endpoint of a Cloud Storage server with Bucket: that in
// XDSWAL_GCS_ENDPOINT, or a fake-gcs-server that ends with the test. Without either the
// test is skipped, or fails in CI, where nobody would notice.
func GCS(t testing.TB) string {
	t.Helper()
	endpoint := strings.TrimSuffix(os.Getenv("XDSWAL_GCS_ENDPOINT"), "/")
	if endpoint == "" {
		program, port := find(t, "fake-gcs-server", "XDSWAL_GCS_ENDPOINT"), freePort(t)
		endpoint = run(t, port, program, "-scheme", "http", "-host", "127.0.0.1", "-port", port, "-backend", "memory",
			"-external-url", "http://127.0.0.1:"+port, "-log-level", "error")
	}
	res, err := http.Post(endpoint+"/storage/v1/b?project=test", "application/json", strings.NewReader(`{"name": "`+Bucket+`"}`)) //nolint:noctx // The server is local.
	require.NoError(t, err)
	res.Body.Close()
	require.Contains(t, []int{http.StatusOK, http.StatusConflict}, res.StatusCode)
	return endpoint
}

// Azure returns the endpoint of the blob service of AzureAccount with the container
// Bucket: that in XDSWAL_AZURE_ENDPOINT, or of an Azurite that ends with the test.
// Without either it does what GCS does.
func Azure(t testing.TB) string {
	t.Helper()
	endpoint := strings.TrimSuffix(os.Getenv("XDSWAL_AZURE_ENDPOINT"), "/")
	if endpoint == "" {
		program, port := find(t, "azurite-blob", "XDSWAL_AZURE_ENDPOINT"), freePort(t)
		endpoint = run(t, port, program, "--blobHost", "127.0.0.1", "--blobPort", port, "--location", t.TempDir(),
			"--silent", "--disableTelemetry", "--skipApiVersionCheck") + "/" + AzureAccount // The SDK is newer than Azurite.
	}
	key, err := container.NewSharedKeyCredential(AzureAccount, AzureKey)
	require.NoError(t, err)
	client, err := container.NewClientWithSharedKeyCredential(endpoint+"/"+Bucket, key, nil)
	require.NoError(t, err)
	if _, err = client.Create(t.Context(), nil); !bloberror.HasCode(err, bloberror.ContainerAlreadyExists) {
		require.NoError(t, err)
	}
	return endpoint
}

// find returns the path of a program: in .tools of a directory above, where
// scripts/deps installs it, or else in PATH.
func find(t testing.TB, program, variable string) string {
	t.Helper()
	dir, err := os.Getwd()
	require.NoError(t, err)
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		for _, below := range []string{".tools/bin", ".tools/node_modules/.bin"} {
			path := filepath.Join(dir, below, program)
			if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
				return path
			}
		}
	}
	path, err := exec.LookPath(program)
	problem := fmt.Sprintf("needs %s (run make deps), or a store at %s", program, variable)
	switch {
	case err == nil:
	case os.Getenv("CI") == "true":
		t.Fatal(problem)
	default:
		t.Skip(problem)
	}
	return path
}

func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // It takes no time.
	require.NoError(t, err)
	defer l.Close()
	return fmt.Sprint(l.Addr().(*net.TCPAddr).Port)
}

// run runs a program until the end of the test, and returns its URL when it answers.
func run(t testing.TB, port, program string, args ...string) string {
	t.Helper()
	var log logtest.Buffer
	cmd := exec.Command(program, args...) //nolint:noctx // The cleanup ends it.
	cmd.Stdout, cmd.Stderr = &log, &log
	require.NoError(t, cmd.Start())
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	endpoint := "http://127.0.0.1:" + port
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), startTimeout)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, endpoint, nil)
		require.NoError(t, err)
		if res, err := http.DefaultClient.Do(req); err == nil {
			res.Body.Close()
			return endpoint
		}
		select {
		case <-ended:
			t.Fatalf("%s exited before it answered:\n%s", program, &log)
		case <-ctx.Done():
			t.Fatalf("%s does not answer after %v:\n%s", program, startTimeout, &log)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Prefix returns a prefix that no other test, of this run or an earlier one, uses.
func Prefix(t testing.TB) string {
	return fmt.Sprintf("%x/%s", time.Now().UnixNano(), strings.NewReplacer(" ", "-", ",", "").Replace(t.Name()))
}
