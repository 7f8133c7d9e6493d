package xdscache_test

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/internal/format/snapshot"
	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/xdscache"
)

// requireHeldOnce checks that equal values of a state are in one place.
func requireHeldOnce(t testing.TB, st *state.State, values int) {
	t.Helper()
	at := map[string]*byte{}
	for n := range st.All() {
		for i := range n.Types() {
			for r := range n.Types()[i].All() {
				p := unsafe.SliceData(r.Value)
				if at[string(r.Value)] == nil {
					at[string(r.Value)] = p
				}
				require.Same(t, at[string(r.Value)], p, "%s of node %s has a value of its own", r.Name, n.Name())
			}
		}
	}
	require.Len(t, at, values)
}

// Nodes with the same resources hold them once, whether they were set from one snapshot or
// from snapshots of their own, one after the other or at once, and after each kind of
// restore.
func TestNodesHoldEqualResourcesOnce(t *testing.T) {
	for _, row := range []struct {
		name      string
		immutable bool
		own       bool // each node has a snapshot with messages of its own
		together  bool
	}{
		{name: "one snapshot"},
		{name: "one snapshot, immutable", immutable: true},
		{name: "own snapshots", own: true},
		{name: "own snapshots, immutable", own: true, immutable: true},
		{name: "own snapshots, at once", own: true, together: true},
		{name: "one snapshot, immutable, at once", immutable: true, together: true},
	} {
		t.Run(row.name, func(t *testing.T) {
			const nodes, size = 4, 100
			l := newLog(t)
			var opts []xdscache.SnapshotOption
			if row.immutable {
				opts = append(opts, xdscache.WithImmutableMessages())
			}
			c := newCache(l, opts...)
			all := assignments(size)
			if row.together {
				l.hold()
			}
			var wg sync.WaitGroup
			snapshots := make([]*cachev3.Snapshot, nodes)
			for i := range nodes {
				given := all
				if row.own {
					given = assignments(size)
				}
				snapshots[i] = snapshotOfAssignments("1", given)
				wg.Go(func() { set(t, c, fmt.Sprint(i), snapshots[i]) })
				if !row.together {
					wg.Wait()
				}
			}
			if row.together {
				l.awaitQueued(nodes)
				l.release()
				wg.Wait()
			}
			requireHeldOnce(t, l.State(), size)
			requireServed(t, l, c)
			require.Empty(t, l.appended(func() {
				for i := range nodes {
					set(t, c, fmt.Sprint(i), snapshots[i])
				}
			}))

			replayed := restart(t, l).State()
			requireHeldOnce(t, replayed, size)
			var file bytes.Buffer
			_, err := snapshot.Encode(t.Context(), &file, l.State(), snapshot.Header{Sequence: l.State().Sequence(), Time: time.Unix(1, 0)})
			require.NoError(t, err)
			decoded, _, err := snapshot.Decode(t.Context(), &file, nil)
			require.NoError(t, err)
			require.Equal(t, l.State().Digest(), decoded.Digest())
			requireHeldOnce(t, decoded, size)

			// What is set after a restore shares what was restored.
			restored := newLog(t)
			restored.forget()
			restored.state = decoded
			again := newCache(restored, opts...)
			set(t, again, "new", snapshotOfAssignments("1", assignments(size)))
			requireHeldOnce(t, restored.State(), size)
		})
	}
}

// A hundred nodes with the same resources take a twentieth of what the snapshots take that
// a control plane builds for each of them, and that go-control-plane keeps.
func TestMemoryOfEqualNodes(t *testing.T) {
	const nodes, size = 100, 30
	before := heap()
	stock := []*cachev3.Snapshot{snapshotOfAssignments("1", assignments(size)), snapshotOfAssignments("1", assignments(size))}
	theirs := (heap() - before) / uint64(len(stock)) * nodes
	runtime.KeepAlive(stock)

	l := newLog(t)
	l.forget()
	before = heap()
	for i := range nodes {
		c := newCache(l) // what a cache keeps is not counted
		set(t, c, fmt.Sprint(i), snapshotOfAssignments("1", assignments(size)))
		l.forget()
		l.subscribers = nil
	}
	ours := heap() - before
	t.Logf("%d bytes of stock snapshots, %d of state", theirs, ours)
	require.Less(t, ours, theirs/20)
	require.Equal(t, nodes*size, l.State().NumResources())
}

// One snapshot that is set for many nodes is marshaled once, if its messages are immutable.
func TestOneSnapshotForManyNodes(t *testing.T) {
	l := newLog(t)
	c := newCache(l, xdscache.WithImmutableMessages())
	messages := make([]types.Resource, 200)
	var looks [200]atomic.Int64
	for i := range messages {
		messages[i] = &counted{cluster(fmt.Sprint(i)), &looks[i]}
	}
	s := clusters(t, "1", messages...)
	set(t, c, "first", s)
	total := func() (n int64) {
		for i := range looks {
			n += looks[i].Load()
		}
		return n
	}
	before := total()
	for i := range 20 {
		set(t, c, fmt.Sprint(i), s)
	}
	require.Equal(t, before, total())
	_, err := c.UpdateResources(context.Background(), "other", map[string][]types.ResourceWithTTL{resourcev3.ClusterType: items(messages...)}, nil, "1")
	require.NoError(t, err)
	requireHeldOnce(t, l.State(), len(messages))
	requireServed(t, l, c)
}
