package cloudtest

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/backends"
)

// calls are all operations, on the key "k".
var calls = []struct {
	op   string
	call func(context.Context, backends.Backend) error
}{
	{"put", func(ctx context.Context, b backends.Backend) error { return b.Put(ctx, "k", strings.NewReader("x")) }},
	{"put", func(ctx context.Context, b backends.Backend) error {
		return b.Put(ctx, "k", bytes.NewReader(make([]byte, partSize+1)))
	}},
	{"get", func(ctx context.Context, b backends.Backend) error {
		_, err := b.Get(ctx, "k", 0, -1)
		return err
	}},
	{"get", func(ctx context.Context, b backends.Backend) error {
		_, err := b.Get(ctx, "k", 0, 0)
		return err
	}},
	{"list", func(ctx context.Context, b backends.Backend) error {
		_, err := b.List(ctx, "k")
		return err
	}},
	{"delete", func(ctx context.Context, b backends.Backend) error { return b.Delete(ctx, "k") }},
}

// Answer is an answer of a store to every request, and what the error must say.
type Answer struct {
	Name   string
	Handle http.HandlerFunc
	Is     error             // nil if the error wraps none of package backends
	Text   string            // in the error
	Advice map[string]string // in the error of an operation, in addition
}

var kinds = []error{
	backends.ErrNotFound, backends.ErrExists, backends.ErrRange, backends.ErrKey, backends.ErrDamaged, backends.ErrPermission,
}

// Answers tests the errors of a driver. open opens a backend at an endpoint.
func Answers(t *testing.T, open func(t *testing.T, endpoint string) backends.Backend, secret string, rows []Answer) {
	t.Helper()
	for _, row := range rows {
		t.Run(row.Name, func(t *testing.T) {
			srv := httptest.NewServer(row.Handle)
			t.Cleanup(srv.Close)
			b := open(t, srv.URL)
			for _, c := range calls {
				err := c.call(t.Context(), b)
				requirePlaced(t, b, c.op, err, secret)
				require.ErrorContains(t, err, row.Text)
				require.ErrorContains(t, err, row.Advice[c.op])
				for _, kind := range kinds {
					require.Equal(t, kind == row.Is, errors.Is(err, kind), "%v: %v", kind, err) //nolint:errorlint // Identity is meant.
				}
			}
		})
	}
}

func requirePlaced(t *testing.T, b backends.Backend, op string, err error, secret string) {
	t.Helper()
	var placed *backends.Error
	require.ErrorAs(t, err, &placed)
	require.Equal(t, op, placed.Op)
	require.Equal(t, b.String(), placed.Backend)
	require.Equal(t, "k", placed.Key)
	require.NotContains(t, err.Error(), secret)
	require.NotContains(t, err.Error(), "\n")
}

// Network tests the errors of a driver without answers. The backends that open returns
// have an idle timeout of at most a second.
func Network(t *testing.T, open func(t *testing.T, endpoint string) backends.Backend, secret string) {
	t.Helper()
	silent, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // It takes no time.
	require.NoError(t, err)
	defer silent.Close()
	closed := httptest.NewServer(nil)
	closed.Close()
	tls := httptest.NewTLSServer(http.NotFoundHandler())
	defer tls.Close()
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	broken := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	defer broken.Close()
	for _, row := range []struct{ name, endpoint, want string }{
		{"silent", "http://" + silent.Addr().String(), "the store was silent for "},
		{"nobody listens", closed.URL, "connection refused; start the store or correct the endpoint"},
		{"unknown authority", tls.URL, "; set SSL_CERT_FILE to a file with the certificate of the store's authority"},
		{"not TLS", strings.Replace(plain.URL, "http:", "https:", 1), "; the store does not speak TLS: write http:// in the endpoint"},
		{"broken", broken.URL, "; the connection broke before the answer: check the store and the network"},
	} {
		t.Run(row.name, func(t *testing.T) {
			b := open(t, row.endpoint)
			for _, c := range calls {
				err := c.call(t.Context(), b)
				requirePlaced(t, b, c.op, err, secret)
				require.ErrorContains(t, err, row.want)
				for _, kind := range kinds {
					require.NotErrorIs(t, err, kind)
				}
			}
		})
	}
}
