package catalog_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/backends/backendtest"
	"github.com/xdswal/xdswal/backends/file"
	"github.com/xdswal/xdswal/internal/catalog"
	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/internal/format/batch"
	"github.com/xdswal/xdswal/internal/format/snapshot"
	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/journal"
)

const storeID = "5707e1d0"

// drivers are the backends on which epochs are claimed.
var drivers = map[string]func(testing.TB) backends.Backend{
	"memory": func(testing.TB) backends.Backend { return backendtest.NewMemory() },
	"file": func(t testing.TB) backends.Backend {
		b, err := file.New(file.Config{Dir: t.TempDir()})
		require.NoError(t, err)
		return b
	},
}

// newEpoch returns a claim, with the tokens of its number and of its parent.
func newEpoch(number, parent uint64, seq journal.Sequence) catalog.Epoch {
	e := catalog.Epoch{
		Number: number, Parent: parent, Sequence: seq, StoreID: storeID, Token: token(number),
		Host: "edge-1", Claimed: time.Date(2026, 3, 1, 12, 0, 0, int(number)*1e6, time.UTC),
	}
	if parent != 0 {
		e.ParentToken = token(parent)
	}
	return e
}

func token(number uint64) string { return fmt.Sprint("token-", number) }

func put(t testing.TB, b backends.Backend, key string, content []byte) {
	t.Helper()
	require.NoError(t, b.Put(t.Context(), key, bytes.NewReader(content)))
}

func get(t testing.TB, b backends.Backend, key string) []byte {
	t.Helper()
	r, err := b.Get(t.Context(), key, 0, -1)
	require.NoError(t, err)
	defer r.Close()
	content, err := io.ReadAll(r)
	require.NoError(t, err)
	return content
}

func list(t testing.TB, b backends.Backend) *catalog.Remote {
	t.Helper()
	r, err := catalog.List(t.Context(), b)
	require.NoError(t, err)
	return r
}

// at is an object: a snapshot of an event, or a batch that begins with one.
type at struct {
	epoch uint64
	seq   journal.Sequence
}

func (a at) snapshotKey() string {
	return catalog.SnapshotPrefix + snapshot.Name{Epoch: a.epoch, Sequence: a.seq}.String()
}

func (a at) batchKey() string {
	return catalog.Batch{Name: batch.Name{Epoch: a.epoch, First: a.seq}}.Key()
}

func snapshotsOf(r *catalog.Remote) []at {
	var out []at
	for _, s := range r.Snapshots {
		out = append(out, at{s.Epoch, s.Sequence})
	}
	return out
}

func batchesOf(batches []catalog.Batch) []at {
	var out []at
	for _, b := range batches {
		out = append(out, at{b.Epoch, b.First})
	}
	return out
}

func numbersOf(epochs []catalog.Epoch) []uint64 {
	var out []uint64
	for _, e := range epochs {
		out = append(out, e.Number)
	}
	return out
}

func keysOf(objects []backends.Object) []string {
	var out []string
	for _, o := range objects {
		out = append(out, o.Key)
	}
	return out
}

// encodeBatch returns the batch of some events.
func encodeBatch(t testing.TB, events []*journal.Event) []byte {
	t.Helper()
	w, err := batch.NewWriter()
	require.NoError(t, err)
	for _, ev := range events {
		record, err := event.Marshal(ev)
		require.NoError(t, err)
		event.Seal(record, ev.Sequence, ev.Time)
		require.NoError(t, w.Add(ev.Sequence, record))
	}
	return w.Bytes()
}

func encodeSnapshot(t testing.TB, st *state.State, epoch uint64) []byte {
	t.Helper()
	var b bytes.Buffer
	_, err := snapshot.Encode(t.Context(), &b, st, snapshot.Header{
		Sequence: st.Sequence(), Time: st.Time(), Epoch: epoch, Created: time.Unix(1700000000, 0), StoreID: storeID,
	})
	require.NoError(t, err)
	return b.Bytes()
}

func fold(t testing.TB, events []*journal.Event) *state.State {
	t.Helper()
	st := &state.State{}
	for _, ev := range events {
		var err error
		st, err = st.Apply(ev)
		require.NoError(t, err)
	}
	return st
}

// claimed reports what came of a claim.
func claimed(ctx context.Context, b backends.Backend, e catalog.Epoch) (bool, error) {
	err := catalog.Claim(ctx, b, e)
	if errors.Is(err, catalog.ErrFenced) {
		return false, nil
	}
	return err == nil, err
}
