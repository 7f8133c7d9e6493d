package s3_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/backends/s3"
	"github.com/xdswal/xdswal/internal/s3test"
)

// A reader whose connection breaks repeatedly resumes at its offset.
func TestReadResumes(t *testing.T) {
	srv := start(t)
	proxy := srv.Proxy(t)
	cfg := config(srv)
	content := noise(2*partSize + 5)
	put(t, open(t, cfg), "k", content)

	var counter s3test.Counter
	cfg.Endpoint, cfg.WrapTransport = proxy.Endpoint, counter.Wrap
	b := open(t, cfg)
	proxy.Add(s3test.LimitData(3_000_000))
	requireContent(t, b, "k", content)
	require.GreaterOrEqual(t, counter.Requests()["GET"], 4)

	r, err := b.Get(t.Context(), "k", 1000, 4_000_000)
	require.NoError(t, err)
	got, err := io.ReadAll(r)
	require.NoError(t, err)
	require.Equal(t, content[1000:4_001_000], got)
	require.NoError(t, r.Close())
	_, err = r.Read(make([]byte, 1))
	require.ErrorIs(t, err, fs.ErrClosed)
}

// Broken connections without progress are retried MaxAttempts times.
func TestReadGivesUp(t *testing.T) {
	srv := start(t)
	put(t, open(t, config(srv)), "k", noise(1000))
	cfg := config(srv)
	cfg.MaxAttempts = 3
	var gets int
	cfg.WrapTransport = transport(func(next http.RoundTripper, req *http.Request) (*http.Response, error) {
		res, err := next.RoundTrip(req)
		if err == nil && req.Method == http.MethodGet {
			gets++
			res.Body.Close()
			res.Body = io.NopCloser(failing{})
		}
		return res, err
	}).wrap
	content, err := get(t.Context(), open(t, cfg), "k")
	require.ErrorIs(t, err, errCut)
	require.ErrorContains(t, err, "read byte 0 of 1000, attempt 3")
	require.Empty(t, content)
	require.Equal(t, 3, gets)
	var placed *backends.Error
	require.ErrorAs(t, err, &placed)
	require.Equal(t, "get", placed.Op)
}

var errCut = errors.New("cut")

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errCut }

// A reader never returns bytes of two objects.
func TestReadReplaced(t *testing.T) {
	srv := start(t)
	proxy := srv.Proxy(t)
	direct := open(t, config(srv))
	cfg := config(srv)
	cfg.Endpoint = proxy.Endpoint
	b := open(t, cfg)
	for _, c := range []struct {
		name   string
		change func()
		want   string
	}{
		{"deleted", func() { require.NoError(t, direct.Delete(t.Context(), "k")) }, "object not found"},
		{"replaced", func() {
			require.NoError(t, direct.Delete(t.Context(), "k"))
			put(t, direct, "k", noise(3_999_999))
		}, "the object was replaced while it was read"},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.NoError(t, direct.Delete(t.Context(), "k"))
			put(t, direct, "k", noise(4_000_000))
			defer proxy.Add(s3test.LimitData(500_000))()
			r, err := b.Get(t.Context(), "k", 0, -1)
			require.NoError(t, err)
			_, err = io.ReadFull(r, make([]byte, 1000))
			require.NoError(t, err)
			c.change()
			_, err = io.Copy(io.Discard, r)
			require.ErrorContains(t, err, c.want)
			_, again := r.Read(make([]byte, 1))
			require.Equal(t, err, again)
			require.NoError(t, r.Close())
		})
	}
}

// A damaged object is an error, even for a caller that knows its size and does not read
// to io.EOF: in one part or several, and across a broken connection.
func TestDamagedOnTheWayBack(t *testing.T) {
	srv := start(t)
	proxy := srv.Proxy(t)
	clean := open(t, config(srv))
	cfg := config(srv)
	cfg.Endpoint = proxy.Endpoint
	var gets int
	cfg.WrapTransport = transport(func(next http.RoundTripper, req *http.Request) (*http.Response, error) {
		res, err := next.RoundTrip(req)
		if gets++; err == nil && gets == 1 {
			res.Body = &flip{res.Body, 500}
		}
		return res, err
	}).wrap
	for name, size := range map[string]int{"small": 1000, "parts": partSize + 1000, "cut": 2*partSize + 3} {
		t.Run(name, func(t *testing.T) {
			put(t, clean, name, noise(size))
			gets = 0
			if name == "cut" {
				defer proxy.Add(s3test.LimitData(partSize))()
			}
			r, err := open(t, cfg).Get(t.Context(), name, 0, -1)
			require.NoError(t, err)
			_, err = io.ReadFull(r, make([]byte, size))
			require.ErrorIs(t, err, backends.ErrDamaged)
			require.NoError(t, r.Close())
			requireContent(t, clean, name, noise(size))
		})
	}
}

// A silent peer fails the attempt, and the next attempt succeeds.
func TestHang(t *testing.T) {
	srv := start(t)
	proxy := srv.Proxy(t)
	content := noise(2 * partSize)
	for _, c := range []struct {
		name   string
		toxic  s3test.Toxic
		method string
	}{
		{"upload", s3test.HangUploads(), http.MethodPut},
		{"answer", s3test.Hang(), http.MethodPut},
		{"download", s3test.Hang(), http.MethodGet},
	} {
		t.Run(c.name, func(t *testing.T) {
			direct := open(t, config(srv))
			put(t, direct, c.name+"/there", content)
			remove := proxy.Add(c.toxic)
			cfg := config(srv)
			cfg.Endpoint, cfg.IdleTimeout, cfg.Concurrency = proxy.Endpoint, time.Second, 1
			cfg.WrapTransport = onSecond(isMethod(c.method), remove).wrap
			b := open(t, cfg)
			if c.method == http.MethodGet {
				requireContent(t, b, c.name+"/there", content)
				return
			}
			put(t, b, c.name+"/new", content[:partSize])
			requireContent(t, direct, c.name+"/new", content[:partSize])
		})
	}
}

// A peer that is silent from the middle of a body on is an error in bounded time.
func TestHangForGood(t *testing.T) {
	srv := start(t)
	cfg := config(srv)
	cfg.IdleTimeout, cfg.MaxAttempts = 500*time.Millisecond, 2
	put(t, open(t, cfg), "k", noise(4*partSize))
	t.Run("get", func(t *testing.T) {
		err := readIntoHang(t.Context(), t, srv.Proxy(t), cfg)
		require.ErrorContains(t, err, "the store was silent for 500ms")
	})
	t.Run("put", func(t *testing.T) {
		proxy := srv.Proxy(t)
		proxy.Add(s3test.HangUploads())
		cfg.Endpoint = proxy.Endpoint
		err := open(t, cfg).Put(t.Context(), "new", body("x"))
		require.ErrorContains(t, err, "the store was silent for 500ms")
	})
}

// A call whose context is done returns, even if the store is silent for longer.
func TestContextEndsWhileHanging(t *testing.T) {
	srv := start(t)
	cfg := config(srv)
	cfg.IdleTimeout = time.Hour
	put(t, open(t, cfg), "k", noise(4*partSize))
	requireEnds := func(t *testing.T, call func(context.Context) error) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		began := time.Now()
		err := call(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Less(t, time.Since(began), 10*time.Second)
		var placed *backends.Error
		require.ErrorAs(t, err, &placed)
	}
	for name, call := range map[string]func(context.Context, backends.Backend) error{
		"put": func(ctx context.Context, b backends.Backend) error { return b.Put(ctx, "new", body("x")) },
		"get": func(ctx context.Context, b backends.Backend) error {
			_, err := b.Get(ctx, "k", 0, -1)
			return err
		},
		"list": func(ctx context.Context, b backends.Backend) error {
			_, err := b.List(ctx, "")
			return err
		},
		// The request arrives, and its answer does not.
		"delete": func(ctx context.Context, b backends.Backend) error { return b.Delete(ctx, "gone") },
	} {
		t.Run(name, func(t *testing.T) {
			proxy := srv.Proxy(t)
			proxy.Add(s3test.Hang())
			cfg := cfg
			cfg.Endpoint = proxy.Endpoint
			b := open(t, cfg)
			requireEnds(t, func(ctx context.Context) error { return call(ctx, b) })
		})
	}
	t.Run("read", func(t *testing.T) {
		proxy := srv.Proxy(t)
		requireEnds(t, func(ctx context.Context) error { return readIntoHang(ctx, t, proxy, cfg) })
	})
}

// readIntoHang reads "k" through a proxy that hangs in the middle of it and stays so:
// toxiproxy needs many seconds to repair a connection that hangs.
func readIntoHang(ctx context.Context, t *testing.T, proxy *s3test.Proxy, cfg s3.Config) error {
	proxy.Add(s3test.Bandwidth(2000))
	cfg.Endpoint = proxy.Endpoint
	r, err := open(t, cfg).Get(ctx, "k", 0, -1)
	if err != nil {
		return err
	}
	defer r.Close()
	hung := make(chan struct{})
	t.Cleanup(func() { <-hung })
	go func() {
		defer close(hung)
		proxy.Add(s3test.Hang())
	}()
	_, err = io.Copy(io.Discard, r)
	return err
}

// A range that the store refused, of an object that contains it by now, is not empty.
func TestReplacedBeforeHead(t *testing.T) {
	fake := &fakeStore{answer: func(w http.ResponseWriter, req *http.Request) bool {
		if req.Method != http.MethodGet {
			return false
		}
		refuse(w, http.StatusRequestedRangeNotSatisfiable, "InvalidRange", "The requested range is not satisfiable")
		return true
	}}
	b := open(t, fake.start(t))
	put(t, b, "k", noise(100))
	for _, length := range []int64{10, -1} {
		_, err := b.Get(t.Context(), "k", 50, length)
		require.ErrorContains(t, err, "the object was replaced while it was read")
	}
	_, err := b.Get(t.Context(), "k", 100, -1)
	require.NoError(t, err)
}
