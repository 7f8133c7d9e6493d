package azure_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/backends/cloud/azure"
	"github.com/xdswal/xdswal/backends/cloud/internal/cloudtest"
)

func TestParseURL(t *testing.T) {
	t.Setenv("AZURE_STORAGE_KEY", "")
	for raw, want := range map[string]azure.Config{
		"azblob://container":                     {Container: "container"},
		"azblob://my-container/a/b/?account=x1y": {Container: "my-container", Prefix: "a/b", Account: "x1y"},
		"azblob://container/a?account=acc&endpoint=http://host:10000/acc/": {
			Container: "container", Prefix: "a", Account: "acc", Endpoint: "http://host:10000/acc/",
		},
	} {
		u, err := url.Parse(raw)
		require.NoError(t, err)
		got, err := azure.ParseURL(u)
		require.NoError(t, err, raw)
		require.Equal(t, want, got)
	}
	for raw, want := range map[string]string{
		"gs://container":                                     `scheme is "gs"`,
		"azblob://acc:hidden@container":                      "URL has a user or a password",
		"azblob://a_b":                                       "container is not 3 to 63 bytes",
		"azblob://container?account=A":                       "account is not 3 to 24 bytes",
		"azblob://container?sig=hidden":                      `unknown parameters ["sig"]`,
		"azblob://container?endpoint=https://h?sig%3Dhidden": "endpoint has a query, possibly a signature",
	} {
		u, err := url.Parse(raw)
		require.NoError(t, err)
		_, err = azure.ParseURL(u)
		require.ErrorContains(t, err, want, raw)
		require.ErrorContains(t, err, "; write azblob://container/prefix?account=...&endpoint=https://host:port")
		require.NotContains(t, err.Error(), "hidden")
	}
}

// Nothing changes the store through a read-only backend.
func TestReadOnly(t *testing.T) {
	cfg := start(t)
	require.NoError(t, open(t, cfg).Put(t.Context(), "k", strings.NewReader("x")))
	cfg.ReadOnly = true
	b := open(t, cfg)
	require.ErrorIs(t, b.Put(t.Context(), "new", strings.NewReader("x")), backends.ErrPermission)
	require.ErrorIs(t, b.Delete(t.Context(), "k"), backends.ErrPermission)
	objects, err := b.List(t.Context(), "")
	require.NoError(t, err)
	require.Len(t, objects, 1)
	require.Equal(t, "azblob://"+cloudtest.Bucket+"/"+cfg.Prefix+"?account=devstoreaccount1&endpoint="+cfg.Endpoint, b.String())
}
