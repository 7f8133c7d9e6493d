package snapshot_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"
	"unsafe"
	"weak"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/internal/format/snapshot"
	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/journal"
)

var errBoom = errors.New("boom")

// hooked is a sink with a hook before each call.
type hooked struct {
	*state.Builder
	before func(call string) error
}

func (h hooked) Node(cache, name string, seq journal.Sequence, at time.Time) error {
	if err := h.before("node"); err != nil {
		return err
	}
	return h.Builder.Node(cache, name, seq, at)
}

func (h hooked) Type(url, version string) error {
	if err := h.before("type"); err != nil {
		return err
	}
	return h.Builder.Type(url, version)
}

func (h hooked) Resources(rs []*journal.Resource) error {
	if err := h.before("resources"); err != nil {
		return err
	}
	return h.Builder.Resources(rs)
}

// readHooked reads a file into a builder with a hook.
func readHooked(ctx context.Context, r io.Reader, before func(call string) error) error {
	_, err := snapshot.Read(ctx, r, func(h snapshot.Header) (snapshot.Sink, error) {
		if err := before("begin"); err != nil {
			return nil, err
		}
		return hooked{state.NewBuilder(h.Sequence, h.Time), before}, nil
	})
	return err
}

// A reader may return its bytes in any pieces.
func TestReadInPieces(t *testing.T) {
	st := small(t)
	f := file(t, st)
	for name, reader := range map[string]io.Reader{
		"one byte":      iotest.OneByteReader(bytes.NewReader(f)),
		"half":          iotest.HalfReader(bytes.NewReader(f)),
		"data with EOF": iotest.DataErrReader(bytes.NewReader(f)),
	} {
		t.Run(name, func(t *testing.T) {
			got, contents, err := readState(context.Background(), reader)
			require.NoError(t, err)
			require.Equal(t, st.Digest(), got.Digest())
			require.Equal(t, int64(len(f)), contents.Size)
		})
	}
}

// Read returns the reader's error after any byte, and not ErrCorrupt, because the file
// may be intact.
func TestReaderFails(t *testing.T) {
	defer noLeak(t)()
	st := small(t)
	f := file(t, st)
	for _, failure := range []error{errBoom, io.ErrUnexpectedEOF, fmt.Errorf("connection lost: %w", io.EOF)} {
		for n := range len(f) + 1 {
			r := io.MultiReader(bytes.NewReader(f[:n]), iotest.ErrReader(failure))
			_, _, err := readState(context.Background(), r)
			require.ErrorIs(t, err, failure, "at %d", n)
			require.NotErrorIs(t, err, event.ErrCorrupt, "at %d", n)
			if n < 28 {
				_, err := snapshot.ReadHeader(io.MultiReader(bytes.NewReader(f[:n]), iotest.ErrReader(failure)))
				require.ErrorIs(t, err, failure, "at %d", n)
				require.NotErrorIs(t, err, event.ErrCorrupt, "at %d", n)
			}
		}
	}
	requireRoundTrip(t, st, f)
}

// Read returns the sink's error, and not ErrCorrupt, while frames that were read ahead
// are still being decoded.
func TestSinkFails(t *testing.T) {
	f := file(t, large(t, 40))
	for _, at := range []string{"begin", "node", "type", "resources"} {
		t.Run(at, func(t *testing.T) {
			defer noLeak(t)()
			for range 10 {
				calls := 0
				err := readHooked(context.Background(), bytes.NewReader(f), func(call string) error {
					calls++
					if call == at {
						return errBoom
					}
					return nil
				})
				require.ErrorIs(t, err, errBoom)
				require.NotErrorIs(t, err, event.ErrCorrupt)
				require.Contains(t, []string{"begin", "node", "type", "resources"}[calls-1], at)
			}
		})
	}
	requireRoundTrip(t, large(t, 40), f)
}

// Read returns the error of a damaged frame while later frames are being decoded.
func TestFrameFailsAmongOthers(t *testing.T) {
	defer noLeak(t)()
	st := large(t, 30)
	f := file(t, st)
	parts := split(t, f)
	at := 28 + len(parts[0].packed)
	for i := 1; i < len(parts); i++ {
		last := at + 28 + len(parts[i].packed) - 1
		f[last] ^= 1
		_, _, err := readState(context.Background(), bytes.NewReader(f))
		require.ErrorIs(t, err, event.ErrCorrupt)
		require.ErrorContains(t, err, fmt.Sprintf("frame %d: ", i))
		f[last] ^= 1
		at = last + 1
	}
	requireRoundTrip(t, st, f)
}

func TestContext(t *testing.T) {
	f := file(t, large(t, 20))
	t.Run("done before", func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		err := readHooked(ctx, bytes.NewReader(f), func(string) error {
			t.Error("the sink was called")
			return nil
		})
		require.ErrorIs(t, err, context.Canceled)
	})
	t.Run("done while reading", func(t *testing.T) {
		defer noLeak(t)()
		ctx, cancel := context.WithCancelCause(context.Background())
		calls := 0
		err := readHooked(ctx, bytes.NewReader(f), func(call string) error {
			if call == "resources" {
				calls++
				cancel(errBoom)
			}
			return nil
		})
		require.ErrorIs(t, err, errBoom)
		require.NotErrorIs(t, err, event.ErrCorrupt)
		require.Equal(t, 1, calls, "frames were added after the end")
	})
	requireRoundTrip(t, large(t, 20), f)
}

// The number of frames that are read ahead is limited, even with a slow sink.
func TestReadAheadIsBounded(t *testing.T) {
	const frames = 64
	st := large(t, frames)
	f := file(t, st)
	var ends []int64 // of frames
	end := int64(0)
	for _, p := range split(t, f) {
		end += 28 + int64(len(p.packed))
		ends = append(ends, end)
	}
	r := &countReader{r: bytes.NewReader(f)}
	taken := 0
	err := readHooked(context.Background(), r, func(call string) error {
		if call != "resources" {
			return nil
		}
		taken++
		read := 0
		for read < len(ends) && ends[read] <= r.n {
			read++
		}
		require.LessOrEqual(t, read-taken-1, 2*runtime.GOMAXPROCS(0), "frames read, and not added")
		return nil
	})
	require.NoError(t, err)
	require.Equal(t, frames, taken)
	requireRoundTrip(t, st, f)
}

type countReader struct {
	r io.Reader
	n int64
}

func (c *countReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// ReadHeader reads no byte after the first frame.
func TestReadHeaderReadsOneFrame(t *testing.T) {
	st := small(t)
	f := file(t, st)
	r := bytes.NewReader(f)
	h, err := snapshot.ReadHeader(r)
	require.NoError(t, err)
	require.Equal(t, headerOf(st), h)
	require.Equal(t, len(f)-28-len(split(t, f)[0].packed), r.Len())
}

// A restored state keeps no frames in memory.
func TestReadFramesAreFreed(t *testing.T) {
	const n = 20
	b := state.NewBuilder(0, time.Time{})
	for i := range n {
		require.NoError(t, b.Node("snapshot/default", fmt.Sprintf("node-%04d", i), 1, time.Unix(1, 0)))
		require.NoError(t, b.Type("type.googleapis.com/S", fmt.Sprintf("version %d", i)))
		require.NoError(t, b.Type("type.googleapis.com/T", "1"))
		require.NoError(t, b.Resources([]*journal.Resource{{Name: "r", TypeURL: "type.googleapis.com/T", Value: slices.Repeat([]byte{byte(i)}, 1<<20)}}))
	}
	f := file(t, b.Build())
	before := heapInUse()
	got, _, err := readState(context.Background(), bytes.NewReader(f))
	require.NoError(t, err)
	require.Greater(t, heapInUse(), before+(n-2)<<20)
	for i := range n {
		got, err = got.Apply(&journal.Event{
			Sequence: got.Sequence() + 1, Kind: journal.Update, Cache: "snapshot/default", Node: fmt.Sprintf("node-%04d", i),
			Types: []journal.TypeChange{{TypeURL: "type.googleapis.com/T", Version: "2", Upserts: []*journal.Resource{{Name: "r"}}}},
		})
		require.NoError(t, err)
	}
	require.Less(t, heapInUse(), before+4<<20)
	require.Equal(t, n, got.NumResources())
	runtime.KeepAlive(f)
}

// A resource of a restored state keeps no other resource of its frame in memory.
func TestRestoredResourcesAreFreed(t *testing.T) {
	const n, url = 100, "type.googleapis.com/T"
	kept := fmt.Sprintf("r-%04d", n/2)
	replace := func(name string, tc *journal.TypeChange) {
		tc.Upserts = append(tc.Upserts, &journal.Resource{Name: name, Value: []byte("new")})
	}
	remove := func(name string, tc *journal.TypeChange) { tc.Deletes = append(tc.Deletes, name) }
	for _, tt := range []struct {
		name string
		size int // of each value
		drop func(name string, tc *journal.TypeChange)
	}{
		{"replaced, one frame", 8 << 10, replace},
		{"replaced, several frames", 100 << 10, replace},
		{"deleted, one frame", 8 << 10, remove},
		{"deleted, several frames", 100 << 10, remove},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := file(t, ofValues(t, slices.Repeat([]any{tt.size}, n)...))
			before := heapInUse()
			st, _, err := readState(t.Context(), bytes.NewReader(f))
			require.NoError(t, err)
			tc := journal.TypeChange{TypeURL: url, Version: "2"}
			var dropped []weak.Pointer[journal.Resource]
			var values []weak.Pointer[byte]
			for r := range st.Node("snapshot/default", "node").Type(url).All() {
				if r.Name != kept {
					tt.drop(strings.Clone(r.Name), &tc)
					dropped = append(dropped, weak.Make(r))
					values = append(values, weak.Make(&r.Value[0]))
				}
			}
			require.Greater(t, heapInUse(), before+uint64((n-1)*tt.size))
			st, err = st.Apply(&journal.Event{
				Sequence: st.Sequence() + 1, Kind: journal.Update, Cache: "snapshot/default", Node: "node", Types: []journal.TypeChange{tc},
			})
			require.NoError(t, err)
			require.Less(t, heapInUse(), before+uint64(tt.size)+64<<10)
			for i := range dropped {
				require.Nil(t, dropped[i].Value(), "resource %d is still in memory", i)
				require.Nil(t, values[i].Value(), "the value of resource %d is still in memory", i)
			}
			require.Len(t, st.Node("snapshot/default", "node").Type(url).Get(kept).Value, tt.size)
			runtime.KeepAlive(f)
		})
	}
}

// Resources share the string of their type URL.
func TestReadSharesTypeURLs(t *testing.T) {
	st := large(t, 5)
	got, _, err := readState(context.Background(), bytes.NewReader(file(t, st)))
	require.NoError(t, err)
	typ := got.Node("snapshot/default", "node").Type("type.googleapis.com/T")
	for r := range typ.All() {
		require.Equal(t, typ.URL(), r.TypeURL)
		require.Same(t, unsafe.StringData(typ.URL()), unsafe.StringData(r.TypeURL))
	}
	require.Equal(t, st.Digest(), got.Digest())
}
