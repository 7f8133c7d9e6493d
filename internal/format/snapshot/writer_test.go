package snapshot_test

import (
	"bytes"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/internal/format/snapshot"
	"github.com/xdswal/xdswal/journal"
)

// failAfter returns an error after n writes.
type failAfter struct {
	n, writes int
}

func (w *failAfter) Write(p []byte) (int, error) {
	if w.writes++; w.writes > w.n {
		return len(p) / 2, errBoom
	}
	return len(p), nil
}

// Close at the latest returns the error of a failed write of any frame.
func TestWriteFails(t *testing.T) {
	st := large(t, 10)
	frames := len(split(t, file(t, st)))
	for n := range frames {
		done := noLeak(t)
		w := &failAfter{n: n}
		_, err := writeState(w, headerOf(st), st)
		require.ErrorIs(t, err, errBoom, "write %d", n)
		require.Equal(t, n+1, w.writes, "nothing is written after a failed write")
		done()
	}
	w := &failAfter{n: frames}
	_, err := writeState(w, headerOf(st), st)
	require.NoError(t, err)
}

// After an error, every call returns it.
func TestWriterStaysFailed(t *testing.T) {
	defer noLeak(t)()
	sw, err := snapshot.NewWriter(&failAfter{}, snapshot.Header{})
	require.NoError(t, err)
	require.NoError(t, sw.Node("c", "n", 1, time.Time{}))
	require.NoError(t, sw.Type("t", "1"))
	for i := 0; err == nil; i++ {
		require.Less(t, i, 100)
		err = sw.Resource(&journal.Resource{Name: string(rune('a' + i)), Value: make([]byte, 1<<20)})
	}
	require.ErrorIs(t, err, errBoom)
	require.ErrorIs(t, sw.Resource(&journal.Resource{Name: "z"}), errBoom)
	require.ErrorIs(t, sw.Type("u", "1"), errBoom)
	require.ErrorIs(t, sw.Node("c", "o", 1, time.Time{}), errBoom)
	_, err = sw.Close([32]byte{})
	require.ErrorIs(t, err, errBoom)
}

func TestAbort(t *testing.T) {
	st := large(t, 10)
	resources := st.Node("snapshot/default", "node").Type("type.googleapis.com/T")
	for n := range 11 {
		done := noLeak(t)
		var out bytes.Buffer
		sw, err := snapshot.NewWriter(&out, headerOf(st))
		require.NoError(t, err)
		require.NoError(t, sw.Node("snapshot/default", "node", 1, time.Time{}))
		require.NoError(t, sw.Type(resources.URL(), "1"))
		i := 0
		for r := range resources.All() {
			if i == n {
				break
			}
			require.NoError(t, sw.Resource(r))
			i++
		}
		sw.Abort()
		done()
		require.Equal(t, int64(out.Len()), sw.Written())
		_, err = sw.Close(st.Digest())
		require.ErrorContains(t, err, "aborted")
		sw.Abort()
		requireRefused(t, out.Bytes(), event.ErrCorrupt)
		done()
	}
}

// The writer returns an error for records that the reader would not accept.
func TestWriterRefusesDisorder(t *testing.T) {
	node := func(cache, name string) func(*snapshot.Writer) error {
		return func(w *snapshot.Writer) error { return w.Node(cache, name, 1, time.Time{}) }
	}
	typ := func(url string) func(*snapshot.Writer) error {
		return func(w *snapshot.Writer) error { return w.Type(url, "1") }
	}
	res := func(name string) func(*snapshot.Writer) error {
		return func(w *snapshot.Writer) error { return w.Resource(&journal.Resource{Name: name}) }
	}
	tests := []struct {
		name  string
		steps []func(*snapshot.Writer) error // the last one is refused
	}{
		{"type before a node", []func(*snapshot.Writer) error{typ("t")}},
		{"resource before a node", []func(*snapshot.Writer) error{res("a")}},
		{"resource before a type", []func(*snapshot.Writer) error{node("c", "n"), res("a")}},
		{"resource before a type of the second node", []func(*snapshot.Writer) error{node("c", "n"), typ("t"), node("c", "o"), res("a")}},
		{"node twice", []func(*snapshot.Writer) error{node("c", "n"), node("c", "n")}},
		{"caches unsorted", []func(*snapshot.Writer) error{node("c", "n"), node("b", "o")}},
		{"types unsorted", []func(*snapshot.Writer) error{node("c", "n"), typ("t"), typ("s")}},
		{"resource twice", []func(*snapshot.Writer) error{node("c", "n"), typ("t"), res("a"), res("a")}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			defer noLeak(t)()
			var out bytes.Buffer
			w, err := snapshot.NewWriter(&out, snapshot.Header{})
			require.NoError(t, err)
			last := len(tt.steps) - 1
			for _, step := range tt.steps[:last] {
				require.NoError(t, step(w))
			}
			require.ErrorContains(t, tt.steps[last](w), "not in sorted order")
			_, err = w.Close([32]byte{})
			require.ErrorContains(t, err, "not in sorted order")
			requireRefused(t, out.Bytes(), event.ErrCorrupt)
		})
	}
}

// A store ID that no protobuf tool could read is not written.
func TestWriterRefusesInvalidStoreID(t *testing.T) {
	defer noLeak(t)()
	var out bytes.Buffer
	_, err := snapshot.NewWriter(&out, snapshot.Header{StoreID: "\xff"})
	require.ErrorContains(t, err, "invalid UTF-8")
	require.Empty(t, out.Bytes())
}

// Names may be empty.
func TestEmptyNames(t *testing.T) {
	defer noLeak(t)()
	var out bytes.Buffer
	w, err := snapshot.NewWriter(&out, snapshot.Header{})
	require.NoError(t, err)
	require.NoError(t, w.Node("", "", 0, time.Time{}))
	require.NoError(t, w.Type("", ""))
	require.NoError(t, w.Resource(&journal.Resource{}))
	_, err = w.Close([32]byte{})
	require.NoError(t, err)
	st, contents, err := readState(t.Context(), &out)
	require.NoError(t, err)
	require.Equal(t, &journal.Resource{}, st.Node("", "").Type("").Get(""))
	require.Equal(t, 1, contents.Trailer.Resources)
	require.True(t, contents.Header.Time.IsZero())
}

// Written returns the number of written bytes.
func TestWritten(t *testing.T) {
	st := large(t, 3)
	pr, pw := io.Pipe()
	read := make(chan int64)
	go func() {
		n, _ := io.Copy(io.Discard, pr)
		read <- n
	}()
	w, err := snapshot.NewWriter(pw, headerOf(st))
	require.NoError(t, err)
	require.NoError(t, writeNodes(w, st))
	_, err = w.Close(st.Digest())
	require.NoError(t, err)
	require.NoError(t, pw.Close())
	require.Equal(t, <-read, w.Written())
}
