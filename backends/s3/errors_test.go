package s3_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/backends/s3"
	"github.com/xdswal/xdswal/internal/s3test"
)

// calls are all operations, on the key "k".
var calls = []struct {
	op, permission string
	call           func(context.Context, *s3.Backend) error
}{
	{"put", "s3:PutObject", func(ctx context.Context, b *s3.Backend) error { return b.Put(ctx, "k", body("x")) }},
	{"put", "s3:PutObject", func(ctx context.Context, b *s3.Backend) error {
		return b.Put(ctx, "k", bytes.NewReader(make([]byte, partSize+1)))
	}},
	{"get", "s3:GetObject", func(ctx context.Context, b *s3.Backend) error {
		_, err := b.Get(ctx, "k", 0, -1)
		return err
	}},
	{"list", "s3:ListBucket", func(ctx context.Context, b *s3.Backend) error {
		_, err := b.List(ctx, "k")
		return err
	}},
	{"delete", "s3:DeleteObject", func(ctx context.Context, b *s3.Backend) error { return b.Delete(ctx, "k") }},
	{"sweep", "s3:PutObject", func(ctx context.Context, b *s3.Backend) error {
		_, err := b.Sweep(ctx, 0, "")
		return err
	}},
}

func requirePlaced(t *testing.T, b *s3.Backend, op string, err error) {
	t.Helper()
	var placed *backends.Error
	require.ErrorAs(t, err, &placed)
	require.Equal(t, op, placed.Op)
	require.Equal(t, b.String(), placed.Backend)
	if op != "sweep" {
		require.Equal(t, "k", placed.Key)
	}
	require.NotContains(t, err.Error(), secretKey)
	require.NotContains(t, err.Error(), accessKey)
	require.NotContains(t, err.Error(), "\n")
}

func TestPermissionDenied(t *testing.T) {
	store := &fakeStore{answer: func(w http.ResponseWriter, _ *http.Request) bool {
		refuse(w, http.StatusForbidden, "AccessDenied", "Access Denied")
		return true
	}}
	b := open(t, store.start(t))
	for _, c := range calls {
		err := c.call(t.Context(), b)
		require.ErrorIs(t, err, backends.ErrPermission)
		require.NotErrorIs(t, err, backends.ErrNotFound)
		require.ErrorContains(t, err, "permission denied: AccessDenied: Access Denied (")
		require.ErrorContains(t, err, "HTTP 403, request REQUEST1, host HOST1")
		require.ErrorContains(t, err, "; grant "+c.permission)
		requirePlaced(t, b, c.op, err)
		require.Equal(t, c.op == "get", strings.Contains(err.Error(), "without which a missing key looks like this too"))
	}
}

func TestBucketMissing(t *testing.T) {
	srv := start(t)
	cfg := config(srv)
	cfg.Bucket = "nobucket"
	b := open(t, cfg)
	for _, c := range calls {
		err := c.call(t.Context(), b)
		require.Error(t, err, c.op)
		require.NotErrorIs(t, err, backends.ErrNotFound)
		require.ErrorContains(t, err, "NoSuchBucket")
		require.ErrorContains(t, err, "; create the bucket or correct the URL")
		requirePlaced(t, b, c.op, err)
	}
}

func TestWrongCredentials(t *testing.T) {
	srv := start(t)
	for want, creds := range map[string]aws.CredentialsProvider{
		"check the secret access key, and the clock":                                      credentials(srv.AccessKey, secretKey),
		"the access key is unknown to this store: check the credentials and the endpoint": credentials(accessKey, secretKey),
	} {
		cfg := config(srv)
		cfg.Credentials = creds
		b := open(t, cfg)
		for _, c := range calls {
			err := c.call(t.Context(), b)
			require.ErrorIs(t, err, backends.ErrPermission)
			require.ErrorContains(t, err, want)
			requirePlaced(t, b, c.op, err)
		}
	}
}

func TestNoCredentials(t *testing.T) {
	cfg := (&fakeStore{}).start(t)
	cfg.Credentials = nil
	b := open(t, cfg)
	for _, c := range calls {
		err := c.call(t.Context(), b)
		require.ErrorContains(t, err, "find credentials: ")
		require.ErrorContains(t, err, "; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or give this machine a role")
		requirePlaced(t, b, c.op, err)
	}
}

// Errors of stores and proxies, and the errors that the driver returns for them.
func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		name          string
		status        int
		code, message string
		want          string
		is            error
	}{
		{"other region", 301, "PermanentRedirect", "Use another endpoint", "set region= in the URL", nil},
		{"wrong region", 400, "AuthorizationHeaderMalformed", "the region is wrong; expecting eu-west-1", "expecting eu-west-1 (", nil},
		{"clock", 403, "RequestTimeTooSkewed", "Too skewed", "the clocks of this machine and of the store differ: set the clock of this machine, which is ", nil},
		{"expired", 400, "ExpiredToken", "Expired", "renew the credentials", backends.ErrPermission},
		{"quota", 507, "QuotaExceeded", "Full", "free space in the store", nil},
		{"key", 403, "AccessDenied", "User: arn:x is not authorized to perform: kms:GenerateDataKey on resource: y", "; grant kms:GenerateDataKey on the key", backends.ErrPermission},
		{"archived", 403, "InvalidObjectState", "Not valid for the storage class", "; the object was moved to an archive", nil},
		{"overload", 503, "SlowDown", "Slow down", "2 attempts); the store is overloaded or down: try later", nil},
		{"unknown", 418, "Teapot", "Short\nand stout", "Teapot: Short and stout (GetObject, HTTP 418, request REQUEST1, host HOST1)", nil},
		{"long", 418, "Teapot", strings.Repeat("x", 1000), strings.Repeat("x", 300) + "... (", nil},
		{"echo", 400, "Bad", "you sent Authorization: AWS4-HMAC-SHA256 Credential=" + accessKey, "Bad: (message not shown, it may contain credentials) (", nil},
		{"missing", 404, "NoSuchKey", "No such key", "object not found: NoSuchKey", backends.ErrNotFound},
		{"no S3", 404, "", "", "check that the endpoint is that of an S3 store", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			store := &fakeStore{answer: func(w http.ResponseWriter, _ *http.Request) bool {
				if c.code == "" {
					http.Error(w, "<html>no such page for "+secretKey, c.status)
				} else {
					refuse(w, c.status, c.code, c.message)
				}
				return true
			}}
			b := open(t, store.start(t))
			_, err := b.Get(t.Context(), "k", 0, -1)
			require.ErrorContains(t, err, c.want)
			requirePlaced(t, b, "get", err)
			for _, sentinel := range []error{backends.ErrNotFound, backends.ErrPermission, backends.ErrExists, backends.ErrRange, backends.ErrKey} {
				require.Equal(t, errors.Is(c.is, sentinel), errors.Is(err, sentinel), sentinel)
			}
		})
	}
}

// The error of a clock that differs too much contains by how much.
func TestClockSkew(t *testing.T) {
	b := open(t, answers(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Date", time.Now().Add(20*time.Minute).UTC().Format(http.TimeFormat))
		refuse(w, http.StatusForbidden, "RequestTimeTooSkewed", "Too skewed")
	}))
	_, err := b.Get(t.Context(), "k", 0, -1)
	require.ErrorContains(t, err, "set the clock of this machine, which is ")
	require.ErrorContains(t, err, " behind that of the store")
	require.Regexp(t, `which is (20m0s|19m5\ds) behind`, err.Error())
}

// A key that may only read, and a store without a feature, each say so.
func TestRefusedOperation(t *testing.T) {
	for _, c := range []struct {
		status     int
		code, want string
		refused    func(*http.Request) bool
	}{
		{http.StatusForbidden, "AccessDenied", "grant s3:PutObject; with a key that may only read, only a follower", isMethod(http.MethodPut)},
		{http.StatusNotImplemented, "NotImplemented", "possibly conditional creation", isMethod(http.MethodPut)},
		{http.StatusForbidden, "AccessDenied", "grant s3:ListBucketMultipartUploads", isUploads(http.MethodGet)},
		{http.StatusNotImplemented, "NotImplemented", "this store cannot list or abort multipart uploads: let it expire incomplete ones itself", isUploads(http.MethodGet)},
		{http.StatusNotImplemented, "NotImplemented", "this store does not support multipart uploads", isUploads(http.MethodPost)},
	} {
		store := &fakeStore{answer: func(w http.ResponseWriter, req *http.Request) bool {
			if c.refused(req) {
				refuse(w, c.status, c.code, "no")
			}
			return c.refused(req)
		}}
		b := open(t, store.start(t))
		err := b.Put(t.Context(), "k", body("x"))
		_, sweepErr := b.Sweep(t.Context(), 0, "")
		require.ErrorContains(t, errors.Join(err, sweepErr), c.want)
		if sweepErr != nil {
			require.NotContains(t, sweepErr.Error(), "conditional creation")
		}
	}
}

func isUploads(method string) func(*http.Request) bool {
	return func(req *http.Request) bool { return req.Method == method && req.URL.Query().Has("uploads") }
}

// While the store is down every method fails; afterwards they succeed.
func TestOutage(t *testing.T) {
	srv := start(t)
	cfg := config(srv)
	cfg.MaxAttempts = 2
	b := open(t, cfg)
	put(t, b, "there", []byte("x"))
	srv.Stop()
	for _, c := range calls {
		err := c.call(t.Context(), b)
		require.ErrorIs(t, err, syscall.ECONNREFUSED)
		require.ErrorContains(t, err, "; start the store or correct the endpoint")
		requirePlaced(t, b, c.op, err)
	}
	srv.Restart()
	requireContent(t, b, "there", []byte("x"))
	put(t, b, "k", []byte("y"))
}

func TestUnknownAuthority(t *testing.T) {
	srv := s3test.Start(t, s3test.WithTLS())
	noAWS(t)
	b := open(t, config(srv))
	began := time.Now()
	for _, c := range calls {
		err := c.call(t.Context(), b)
		require.ErrorContains(t, err, "; set AWS_CA_BUNDLE to a file with the certificate of the store's authority")
		requirePlaced(t, b, c.op, err)
	}
	require.Less(t, time.Since(began), 5*time.Second, "there is nothing to retry")
}

func TestNoTLS(t *testing.T) {
	cfg := config(start(t))
	cfg.Endpoint = strings.Replace(cfg.Endpoint, "http:", "https:", 1)
	b := open(t, cfg)
	_, err := b.Get(t.Context(), "k", 0, -1)
	require.ErrorContains(t, err, "; the store does not speak TLS: write http:// in the endpoint")
	require.NotContains(t, err.Error(), "attempts")
}

// A certificate that is not valid is reported at once: retries cannot succeed.
func TestInvalidCertificate(t *testing.T) {
	noAWS(t)
	var requests int
	b := open(t, s3.Config{
		Bucket: "bucket", Endpoint: "https://store.invalid", Credentials: credentials(accessKey, secretKey),
		WrapTransport: transport(func(http.RoundTripper, *http.Request) (*http.Response, error) {
			requests++
			return nil, &tls.CertificateVerificationError{Err: x509.CertificateInvalidError{Cert: &x509.Certificate{}, Reason: x509.Expired}}
		}).wrap,
	})
	_, err := b.Get(t.Context(), "k", 0, -1)
	require.ErrorContains(t, err, "certificate has expired or is not yet valid")
	require.ErrorContains(t, err, "; correct the certificate of the store, or the clock of this machine")
	require.Equal(t, 1, requests)
}

func TestUnknownHost(t *testing.T) {
	noAWS(t)
	b := open(t, s3.Config{
		Bucket: "bucket", Endpoint: "http://store.invalid", MaxAttempts: 1, Credentials: credentials(accessKey, secretKey),
		WrapTransport: transport(func(http.RoundTripper, *http.Request) (*http.Response, error) {
			return nil, &net.DNSError{Err: "no such host", Name: "bucket.store.invalid", IsNotFound: true}
		}).wrap,
	})
	_, err := b.Get(t.Context(), "k", 0, -1)
	require.ErrorContains(t, err, "no such host (GetObject); check the endpoint and the region")
	require.ErrorContains(t, err, "path_style=true")
}

// An incomplete list, or an answer that is not a list, is an error.
func TestBadLists(t *testing.T) {
	for want, content := range map[string]string{
		"without a marker of the next page": `<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>`,
		"(ListObjectsV2":                    `<ListBucketResult><Contents><Key>k</Key>`,
	} {
		store := &fakeStore{answer: func(w http.ResponseWriter, _ *http.Request) bool {
			_, _ = io.WriteString(w, content)
			return true
		}}
		b := open(t, store.start(t))
		_, err := b.List(t.Context(), "k")
		require.ErrorContains(t, err, want)
		requirePlaced(t, b, "list", err)
	}
}
