package snapshot

import (
	"bufio"
	"context"
	"io"

	"github.com/xdswal/xdswal/internal/state"
)

// Encode writes the snapshot of a state and returns its size in bytes. Soon after ctx
// is done it returns the context's cause.
func Encode(ctx context.Context, w io.Writer, st *state.State, h Header) (int64, error) {
	sw, err := NewWriter(contextWriter{ctx, w}, h)
	if err != nil {
		return 0, err
	}
	// The digest takes about a third of the time that encoding takes.
	digest := make(chan [32]byte, 1)
	go func() { digest <- st.Digest() }()
	if err := encode(sw, st); err != nil {
		sw.Abort()
		return sw.Written(), err
	}
	_, err = sw.Close(<-digest)
	return sw.Written(), err
}

// contextWriter fails once its context is done. It is called for each frame, however
// large a node is.
type contextWriter struct {
	ctx context.Context
	w   io.Writer
}

func (w contextWriter) Write(p []byte) (int, error) {
	if w.ctx.Err() != nil {
		return 0, context.Cause(w.ctx)
	}
	return w.w.Write(p)
}

func encode(w *Writer, st *state.State) error {
	for n := range st.All() {
		if err := w.Node(n.Cache(), n.Name(), n.Sequence(), n.Time()); err != nil {
			return err
		}
		for i := range n.Types() {
			t := &n.Types()[i]
			if err := w.Type(t.URL(), t.Version()); err != nil {
				return err
			}
			for r := range t.All() {
				if err := w.Resource(r); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// Decode reads a snapshot into a state. If check is not nil, it is called with the
// header, and its error ends the reading. The errors are those of [Read].
func Decode(ctx context.Context, r io.Reader, check func(Header) error) (*state.State, Contents, error) {
	var b *state.Builder
	contents, err := Read(ctx, bufio.NewReaderSize(r, 1<<18), func(h Header) (Sink, error) {
		b = state.NewBuilder(h.Sequence, h.Time)
		if check == nil {
			return b, nil
		}
		return b, check(h)
	})
	if err != nil {
		return nil, contents, err
	}
	return b.Build(), contents, nil
}
