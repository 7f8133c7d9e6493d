package download_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/backends/backendtest"
	"github.com/xdswal/xdswal/internal/backendfault"
	"github.com/xdswal/xdswal/internal/download"
)

// objects puts n objects of different sizes, one of them empty.
func objects(t testing.TB, b backends.Backend, n int) []download.Object {
	t.Helper()
	var out []download.Object
	for i := range n {
		content := contentOf(i)
		key := fmt.Sprintf("o/%03d", i)
		require.NoError(t, b.Put(t.Context(), key, bytes.NewReader(content)))
		out = append(out, download.Object{Key: key, Size: int64(len(content))})
	}
	return out
}

func contentOf(i int) []byte { return bytes.Repeat([]byte{byte(i)}, (i*37)%101) }

func TestEach(t *testing.T) {
	noLeak(t)
	for _, n := range []int{0, 1, 2, 3, 100} {
		for _, parallel := range []int{1, 2, 16} {
			t.Run(fmt.Sprint(n, " objects, ", parallel, " at a time"), func(t *testing.T) {
				b := backendtest.NewMemory()
				list := objects(t, b, n)
				var ahead, most atomic.Int32
				counting := &backendfault.Backend{Backend: b, Fault: func(backendfault.Op, string) backendfault.Fault {
					most.Store(max(most.Load(), ahead.Add(1)))
					return backendfault.None
				}}
				next := 0
				require.NoError(t, download.Each(t.Context(), counting, list, parallel, func(i int, data []byte, err error) error {
					require.NoError(t, err)
					ahead.Add(-1)
					require.Equal(t, next, i)
					next++
					require.True(t, bytes.Equal(contentOf(i), data))
					return nil
				}))
				require.Equal(t, n, next)
				require.Equal(t, n, counting.Calls(backendfault.OpGet))
				require.LessOrEqual(t, int(most.Load()), parallel+1)
			})
		}
	}
}

// Each passes on the first error in the order of the objects, after the objects before
// it.
func TestEachFails(t *testing.T) {
	noLeak(t)
	const n = 30
	for _, bad := range []int{0, 1, 15, n - 1} {
		for name, c := range map[string]struct {
			fault backendfault.Fault
			want  error
		}{
			"absent":      {backendfault.FailAbsent, backendfault.ErrInjected},
			"in the body": {backendfault.FailPresent, backendfault.ErrInjected},
		} {
			t.Run(fmt.Sprint(name, " ", bad), func(t *testing.T) {
				b := backendtest.NewMemory()
				list := objects(t, b, n)
				faulty := &backendfault.Backend{Backend: b, Fault: func(_ backendfault.Op, key string) backendfault.Fault {
					if key == list[bad].Key {
						return c.fault
					}
					return backendfault.None
				}}
				seen := 0
				err := download.Each(t.Context(), faulty, list, 8, func(_ int, _ []byte, err error) error {
					if err == nil {
						seen++
					}
					return err
				})
				require.ErrorIs(t, err, c.want)
				require.ErrorContains(t, err, list[bad].Key)
				require.Equal(t, bad, seen)
			})
		}
	}
	b := backendtest.NewMemory()
	list := objects(t, b, n)
	stop := errors.New("stop")
	require.Same(t, stop, download.Each(t.Context(), b, list, 8, func(i int, _ []byte, err error) error {
		if i == 7 {
			return stop
		}
		return err
	}))
	list[3].Key = "missing"
	require.ErrorIs(t, download.Each(t.Context(), b, list, 8, ending), backends.ErrNotFound)
}

// An object whose size is not the listed one is refused, and so is one whose reader
// returns an error after all bytes: a backend returns the error of a checksum there.
func TestEachWantsWhole(t *testing.T) {
	for _, size := range []int64{0, 1, 100} {
		for _, off := range []int64{-1, 1, 50} {
			if size+off < 0 {
				continue
			}
			s := &source{size: size + off}
			err := download.Each(t.Context(), s, []download.Object{{Key: "k", Size: size}}, 4, ending)
			require.ErrorContains(t, err, "listed", "size %d, listed %d", size+off, size)
			require.False(t, errors.Is(err, io.EOF))
		}
		for _, cause := range []error{
			errors.New("checksum"), fmt.Errorf("body: %w", io.ErrUnexpectedEOF), fmt.Errorf("body: %w", io.EOF),
		} {
			s := &source{size: size}
			s.read = func(_ context.Context, offset int64) error {
				if offset == size {
					return &backends.Error{Op: "get", Backend: "source:", Key: "k", Err: cause}
				}
				return nil
			}
			err := download.Each(t.Context(), s, []download.Object{{Key: "k", Size: size}}, 4, ending)
			require.Error(t, err, "size %d, %v", size, cause)
			require.False(t, errors.Is(err, io.EOF))
		}
	}
}

// A cancelled Each returns the cause and passes on no more objects.
func TestEachCancelled(t *testing.T) {
	noLeak(t)
	gone := errors.New("gone")
	for _, at := range []int{0, 5, 28} {
		b := backendtest.NewMemory()
		list := objects(t, b, 30)
		ctx, cancel := context.WithCancelCause(t.Context())
		seen := 0
		err := download.Each(ctx, b, list, 4, func(i int, _ []byte, err error) error {
			if seen++; i == at {
				cancel(gone)
			}
			return err
		})
		// Objects that were fetched already may still be passed on.
		require.GreaterOrEqual(t, seen, at+1)
		if seen < 30 {
			require.True(t, errors.Is(err, gone) || errors.Is(err, context.Canceled), "%v", err)
		}
		cancel(nil)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b := backendtest.NewMemory()
	err := download.Each(ctx, b, objects(t, b, 3), 4, ending)
	require.ErrorIs(t, err, context.Canceled)
}

// ending stops Each at the first object that cannot be read.
func ending(_ int, _ []byte, err error) error { return err }

// Each passes on the error of an object that cannot be read, and continues with the next.
func TestEachContinues(t *testing.T) {
	noLeak(t)
	b := backendtest.NewMemory()
	list := objects(t, b, 9)
	list[3].Key, list[8].Key = "missing", "missing-too"
	var bad []int
	require.NoError(t, download.Each(t.Context(), b, list, 2, func(i int, data []byte, err error) error {
		if err != nil {
			require.ErrorIs(t, err, backends.ErrNotFound)
			bad = append(bad, i)
			return nil
		}
		require.True(t, bytes.Equal(contentOf(i), data))
		return nil
	}))
	require.Equal(t, []int{3, 8}, bad)
}

// A damaged object is read once more.
func TestEachReadsDamagedAgain(t *testing.T) {
	for _, times := range []int{1, 2} {
		s := &source{size: 100}
		s.read = func(_ context.Context, offset int64) error {
			if offset == 100 && times > 0 {
				times--
				return &backends.Error{Op: "get", Backend: "source:", Key: "k", Err: backends.ErrDamaged}
			}
			return nil
		}
		want := times == 1
		err := download.Each(t.Context(), s, []download.Object{{Key: "k", Size: 100}}, 4, ending)
		require.Equal(t, want, err == nil, "%v", err)
		require.Equal(t, !want, errors.Is(err, backends.ErrDamaged))
	}
}
