package s3test_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/internal/s3test"
)

// get returns the status of an unsigned request, or 0 without an answer.
func get(t *testing.T, endpoint string) int {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Get(endpoint)
	if err != nil {
		return 0
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	require.NoError(t, err)
	return res.StatusCode
}

// A stopped server does not answer; after a restart it has the same objects.
func TestRestart(t *testing.T) {
	srv := s3test.Start(t)
	proxy := srv.Proxy(t)
	require.NoError(t, os.WriteFile(filepath.Join(srv.Dir, "k"), []byte("x"), 0o600))
	require.Equal(t, http.StatusForbidden, get(t, srv.Endpoint))
	require.Equal(t, http.StatusForbidden, get(t, proxy.Endpoint))
	srv.Stop()
	require.Zero(t, get(t, srv.Endpoint))
	require.Zero(t, get(t, proxy.Endpoint))
	srv.Restart()
	require.Equal(t, http.StatusForbidden, get(t, srv.Endpoint))
	require.FileExists(t, filepath.Join(srv.Dir, "k"))

	remove := proxy.Add(s3test.LoseAnswers())
	require.Zero(t, get(t, proxy.Endpoint))
	remove()
	require.Equal(t, http.StatusForbidden, get(t, proxy.Endpoint))
}

func TestEnv(t *testing.T) {
	srv := s3test.Start(t, s3test.WithTLS())
	srv.Setenv(t)
	require.True(t, strings.HasPrefix(srv.Endpoint, "https://127.0.0.1:"))
	require.Equal(t, srv.CAFile, os.Getenv("AWS_CA_BUNDLE"))
	require.FileExists(t, srv.CAFile)
	require.Contains(t, srv.Env(), "AWS_SECRET_ACCESS_KEY="+srv.SecretKey)
	require.NotContains(t, srv.URL("a/b"), srv.SecretKey)
	require.True(t, strings.HasPrefix(srv.URL("a/b"), "s3://bucket/a/b?"), srv.URL("a/b"))
}

func TestCounter(t *testing.T) {
	srv := httptest.NewServer(http.NotFoundHandler())
	defer srv.Close()
	var counter s3test.Counter
	client := &http.Client{Transport: counter.Wrap(http.DefaultTransport)}
	for _, c := range []struct{ method, path string }{
		{http.MethodGet, "/b/k"},
		{http.MethodGet, "/b?list-type=2"},
		{http.MethodGet, "/b?uploads="},
		{http.MethodHead, "/b/k"},
	} {
		req, err := http.NewRequest(c.method, srv.URL+c.path, nil)
		require.NoError(t, err)
		res, err := client.Do(req)
		require.NoError(t, err)
		res.Body.Close()
	}
	require.Equal(t, map[string]int{"GET": 1, "LIST": 2, "HEAD": 1}, counter.Requests())
	counter.Reset()
	require.Empty(t, counter.Requests())
}
