package download_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/backends/backendtest"
	"github.com/xdswal/xdswal/internal/download"
)

const (
	patience = 60 * time.Second
	tick     = 2 * time.Millisecond
)

// source is a backend whose objects are computed while they are read. It counts the
// ranges that are open.
type source struct {
	backends.Backend
	size int64
	// begun is called by Get with the offset of the range; Get returns its error.
	// read is called by each Read with the offset in the object.
	begun func(ctx context.Context, offset int64) error
	read  func(ctx context.Context, offset int64) error

	mu         sync.Mutex
	open, most int
	ranges     []int64
	unclosed   atomic.Int32
}

func (s *source) String() string { return "source:" }

func (s *source) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	s.mu.Lock()
	s.open++
	s.most = max(s.most, s.open)
	s.ranges = append(s.ranges, offset)
	s.mu.Unlock()
	if s.begun != nil {
		if err := s.begun(ctx, offset); err != nil {
			return nil, &backends.Error{Op: "get", Backend: s.String(), Key: key, Err: err}
		}
	}
	if length < 0 {
		length = s.size - offset
	}
	s.unclosed.Add(1)
	return &ranged{s: s, ctx: ctx, at: offset, end: offset + length}, nil
}

type ranged struct {
	s       *source
	ctx     context.Context
	at, end int64
}

// pattern is repeated in every object. Its length does not divide that of a part.
var pattern = func() []byte {
	p := make([]byte, 1<<20+7)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(p)
	return p
}()

// contentAt returns some of the content from an offset on.
func contentAt(offset int64) []byte { return pattern[offset%int64(len(pattern)):] }

func (r *ranged) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	if r.s.read != nil {
		if err := r.s.read(r.ctx, r.at); err != nil {
			return 0, err
		}
	}
	if r.at == r.end {
		return 0, io.EOF
	}
	n := copy(p[:min(int64(len(p)), r.end-r.at)], contentAt(r.at))
	r.at += int64(n)
	return n, nil
}

func (r *ranged) Close() error { r.s.unclosed.Add(-1); return nil }

// done records that n parts were read.
func (s *source) done(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open -= n
}

// expect is a writer that compares the bytes with the expected content.
type expect struct{ at int64 }

func (e *expect) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		want := contentAt(e.at)
		want = want[:min(len(want), len(rest))]
		if !bytes.Equal(want, rest[:len(want)]) {
			return 0, fmt.Errorf("content at %d differs", e.at)
		}
		e.at += int64(len(want))
		rest = rest[len(want):]
	}
	return len(p), nil
}

// noLeak requires that the test leaves no goroutine.
func noLeak(t testing.TB) {
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		for deadline := time.Now().Add(patience); runtime.NumGoroutine() > before; time.Sleep(tick) {
			if time.Now().After(deadline) {
				stacks := make([]byte, 1<<20)
				require.FailNow(t, "goroutines were left", "%s", stacks[:runtime.Stack(stacks, true)])
			}
		}
	})
}

// An object of any size is returned whole and in order, and then io.EOF repeatedly.
func TestOpen(t *testing.T) {
	noLeak(t)
	for _, size := range []int64{
		0, 1, download.PartSize - 1, download.PartSize, download.PartSize + 1,
		2 * download.PartSize, 2*download.PartSize + 1, (download.Parallel + 2) * download.PartSize,
		(download.Parallel+3)*download.PartSize - 1,
	} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			s := &source{size: size}
			s.begun = func(context.Context, int64) error {
				runtime.Gosched() // parts arrive out of order
				return nil
			}
			r, err := download.Open(t.Context(), s, "k", size)
			require.NoError(t, err)
			e := &expect{}
			n, err := io.Copy(struct{ io.Writer }{e}, struct{ io.Reader }{r})
			require.NoError(t, err)
			require.Equal(t, size, n)
			for range 3 {
				n, err := r.Read(make([]byte, 10))
				require.Zero(t, n)
				require.Equal(t, io.EOF, err)
			}
			require.NoError(t, r.Close())
			slices.Sort(s.ranges)
			require.Len(t, s.ranges, int(max(1, (size+download.PartSize-1)/download.PartSize)), "each part once")
			require.Equal(t, s.ranges, slices.Compact(slices.Clone(s.ranges)))
			require.Zero(t, s.unclosed.Load())
		})
	}
}

// Reads of odd lengths return the same bytes.
func TestOddReads(t *testing.T) {
	const size = 2*download.PartSize + 12345
	r, err := download.Open(t.Context(), &source{size: size}, "k", size)
	require.NoError(t, err)
	defer r.Close()
	e := &expect{}
	rng := rand.New(rand.NewPCG(1, 2))
	buf := make([]byte, 1<<20)
	for {
		n, err := r.Read(buf[:rng.IntN(len(buf))])
		_, werr := e.Write(buf[:n])
		require.NoError(t, werr)
		if err != nil {
			require.Equal(t, io.EOF, err)
			break
		}
	}
	require.EqualValues(t, size, e.at)
}

// At most Parallel parts are fetched ahead, even of a slow reader.
func TestOpenIsBounded(t *testing.T) {
	noLeak(t)
	const parts = 20
	s := &source{size: parts * download.PartSize}
	r, err := download.Open(t.Context(), s, "k", s.size)
	require.NoError(t, err)
	begun := func() int {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.ranges)
	}
	buf := make([]byte, download.PartSize)
	for i := range parts {
		n, err := io.ReadFull(r, buf)
		require.NoError(t, err)
		require.Equal(t, download.PartSize, n)
		// The part read and those ahead of it.
		want := min(parts, i+1+download.Parallel-1)
		require.Eventually(t, func() bool { return begun() >= want }, patience, tick, "parts are fetched ahead")
		require.LessOrEqual(t, begun(), i+1+download.Parallel)
		s.done(1)
	}
	require.NoError(t, r.Close())
	require.LessOrEqual(t, s.most, download.Parallel+1)
}

// A large object is in memory a few parts at a time.
func TestMemory(t *testing.T) {
	const parts = 40
	s := &source{size: parts * download.PartSize}
	r, err := download.Open(t.Context(), s, "k", s.size)
	require.NoError(t, err)
	defer r.Close()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	n, err := io.Copy(io.Discard, struct{ io.Reader }{r})
	require.NoError(t, err)
	require.Equal(t, s.size, n)
	runtime.ReadMemStats(&after)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(2*download.Parallel+2)*download.PartSize, "buffers are used again")
}

// An error in any part is returned after all bytes before it, and by every later Read,
// and is never taken for the end.
func TestOpenFails(t *testing.T) {
	noLeak(t)
	const size = 6*download.PartSize + 5
	broken := errors.New("the connection broke")
	for name, cause := range map[string]error{
		"an error":                 broken,
		"end of file":              io.EOF,
		"unexpected end of file":   io.ErrUnexpectedEOF,
		"an error that wraps EOF":  fmt.Errorf("read body: %w", io.EOF),
		"an error that wraps that": fmt.Errorf("read body: %w", io.ErrUnexpectedEOF),
	} {
		for _, part := range []int64{0, download.Parallel, 6} {
			for _, how := range []string{"get", "first byte", "in the middle"} {
				if how == "in the middle" && part == 6 {
					continue // it is too small
				}
				t.Run(fmt.Sprint(name, ", part ", part, ", ", how), func(t *testing.T) {
					s := &source{size: size}
					at := part * download.PartSize
					switch how {
					case "get":
						s.begun = failAt(at, cause)
					case "first byte":
						s.read = failAt(at, cause)
					case "in the middle":
						s.read = func(_ context.Context, offset int64) error {
							if offset > at && offset < at+download.PartSize {
								return cause
							}
							return nil
						}
					}
					r, err := download.Open(t.Context(), s, "k", size)
					require.NoError(t, err)
					e := &expect{}
					n, err := io.Copy(struct{ io.Writer }{e}, struct{ io.Reader }{r})
					require.Error(t, err, "io.Copy takes io.EOF for the end")
					require.False(t, errors.Is(err, io.EOF), "%v", err)
					require.Equal(t, at, n)
					if errors.Is(cause, broken) {
						require.ErrorIs(t, err, broken)
					}
					_, again := r.Read(make([]byte, 1))
					require.Equal(t, err, again)
					require.NoError(t, r.Close())
				})
			}
		}
	}
}

func failAt(at int64, err error) func(context.Context, int64) error {
	return func(_ context.Context, offset int64) error {
		if offset == at {
			return err
		}
		return nil
	}
}

// An object that is shorter than its stated size is an error.
func TestShorter(t *testing.T) {
	b := backendtest.NewMemory()
	require.NoError(t, b.Put(t.Context(), "k", bytes.NewReader(make([]byte, download.PartSize+10))))
	r, err := download.Open(t.Context(), b, "k", download.PartSize+11)
	require.NoError(t, err)
	defer r.Close()
	n, err := io.Copy(io.Discard, r)
	require.ErrorIs(t, err, backends.ErrRange)
	require.EqualValues(t, download.PartSize, n)
	_, err = download.Open(t.Context(), b, "missing", 10)
	require.ErrorIs(t, err, backends.ErrNotFound)
	r, err = download.Open(t.Context(), b, "missing", 100<<20)
	require.NoError(t, err)
	defer r.Close()
	_, err = r.Read(make([]byte, 1))
	require.ErrorIs(t, err, backends.ErrNotFound)
}

// A cancelled download returns the cause, and never looks like a shorter object.
func TestOpenCancelled(t *testing.T) {
	noLeak(t)
	gone := errors.New("gone")
	for part := range int64(6) {
		for _, hangs := range []bool{false, true} {
			t.Run(fmt.Sprint("part ", part, ", hanging ", hangs), func(t *testing.T) {
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				s := &source{size: 6 * download.PartSize}
				s.begun = func(ctx context.Context, offset int64) error {
					if offset != part*download.PartSize {
						return nil
					}
					cancel(gone)
					if hangs {
						<-ctx.Done()
						return ctx.Err()
					}
					return nil
				}
				r, err := download.Open(ctx, s, "k", s.size)
				require.NoError(t, err)
				e := &expect{}
				_, err = io.Copy(struct{ io.Writer }{e}, struct{ io.Reader }{r})
				require.Error(t, err)
				require.True(t, errors.Is(err, gone) || errors.Is(err, context.Canceled), "%v", err)
				require.Less(t, e.at, s.size)
				require.NoError(t, r.Close())
			})
		}
	}
}

// Close cancels all requests, at any time.
func TestCloseEarly(t *testing.T) {
	noLeak(t)
	for _, n := range []int64{0, 1, download.PartSize, download.PartSize + 1, 5 * download.PartSize} {
		s := &source{size: 20 * download.PartSize}
		r, err := download.Open(t.Context(), s, "k", s.size)
		require.NoError(t, err)
		_, err = io.CopyN(io.Discard, r, n)
		require.NoError(t, err)
		require.NoError(t, r.Close())
		require.NoError(t, r.Close())
		require.Eventually(t, func() bool { return s.unclosed.Load() == 0 }, patience, tick, "streams to be closed")
		_, err = io.Copy(io.Discard, r)
		require.Error(t, err, "the rest is missing")
		require.False(t, errors.Is(err, io.EOF))
	}
}
