package state_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/journal"
)

const clusterURL = "type.googleapis.com/envoy.config.cluster.v3.Cluster"

// A node keeps its clusters of the last events, and not many of them.
func TestFormerClusters(t *testing.T) {
	st := &state.State{}
	apply := func(url string, clusters int) {
		change := journal.TypeChange{TypeURL: url, Version: fmt.Sprint(uint64(st.Sequence() + 1))}
		for i := range clusters {
			change.Upserts = append(change.Upserts, &journal.Resource{TypeURL: url, Name: fmt.Sprint(i), Value: []byte(change.Version)})
		}
		var err error
		st, err = st.Apply(&journal.Event{Sequence: st.Sequence() + 1, Kind: journal.Update, Cache: "c", Node: "n", Types: []journal.TypeChange{change}})
		require.NoError(t, err)
	}
	former := func() (out []string) {
		for _, f := range st.Node("c", "n").FormerClusters() {
			out = append(out, fmt.Sprintf("%s: %d to %d", f.Type.Version(), uint64(f.First), uint64(f.Last)))
		}
		return out
	}
	apply(clusterURL, 1)
	require.Empty(t, former())
	apply("other", 1)
	apply(clusterURL, 1)
	apply(clusterURL, 2)
	require.Equal(t, []string{"1: 1 to 2", "3: 3 to 3"}, former())
	require.EqualValues(t, 4, st.Node("c", "n").ClustersSince())
	for range 100 {
		apply(clusterURL, 1)
	}
	require.Len(t, former(), 8)
	require.Equal(t, "103: 103 to 103", former()[7])
	apply(clusterURL, 1000)
	require.Len(t, former(), 8)
	apply(clusterURL, 1000)
	require.Len(t, former(), 1)
	apply(clusterURL, 2000)
	require.Empty(t, former(), "too much would be kept")
}
