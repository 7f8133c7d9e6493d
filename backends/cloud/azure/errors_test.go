package azure_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/backends/cloud/azure"
	"github.com/xdswal/xdswal/backends/cloud/internal/cloudtest"
)

const secret = "dmVyeXNlY3JldA==" // an account key

// refuse answers as the blob service does. The message quotes what the request signed.
func refuse(status int, code string) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Type", "application/xml")
		w.Header().Set("X-Ms-Error-Code", code)
		w.Header().Set("X-Ms-Request-Id", "REQUEST1")
		w.WriteHeader(status)
		fmt.Fprintf(w, `<?xml version="1.0"?><Error><Code>%s</Code><Message>%s %s</Message></Error>`, code, secret, req.Header.Get("Authorization"))
	}
}

func openAt(t *testing.T, endpoint string) backends.Backend {
	t.Helper()
	return open(t, azure.Config{
		Container: "container", Prefix: "p", Account: "account", AccountKey: secret, Endpoint: endpoint + "/account",
		MaxAttempts: 2, IdleTimeout: 500 * time.Millisecond,
	})
}

func TestAnswers(t *testing.T) {
	writer, reader := "; grant the role Storage Blob Data Contributor", "; grant the role Storage Blob Data Reader"
	cloudtest.Answers(t, openAt, secret, []cloudtest.Answer{
		{
			Name: "permission", Handle: refuse(http.StatusForbidden, "AuthorizationPermissionMismatch"), Is: backends.ErrPermission,
			Text:   "permission denied: AuthorizationPermissionMismatch (HTTP 403, request REQUEST1)",
			Advice: map[string]string{"put": writer, "delete": writer, "get": reader, "list": reader},
		},
		{
			Name: "key or clock", Handle: refuse(http.StatusForbidden, "AuthenticationFailed"), Is: backends.ErrPermission,
			Text: "AuthenticationFailed (HTTP 403, request REQUEST1); check the account key, the account, and the clock of this machine",
		},
		{
			Name: "firewall", Handle: refuse(http.StatusForbidden, "AuthorizationFailure"), Is: backends.ErrPermission,
			Text: "; check the credentials, the role, and the firewall of the account, which must admit this machine",
		},
		{
			// A missing container is not a missing object.
			Name: "container", Handle: refuse(http.StatusNotFound, "ContainerNotFound"),
			Text: "ContainerNotFound (HTTP 404, request REQUEST1); create the container, or correct the URL",
		},
		{
			Name: "not a blob service", Handle: http.NotFound,
			Text: "Not Found (HTTP 404); check that the endpoint is that of the account's blob service",
		},
		{
			Name: "overload", Handle: refuse(http.StatusServiceUnavailable, "ServerBusy"),
			Text: "ServerBusy (HTTP 503, request REQUEST1); the store is overloaded or down: try later",
		},
		{
			Name: "archive", Handle: refuse(http.StatusConflict, "BlobArchived"),
			Text: "; the blob was moved to the archive: rehydrate it, and let no lifecycle rule archive this prefix",
		},
	})
}

func TestNetwork(t *testing.T) { cloudtest.Network(t, openAt, secret) }

// A missing container of the emulator is told from a missing blob, and a wrong key from
// both.
func TestWrongStore(t *testing.T) {
	cfg := start(t)
	for _, row := range []struct {
		change func(*azure.Config)
		want   string
	}{
		{func(c *azure.Config) { c.Container = "not-there" }, "ContainerNotFound"},
		{func(c *azure.Config) { c.AccountKey = secret }, "permission denied: Auth"}, // The code differs from Azure's.
	} {
		wrong := cfg
		row.change(&wrong)
		b := open(t, wrong)
		for _, err := range []error{
			b.Put(t.Context(), "k", strings.NewReader("x")), errOf(b.Get(t.Context(), "k", 0, -1)), errOf(b.Get(t.Context(), "k", 0, 0)),
			errOf(b.List(t.Context(), "")), b.Delete(t.Context(), "k"),
		} {
			require.ErrorContains(t, err, row.want)
			require.NotErrorIs(t, err, backends.ErrNotFound)
			require.NotContains(t, err.Error(), secret)
		}
	}
}

func errOf[T any](_ T, err error) error { return err }

// A list has as many pages as the store makes of it, and ends if the store repeats one.
func TestPages(t *testing.T) {
	const page = `<?xml version="1.0" encoding="utf-8"?><EnumerationResults><Blobs><Blob><Name>p/%s</Name><Properties>` +
		`<Last-Modified>Tue, 01 Dec 2026 03:00:00 GMT</Last-Modified><Content-Length>1</Content-Length></Properties></Blob></Blobs>` +
		`<NextMarker>%s</NextMarker></EnumerationResults>`
	directory := strings.NewReplacer("<Last-Modified>", "<ResourceType>directory</ResourceType><Last-Modified>").Replace(page)
	last := ""
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Type", "application/xml")
		switch marker := req.URL.Query().Get("marker"); marker {
		case "":
			fmt.Fprintf(w, page, "a", "second")
		case "second":
			fmt.Fprintf(w, directory, "dir", "third")
		case "third":
			fmt.Fprintf(w, page, "c", last)
		default:
			fmt.Fprintf(w, page, "d", marker)
		}
	}))
	defer srv.Close()
	objects, err := openAt(t, srv.URL).List(t.Context(), "")
	require.NoError(t, err)
	require.Len(t, objects, 2)
	require.Equal(t, "c", objects[1].Key)
	require.True(t, objects[1].ModTime.Equal(time.Date(2026, 12, 1, 3, 0, 0, 0, time.UTC)))

	last = "again"
	_, err = openAt(t, srv.URL).List(t.Context(), "")
	require.ErrorContains(t, err, "the store sent the same page of the list twice")
}

// An answer that is no list must not look like an empty store.
func TestNotAStore(t *testing.T) {
	for _, body := range []string{"", "<html/>", "<EnumerationResults/>", `{}`} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) }))
		objects, err := openAt(t, srv.URL).List(t.Context(), "")
		srv.Close()
		require.Error(t, err, "%q: %v", body, objects)
		var placed *backends.Error
		require.True(t, errors.As(err, &placed))
	}
}

// Without a key the credentials of the SDK's chain are needed, and TLS for them.
func TestNoCredentials(t *testing.T) {
	t.Setenv("AZURE_STORAGE_KEY", "")
	_, err := azure.New(t.Context(), azure.Config{Container: "container", Account: "account", Endpoint: "http://127.0.0.1:1"})
	require.ErrorContains(t, err, "endpoint is plain http, over which no token is sent; write https://, or set AZURE_STORAGE_KEY")

	t.Setenv("AZURE_TOKEN_CREDENTIALS", "EnvironmentCredential")
	b := open(t, azure.Config{Container: "container", Account: "account", Endpoint: "https://127.0.0.1:1", MaxAttempts: 1})
	err = errOf(b.List(t.Context(), ""))
	require.ErrorContains(t, err, "find credentials: DefaultAzureCredential: failed to acquire a token. Attempted credentials: EnvironmentCredential: missing environment variable AZURE_TENANT_ID; set AZURE_STORAGE_KEY, run az login, or give this machine an identity")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = b.Get(ctx, "k", 0, -1)
	require.ErrorIs(t, err, context.Canceled)

	t.Setenv("AZURE_STORAGE_KEY", "not base64!")
	_, err = azure.New(t.Context(), azure.Config{Container: "container", Account: "account"})
	require.ErrorContains(t, err, "open azblob://container?account=account: account key is not base64; correct AZURE_STORAGE_KEY")
	t.Setenv("AZURE_STORAGE_ACCOUNT", "")
	u, err := url.Parse("azblob://container")
	require.NoError(t, err)
	cfg, err := azure.ParseURL(u)
	require.NoError(t, err)
	_, err = azure.New(t.Context(), cfg)
	require.ErrorContains(t, err, "account is not known; set account= in the URL, or AZURE_STORAGE_ACCOUNT")
}
