package xdswal_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/stream/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/internal/cachelog"
	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/journal"
	"github.com/xdswal/xdswal/xdscache"
)

// timeout bounds waits that are short unless the test fails.
const timeout = 60 * time.Second

// small is the least size of a segment.
const small = 64 << 10

// openStore opens a store that is closed after the test, in a new directory if opt names
// none.
func openStore(t testing.TB, opt xdswal.Options) *xdswal.Store {
	t.Helper()
	if opt.Dir == "" && !opt.MemoryOnly {
		opt.Dir = t.TempDir()
	}
	if opt.SegmentBytes == 0 {
		opt.SegmentBytes = small
	}
	s, err := xdswal.Open(context.Background(), opt)
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = s.Close(context.Background())
		forgetCaches(s)
	})
	return s
}

func closeStore(t testing.TB, s *xdswal.Store) {
	t.Helper()
	require.NoError(t, s.Close(context.Background()))
}

// requireSound checks the invariant of every test: the default cache serves the state, the
// state is the fold of the journal if that contains all events, and a store that is opened
// again has the same state. It closes the store.
func requireSound(t testing.TB, s *xdswal.Store) {
	t.Helper()
	requireServed(t, s)
	st := s.State()
	folded := &state.State{}
	err := s.Events(context.Background(), 1, 0, func(ev *journal.Event) error {
		var err error
		folded, err = folded.Apply(ev)
		return err
	})
	if folded.Sequence() == st.Sequence() {
		require.NoError(t, err)
		require.Equal(t, st.Digest(), folded.Digest())
	}
	closeStore(t, s)
	again := openStore(t, xdswal.Options{Dir: s.Status().Dir})
	require.Equal(t, st.Digest(), again.State().Digest())
	requireServed(t, again)
	closeStore(t, again)
}

// requireServed checks that the default cache serves every node with the bodies and TTLs
// of the state.
func requireServed(t testing.TB, s *xdswal.Store) {
	t.Helper()
	c := snapshotCache(s)
	nodes := 0
	for n := range s.State().Cache(cachelog.SnapshotPrefix) {
		nodes++
		for typ := range n.Types() {
			got := fetch(t, c, n.Name(), typ.URL())
			require.Len(t, got, typ.Len())
			for r := range typ.All() {
				value, err := cachev3.MarshalResource(got[r.Name].Resource)
				require.NoError(t, err)
				require.Equal(t, string(r.Value), string(value))
				require.Equal(t, r.TTL, got[r.Name].TTL)
			}
		}
	}
	require.Len(t, slices.Collect(c.Nodes()), nodes)
}

// caches are the caches of open stores: a store creates a cache of a name only once.
var caches struct {
	sync.Mutex
	snapshot map[*xdswal.Store]map[string]*xdscache.SnapshotCache
	linear   map[*xdswal.Store]*xdscache.LinearCache
}

// snapshotCache returns the store's default cache.
func snapshotCache(s *xdswal.Store) *xdscache.SnapshotCache { return namedCache(s, "") }

func namedCache(s *xdswal.Store, name string) *xdscache.SnapshotCache {
	caches.Lock()
	defer caches.Unlock()
	if caches.snapshot == nil {
		caches.snapshot = map[*xdswal.Store]map[string]*xdscache.SnapshotCache{}
	}
	if caches.snapshot[s] == nil {
		caches.snapshot[s] = map[string]*xdscache.SnapshotCache{}
	}
	if caches.snapshot[s][name] == nil {
		caches.snapshot[s][name] = s.SnapshotCache(false, cachev3.IDHash{}, nil, xdscache.WithName(name))
	}
	return caches.snapshot[s][name]
}

// linearCache returns the store's linear cache of clusters.
func linearCache(s *xdswal.Store) *xdscache.LinearCache {
	caches.Lock()
	defer caches.Unlock()
	if caches.linear == nil {
		caches.linear = map[*xdswal.Store]*xdscache.LinearCache{}
	}
	if caches.linear[s] == nil {
		caches.linear[s] = s.LinearCache(resourcev3.ClusterType)
	}
	return caches.linear[s]
}

func forgetCaches(s *xdswal.Store) {
	caches.Lock()
	defer caches.Unlock()
	delete(caches.snapshot, s)
	delete(caches.linear, s)
}

func fetch(t testing.TB, c cachev3.Cache, node, url string) map[string]types.ResourceWithTTL {
	t.Helper()
	resp, err := c.Fetch(context.Background(), &cachev3.Request{Node: &corev3.Node{Id: node}, TypeUrl: url, VersionInfo: "none such"})
	require.NoError(t, err)
	out := map[string]types.ResourceWithTTL{}
	for _, r := range resp.(interface {
		GetRawResources() []types.ResourceWithTTL
	}).GetRawResources() {
		out[cachev3.GetResourceName(r.Resource)] = r
	}
	return out
}

func cluster(name string) *clusterv3.Cluster { return &clusterv3.Cluster{Name: name} }

// clusterOf returns a cluster with a body that contains alt.
func clusterOf(name, alt string) *clusterv3.Cluster {
	return &clusterv3.Cluster{Name: name, AltStatName: alt}
}

func clusters(t testing.TB, version string, resources ...types.Resource) *cachev3.Snapshot {
	t.Helper()
	s, err := cachev3.NewSnapshot(version, map[string][]types.Resource{resourcev3.ClusterType: resources})
	require.NoError(t, err)
	return s
}

func set(t testing.TB, c *xdscache.SnapshotCache, node string, s cachev3.ResourceSnapshot) {
	t.Helper()
	require.NoError(t, c.SetSnapshot(context.Background(), node, s))
}

// watch opens a SotW watch of all resources of a type.
func watch(t testing.TB, c cachev3.Cache, node, url, version string) (chan cachev3.Response, func()) {
	t.Helper()
	w := make(chan cachev3.Response, 1)
	cancel, err := c.CreateWatch(&cachev3.Request{Node: &corev3.Node{Id: node}, TypeUrl: url, VersionInfo: version}, stream.NewSotwSubscription(nil, true), w)
	require.NoError(t, err)
	return w, cancel
}

func receive[T any](t testing.TB, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(timeout):
		require.FailNow(t, "no value within the timeout")
		panic("unreachable")
	}
}

func requireOpen[T any](t testing.TB, ch <-chan T) {
	t.Helper()
	select {
	case <-ch:
		require.FailNow(t, "the watch was answered")
	default:
	}
}

func requireProtoEqual(t testing.TB, want, got proto.Message) {
	t.Helper()
	require.True(t, proto.Equal(want, got), "got %v, want %v", got, want)
}

// files returns the mode, the modification time and the digest of each file in a
// directory.
func files(t testing.TB, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		out[path] = fmt.Sprint(info.Mode(), info.ModTime())
		if info.Mode().IsRegular() {
			b, err := os.ReadFile(path)
			out[path] += fmt.Sprintf(" %x", sha256.Sum256(b))
			return err
		}
		return nil
	}))
	return out
}

// subsequence reports whether got is a subsequence of all, or else returns the first
// element that is not.
func subsequence[T comparable](got, all []T) (T, bool) {
	for _, v := range got {
		at := slices.Index(all, v)
		if at < 0 {
			return v, false
		}
		all = all[at+1:]
	}
	var none T
	return none, true
}

func keys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
