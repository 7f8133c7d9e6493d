// Package gateway runs an S3 server for a benchmark: versitygw, on a loopback port, with
// its objects as files in a directory.
package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/xdswal/xdswal/backends/s3"
)

// program is the server; make deps installs it.
const program = "versitygw"

// ErrMissing is the error of Start if the program is not installed.
var ErrMissing = errors.New(program + " is not installed; run make deps")

const (
	bucket    = "bucket"
	region    = "us-east-1"
	accessKey = "bench"
	secretKey = "bench-secret"
	// startTimeout bounds the time until the server answers.
	startTimeout = 30 * time.Second
)

// Gateway is an S3 server with one bucket.
type Gateway struct {
	// Endpoint is the URL of the server, and Bucket the name of the bucket.
	Endpoint string
	Bucket   string

	root  string
	cmd   *exec.Cmd
	log   bytes.Buffer // read after ended is closed
	ended chan struct{}
}

// Start starts a server whose objects are in an empty directory. The server runs until
// Stop, or until ctx is done. The error is [ErrMissing] if the program is not installed.
func Start(ctx context.Context, dir string) (*Gateway, error) {
	binary, err := find()
	if err != nil {
		return nil, err
	}
	g := &Gateway{Bucket: bucket, root: dir, ended: make(chan struct{})}
	if err := os.MkdirAll(g.Path(""), 0o700); err != nil {
		return nil, fmt.Errorf("create bucket: %w", err)
	}
	address, err := freeAddress()
	if err != nil {
		return nil, fmt.Errorf("find free port: %w", err)
	}
	g.Endpoint = "http://" + address
	g.cmd = exec.CommandContext(ctx, binary, "--port", address, "--keep-alive", "--quiet", "posix", dir)
	g.cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+accessKey, "ROOT_SECRET_KEY="+secretKey)
	g.cmd.Stdout, g.cmd.Stderr = &g.log, &g.log
	if err := g.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", binary, err)
	}
	go func() {
		_ = g.cmd.Wait()
		close(g.ended)
	}()
	if err := g.await(ctx); err != nil {
		g.Stop()
		return nil, fmt.Errorf("start %s: %w: %s", binary, err, &g.log)
	}
	return g, nil
}

// find returns the path of the program: in .tools/bin of this directory or of one above
// it, where make deps installs it, or else on the PATH.
func find() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		path := filepath.Join(dir, ".tools", "bin", program)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			break
		}
		dir = parent
	}
	path, err := exec.LookPath(program)
	if err != nil {
		return "", ErrMissing
	}
	return path, nil
}

// freeAddress returns a loopback address with a free port.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // It does not block.
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// await waits until the server answers.
func (g *Gateway) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("no answer within %s", startTimeout))
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, g.Endpoint, nil)
		if err != nil {
			return err
		}
		res, err := http.DefaultClient.Do(req)
		if err == nil {
			res.Body.Close()
			return nil
		}
		select {
		case <-g.ended:
			return errors.New("exited before it answered")
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Stop kills the server and waits until it has exited. Its objects remain.
func (g *Gateway) Stop() {
	_ = g.cmd.Process.Kill()
	<-g.ended
}

// CPUTime returns the processor time that the server has used, or 0 if it is unknown.
func (g *Gateway) CPUTime() time.Duration {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", g.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	// The name, in parentheses, may contain spaces.
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	const user, system = 11, 12 // after the name
	if len(fields) <= system {
		return 0
	}
	var ticks int64
	for _, field := range fields[user : system+1] {
		n, _ := strconv.ParseInt(field, 10, 64)
		ticks += n
	}
	return time.Duration(ticks) * (time.Second / ticksPerSecond)
}

// ticksPerSecond is USER_HZ, the unit of times in /proc on all platforms.
const ticksPerSecond = 100

// Path returns the path of the objects with a prefix.
func (g *Gateway) Path(prefix string) string {
	return filepath.Join(g.root, g.Bucket, filepath.FromSlash(prefix))
}

// Config returns the configuration of a backend with a prefix and defaults otherwise.
func (g *Gateway) Config(prefix string) s3.Config {
	return s3.Config{
		Bucket: g.Bucket, Prefix: prefix, Region: region, Endpoint: g.Endpoint, PathStyle: true, Credentials: credentials,
	}
}

// Client returns a plain client of the SDK.
func (g *Gateway) Client() *awss3.Client {
	return awss3.New(awss3.Options{BaseEndpoint: &g.Endpoint, Region: region, UsePathStyle: true, Credentials: credentials})
}

// credentials are those of the server, never those of the machine.
var credentials = aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
	return aws.Credentials{AccessKeyID: accessKey, SecretAccessKey: secretKey}, nil
})
