// Package s3test runs a real S3 server, versitygw, for tests, and a network proxy with
// faults, toxiproxy, in front of it. scripts/deps installs both programs. Without them
// tests skip, or fail in CI.
package s3test

import (
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Server is an S3 server with one bucket. It stops at the end of its test.
type Server struct {
	Endpoint  string // http://127.0.0.1:port, or https
	Bucket    string
	Region    string
	AccessKey string
	SecretKey string
	Dir       string // directory of the bucket, with objects as files
	CAFile    string // certificate to trust, or ""

	t      testing.TB
	binary string
	root   string
	port   int
	tls    *certificate
	proc   *process
}

// Option configures the server that Start starts.
type Option func(*Server)

// WithTLS selects HTTPS, with a certificate that clients with the environment of Setenv
// or Env trust.
func WithTLS() Option {
	return func(s *Server) { s.tls = newCertificate(s.t) }
}

// Start starts a server with an empty bucket.
func Start(t testing.TB, options ...Option) *Server {
	t.Helper()
	s := &Server{
		Bucket: "bucket", Region: "us-east-1", AccessKey: "test", SecretKey: "testtest1",
		t: t, binary: binary(t, "versitygw"), root: t.TempDir(),
	}
	for _, option := range options {
		option(s)
	}
	// versitygw serves each directory in its root as a bucket.
	s.Dir = filepath.Join(s.root, s.Bucket)
	require.NoError(t, os.Mkdir(s.Dir, 0o700))
	s.port = freePort(t)
	s.Endpoint = "http://127.0.0.1:" + strconv.Itoa(s.port)
	if s.tls != nil {
		s.Endpoint = "https://127.0.0.1:" + strconv.Itoa(s.port)
		s.CAFile = s.tls.certFile
	}
	s.Restart()
	t.Cleanup(s.Stop)
	return s
}

// Restart starts a stopped server again, on the same port and with the same objects.
func (s *Server) Restart() {
	s.t.Helper()
	args := []string{"--port", "127.0.0.1:" + strconv.Itoa(s.port), "--keep-alive", "--quiet"}
	if s.tls != nil {
		args = append(args, "--cert", s.tls.certFile, "--key", s.tls.keyFile)
	}
	s.proc = startProcess(s.t, append(os.Environ(), "ROOT_ACCESS_KEY="+s.AccessKey, "ROOT_SECRET_KEY="+s.SecretKey), s.binary, append(args, "posix", s.root)...)
	s.proc.waitFor(s.t, s.Endpoint)
}

// Stop kills the server. Its objects remain.
func (s *Server) Stop() { s.proc.kill() }

// URL returns the backend URL of a prefix. The client needs the environment of Env or
// Setenv.
func (s *Server) URL(prefix string) string { return backendURL(s, s.Endpoint, prefix) }

func backendURL(s *Server, endpoint, prefix string) string {
	u := url.URL{Scheme: "s3", Host: s.Bucket, Path: prefix}
	u.RawQuery = url.Values{"endpoint": {endpoint}, "region": {s.Region}, "path_style": {"true"}}.Encode()
	return u.String()
}

// Env returns environment variables with the credentials and the certificate, which
// also hide the AWS configuration of this machine.
func (s *Server) Env() []string {
	env := []string{
		"AWS_ACCESS_KEY_ID=" + s.AccessKey,
		"AWS_SECRET_ACCESS_KEY=" + s.SecretKey,
		"AWS_SESSION_TOKEN=",
		"AWS_REGION=" + s.Region,
		"AWS_PROFILE=",
		"AWS_CONFIG_FILE=" + os.DevNull,
		"AWS_SHARED_CREDENTIALS_FILE=" + os.DevNull,
		"AWS_EC2_METADATA_DISABLED=true",
	}
	if s.CAFile != "" {
		env = append(env, "AWS_CA_BUNDLE="+s.CAFile)
	}
	return env
}

// Setenv sets Env in the process of the test.
func (s *Server) Setenv(t testing.TB) {
	t.Helper()
	for _, variable := range s.Env() {
		name, value, _ := strings.Cut(variable, "=")
		t.Setenv(name, value)
	}
}
