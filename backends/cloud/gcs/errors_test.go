package gcs_test

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/oauth2"
	"google.golang.org/api/option"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/backends/cloud/gcs"
	"github.com/xdswal/xdswal/backends/cloud/internal/cloudtest"
)

const secret = "ya29.verysecret"

// refuse answers as the JSON API does.
func refuse(status int, reason, message string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Guploader-Uploadid", "REQUEST1")
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"error": {"code": %d, "message": %q, "errors": [{"message": %q, "reason": %q}]}}`, status, message, message, reason)
	}
}

// openAt opens a backend with a token.
func openAt(t *testing.T, endpoint string) backends.Backend {
	t.Helper()
	token := oauth2.StaticTokenSource(&oauth2.Token{AccessToken: secret})
	return open(t, gcs.Config{
		Bucket: "bucket", Prefix: "p", Endpoint: endpoint, MaxAttempts: 2, IdleTimeout: 500 * time.Millisecond,
		ClientOptions: []option.ClientOption{option.WithTokenSource(token)},
	})
}

func TestAnswers(t *testing.T) {
	cloudtest.Answers(t, openAt, secret, []cloudtest.Answer{
		{
			Name:   "permission",
			Handle: refuse(http.StatusForbidden, "forbidden", "me@project does not have access"), Is: backends.ErrPermission,
			Text: "permission denied: me@project does not have access (HTTP 403",
			Advice: map[string]string{
				"put": "(HTTP 403); grant storage.objects.create", "list": "grant storage.objects.list", "delete": "grant storage.objects.delete",
				"get": "(HTTP 403, request REQUEST1); grant storage.objects.get, and storage.objects.list, without which a missing key looks like this too",
			},
		},
		{
			Name:   "credentials",
			Handle: refuse(http.StatusUnauthorized, "authError", "Invalid Credentials"), Is: backends.ErrPermission,
			Text: "; renew the credentials, and check the clock of this machine",
		},
		{
			// A missing bucket is not a missing object.
			Name:   "bucket",
			Handle: refuse(http.StatusNotFound, "notFound", "The specified bucket does not exist."),
			Text:   "; create the bucket, or correct the URL",
		},
		{
			Name:   "overload",
			Handle: refuse(http.StatusTooManyRequests, "rateLimitExceeded", "slow down"),
			Text:   "; the store is overloaded or down: try later",
		},
		{
			Name:   "rate",
			Handle: refuse(http.StatusForbidden, "userRateLimitExceeded", "slow down"),
			Text:   "; the store is overloaded or down: try later",
		},
		{
			Name:   "proxy",
			Handle: func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "<html>token=x", http.StatusBadGateway) },
			Text:   "Bad Gateway (HTTP 502); the store is overloaded or down: try later",
		},
	})
}

func TestNetwork(t *testing.T) { cloudtest.Network(t, openAt, secret) }

// A missing bucket of the emulator is told from a missing object, whatever its text.
func TestMissingBucket(t *testing.T) {
	cfg := start(t)
	b := open(t, cfg)
	_, err := b.Get(t.Context(), "k", 0, -1)
	require.ErrorIs(t, err, backends.ErrNotFound)
	cfg.Bucket = "not-there"
	b = open(t, cfg)
	for _, err := range []error{b.Put(t.Context(), "k", strings.NewReader("x")), errOf(b.Get(t.Context(), "k", 0, -1)), errOf(b.List(t.Context(), "")), b.Delete(t.Context(), "k")} {
		require.ErrorContains(t, err, "create the bucket, or correct the URL")
		require.NotErrorIs(t, err, backends.ErrNotFound)
	}
}

func errOf[T any](_ T, err error) error { return err }

// A token that is refused is an error of the credentials, with advice.
func TestNoToken(t *testing.T) {
	tokens := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, `{"error": "invalid_grant", "error_description": "Invalid JWT: Check your iat and exp values"}`)
	}))
	defer tokens.Close()
	source := (&oauth2.Config{Endpoint: oauth2.Endpoint{TokenURL: tokens.URL}}).TokenSource(t.Context(), &oauth2.Token{RefreshToken: secret})
	b := open(t, gcs.Config{Bucket: "bucket", ClientOptions: []option.ClientOption{option.WithTokenSource(source)}})
	_, err := b.List(t.Context(), "")
	require.ErrorContains(t, err, "the credentials were refused: invalid_grant Invalid JWT: Check your iat and exp values (HTTP 400); renew them, and check the clock of this machine")
	require.NotContains(t, err.Error(), secret)
}

// Without credentials New fails, unless the endpoint is plain HTTP, which gets none.
func TestNoCredentials(t *testing.T) {
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", "/does/not/exist")
	_, err := gcs.New(t.Context(), gcs.Config{Bucket: "bucket"})
	require.ErrorContains(t, err, "open gs://bucket: find credentials: ")
	require.ErrorContains(t, err, "; set GOOGLE_APPLICATION_CREDENTIALS, run gcloud auth application-default login, or give this machine a service account")

	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Header.Get("Authorization") != "" {
			w.WriteHeader(http.StatusForbidden)
		}
		_, _ = io.WriteString(w, `{"kind": "storage#objects"}`)
	}))
	defer srv.Close()
	_, err = openAt(t, srv.URL).List(t.Context(), "")
	require.NoError(t, err)
}

// Both kinds of upload have the condition and the checksum.
func TestConditionAndChecksum(t *testing.T) {
	for _, size := range []int{1000, 9 << 20} {
		content := strings.Repeat("x", size)
		sum := binary.BigEndian.AppendUint32(nil, crc32.Checksum([]byte(content), crc32.MakeTable(crc32.Castagnoli)))
		var query, head string
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if query == "" {
				body, _ := io.ReadAll(io.LimitReader(req.Body, 2000))
				query, head = req.URL.RawQuery, string(body)
			}
			w.WriteHeader(http.StatusPreconditionFailed)
		}))
		require.Error(t, openAt(t, srv.URL).Put(t.Context(), "k", strings.NewReader(content)))
		srv.Close()
		require.Contains(t, query, "ifGenerationMatch=0")
		require.Contains(t, head, `"crc32c":"`+base64.StdEncoding.EncodeToString(sum)+`"`)
	}
}

// A list has as many pages as the store makes of it, and ends if the store repeats one.
func TestPages(t *testing.T) {
	cfg := start(t)
	cfg.WrapTransport = func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(req *http.Request) (*http.Response, error) {
			if query := req.URL.Query(); query.Has("prefix") {
				query.Set("maxResults", "2")
				req.URL.RawQuery = query.Encode()
			}
			return next.RoundTrip(req)
		})
	}
	b := open(t, cfg)
	var want []string
	for i := range 7 {
		want = append(want, fmt.Sprintf("k%d", i))
		require.NoError(t, b.Put(t.Context(), want[i], strings.NewReader("x")))
	}
	objects, err := b.List(t.Context(), "")
	require.NoError(t, err)
	var got []string
	for _, o := range objects {
		got = append(got, o.Key)
	}
	require.Equal(t, want, got)

	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"kind": "storage#objects", "nextPageToken": "again"}`)
	}))
	defer srv.Close()
	_, err = openAt(t, srv.URL).List(t.Context(), "")
	require.ErrorContains(t, err, "the store sent the same page of the list twice")
}

type roundTripper func(*http.Request) (*http.Response, error)

func (fn roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return fn(req) }

// An answer that is no list must not look like an empty store.
func TestNotAStore(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{}`) }))
	defer srv.Close()
	_, err := openAt(t, srv.URL).List(t.Context(), "")
	require.ErrorContains(t, err, "answer is not from Cloud Storage; check the endpoint and proxies")
	var placed *backends.Error
	require.True(t, errors.As(err, &placed))
}

// A missing object whose answer says so costs one request: a follower asks for the next
// batch once a second.
func TestMissingCosts(t *testing.T) {
	var requests int
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		requests++
		http.Error(w, "No such object: bucket/p/k", http.StatusNotFound)
	}))
	defer srv.Close()
	_, err := openAt(t, srv.URL).Get(t.Context(), "k", 0, -1)
	require.ErrorIs(t, err, backends.ErrNotFound)
	require.Equal(t, 1, requests)
}

// A range that the store refused, of an object that contains it by now, is not empty.
func TestReplaced(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Query().Get("alt") == "media" {
			w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
			return
		}
		_, _ = io.WriteString(w, `{"size": "100"}`)
	}))
	defer srv.Close()
	for _, length := range []int64{10, -1} {
		_, err := openAt(t, srv.URL).Get(t.Context(), "k", 50, length)
		require.ErrorContains(t, err, "the object was replaced while it was read")
	}
	_, err := openAt(t, srv.URL).Get(t.Context(), "k", 100, -1)
	require.NoError(t, err)
}
