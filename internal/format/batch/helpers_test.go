package batch_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/internal/format/batch"
	"github.com/xdswal/xdswal/journal"
)

const clusterURL = "type.googleapis.com/envoy.config.cluster.v3.Cluster"

var start = time.Date(2026, 3, 1, 12, 0, 0, 7, time.UTC)

// newEvents returns n events from sequence first on, each with a payload of the given
// size.
func newEvents(first journal.Sequence, n, payload int) []*journal.Event {
	var events []*journal.Event
	for i := range n {
		seq := first + journal.Sequence(i)
		ev := &journal.Event{Sequence: seq, Time: start.Add(time.Duration(seq) * time.Second), Kind: journal.Update, Cache: "snapshot/default", Node: fmt.Sprint("node-", seq%3)}
		if seq%5 == 0 {
			ev.Kind = journal.Clear
		} else {
			ttl := time.Duration(seq) * time.Second
			value := make([]byte, payload)
			for j := range value {
				value[j] = byte(seq) + byte(j)
			}
			ev.Types = []journal.TypeChange{{
				TypeURL: clusterURL, Version: fmt.Sprint(seq), Deletes: []string{"gone"},
				Upserts: []*journal.Resource{{Name: "a", TypeURL: clusterURL, Version: "v", Value: value, TTL: &ttl}},
			}}
		}
		events = append(events, ev)
	}
	return events
}

// record returns the journal record of an event.
func record(t testing.TB, ev *journal.Event) []byte {
	t.Helper()
	b, err := event.Marshal(ev)
	require.NoError(t, err)
	event.Seal(b, ev.Sequence, ev.Time)
	return b
}

func newWriter(t testing.TB) *batch.Writer {
	t.Helper()
	w, err := batch.NewWriter()
	require.NoError(t, err)
	return w
}

// encode returns a batch of events, and its name.
func encode(t testing.TB, events []*journal.Event) ([]byte, batch.Name) {
	t.Helper()
	w := newWriter(t)
	for _, ev := range events {
		require.NoError(t, w.Add(ev.Sequence, record(t, ev)))
	}
	first, last := w.Bounds()
	require.Equal(t, events[0].Sequence, first)
	require.Equal(t, events[len(events)-1].Sequence, last)
	return append([]byte(nil), w.Bytes()...), batch.Name{Epoch: 3, First: first}
}

func decode(data []byte, name batch.Name) ([]*journal.Event, error) {
	var out []*journal.Event
	err := batch.Decode(data, name, func(ev *journal.Event) error {
		out = append(out, ev)
		return nil
	})
	return out, err
}

// requireEvents checks that the decoded events equal those that were encoded.
func requireEvents(t testing.TB, want, got []*journal.Event) {
	t.Helper()
	require.Len(t, got, len(want))
	for i := range want {
		require.True(t, want[i].Time.Equal(got[i].Time))
		ev := *got[i]
		ev.Time = want[i].Time
		require.Equal(t, want[i], &ev)
	}
}
