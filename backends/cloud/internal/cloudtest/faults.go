package cloudtest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/backends"
)

// Open opens an empty backend, or one at an endpoint, with a transport that wrap wraps
// if it is not nil.
type Open func(t *testing.T, wrap func(http.RoundTripper) http.RoundTripper) backends.Backend

// large is the size of an object that each driver sends in at least three parts.
const (
	partSize = 8 << 20 // the greatest of a driver
	large    = 2*partSize + 1000
)

// Faults tests a driver with faults that the conformance suite cannot cause.
// verifies says whether the store of the test verifies checksums.
func Faults(t *testing.T, open Open, verifies bool) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, Open){
		"race of large objects":          testRace,
		"context done during the upload": testCancelled,
		"body that changes":              testChanged,
		"upload that fails":              testUploadFails,
		"lost answer":                    testLostAnswer,
		"damaged on the way back":        testDamagedBack,
		"connection broken":              testBroken,
		"connection broken for good":     testBrokenForGood,
	} {
		t.Run(name, func(t *testing.T) { test(t, open) })
	}
	t.Run("damaged on the way there", func(t *testing.T) {
		if !verifies {
			t.Skip("the store of the test verifies no checksums")
		}
		testDamagedThere(t, open)
	})
}

func noise(size int) []byte {
	content := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(content)
	return content
}

func requireContent(t *testing.T, b backends.Backend, key string, want []byte) {
	t.Helper()
	r, err := b.Get(t.Context(), key, 0, -1)
	require.NoError(t, err)
	defer r.Close()
	got, err := io.ReadAll(r)
	require.NoError(t, err)
	require.True(t, bytes.Equal(want, got), "content differs")
}

func requireEmpty(t *testing.T, b backends.Backend) {
	t.Helper()
	objects, err := b.List(t.Context(), "")
	require.NoError(t, err)
	require.Empty(t, objects)
}

// Of concurrent Puts that send parts, exactly one succeeds.
func testRace(t *testing.T, open Open) {
	b := open(t, nil)
	const racers = 4
	content := noise(large)
	errs := make([]error, racers)
	var wg sync.WaitGroup
	for i := range racers {
		wg.Go(func() { errs[i] = b.Put(t.Context(), "k", bytes.NewReader(content[i:])) })
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
	require.NotEqual(t, -1, winner, errs)
	requireContent(t, b, "k", content[winner:])
}

// upload is a body that calls onUpload with each offset at which it is read while it is
// sent, as opposed to while its checksum is computed.
type upload struct {
	*bytes.Reader
	sending  bool
	onUpload func(offset int64)
}

func (u *upload) Seek(offset int64, whence int) (int64, error) {
	u.sending = u.sending || whence == io.SeekStart
	return u.Reader.Seek(offset, whence)
}

func (u *upload) Read(p []byte) (int, error) {
	if u.sending {
		u.onUpload(u.Size() - int64(u.Len()))
	}
	return u.Reader.Read(p[:min(len(p), 1<<20)])
}

// A context that is cancelled while the body is sent leaves no object, not even part of
// one.
func testCancelled(t *testing.T, open Open) {
	b := open(t, nil)
	for _, row := range []struct{ size, at int }{{1000, 0}, {1000, 1000}, {large, 0}, {large, partSize + 1}, {large, large}} {
		ctx, cancel := context.WithCancel(t.Context())
		var reached bool
		err := b.Put(ctx, "k", &upload{Reader: bytes.NewReader(noise(row.size)), onUpload: func(offset int64) {
			if offset >= int64(row.at) {
				reached = true
				cancel()
			}
		}})
		cancel()
		require.True(t, reached)
		require.ErrorIs(t, err, context.Canceled, row)
		requireEmpty(t, b)
	}
	// Not a small object: Azurite refuses one where blocks are left, as if it existed.
	require.NoError(t, b.Put(t.Context(), "k", bytes.NewReader(noise(large))))
}

// A body whose bytes are not those of its checksum leaves no object: it could not be
// read.
func testChanged(t *testing.T, open Open) {
	b := open(t, nil)
	for _, size := range []int{1000, large} {
		content := noise(size)
		err := b.Put(t.Context(), "k", &upload{Reader: bytes.NewReader(content), onUpload: func(int64) { content[size-1] = 0 }})
		require.ErrorContains(t, err, "read body: it changed while it was read")
		requireEmpty(t, b)
	}
}

// transport is an http.RoundTripper that may change a request or its answer.
type transport func(next http.RoundTripper, req *http.Request) (*http.Response, error)

func (fn transport) wrap(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(req *http.Request) (*http.Response, error) { return fn(next, req) })
}

type roundTripper func(*http.Request) (*http.Response, error)

func (fn roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return fn(req) }

func isWrite(req *http.Request) bool {
	return req.Method == http.MethodPut || req.Method == http.MethodPost
}

func closeBody(req *http.Request) {
	if req.Body != nil {
		_ = req.Body.Close()
	}
}

var errReset = &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}

// An upload whose n-th request fails fails, within bounded attempts, and leaves no
// object.
func testUploadFails(t *testing.T, open Open) {
	for _, row := range []struct {
		size int
		fail int64 // number of the first request that fails
	}{{1000, 1}, {large, 1}, {large, 2}, {large, 4}} {
		var requests atomic.Int64
		ctx, cancel := context.WithCancel(t.Context())
		b := open(t, transport(func(next http.RoundTripper, req *http.Request) (*http.Response, error) {
			if isWrite(req) && requests.Add(1) >= row.fail {
				closeBody(req)
				return nil, errors.New("no route")
			}
			return next.RoundTrip(req)
		}).wrap)
		err := b.Put(ctx, "k", bytes.NewReader(noise(row.size)))
		cancel()
		require.ErrorContains(t, err, "no route; the connection broke before the answer: check the store and the network")
		require.Less(t, requests.Load(), int64(30))
		requireEmpty(t, b)
	}
}

// A Put whose answer was lost finds that it created the object, and another Put that it
// did not.
func testLostAnswer(t *testing.T, open Open) {
	var lost atomic.Bool
	b := open(t, transport(func(next http.RoundTripper, req *http.Request) (*http.Response, error) {
		res, err := next.RoundTrip(req)
		if err == nil && isWrite(req) && lost.CompareAndSwap(false, true) {
			res.Body.Close()
			return nil, errReset
		}
		return res, err
	}).wrap)
	content := noise(1000)
	require.NoError(t, b.Put(t.Context(), "k", bytes.NewReader(content)))
	require.True(t, lost.Load())
	requireContent(t, b, "k", content)
	require.ErrorIs(t, b.Put(t.Context(), "k", bytes.NewReader(content)), backends.ErrExists)
}

// flip changes the byte at an offset of a body.
type flip struct {
	io.ReadCloser
	at int
}

func (f *flip) Read(p []byte) (int, error) {
	n, err := f.ReadCloser.Read(p)
	if f.at >= 0 && f.at < n {
		p[f.at]++
	}
	f.at -= n
	return n, err
}

// The store refuses bytes that changed on the way, by their checksum.
func testDamagedThere(t *testing.T, open Open) {
	b := open(t, transport(func(next http.RoundTripper, req *http.Request) (*http.Response, error) {
		if isWrite(req) && req.ContentLength > 4000 {
			req.Body = &flip{req.Body, 4000}
		}
		return next.RoundTrip(req)
	}).wrap)
	for _, size := range []int{5000, large} {
		err := b.Put(t.Context(), "k", bytes.NewReader(noise(size)))
		require.ErrorContains(t, err, "the bytes changed on the way to the store")
		requireEmpty(t, b)
	}
}

// The reader reports bytes that changed on the way instead of the last ones.
func testDamagedBack(t *testing.T, open Open) {
	b := open(t, transport(func(next http.RoundTripper, req *http.Request) (*http.Response, error) {
		res, err := next.RoundTrip(req)
		if err == nil && req.Method == http.MethodGet && res.ContentLength >= 1000 {
			res.Body = &flip{res.Body, 500}
		}
		return res, err
	}).wrap)
	for key, size := range map[string]int{"small": 1000, "large": large} {
		require.NoError(t, b.Put(t.Context(), key, bytes.NewReader(noise(size))))
		r, err := b.Get(t.Context(), key, 0, int64(size))
		require.NoError(t, err)
		n, err := io.ReadFull(r, make([]byte, size))
		require.ErrorIs(t, err, backends.ErrDamaged)
		require.Less(t, n, size)
		require.NoError(t, r.Close())
	}
}

// cut ends a body with an error after some bytes.
type cut struct {
	io.ReadCloser
	left int
}

func (c *cut) Read(p []byte) (int, error) {
	if c.left == 0 {
		return 0, io.ErrUnexpectedEOF
	}
	n, err := c.ReadCloser.Read(p[:min(len(p), c.left)])
	c.left -= n
	return n, err
}

// cutting cuts the answers with an object after some bytes, and counts them.
func cutting(answers *atomic.Int64, after int) func(http.RoundTripper) http.RoundTripper {
	return transport(func(next http.RoundTripper, req *http.Request) (*http.Response, error) {
		res, err := next.RoundTrip(req)
		if err == nil && req.Method == http.MethodGet && res.Header.Get("Content-Type") == "application/octet-stream" {
			answers.Add(1)
			res.Body = &cut{res.Body, after}
		}
		return res, err
	}).wrap
}

// A reader continues after the connection broke, from the byte that it has reached.
func testBroken(t *testing.T, open Open) {
	var answers atomic.Int64
	b := open(t, cutting(&answers, 300_000))
	content := noise(1_000_000)
	require.NoError(t, b.Put(t.Context(), "k", bytes.NewReader(content)))
	requireContent(t, b, "k", content)
	require.EqualValues(t, 4, answers.Load())
	r, err := b.Get(t.Context(), "k", 1000, 700_000)
	require.NoError(t, err)
	got, err := io.ReadAll(r)
	require.NoError(t, err)
	require.True(t, bytes.Equal(content[1000:701_000], got))
}

// A reader whose connections always break fails after a bounded number of attempts, and
// not with io.EOF.
func testBrokenForGood(t *testing.T, open Open) {
	var answers atomic.Int64
	b := open(t, cutting(&answers, 0))
	require.NoError(t, b.Put(t.Context(), "k", bytes.NewReader(noise(1000))))
	r, err := b.Get(t.Context(), "k", 0, -1)
	require.NoError(t, err)
	_, err = io.ReadAll(r)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.ErrorContains(t, err, "the connection broke")
	require.LessOrEqual(t, answers.Load(), int64(6))
}
