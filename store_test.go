package xdswal_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/v3"
	testresource "github.com/envoyproxy/go-control-plane/pkg/test/resource/v3"
	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/backends/file"
	"github.com/xdswal/xdswal/journal"
	"github.com/xdswal/xdswal/xdscache"
)

// fullSnapshot returns a snapshot of several types with different versions, with TTLs, an
// empty type and typical resources.
func fullSnapshot(t testing.TB) *cachev3.Snapshot {
	t.Helper()
	generator := testresource.TestSnapshot{
		Xds: testresource.Ads, Version: "v1", UpstreamPort: 8080, BasePort: 9000,
		NumClusters: 5, NumHTTPListeners: 2, NumScopedHTTPListeners: 1, NumTCPListeners: 1, NumRuntimes: 1, TLS: true,
	}
	s := generator.Generate()
	ttl := 90 * time.Second
	for name, item := range s.Resources[types.Endpoint].Items {
		s.Resources[types.Endpoint].Items[name] = types.ResourceWithTTL{Resource: item.Resource, TTL: &ttl}
	}
	s.Resources[types.Endpoint].Version = "endpoints 7"
	s.Resources[types.RateLimitConfig] = cachev3.NewResources("none yet", nil)
	return s
}

// A restart restores everything from each source.
func TestRestart(t *testing.T) {
	for _, row := range []struct {
		name string
		// first and second are the options of the two openings.
		first, second func(o *xdswal.Options)
		between       func(t *testing.T, s *xdswal.Store)
		// abrupt gives Close no time to write a snapshot.
		abrupt bool
	}{
		{name: "from a snapshot"},
		{name: "from the journal", first: func(o *xdswal.Options) { o.DisableSnapshots = true }, second: func(o *xdswal.Options) { o.DisableSnapshots = true }},
		{
			name: "from a snapshot and the journal",
			between: func(t *testing.T, s *xdswal.Store) {
				_, err := s.Compact(context.Background())
				require.NoError(t, err)
				set(t, snapshotCache(s), "later", clusters(t, "1", cluster("a")))
			},
			abrupt: true,
		},
		{name: "synced in intervals", first: func(o *xdswal.Options) { o.Sync = journal.SyncEvery(time.Hour) }},
		{name: "never synced, then always", first: func(o *xdswal.Options) { o.Sync = journal.SyncNever }},
	} {
		t.Run(row.name, func(t *testing.T) {
			opt := xdswal.Options{Dir: t.TempDir()}
			if row.first != nil {
				row.first(&opt)
			}
			s := openStore(t, opt)
			full := fullSnapshot(t)
			set(t, snapshotCache(s), "edge", full)
			set(t, snapshotCache(s), "empty", &cachev3.Snapshot{})
			set(t, snapshotCache(s), "gone", full)
			snapshotCache(s).ClearSnapshot("gone")
			set(t, namedCache(s, "other"), "edge", clusters(t, "9", cluster("x")))
			linear := linearCache(s)
			require.NoError(t, linear.UpdateResource("a", cluster("a")))
			require.NoError(t, s.LinearCache(resourcev3.ClusterType, xdscache.WithName("more")).UpdateResource("b", cluster("b")))
			lw, _ := watch(t, linear, "", resourcev3.ClusterType, "")
			linearVersion := receive(t, lw).GetResponseVersion()
			if row.between != nil {
				row.between(t, s)
			}
			before := s.Status()
			digest := s.State().Digest()
			if row.abrupt {
				ctx, cancel := context.WithCancel(context.Background())
				cancel()
				require.ErrorIs(t, s.Close(ctx), context.Canceled)
			}
			closeStore(t, s)

			opt = xdswal.Options{Dir: opt.Dir}
			if row.second != nil {
				row.second(&opt)
			}
			s = openStore(t, opt)
			require.Equal(t, digest, s.State().Digest())
			after := s.Status()
			require.Equal(t, row.abrupt || opt.DisableSnapshots, after.Restored.Events > 0)
			require.Equal(t, opt.DisableSnapshots, after.Restored.Snapshot == "")
			require.Equal(t, before.StoreID, after.StoreID)
			require.Equal(t, before.Epoch, after.Epoch, "without a backend")
			require.Equal(t, before.Sequence, after.Sequence)
			require.True(t, before.Time.Equal(after.Time))
			require.Equal(t, before.Caches, after.Caches)
			require.Equal(t, []int{before.Nodes, before.Resources, int(before.Bytes)}, []int{after.Nodes, after.Resources, int(after.Bytes)})

			got, err := snapshotCache(s).GetSnapshot("edge")
			require.NoError(t, err)
			require.Empty(t, cmp.Diff(full, got, cmp.Comparer(proto.Equal)))
			require.NoError(t, got.(*cachev3.Snapshot).Consistent())
			got, err = snapshotCache(s).GetSnapshot("empty")
			require.NoError(t, err)
			require.Equal(t, &cachev3.Snapshot{}, got)
			_, err = snapshotCache(s).GetSnapshot("gone")
			require.Error(t, err)
			got, err = namedCache(s, "other").GetSnapshot("edge")
			require.NoError(t, err)
			require.Equal(t, "9", got.GetVersion(resourcev3.ClusterType))
			linear = linearCache(s)
			requireProtoEqual(t, cluster("a"), linear.GetResources()["a"])
			require.Equal(t, 1, s.LinearCache(resourcev3.ClusterType, xdscache.WithName("more")).NumResources())
			// A version that a client may have is not used again.
			lw, _ = watch(t, linear, "", resourcev3.ClusterType, linearVersion)
			require.NotEqual(t, linearVersion, receive(t, lw).GetResponseVersion())

			// Setting the same configuration again changes nothing.
			set(t, snapshotCache(s), "edge", fullSnapshot(t))
			require.NoError(t, linear.UpdateResource("a", cluster("a")))
			require.Equal(t, after.Sequence, s.Status().Sequence)
			requireSound(t, s)
		})
	}
}

// A store in an empty directory restores from the backend.
func TestRestoreFromBackend(t *testing.T) {
	backend, err := file.New(file.Config{Dir: t.TempDir()})
	require.NoError(t, err)
	s := openStore(t, xdswal.Options{Backend: backend})
	set(t, snapshotCache(s), "edge", fullSnapshot(t))
	digest := s.State().Digest()
	closeStore(t, s)
	require.NotZero(t, s.Status().Shipper.Shipped)

	s = openStore(t, xdswal.Options{Backend: backend})
	require.Equal(t, digest, s.State().Digest())
	require.Equal(t, backend.String(), s.Status().Restored.Source)
	set(t, snapshotCache(s), "more", clusters(t, "1", cluster("a")))
	requireSound(t, s)
}

// An identical snapshot appends no event, and a compaction without changes writes no
// snapshot.
func TestNothingChanged(t *testing.T) {
	s := openStore(t, xdswal.Options{})
	ctx := context.Background()
	c := snapshotCache(s)
	first, err := c.Set(ctx, "edge", fullSnapshot(t))
	require.NoError(t, err)
	seq, err := s.Compact(ctx)
	require.NoError(t, err)
	require.Equal(t, first, seq)
	snapshots := filepath.Join(s.Status().Dir, "snapshots")
	before := files(t, snapshots)
	for range 3 {
		seq, err := c.Set(ctx, "edge", fullSnapshot(t))
		require.NoError(t, err)
		require.Equal(t, first, seq)
		seq, err = s.Compact(ctx)
		require.NoError(t, err)
		require.Equal(t, first, seq)
	}
	require.Equal(t, before, files(t, snapshots))
	require.EqualValues(t, first, s.Status().Sequence)
	requireSound(t, s)
}

// A second cache of a name would have other arguments than the first, which would be
// ignored: it panics, and the first one stays as it is.
func TestSecondCachePanics(t *testing.T) {
	s := openStore(t, xdswal.Options{})
	c, linear := snapshotCache(s), linearCache(s)
	require.Equal(t, resourcev3.ClusterType, linear.Name())
	require.NotSame(t, c, namedCache(s, "other"))
	const text = `xdswal: the store already has a cache %q: use that one, or choose another name with xdscache.WithName`
	for name, again := range map[string]func(){
		"snapshot/":      func() { s.SnapshotCache(true, cachev3.IDHash{}, nil, xdscache.WithImmutableMessages()) },
		"snapshot/other": func() { s.SnapshotCache(false, cachev3.IDHash{}, nil, xdscache.WithName("other")) },
		"linear/" + resourcev3.ClusterType: func() {
			s.LinearCache(resourcev3.EndpointType, xdscache.WithName(resourcev3.ClusterType))
		},
	} {
		require.PanicsWithValue(t, fmt.Sprintf(text, name), again)
	}
	require.Panics(t, func() { s.LinearCache("") })
	require.Equal(t, "x", s.LinearCache(resourcev3.ClusterType, xdscache.WithName("x")).Name())
	set(t, c, "n", clusters(t, "1", cluster("a")))
	require.NoError(t, linear.UpdateResource("a", cluster("a")))
	require.Equal(t, 1, linear.NumResources())
	requireSound(t, s)
}

// serve runs go-control-plane's server on a cache and returns a client of it.
func serve(t testing.TB, c cachev3.Cache) (discoveryv3.AggregatedDiscoveryServiceClient, context.Context) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	t.Cleanup(cancel)
	s := grpc.NewServer()
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(s, server.NewServer(ctx, c, nil))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	go func() { _ = s.Serve(listener) }()
	t.Cleanup(s.Stop)
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	return discoveryv3.NewAggregatedDiscoveryServiceClient(conn), ctx
}

// Clients reconnect after a restart: a delta client receives no resource that it has, and
// the removed names; a SotW client receives the same bytes again.
func TestClientsAfterRestart(t *testing.T) {
	opt := xdswal.Options{Dir: t.TempDir()}
	s := openStore(t, opt)
	set(t, snapshotCache(s), "edge", fullSnapshot(t))
	sotw := func(s *xdswal.Store) *discoveryv3.DiscoveryResponse {
		client, ctx := serve(t, snapshotCache(s))
		stream, err := client.StreamAggregatedResources(ctx)
		require.NoError(t, err)
		require.NoError(t, stream.Send(&discoveryv3.DiscoveryRequest{Node: &corev3.Node{Id: "edge"}, TypeUrl: resourcev3.ClusterType}))
		resp, err := stream.Recv()
		require.NoError(t, err)
		return resp
	}
	delta := func(s *xdswal.Store, url string, known map[string]string) *discoveryv3.DeltaDiscoveryResponse {
		client, ctx := serve(t, snapshotCache(s))
		stream, err := client.DeltaAggregatedResources(ctx)
		require.NoError(t, err)
		require.NoError(t, stream.Send(&discoveryv3.DeltaDiscoveryRequest{
			Node: &corev3.Node{Id: "edge"}, TypeUrl: url, InitialResourceVersions: known,
		}))
		resp, err := stream.Recv()
		require.NoError(t, err)
		return resp
	}
	bytesOf := func(resp *discoveryv3.DiscoveryResponse) map[string]bool {
		out := map[string]bool{}
		for _, r := range resp.GetResources() {
			out[string(r.GetValue())] = true
		}
		return out
	}
	types := []string{resourcev3.ClusterType, resourcev3.EndpointType, resourcev3.ListenerType, resourcev3.RouteType, resourcev3.SecretType}
	known := map[string]map[string]string{}
	for _, url := range types {
		known[url] = map[string]string{}
		for _, r := range delta(s, url, nil).GetResources() {
			known[url][r.GetName()] = r.GetVersion()
		}
		require.NotEmpty(t, known[url])
	}
	first := sotw(s)
	closeStore(t, s)

	s = openStore(t, opt)
	again := sotw(s)
	require.Equal(t, first.GetVersionInfo(), again.GetVersionInfo())
	require.Equal(t, bytesOf(first), bytesOf(again))
	for _, url := range types {
		resp := delta(s, url, known[url])
		require.Empty(t, resp.GetResources())
		require.Empty(t, resp.GetRemovedResources())
	}
	// While the client is disconnected, one resource is changed and one is removed.
	full := fullSnapshot(t)
	names := keys(known[resourcev3.ClusterType])
	clusterItems := full.GetResourcesAndTTL(resourcev3.ClusterType)
	delete(clusterItems, names[0])
	changed := proto.Clone(clusterItems[names[1]].Resource)
	proto.Merge(changed, clusterOf(names[1], "changed"))
	item := clusterItems[names[1]]
	item.Resource = changed
	clusterItems[names[1]] = item
	set(t, snapshotCache(s), "edge", full)
	closeStore(t, s)

	s = openStore(t, opt)
	resp := delta(s, resourcev3.ClusterType, known[resourcev3.ClusterType])
	require.Equal(t, []string{names[0]}, resp.GetRemovedResources())
	require.Len(t, resp.GetResources(), 1)
	require.Equal(t, names[1], resp.GetResources()[0].GetName())
	requireSound(t, s)
}

func TestMemoryOnly(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "none")
	s := openStore(t, xdswal.Options{Dir: dir, MemoryOnly: true})
	ctx := context.Background()
	c := snapshotCache(s)
	w, _ := watch(t, c, "n", resourcev3.ClusterType, "")
	seq, err := c.Set(ctx, "n", clusters(t, "1", cluster("a")))
	require.NoError(t, err)
	require.EqualValues(t, 1, seq)
	require.Equal(t, "1", receive(t, w).GetResponseVersion())
	require.NoError(t, linearCache(s).UpdateResource("a", cluster("a")))
	require.EqualValues(t, 2, s.Status().Sequence)
	require.NoDirExists(t, dir)
	_, err = s.Compact(ctx)
	require.ErrorContains(t, err, "has no snapshots")
	require.ErrorContains(t, s.Events(ctx, 1, 0, nil), "no journal")
	requireServed(t, s)
	closeStore(t, s)
	require.ErrorIs(t, c.SetSnapshot(ctx, "n", clusters(t, "2")), xdswal.ErrClosed)
	requireServed(t, s)
}

func TestJournalAlone(t *testing.T) {
	opt := xdswal.Options{Dir: t.TempDir(), DisableSnapshots: true, CompactTailRecords: 1}
	for opening := range 3 {
		s := openStore(t, opt)
		for i := range 20 {
			set(t, snapshotCache(s), nodeName(i), clusters(t, fmt.Sprint(opening), cluster("a")))
		}
		_, err := s.Compact(context.Background())
		require.ErrorContains(t, err, "has no snapshots")
		closeStore(t, s)
		entries, err := os.ReadDir(filepath.Join(opt.Dir, "snapshots"))
		require.NoError(t, err)
		require.Empty(t, entries)
	}
	s := openStore(t, opt)
	require.EqualValues(t, 60, s.Status().Sequence)
	require.Equal(t, 60, s.Status().Restored.Events)
	requireSound(t, s)
}

func TestLocked(t *testing.T) {
	s := openStore(t, xdswal.Options{})
	set(t, snapshotCache(s), "n", clusters(t, "1", cluster("a")))
	dir := s.Status().Dir
	start := time.Now()
	_, err := xdswal.Open(context.Background(), xdswal.Options{Dir: dir})
	require.ErrorIs(t, err, xdswal.ErrLocked)
	require.ErrorContains(t, err, dir)
	require.Less(t, time.Since(start), 10*time.Second)
	set(t, snapshotCache(s), "n", clusters(t, "2", cluster("a")))
	requireSound(t, s)
}

func TestOpenRefuses(t *testing.T) {
	for _, row := range []struct {
		name string
		opt  xdswal.Options
		make func(t *testing.T, dir string)
		is   error
		want string
	}{
		{name: "no directory", want: "Options.Dir is empty"},
		{
			name: "fail open without snapshots", opt: xdswal.Options{Dir: "x", FailOpen: true, DisableSnapshots: true},
			want: "Options.FailOpen requires snapshots",
		},
		{
			name: "newer directory", is: xdswal.ErrVersion, want: "use a newer xdswal",
			make: func(t *testing.T, dir string) { writeMetadata(t, dir, map[string]any{"format": 2, "store_id": "x"}) },
		},
		{
			name: "damaged metadata", is: xdswal.ErrCorrupt, want: "xdswal.json",
			make: func(t *testing.T, dir string) {
				require.NoError(t, os.WriteFile(filepath.Join(dir, "xdswal.json"), []byte(`{"format":`), 0o600))
			},
		},
		{
			name: "metadata without an identity", is: xdswal.ErrCorrupt,
			make: func(t *testing.T, dir string) { writeMetadata(t, dir, map[string]any{"format": 1}) },
		},
		{
			name: "a file", opt: xdswal.Options{Dir: "/dev/null"}, want: "/dev/null",
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			before := map[string]string{}
			if row.make != nil {
				row.opt.Dir = t.TempDir()
				row.make(t, row.opt.Dir)
				before = files(t, row.opt.Dir)
			}
			_, err := xdswal.Open(context.Background(), row.opt)
			require.Error(t, err)
			require.ErrorContains(t, err, row.want)
			if row.is != nil {
				require.ErrorIs(t, err, row.is)
			}
			if row.make != nil {
				require.Equal(t, before, files(t, row.opt.Dir))
			}
		})
	}
}

func writeMetadata(t *testing.T, dir string, m map[string]any) {
	t.Helper()
	b, err := json.Marshal(m)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "xdswal.json"), b, 0o600))
}

// Open of a directory of a newer xdswal fails and changes nothing in it.
func TestNewerDirectoryWithData(t *testing.T) {
	s := openStore(t, xdswal.Options{})
	dir := s.Status().Dir
	set(t, snapshotCache(s), "n", clusters(t, "1", cluster("a")))
	closeStore(t, s)
	old, err := os.ReadFile(filepath.Join(dir, "xdswal.json"))
	require.NoError(t, err)
	writeMetadata(t, dir, map[string]any{"format": 2, "store_id": s.Status().StoreID, "epoch": 2})
	before := files(t, dir)
	_, err = xdswal.Open(context.Background(), xdswal.Options{Dir: dir})
	require.ErrorIs(t, err, xdswal.ErrVersion)
	require.Equal(t, before, files(t, dir))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "xdswal.json"), old, 0o600))
	requireSound(t, openStore(t, xdswal.Options{Dir: dir}))
}

// Open of a directory that cannot be written fails.
func TestReadOnlyDirectory(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may write everywhere")
	}
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o500))
	_, err := xdswal.Open(context.Background(), xdswal.Options{Dir: dir})
	require.ErrorIs(t, err, os.ErrPermission)
	require.ErrorContains(t, err, dir)
}

func TestClose(t *testing.T) {
	ctx := context.Background()
	var reported []error
	s := openStore(t, xdswal.Options{Hooks: xdswal.Hooks{CacheError: func(_, _ string, err error) { reported = append(reported, err) }}})
	c, linear := snapshotCache(s), linearCache(s)
	set(t, c, "n", clusters(t, "1", cluster("a")))
	require.NoError(t, linear.UpdateResource("a", cluster("a")))
	w, _ := watch(t, c, "other", resourcev3.ClusterType, "")
	closeStore(t, s)
	closeStore(t, s) // a second Close returns nil

	for what, err := range map[string]error{
		"set":     c.SetSnapshot(ctx, "n", clusters(t, "2")),
		"clear":   second(c.Clear(ctx, "n")),
		"update":  second(c.UpdateResources(ctx, "other", nil, nil, "1")),
		"linear":  linear.DeleteResource("a"),
		"compact": second(s.Compact(ctx)),
	} {
		require.ErrorIs(t, err, xdswal.ErrClosed, what)
		require.ErrorContains(t, err, "store is closed", what)
	}
	c.ClearSnapshot("n")
	require.ErrorIs(t, linear.SetResources(nil), xdswal.ErrClosed)
	require.Len(t, reported, 2)
	for _, err := range reported {
		require.ErrorIs(t, err, xdswal.ErrClosed)
	}

	// An update without a change requires no journal.
	require.NoError(t, c.SetSnapshot(ctx, "n", clusters(t, "1", cluster("a"))))
	// The caches still serve.
	requireOpen(t, w)
	got, _ := watch(t, c, "n", resourcev3.ClusterType, "")
	require.Equal(t, "1", receive(t, got).GetResponseVersion())
	require.Equal(t, 1, linear.NumResources())
	require.EqualValues(t, 2, s.Status().Sequence)
	requireSound(t, s)
}

func second[T any](_ T, err error) error { return err }

// A Close whose context is done loses nothing.
func TestCloseWithoutTime(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, xdswal.Options{Dir: dir})
	set(t, snapshotCache(s), "n", clusters(t, "1", cluster("a")))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	require.ErrorIs(t, s.Close(ctx), context.Canceled)
	s = openStore(t, xdswal.Options{Dir: dir})
	require.Equal(t, 1, s.Status().Restored.Events)
	requireSound(t, s)
}

func TestStatus(t *testing.T) {
	backend, err := file.New(file.Config{Dir: t.TempDir()})
	require.NoError(t, err)
	s := openStore(t, xdswal.Options{Backend: backend})
	set(t, snapshotCache(s), "n", clusters(t, "1", cluster("a"), cluster("b")))
	st := s.Status()
	require.NotEmpty(t, st.StoreID)
	require.EqualValues(t, 1, st.Epoch)
	require.EqualValues(t, 1, st.Sequence)
	require.WithinDuration(t, time.Now(), st.Time, time.Minute)
	require.Equal(t, []int{1, 2}, []int{st.Nodes, st.Resources})
	require.Positive(t, st.Bytes)
	require.Equal(t, []string{"snapshot/"}, st.Caches)
	require.NoError(t, st.Degraded)
	require.EqualValues(t, 1, st.Journal.Last)
	require.Equal(t, backend.String(), st.Backend)
	_, err = s.Compact(context.Background())
	require.NoError(t, err)
	require.Eventually(t, func() bool { return s.Status().Shipper.Shipped == 1 }, timeout, time.Millisecond)
	requireSound(t, s)
}

// Open detects a deleted journal and a deleted last segment.
func TestDeletedFilesAreDetected(t *testing.T) {
	for _, row := range []struct {
		name, pattern string
	}{
		{"the journal", "journal"},
		{"the last segment", "journal/*.journal"},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir := t.TempDir()
			open := func() (*xdswal.Store, error) {
				return xdswal.Open(context.Background(), xdswal.Options{Dir: dir, SegmentBytes: 64 << 10, DisableSnapshots: true})
			}
			s, err := open()
			require.NoError(t, err)
			c := s.SnapshotCache(false, cachev3.IDHash{}, nil)
			for i := range 40 {
				snapshot, err := cachev3.NewSnapshot(fmt.Sprint(i), map[string][]types.Resource{})
				require.NoError(t, err)
				snapshot.Resources[types.Cluster].Version = fmt.Sprint(i)
				require.NoError(t, c.SetSnapshot(context.Background(), "n", snapshot))
			}
			require.NoError(t, s.Close(context.Background()))

			files, err := filepath.Glob(filepath.Join(dir, row.pattern))
			require.NoError(t, err)
			kept := filepath.Join(t.TempDir(), "kept")
			last := files[len(files)-1]
			require.NoError(t, os.Rename(last, kept))
			_, err = open()
			require.ErrorIs(t, err, xdswal.ErrGap)

			require.NoError(t, os.RemoveAll(last))
			require.NoError(t, os.Rename(kept, last))
			s, err = open()
			require.NoError(t, err)
			require.EqualValues(t, 40, s.State().Sequence())
			require.NoError(t, s.Close(context.Background()))
		})
	}
}
