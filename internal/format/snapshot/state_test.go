package snapshot_test

import (
	"bytes"
	"context"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/internal/format/snapshot"
	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/journal"
)

const clusterURL = "type.googleapis.com/envoy.config.cluster.v3.Cluster"

// Encode ends when its context is done, also within a node.
func TestEncodeCancelled(t *testing.T) {
	st := &state.State{}
	var err error
	for i := range 8 {
		value := make([]byte, 1<<20)
		st, err = st.Apply(&journal.Event{
			Sequence: journal.Sequence(i + 1), Kind: journal.Update, Cache: "linear/x",
			Types: []journal.TypeChange{{TypeURL: clusterURL, Version: "1", Upserts: []*journal.Resource{{Name: string(rune('a' + i)), TypeURL: clusterURL, Value: value}}}},
		})
		require.NoError(t, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var w bytes.Buffer
	n, err := snapshot.Encode(ctx, cancellingWriter{&w, cancel}, st, snapshot.Header{Sequence: 8})
	require.ErrorIs(t, err, context.Canceled)
	require.EqualValues(t, w.Len(), n)
	var whole bytes.Buffer
	n, err = snapshot.Encode(t.Context(), &whole, st, snapshot.Header{Sequence: 8})
	require.NoError(t, err)
	require.EqualValues(t, whole.Len(), n)
	require.Less(t, w.Len(), whole.Len())
}

// cancellingWriter cancels a context at the first write.
type cancellingWriter struct {
	io.Writer
	cancel func()
}

func (w cancellingWriter) Write(p []byte) (int, error) {
	w.cancel()
	return w.Writer.Write(p)
}
