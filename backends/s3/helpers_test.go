package s3_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/backends/s3"
	"github.com/xdswal/xdswal/internal/s3test"
)

const (
	accessKey = "AKIAACCESSKEY"
	secretKey = "verysecretkey"
	partSize  = 5 << 20
)

// credentials returns fixed credentials.
func credentials(access, secret string) aws.CredentialsProvider {
	return aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{AccessKeyID: access, SecretAccessKey: secret}, nil
	})
}

// config returns the configuration for a server, with the smallest parts.
func config(srv *s3test.Server) s3.Config {
	return s3.Config{
		Bucket: srv.Bucket, Prefix: "test", Endpoint: srv.Endpoint, Region: srv.Region, PathStyle: true,
		Credentials: credentials(srv.AccessKey, srv.SecretKey), PartSize: partSize,
	}
}

func open(t *testing.T, cfg s3.Config) *s3.Backend {
	t.Helper()
	b, err := s3.New(t.Context(), cfg)
	require.NoError(t, err)
	return b
}

// start returns a server, and checks at the end of the test that it has no multipart
// upload.
func start(t *testing.T, options ...s3test.Option) *s3test.Server {
	t.Helper()
	srv := s3test.Start(t, options...)
	srv.Setenv(t)
	t.Cleanup(func() {
		if !t.Failed() {
			require.Empty(t, uploads(t, srv))
		}
	})
	return srv
}

// client returns a client independent of the driver.
func client(t *testing.T, srv *s3test.Server) *awss3.Client {
	t.Helper()
	options := awss3.Options{
		BaseEndpoint: &srv.Endpoint, Region: srv.Region, UsePathStyle: true,
		Credentials: credentials(srv.AccessKey, srv.SecretKey),
	}
	if srv.CAFile != "" {
		pem, err := os.ReadFile(srv.CAFile)
		require.NoError(t, err)
		pool := x509.NewCertPool()
		require.True(t, pool.AppendCertsFromPEM(pem))
		options.HTTPClient = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	}
	return awss3.New(options)
}

// uploads returns the keys of the multipart uploads in progress.
func uploads(t *testing.T, srv *s3test.Server) []string {
	t.Helper()
	out, err := client(t, srv).ListMultipartUploads(context.WithoutCancel(t.Context()), &awss3.ListMultipartUploadsInput{Bucket: &srv.Bucket})
	require.NoError(t, err)
	var keys []string
	for _, u := range out.Uploads {
		keys = append(keys, *u.Key)
	}
	return keys
}

func body(s string) io.ReadSeeker { return bytes.NewReader([]byte(s)) }

// noise returns size bytes without a pattern.
func noise(size int) []byte {
	content := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{byte(size)}).Read(content)
	return content
}

func put(t *testing.T, b backends.Backend, key string, content []byte) {
	t.Helper()
	require.NoError(t, b.Put(t.Context(), key, bytes.NewReader(content)))
}

func get(ctx context.Context, b backends.Backend, key string) ([]byte, error) {
	r, err := b.Get(ctx, key, 0, -1)
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(r)
	return content, errors.Join(err, r.Close())
}

func requireContent(t *testing.T, b backends.Backend, key string, want []byte) {
	t.Helper()
	got, err := get(t.Context(), b, key)
	require.NoError(t, err)
	require.True(t, bytes.Equal(want, got), "got %d bytes, want %d", len(got), len(want))
}

func keys(t *testing.T, b backends.Backend) []string {
	t.Helper()
	objects, err := b.List(t.Context(), "")
	require.NoError(t, err)
	var keys []string
	for _, o := range objects {
		keys = append(keys, o.Key)
	}
	return keys
}

// transport is a transport whose requests a test can change.
type transport func(next http.RoundTripper, req *http.Request) (*http.Response, error)

func (f transport) wrap(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(req *http.Request) (*http.Response, error) { return f(next, req) })
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// onSecond returns a transport that calls f before the second request for which
// match is true.
func onSecond(match func(*http.Request) bool, f func()) transport {
	var mu sync.Mutex
	var seen int
	return func(next http.RoundTripper, req *http.Request) (*http.Response, error) {
		if match(req) {
			mu.Lock()
			if seen++; seen == 2 {
				f()
			}
			mu.Unlock()
		}
		return next.RoundTrip(req)
	}
}

func isMethod(method string) func(*http.Request) bool {
	return func(req *http.Request) bool { return req.Method == method }
}

// flip changes the byte at offset of the bytes that are read.
type flip struct {
	io.ReadCloser
	offset int
}

func (f *flip) Read(p []byte) (int, error) {
	n, err := f.ReadCloser.Read(p)
	if f.offset >= 0 && f.offset < n {
		p[f.offset] ^= 1
	}
	f.offset -= n
	return n, err
}
