package s3_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/backends/s3"
	"github.com/xdswal/xdswal/internal/s3test"
)

func TestMultipart(t *testing.T) {
	srv := start(t)
	cfg := config(srv)
	var counter s3test.Counter
	cfg.WrapTransport = counter.Wrap
	b := open(t, cfg)
	for _, c := range []struct {
		key  string
		size int
		want map[string]int
	}{
		{"empty", 0, map[string]int{"PUT": 1}},
		{"less-than-a-part", partSize - 1, map[string]int{"PUT": 1}},
		{"one-part", partSize, map[string]int{"PUT": 1}},
		{"a-byte-more", partSize + 1, map[string]int{"PUT": 2, "POST": 2}},
		{"two-parts", 2 * partSize, map[string]int{"PUT": 2, "POST": 2}},
		{"two-parts-and-a-bit", 2*partSize + 17, map[string]int{"PUT": 3, "POST": 2}},
	} {
		t.Run(c.key, func(t *testing.T) {
			content := noise(c.size)
			counter.Reset()
			put(t, b, c.key, content)
			require.Equal(t, c.want, counter.Requests())
			requireContent(t, b, c.key, content)
		})
	}
}

// A multipart upload that fails is aborted.
func TestMultipartAborted(t *testing.T) {
	srv := start(t)
	b := open(t, config(srv))
	content := noise(3 * partSize)
	errBody := errors.New("read failed")

	err := b.Put(t.Context(), "k", &brokenBody{Reader: bytes.NewReader(content), at: 2*partSize + 1, broken: func() error { return errBody }})
	require.ErrorIs(t, err, errBody)
	require.ErrorContains(t, err, "read body: read failed")
	require.Empty(t, uploads(t, srv))

	ctx, cancel := context.WithCancel(t.Context())
	err = b.Put(ctx, "k", &brokenBody{Reader: bytes.NewReader(content), at: 2*partSize + 1, broken: func() error {
		cancel()
		return nil
	}})
	require.ErrorIs(t, err, context.Canceled)
	require.Empty(t, uploads(t, srv))
	require.Empty(t, keys(t, b))

	put(t, b, "k", content)
	require.ErrorIs(t, b.Put(t.Context(), "k", bytes.NewReader(content[1:])), backends.ErrExists)
	require.Empty(t, uploads(t, srv))
	requireContent(t, b, "k", content)
}

// The error says that parts remain if the abort fails.
func TestAbortFails(t *testing.T) {
	srv := start(t)
	cfg := config(srv)
	cfg.MaxAttempts = 1
	cfg.WrapTransport = transport(func(next http.RoundTripper, req *http.Request) (*http.Response, error) {
		if req.Method == http.MethodDelete {
			return nil, errors.New("no abort")
		}
		return next.RoundTrip(req)
	}).wrap
	ctx, cancel := context.WithCancel(t.Context())
	err := open(t, cfg).Put(ctx, "k", &brokenBody{Reader: bytes.NewReader(noise(2 * partSize)), at: partSize, broken: func() error {
		cancel()
		return nil
	}})
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorContains(t, err, "(parts remain until a Sweep: no abort (AbortMultipartUpload))")

	n, err := open(t, config(srv)).Sweep(t.Context(), -time.Minute, "")
	require.NoError(t, err)
	require.Equal(t, 1, n)
}

// brokenBody calls broken in each Read after at bytes were read.
type brokenBody struct {
	*bytes.Reader
	at     int64
	broken func() error
}

func (b *brokenBody) Read(p []byte) (int, error) {
	if b.Size()-int64(b.Len()) >= b.at {
		if err := b.broken(); err != nil {
			return 0, err
		}
	}
	return b.Reader.Read(p[:min(len(p), 1<<20)])
}

// An error of the body is not reported as one of the store, or taken for its end.
func TestBodyErrors(t *testing.T) {
	srv := start(t)
	b := open(t, config(srv))
	for _, cause := range []error{io.ErrUnexpectedEOF, context.DeadlineExceeded, backends.ErrNotFound} {
		for _, size := range []int{1000, 2 * partSize} {
			body := &brokenBody{Reader: bytes.NewReader(noise(size)), at: int64(size / 2), broken: func() error { return cause }}
			err := b.Put(t.Context(), "k", body)
			require.ErrorIs(t, err, cause)
			require.ErrorContains(t, err, "read body: ")
		}
	}
	require.Empty(t, keys(t, b))
}

// A context that is cancelled with the last byte of the body still fails the Put.
func TestContextDoneAtEnd(t *testing.T) {
	b := open(t, config(start(t)))
	for _, size := range []int{1000, 2 * partSize} {
		ctx, cancel := context.WithCancel(t.Context())
		err := b.Put(ctx, "k", &brokenBody{Reader: bytes.NewReader(noise(size)), at: int64(size), broken: func() error {
			cancel()
			return nil
		}})
		require.ErrorIs(t, err, context.Canceled)
	}
	require.Empty(t, keys(t, b))
}

// The store executes a request but its answer is lost: the SDK retries and is refused,
// and Put finds that it created the object.
func TestAnswerLost(t *testing.T) {
	srv := start(t)
	proxy := srv.Proxy(t)
	direct := open(t, config(srv))
	for _, c := range []struct {
		name string
		size int
		lost func(*http.Request) bool
	}{
		{"whole", 1000, isMethod(http.MethodPut)},
		{"completion", partSize + 1000, func(req *http.Request) bool {
			return req.Method == http.MethodPost && req.URL.Query().Has("uploadId")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var lost int
			cfg := config(srv)
			cfg.Endpoint = proxy.Endpoint
			cfg.WrapTransport = transport(func(next http.RoundTripper, req *http.Request) (*http.Response, error) {
				if !c.lost(req) || lost > 0 {
					return next.RoundTrip(req)
				}
				remove := proxy.Add(s3test.LoseAnswers())
				defer remove()
				res, err := next.RoundTrip(req)
				if err != nil {
					lost++
				}
				return res, err
			}).wrap
			b := open(t, cfg)
			content := noise(c.size)
			put(t, b, c.name, content)
			require.Equal(t, 1, lost)
			requireContent(t, direct, c.name, content)
			// Another Put of the same content is another Put.
			require.ErrorIs(t, b.Put(t.Context(), c.name, bytes.NewReader(content)), backends.ErrExists)
		})
	}
	require.Equal(t, []string{"completion", "whole"}, keys(t, direct))
}

// Of concurrent multipart Puts exactly one succeeds.
func TestMultipartRace(t *testing.T) {
	srv := start(t)
	b := open(t, config(srv))
	const racers = 16
	content := noise(partSize + racers)
	errs := make([]error, racers)
	var wg sync.WaitGroup
	for i := range racers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			errs[i] = b.Put(t.Context(), "k", bytes.NewReader(content[:partSize+1+i]))
		}()
	}
	wg.Wait()
	winner := -1
	for i, err := range errs {
		if err == nil {
			require.Equal(t, -1, winner)
			winner = i
			continue
		}
		require.ErrorIs(t, err, backends.ErrExists)
	}
	require.NotEqual(t, -1, winner)
	requireContent(t, b, "k", content[:partSize+1+winner])
}

// The store refuses bytes that changed on the way, by their checksum.
func TestDamagedOnTheWayThere(t *testing.T) {
	for name, options := range map[string][]s3test.Option{"http": nil, "https": {s3test.WithTLS()}} {
		t.Run(name, func(t *testing.T) {
			cfg := config(start(t, options...))
			cfg.MaxAttempts = 1
			cfg.WrapTransport = transport(func(next http.RoundTripper, req *http.Request) (*http.Response, error) {
				if req.Method == http.MethodPut {
					req.Body = &flip{req.Body, 500}
				}
				return next.RoundTrip(req)
			}).wrap
			b := open(t, cfg)
			for _, size := range []int{1000, partSize + 1000} {
				err := b.Put(t.Context(), "k", bytes.NewReader(noise(size)))
				require.ErrorContains(t, err, "the bytes changed on the way to the store")
				require.Empty(t, keys(t, b))
			}
		})
	}
}

// Requests that create an object, whole or in parts, have the configured encryption
// and storage class.
func TestEncryptionAndStorage(t *testing.T) {
	var made []http.Header // of PutObject and CreateMultipartUpload
	fake := &fakeStore{answer: func(w http.ResponseWriter, req *http.Request) bool {
		parts := req.Method == http.MethodPost && req.URL.Query().Has("uploads")
		if req.Method == http.MethodPut && !req.URL.Query().Has("partNumber") || parts {
			made = append(made, req.Header.Clone())
		}
		if parts {
			refuse(w, http.StatusForbidden, "AccessDenied", "no") // that is enough
		}
		return parts
	}}
	cfg := fake.start(t)
	cfg.SSE, cfg.KMSKeyID, cfg.StorageClass = "aws:kms", "key-1", "STANDARD_IA"
	b := open(t, cfg)
	put(t, b, "small", noise(10))
	require.ErrorIs(t, b.Put(t.Context(), "large", bytes.NewReader(noise(2*partSize))), backends.ErrPermission)
	require.Len(t, made, 2)
	for _, h := range made {
		require.Equal(t, "aws:kms", h.Get("X-Amz-Server-Side-Encryption"))
		require.Equal(t, "key-1", h.Get("X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id"))
		require.Equal(t, "STANDARD_IA", h.Get("X-Amz-Storage-Class"))
	}
}

// Over TLS too, the checksum of an object and of each part is a header, and the body is
// the content alone: a store may know no trailers, and store the framing of the SDK's
// chunks as the object.
func TestNoTrailers(t *testing.T) {
	for name, start := range map[string]func(*fakeStore, *testing.T) s3.Config{"http": (*fakeStore).start, "https": (*fakeStore).startTLS} {
		t.Run(name, func(t *testing.T) {
			var mu sync.Mutex
			bodies := map[string][]byte{} // by the part's number, "" for whole objects
			store := &fakeStore{answer: func(w http.ResponseWriter, req *http.Request) bool {
				switch query := req.URL.Query(); {
				case query.Has("uploads"):
					_, _ = io.WriteString(w, "<InitiateMultipartUploadResult><UploadId>U</UploadId></InitiateMultipartUploadResult>")
				case req.Method == http.MethodPost:
					_, _ = io.WriteString(w, `<CompleteMultipartUploadResult><ETag>"1"</ETag></CompleteMultipartUploadResult>`)
				default:
					content, err := io.ReadAll(req.Body)
					sum := binary.BigEndian.AppendUint32(nil, crc32.Checksum(content, crc32.MakeTable(crc32.Castagnoli)))
					if err != nil || req.Header.Get("X-Amz-Checksum-Crc32c") != base64.StdEncoding.EncodeToString(sum) ||
						req.Header.Get("X-Amz-Trailer") != "" || strings.Contains(req.Header.Get("Content-Encoding"), "aws-chunked") {
						refuse(w, http.StatusBadRequest, "BadDigest", "a trailer instead of a checksum")
						return true
					}
					mu.Lock()
					bodies[query.Get("partNumber")] = content
					mu.Unlock()
					w.Header().Set("ETag", `"1"`)
				}
				return true
			}}
			b := open(t, start(store, t))
			content := noise(partSize + 1000)
			put(t, b, "large", content)
			require.Len(t, bodies, 2)
			require.True(t, bytes.Equal(content, slices.Concat(bodies["1"], bodies["2"])))
			put(t, b, "small", content[:1000])
			require.Equal(t, content[:1000], bodies[""])
			put(t, b, "empty", nil)
			require.Empty(t, bodies[""])
		})
	}
}
