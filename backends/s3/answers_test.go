package s3_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/backends/s3"
)

// answers returns the configuration for a store that answers every request alike.
func answers(t *testing.T, answer http.HandlerFunc) s3.Config {
	t.Helper()
	store := &fakeStore{answer: func(w http.ResponseWriter, req *http.Request) bool {
		_, _ = io.Copy(io.Discard, req.Body)
		answer(w, req)
		return true
	}}
	return store.start(t)
}

// A proxy answers 200 instead of the store. No such answer is taken for an empty store
// or for a successful Put.
func TestAnswersNotFromS3(t *testing.T) {
	for name, text := range map[string]string{
		"empty": "", "white space": " \n ", "page": "<!DOCTYPE html><html><head><title>log in</title></head><body/></html>",
		"XML": `<?xml version="1.0"?><Maintenance/>`, "error": `<?xml version="1.0"?><Error><Code>InternalError</Code></Error>`,
	} {
		t.Run(name, func(t *testing.T) {
			b := open(t, answers(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) }))
			_, err := b.List(t.Context(), "")
			require.Error(t, err)
			_, err = b.Sweep(t.Context(), 0, "")
			require.Error(t, err)
			require.Error(t, b.Put(t.Context(), "small", body("x")))
			require.Error(t, b.Put(t.Context(), "large", bytes.NewReader(make([]byte, partSize+1))))
			_, err = b.ProbeConditionalCreate(t.Context())
			require.Error(t, err)
		})
	}
}

// The answer to the completion of a multipart upload breaks off: the store sends white
// space while it completes the upload.
func TestCompletionBroken(t *testing.T) {
	for _, created := range []bool{true, false} {
		t.Run(fmt.Sprint("created ", created), func(t *testing.T) {
			var id atomic.Value
			cfg := answers(t, func(w http.ResponseWriter, req *http.Request) {
				query := req.URL.Query()
				switch {
				case query.Has("uploads"):
					id.Store(req.Header.Get(putIDHeader))
					_, _ = io.WriteString(w, "<InitiateMultipartUploadResult><UploadId>U</UploadId></InitiateMultipartUploadResult>")
				case req.Method == http.MethodPut:
					w.Header().Set("ETag", `"part"`)
				case req.Method == http.MethodPost:
					_, _ = io.WriteString(w, "<?xml version=\"1.0\"?>\n   ")
				case req.Method == http.MethodHead && created:
					w.Header().Set(putIDHeader, id.Load().(string))
				case req.Method == http.MethodHead:
					w.WriteHeader(http.StatusNotFound)
				}
			})
			err := open(t, cfg).Put(t.Context(), "k", bytes.NewReader(make([]byte, partSize+1)))
			require.Equal(t, created, err == nil, "%v", err)
		})
	}
}

// A 404 that is not from the store does not mean that an object is missing.
func TestForeignNotFound(t *testing.T) {
	for _, text := range []string{"", "default backend - 404", "<html/>"} {
		b := open(t, answers(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, text)
		}))
		_, err := b.Get(t.Context(), "k", 0, -1)
		require.Error(t, err)
		require.False(t, errors.Is(err, backends.ErrNotFound), "%v", err)
		require.Error(t, b.Delete(t.Context(), "k"))
	}
}

const listing = `<?xml version="1.0" encoding="UTF-8"?><ListBucketResult><Name>bucket</Name>%s</ListBucketResult>`

// A truncated list without a marker of the next page, or with the marker of the same
// page, is an error.
func TestListWithoutNextPage(t *testing.T) {
	for _, rest := range []string{
		"<IsTruncated>true</IsTruncated>",
		"<IsTruncated>true</IsTruncated><NextContinuationToken></NextContinuationToken>",
		"<IsTruncated>true</IsTruncated><NextContinuationToken>x</NextContinuationToken>",
	} {
		b := open(t, answers(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, listing, rest) }))
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, err := b.List(ctx, "")
		require.ErrorContains(t, err, "without a marker of the next page", rest)
	}
}

// Some stores encode keys that XML cannot represent. Objects of the backend are found
// among them.
func TestListEncoded(t *testing.T) {
	object := func(key string) string { return "<Contents><Key>" + key + "</Key><Size>1</Size></Contents>" }
	for encoding, key := range map[string]string{"<EncodingType>url</EncodingType>": "snapshots%2Fa+b%01", "": "snapshots/a b"} {
		b := open(t, answers(t, func(w http.ResponseWriter, req *http.Request) {
			require.Equal(t, "url", req.URL.Query().Get("encoding-type"))
			fmt.Fprintf(w, listing, encoding+"<IsTruncated>false</IsTruncated>"+object(key)+object("snapshots/ours.zst"))
		}))
		got, err := b.List(t.Context(), "")
		require.NoError(t, err)
		require.Len(t, got, 1)
		require.Equal(t, "snapshots/ours.zst", got[0].Key)
	}
}

// A request that the store refuses with 429 is retried.
func TestTooManyRequests(t *testing.T) {
	var requests atomic.Int32
	store := &fakeStore{}
	store.answer = func(w http.ResponseWriter, _ *http.Request) bool {
		if requests.Add(1) == 1 {
			w.WriteHeader(http.StatusTooManyRequests)
			return true
		}
		return false
	}
	put(t, open(t, store.start(t)), "k", []byte("x"))
	require.EqualValues(t, 2, requests.Load())
}

// The output of a credential helper, and credentials that a store repeats, are in no
// error.
func TestNoSecretsInErrors(t *testing.T) {
	const secret = "wJalrXUtn"
	t.Run("credential_process", func(t *testing.T) {
		cfg := answers(t, func(http.ResponseWriter, *http.Request) {})
		dir := t.TempDir()
		script := filepath.Join(dir, "helper")
		require.NoError(t, os.WriteFile(script, []byte("#!/bin/sh\necho 'A new version is available.'\necho '{\"Version\":1,\"AccessKeyId\":\"AKIA1\",\"SecretAccessKey\":\""+secret+"\",\"SessionToken\":\""+secret+"\"}'\n"), 0o700))
		profile := filepath.Join(dir, "config")
		require.NoError(t, os.WriteFile(profile, []byte("[default]\ncredential_process = "+script+"\n"), 0o600))
		t.Setenv("AWS_CONFIG_FILE", profile)
		cfg.Credentials = nil
		_, err := open(t, cfg).List(t.Context(), "")
		require.ErrorContains(t, err, "find credentials")
		require.NotContains(t, err.Error(), secret)
	})
	for _, message := range []string{
		`{"SecretAccessKey":"` + secret + `"}`, "<SecretAccessKey>" + secret, "aws_secret_access_key = " + secret,
		"SessionToken=" + secret, "x-amz-security-token:" + secret, "password: " + secret,
	} {
		b := open(t, answers(t, func(w http.ResponseWriter, _ *http.Request) {
			refuse(w, http.StatusBadRequest, "BadRequest", strings.NewReplacer("<", "&lt;", ">", "&gt;").Replace(message))
		}))
		err := b.Put(t.Context(), "k", body("x"))
		require.ErrorContains(t, err, "BadRequest")
		require.NotContains(t, err.Error(), secret)
	}
	for _, endpoint := range []string{
		"http://user:" + secret + "@127.0.0.1:1", "user:" + secret + "@127.0.0.1:1", "http://user:x " + secret + "@127.0.0.1:1",
		"http://127.0.0.1:1/?token=" + secret, "http://user:%r" + secret + "@127.0.0.1:1",
	} {
		noAWS(t)
		t.Setenv("AWS_ENDPOINT_URL_S3", endpoint)
		_, err := s3.New(t.Context(), s3.Config{Bucket: "bucket", Credentials: credentials(accessKey, secretKey)})
		require.ErrorContains(t, err, "AWS_ENDPOINT_URL_S3")
		require.NotContains(t, err.Error(), secret)
	}
}
