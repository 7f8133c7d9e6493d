package replay_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/journal"
	"github.com/xdswal/xdswal/replay"
)

// The public state reads what the fold contains.
func TestState(t *testing.T) {
	at := time.Unix(1700000000, 0)
	st, err := new(state.State).Apply(&journal.Event{
		Sequence: 1, Time: at, Kind: journal.Update, Cache: "snapshot/", Node: "n",
		Types: []journal.TypeChange{
			{TypeURL: "a", Version: "1", Upserts: []*journal.Resource{{Name: "x", Value: []byte("12")}, {Name: "y", Value: []byte("345")}}},
			{TypeURL: "b", Version: "2"},
		},
	})
	require.NoError(t, err)
	st, err = st.Apply(&journal.Event{Sequence: 2, Time: at, Kind: journal.Update, Cache: "linear/a", Types: []journal.TypeChange{
		{TypeURL: "a", Upserts: []*journal.Resource{{Name: "z", Value: []byte("6")}}},
	}})
	require.NoError(t, err)

	s := (*replay.State)(st)
	require.EqualValues(t, 2, s.Sequence())
	require.Equal(t, at, s.Time())
	require.Equal(t, 2, s.NumNodes())
	require.Equal(t, 3, s.NumResources())
	require.EqualValues(t, 6, s.Bytes())
	require.Equal(t, []string{"linear/a", "snapshot/"}, s.Caches())
	require.Equal(t, st.Digest(), s.Digest())
	require.Nil(t, s.Node("snapshot/", "other"))

	var names []string
	for n := range s.Nodes() {
		names = append(names, n.Cache()+" "+n.Name())
	}
	require.Equal(t, []string{"linear/a ", "snapshot/ n"}, names)
	names = nil
	for n := range s.Cache("snapshot/") {
		names = append(names, n.Name())
	}
	require.Equal(t, []string{"n"}, names)

	n := s.Node("snapshot/", "n")
	require.EqualValues(t, 1, n.Sequence())
	require.Equal(t, at, n.Time())
	require.Equal(t, 2, n.NumResources())
	require.EqualValues(t, 5, n.Bytes())
	require.Nil(t, n.Type("c"))
	var urls []string
	for typ := range n.Types() {
		urls = append(urls, typ.URL()+typ.Version())
	}
	require.Equal(t, []string{"a1", "b2"}, urls)
	a := n.Type("a")
	require.Equal(t, 2, a.Len())
	require.Equal(t, "345", string(a.Get("y").Value))
	require.Nil(t, a.Get("z"))
	for r := range a.All() {
		require.Equal(t, "x", r.Name)
		break
	}
}
