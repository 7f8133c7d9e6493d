package xdscache_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/xdswal/xdswal/internal/cachelog"
	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/journal"
	"github.com/xdswal/xdswal/xdscache"
)

const (
	clusterName  = "envoy.config.cluster.v3.Cluster"
	endpointName = "envoy.config.endpoint.v3.ClusterLoadAssignment"
)

func snapshotWithTTL(t testing.TB, version string, ttl time.Duration, r types.Resource) *cachev3.Snapshot {
	t.Helper()
	item := types.ResourceWithTTL{Resource: r}
	if ttl != 0 {
		item.TTL = &ttl
	}
	s, err := cachev3.NewSnapshotWithTTLs(version, map[string][]types.ResourceWithTTL{resourcev3.ClusterType: {item}})
	require.NoError(t, err)
	return s
}

func both(t testing.TB, clusterVersion, endpointVersion string) *cachev3.Snapshot {
	t.Helper()
	s := clusters(t, clusterVersion, cluster("a"))
	s.Resources[types.Endpoint] = cachev3.NewResources(endpointVersion, []types.Resource{endpoint("a")})
	return s
}

// Only the changes of a snapshot are journaled.
func TestSetSnapshotAppendsTheDifference(t *testing.T) {
	a := cluster("a")
	for _, row := range []struct {
		name   string
		first  func(t testing.TB) cachev3.ResourceSnapshot
		second func(t testing.TB) cachev3.ResourceSnapshot
		want   string // the second event, empty if nothing is appended
	}{
		{
			name:   "the same message",
			first:  func(t testing.TB) cachev3.ResourceSnapshot { return clusters(t, "1", a) },
			second: func(t testing.TB) cachev3.ResourceSnapshot { return clusters(t, "1", a) },
		}, {
			name:   "an equal message elsewhere",
			first:  func(t testing.TB) cachev3.ResourceSnapshot { return clusters(t, "1", cluster("a")) },
			second: func(t testing.TB) cachev3.ResourceSnapshot { return clusters(t, "1", cluster("a")) },
		}, {
			name:   "one of two changed",
			first:  func(t testing.TB) cachev3.ResourceSnapshot { return clusters(t, "1", a, cluster("b")) },
			second: func(t testing.TB) cachev3.ResourceSnapshot { return clusters(t, "2", a, clusterOf("b", "x")) },
			want:   "update " + clusterName + "@2 +b",
		}, {
			name:   "one removed and one added",
			first:  func(t testing.TB) cachev3.ResourceSnapshot { return clusters(t, "1", a, cluster("b")) },
			second: func(t testing.TB) cachev3.ResourceSnapshot { return clusters(t, "2", a, cluster("c")) },
			want:   "update " + clusterName + "@2 +c -b",
		}, {
			name:   "a TTL is set",
			first:  func(t testing.TB) cachev3.ResourceSnapshot { return snapshotWithTTL(t, "1", 0, a) },
			second: func(t testing.TB) cachev3.ResourceSnapshot { return snapshotWithTTL(t, "1", time.Second, a) },
			want:   "update " + clusterName + "@1 +a",
		}, {
			name:   "a TTL changes",
			first:  func(t testing.TB) cachev3.ResourceSnapshot { return snapshotWithTTL(t, "1", time.Minute, a) },
			second: func(t testing.TB) cachev3.ResourceSnapshot { return snapshotWithTTL(t, "1", time.Second, a) },
			want:   "update " + clusterName + "@1 +a",
		}, {
			name:   "an equal TTL elsewhere",
			first:  func(t testing.TB) cachev3.ResourceSnapshot { return snapshotWithTTL(t, "1", time.Minute, a) },
			second: func(t testing.TB) cachev3.ResourceSnapshot { return snapshotWithTTL(t, "1", time.Minute, a) },
		}, {
			name:   "the version alone",
			first:  func(t testing.TB) cachev3.ResourceSnapshot { return both(t, "1", "1") },
			second: func(t testing.TB) cachev3.ResourceSnapshot { return both(t, "1", "2") },
			want:   "update " + endpointName + "@2",
		}, {
			name:   "a type is removed",
			first:  func(t testing.TB) cachev3.ResourceSnapshot { return both(t, "1", "1") },
			second: func(t testing.TB) cachev3.ResourceSnapshot { return clusters(t, "1", a) },
			want:   "update " + endpointName + "@ -a",
		}, {
			name:   "a type becomes empty and keeps a version",
			first:  func(t testing.TB) cachev3.ResourceSnapshot { return clusters(t, "1", a) },
			second: func(t testing.TB) cachev3.ResourceSnapshot { return clusters(t, "2") },
			want:   "update " + clusterName + "@2 -a",
		}, {
			name:   "empty twice",
			first:  func(testing.TB) cachev3.ResourceSnapshot { return &cachev3.Snapshot{} },
			second: func(testing.TB) cachev3.ResourceSnapshot { return &cachev3.Snapshot{} },
		}, {
			name:  "an own version changes",
			first: func(testing.TB) cachev3.ResourceSnapshot { return foreign("1", map[string]string{"a": "v1"}, a) },
			second: func(testing.TB) cachev3.ResourceSnapshot {
				return foreign("1", map[string]string{"a": "v2"}, a)
			},
			want: "update " + clusterName + "@1 +a",
		}, {
			name:  "an own version stays",
			first: func(testing.TB) cachev3.ResourceSnapshot { return foreign("1", map[string]string{"a": "v1"}, a) },
			second: func(testing.TB) cachev3.ResourceSnapshot {
				return foreign("1", map[string]string{"a": "v1"}, cluster("a"))
			},
		}, {
			name:   "another kind of snapshot with the same in it",
			first:  func(t testing.TB) cachev3.ResourceSnapshot { return clusters(t, "1", a) },
			second: func(testing.TB) cachev3.ResourceSnapshot { return foreign("1", nil, a) },
		}, {
			name:   "a type that only an earlier snapshot could hold",
			first:  func(testing.TB) cachev3.ResourceSnapshot { return custom("1") },
			second: func(t testing.TB) cachev3.ResourceSnapshot { return clusters(t, "1", a) },
			want:   "update " + clusterName + "@1 +a google.protobuf.Duration@ -one-second",
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			l := newLog(t)
			c := newCache(l, xdscache.WithTypeURLs(durationURL))
			require.Len(t, l.appended(func() { set(t, c, "n", row.first(t)) }), 1)
			events := l.appended(func() { set(t, c, "n", row.second(t)) })
			if row.want == "" {
				require.Empty(t, events)
			} else {
				require.Len(t, events, 1)
				require.Equal(t, row.want, describe(events[0]))
			}
			// Setting it again appends nothing.
			require.Empty(t, l.appended(func() { set(t, c, "n", row.second(t)) }))
			requireServed(t, l, c)
		})
	}
}

const durationURL = resourcev3.APITypePrefix + "google.protobuf.Duration"

// snapshotOf is a ResourceSnapshot that a caller implements.
type snapshotOf struct {
	url, version string
	resources    map[string]types.ResourceWithTTL
	versions     map[string]string
	err          error
	constructed  atomic.Int32
}

func foreign(version string, versions map[string]string, resources ...types.Resource) *snapshotOf {
	s := &snapshotOf{url: resourcev3.ClusterType, version: version, versions: versions, resources: map[string]types.ResourceWithTTL{}}
	for _, r := range resources {
		s.resources[cachev3.GetResourceName(r)] = types.ResourceWithTTL{Resource: r}
	}
	return s
}

// custom is a snapshot of a type that go-control-plane does not know.
func custom(version string) *snapshotOf {
	return &snapshotOf{
		url: durationURL, version: version,
		resources: map[string]types.ResourceWithTTL{"one-second": {Resource: durationpb.New(time.Second)}},
		versions:  map[string]string{"one-second": version},
	}
}

func (s *snapshotOf) GetVersion(url string) string {
	if url != s.url {
		return ""
	}
	return s.version
}

func (s *snapshotOf) GetResourcesAndTTL(url string) map[string]types.ResourceWithTTL {
	if url != s.url {
		return nil
	}
	return s.resources
}

func (s *snapshotOf) GetResources(url string) map[string]types.Resource {
	if url != s.url {
		return nil
	}
	out := map[string]types.Resource{}
	for name, r := range s.resources {
		out[name] = r.Resource
	}
	return out
}

func (s *snapshotOf) ConstructVersionMap() error {
	s.constructed.Add(1)
	return s.err
}

func (s *snapshotOf) GetVersionMap(url string) map[string]string {
	if url != s.url {
		return nil
	}
	return s.versions
}

// A message that is set again under the same address is not marshaled, in whatever node,
// if the messages of the cache are immutable.
func TestImmutableMessages(t *testing.T) {
	for _, row := range []struct {
		name  string
		opts  []xdscache.SnapshotOption
		looks bool
	}{
		{name: "by content", looks: true},
		{name: "by address", opts: []xdscache.SnapshotOption{xdscache.WithImmutableMessages()}},
	} {
		t.Run(row.name, func(t *testing.T) {
			l := newLog(t)
			c := newCache(l, row.opts...)
			var looks atomic.Int64
			m := &counted{cluster("a"), &looks}
			again := &counted{cluster("a"), &looks}
			set(t, c, "n", clusters(t, "1", m))
			require.Positive(t, looks.Load())

			looksAt := func(m types.Resource) int64 {
				before := looks.Load()
				require.Empty(t, l.appended(func() { set(t, c, "n", clusters(t, "1", m)) }))
				require.Empty(t, l.appended(func() {
					_, err := c.UpdateResources(context.Background(), "n", map[string][]types.ResourceWithTTL{resourcev3.ClusterType: items(m)}, nil, "1")
					require.NoError(t, err)
				}))
				return looks.Load() - before
			}
			require.Equal(t, row.looks, looksAt(m) > 0)
			// An equal message at another address is marshaled once.
			require.Positive(t, looksAt(again))
			require.Equal(t, row.looks, looksAt(again) > 0)
			require.Equal(t, row.looks, looksAt(m) > 0, "both addresses are known")

			before := looks.Load()
			events := l.appended(func() { set(t, c, "other", clusters(t, "1", m)) })
			require.Len(t, events, 1)
			require.Equal(t, "update "+clusterName+"@1 +a", describe(events[0]))
			require.Equal(t, row.looks, looks.Load() > before)
			requireServed(t, l, c)
		})
	}
}

// A message of the same address under another name, with another TTL or in another type is
// not taken for what was made of it before.
func TestImmutableMessageElsewhere(t *testing.T) {
	l := newLog(t)
	c := newCache(l, xdscache.WithImmutableMessages(), xdscache.WithTypeURLs(durationURL))
	m := cluster("a")
	set(t, c, "n", clusters(t, "1", m))
	require.Len(t, l.appended(func() { set(t, c, "n", snapshotWithTTL(t, "1", time.Second, m)) }), 1)
	require.Len(t, l.appended(func() { set(t, c, "n", foreign("1", map[string]string{"a": "own"}, m)) }), 1)
	s := foreign("1", nil, m)
	s.resources["b"] = s.resources["a"]
	require.Len(t, l.appended(func() { set(t, c, "n", s) }), 1)
	require.Equal(t, "b", c.GetNode("n").Type(resourcev3.ClusterType).Get("b").Name)
	s.url = durationURL
	require.Len(t, l.appended(func() { set(t, c, "n", s) }), 1)
	require.Equal(t, resourcev3.ClusterType, c.GetNode("n").Type(durationURL).Get("b").TypeURL)
	requireServed(t, l, c)
}

// A message in a global variable can be set. Go 1.24 ended the process.
func TestImmutableMessageInGlobalVariable(t *testing.T) {
	l := newLog(t)
	c := newCache(l, xdscache.WithImmutableMessages())
	require.Len(t, l.appended(func() { set(t, c, "n", clusters(t, "1", &globalCluster)) }), 1)
	require.Empty(t, l.appended(func() { set(t, c, "n", clusters(t, "1", &globalCluster)) }))
	requireServed(t, l, c)
}

var globalCluster = clusterv3.Cluster{Name: "global"}

// What is known of messages is dropped with them.
func TestImmutableMessagesAreForgotten(t *testing.T) {
	l := newLog(t)
	l.forget()
	c := newCache(l, xdscache.WithImmutableMessages())
	round := func(i int) {
		var many []types.Resource
		for j := range 1000 {
			many = append(many, clusterOf(fmt.Sprint(j), fmt.Sprint(i)))
		}
		set(t, c, "n", clusters(t, fmt.Sprint(i), many...))
		l.forget()
	}
	for i := range 3 {
		round(i)
	}
	before := heap()
	for i := range 20 {
		round(i + 3)
		runtime.GC()
	}
	after := heap()
	t.Logf("heap %d bytes before, %d after", before, after)
	require.Less(t, after, before+1<<20)
}

// A message that was changed in place and is set again is a change: it is journaled, and
// open watches receive it, also under the same version of the type.
func TestChangeInPlace(t *testing.T) {
	l := newLog(t)
	c := newCache(l)
	m := cluster("a")
	snapshot := clusters(t, "1", m)
	set(t, c, "n", snapshot)
	known := receive(t, deltaWatch(t, c, "n", resourcev3.ClusterType, nil)).GetReturnedResources()
	delta := deltaWatch(t, c, "n", resourcev3.ClusterType, known)
	m.AltStatName = "changed"
	events := l.appended(func() { set(t, c, "n", snapshot) })
	require.Len(t, events, 1)
	require.Equal(t, "update "+clusterName+"@1 +a", describe(events[0]))
	require.NotEqual(t, known, receive(t, delta).GetReturnedResources())
	requireProtoEqual(t, m, fetch(t, c, "n", resourcev3.ClusterType)["a"].Resource)

	sotw := watch(t, c, "n", resourcev3.ClusterType, "1", "a")
	m.AltStatName = "changed again"
	require.Len(t, l.appended(func() { set(t, c, "n", clusters(t, "2", m)) }), 1)
	require.Equal(t, "2", receive(t, sotw).GetResponseVersion())
	m.AltStatName = "by an update"
	events = l.appended(func() {
		_, err := c.UpdateResources(context.Background(), "n", map[string][]types.ResourceWithTTL{resourcev3.ClusterType: items(m)}, nil, "2")
		require.NoError(t, err)
	})
	require.Len(t, events, 1)
	requireProtoEqual(t, m, fetch(t, c, "n", resourcev3.ClusterType)["a"].Resource)
	ttl := time.Minute
	timed := clusters(t, "2", m)
	timed.Resources[types.Cluster].Items["a"] = types.ResourceWithTTL{Resource: m, TTL: &ttl}
	set(t, c, "n", timed)
	ttl = time.Second
	require.Len(t, l.appended(func() { set(t, c, "n", timed) }), 1, "the TTL was changed in place")
	requireServed(t, l, c)
}

// A linear cache compares contents too.
func TestLinearChangeInPlace(t *testing.T) {
	for _, row := range []struct {
		name string
		opts []xdscache.LinearOption
		want int
	}{
		{name: "by content", want: 1},
		{name: "immutable", opts: []xdscache.LinearOption{xdscache.WithImmutableMessages()}},
	} {
		t.Run(row.name, func(t *testing.T) {
			l := newLog(t)
			c := newLinear(l, row.opts...)
			m := cluster("a")
			require.NoError(t, c.UpdateResource("a", m))
			m.AltStatName = "changed"
			require.Len(t, l.appended(func() { require.NoError(t, c.UpdateResource("a", m)) }), row.want)
			m.AltStatName = "changed again"
			require.Len(t, l.appended(func() { require.NoError(t, c.SetResources(resources{"a": m})) }), row.want)
			requireLinear(t, l, c)
		})
	}
}

// The version of a resource is the caller's, or a short hash if the caller chose none.
func TestResourceVersions(t *testing.T) {
	const hashOfB = "m8ruYOKD1HCiDbDI" // of the bytes 0a 01 62
	for _, row := range []struct {
		name string
		make func(versions map[string]string) cachev3.ResourceSnapshot
	}{
		{"a caller's snapshot", func(versions map[string]string) cachev3.ResourceSnapshot {
			return foreign("1", versions, cluster("a"), cluster("b"))
		}},
		{"go-control-plane's snapshot", func(versions map[string]string) cachev3.ResourceSnapshot {
			s := clusters(t, "1", cluster("a"), cluster("b"))
			s.VersionMap = map[string]map[string]string{resourcev3.ClusterType: versions}
			return s
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			l := newLog(t)
			c := newCache(l)
			s := row.make(map[string]string{"a": "own"})
			set(t, c, "n", s)
			if s, ok := s.(*snapshotOf); ok {
				require.Positive(t, s.constructed.Load(), "the version map is asked for after it is constructed")
			}
			want := map[string]string{"a": "own", "b": hashOfB}
			require.Equal(t, want, versions(c, "n"))
			require.Equal(t, want, receive(t, deltaWatch(t, c, "n", resourcev3.ClusterType, map[string]string{"a": "own"})).GetReturnedResources())
			got, err := c.GetSnapshot("n")
			require.NoError(t, err)
			require.Same(t, s, got)
			requireServed(t, l, c)

			restarted := newCache(restart(t, l))
			require.Equal(t, want, versions(restarted, "n"))
			require.Equal(t, want, receive(t, deltaWatch(t, restarted, "n", resourcev3.ClusterType, nil)).GetReturnedResources())
			requireOpen(t, deltaWatch(t, restarted, "n", resourcev3.ClusterType, want))
		})
	}
}

// restart returns a log that has restored the state of another from its records.
func restart(t testing.TB, l *fakeLog) *fakeLog {
	t.Helper()
	restored := newLog(t)
	restored.forget()
	for _, ev := range l.committed() {
		record, err := event.Marshal(ev)
		require.NoError(t, err)
		event.Seal(record, ev.Sequence, ev.Time)
		ev, err := event.Unmarshal(record)
		require.NoError(t, err)
		restored.state, err = restored.state.Apply(ev)
		require.NoError(t, err)
	}
	require.Equal(t, l.State().Digest(), restored.State().Digest())
	return restored
}

// versions returns the versions of a node's clusters.
func versions(c *xdscache.SnapshotCache, node string) map[string]string {
	out := map[string]string{}
	for r := range c.GetNode(node).Type(resourcev3.ClusterType).All() {
		out[r.Name] = r.Version
	}
	return out
}

// A change of the caller's version is a change, and is delivered. No version means the one
// that the content has.
func TestResourceVersionChanges(t *testing.T) {
	for _, immutable := range []bool{false, true} {
		t.Run(fmt.Sprint("immutable ", immutable), func(t *testing.T) {
			l := newLog(t)
			var opts []xdscache.SnapshotOption
			if immutable {
				opts = append(opts, xdscache.WithImmutableMessages())
			}
			c := newCache(l, opts...)
			a, changed := cluster("a"), clusterOf("a", "x")
			snapshot := func(m types.Resource, versions map[string]string) *cachev3.Snapshot {
				s := clusters(t, "1", m)
				if versions != nil {
					s.VersionMap = map[string]map[string]string{resourcev3.ClusterType: versions}
				}
				return s
			}
			constructed := func(m types.Resource) *cachev3.Snapshot {
				s := snapshot(m, nil)
				require.NoError(t, s.ConstructVersionMap())
				require.Len(t, s.VersionMap[resourcev3.ClusterType]["a"], 64)
				return s
			}
			set(t, c, "n", snapshot(a, nil))
			hash := versions(c, "n")["a"]
			require.Len(t, hash, 16)
			for _, step := range []struct {
				name     string
				snapshot *cachev3.Snapshot
				want     string
				changes  bool
			}{
				{"its own hash", snapshot(a, map[string]string{"a": hash}), hash, false},
				{"go-control-plane's hash", constructed(a), hash, false},
				{"a version of the caller's own", snapshot(a, map[string]string{"a": "v1"}), "v1", true},
				{"the same", snapshot(a, map[string]string{"a": "v1"}), "v1", false},
				{"another, with the same content", snapshot(a, map[string]string{"a": "v2"}), "v2", true},
				{"another of 16 characters", snapshot(a, map[string]string{"a": "0123456789abcdef"}), "0123456789abcdef", true},
				{"none, with the same content", snapshot(a, nil), "0123456789abcdef", false},
				{"an empty one", snapshot(a, map[string]string{"a": ""}), "0123456789abcdef", false},
				{"go-control-plane's hash of the same content", constructed(a), "0123456789abcdef", false},
				{"none, with another content", snapshot(changed, nil), "", true},
				{"a version with the content before", snapshot(a, map[string]string{"a": "v3"}), "v3", true},
				{"the same version with another content", snapshot(changed, map[string]string{"a": "v3"}), "v3", true},
				{"go-control-plane's hash of a new content", constructed(a), hash, true},
			} {
				known := versions(c, "n")
				w := deltaWatch(t, c, "n", resourcev3.ClusterType, known)
				events := l.appended(func() { set(t, c, "n", step.snapshot) })
				got := versions(c, "n")["a"]
				if step.want != "" {
					require.Equal(t, step.want, got, step.name)
				} else {
					require.Len(t, got, 16, step.name)
				}
				if !step.changes {
					require.Empty(t, events, step.name)
					continue
				}
				require.Len(t, events, 1, step.name)
				require.Equal(t, "update "+clusterName+"@1 +a", describe(events[0]))
				if got != known["a"] {
					require.Equal(t, map[string]string{"a": got}, receive(t, w).GetReturnedResources(), step.name)
				}
				require.Empty(t, l.appended(func() { set(t, c, "n", step.snapshot) }), step.name)
			}
			requireServed(t, l, c)
		})
	}
}

// A resource that an earlier xdswal journaled, with the whole hash as its version, keeps
// that while its content is set again, and is not sent again.
func TestVersionsOfEarlierJournals(t *testing.T) {
	for _, immutable := range []bool{false, true} {
		t.Run(fmt.Sprint("immutable ", immutable), func(t *testing.T) {
			a, b := cluster("a"), cluster("b")
			ra, rb := (*journal.Resource)(resourceOf(t, a)), (*journal.Resource)(resourceOf(t, b))
			require.Len(t, ra.Version, 64)
			st, err := (&state.State{}).Apply(&journal.Event{
				Sequence: 1, Time: time.Now(), Kind: journal.Update, Cache: cachelog.SnapshotPrefix, Node: "n",
				Types: []journal.TypeChange{{TypeURL: resourcev3.ClusterType, Version: "1", Upserts: []*journal.Resource{ra, rb}}},
			})
			require.NoError(t, err)
			l := newLog(t)
			l.forget()
			l.state = st
			var opts []xdscache.SnapshotOption
			if immutable {
				opts = append(opts, xdscache.WithImmutableMessages())
			}
			c := newCache(l, opts...)
			known := map[string]string{"a": ra.Version, "b": rb.Version}
			w := deltaWatch(t, c, "n", resourcev3.ClusterType, known)
			for range 2 {
				require.Empty(t, l.appended(func() { set(t, c, "n", clusters(t, "1", a, b)) }))
				constructed := clusters(t, "1", a, b)
				require.NoError(t, constructed.ConstructVersionMap())
				require.Empty(t, l.appended(func() { set(t, c, "n", constructed) }))
			}
			requireOpen(t, w)
			require.Equal(t, known, versions(c, "n"))

			events := l.appended(func() { set(t, c, "n", clusters(t, "2", a, clusterOf("b", "x"))) })
			require.Len(t, events, 1)
			require.Equal(t, "update "+clusterName+"@2 +b", describe(events[0]))
			require.Len(t, versions(c, "n")["b"], 16)
			require.Equal(t, ra.Version, versions(c, "n")["a"])
			requireServed(t, l, c)
		})
	}
}

func TestRefusedSnapshots(t *testing.T) {
	const secret = "the secret"
	var nilSnapshot *cachev3.Snapshot
	for _, row := range []struct {
		name string
		set  func(c *xdscache.SnapshotCache) error
		want string
	}{
		{"nil", func(c *xdscache.SnapshotCache) error { return c.SetSnapshot(context.Background(), "n", nil) }, "the snapshot is nil"},
		{"nil of its type", func(c *xdscache.SnapshotCache) error { return c.SetSnapshot(context.Background(), "n", nilSnapshot) }, "the snapshot is nil"},
		{"nil resource", func(c *xdscache.SnapshotCache) error {
			s := clusters(t, "2", cluster("a"))
			s.Resources[types.Cluster].Items["b"] = types.ResourceWithTTL{}
			return c.SetSnapshot(context.Background(), "n", s)
		}, `resource "b" of type ` + resourcev3.ClusterType + " is nil"},
		{"resource that does not marshal", func(c *xdscache.SnapshotCache) error {
			return c.SetSnapshot(context.Background(), "n", clusters(t, "2", clusterOf("a", secret+"\xff"), cluster("b")))
		}, `marshal resource "a" of type`},
		{"version that is not UTF-8", func(c *xdscache.SnapshotCache) error {
			return c.SetSnapshot(context.Background(), "n", clusters(t, "\xff", cluster("a")))
		}, "not valid UTF-8"},
		{"node that is not UTF-8", func(c *xdscache.SnapshotCache) error {
			return c.SetSnapshot(context.Background(), "\xff", clusters(t, "1", cluster("a")))
		}, "not valid UTF-8"},
		{"version map that cannot be made", func(c *xdscache.SnapshotCache) error {
			s := foreign("2", nil, cluster("b"))
			s.err = context.DeadlineExceeded
			return c.SetSnapshot(context.Background(), "n", s)
		}, "construct the snapshot's version map: context deadline exceeded"},
		{"update with a nil resource", update(items(nil), nil), "is nil"},
		{"update with a nil resource of its type", update([]types.ResourceWithTTL{{Resource: (*counted)(nil)}}, nil), "is nil"},
		{"update without a name", update(items(cluster("")), nil), "has no name"},
		{"update that sets twice", update(items(cluster("x"), cluster("x")), nil), "is set twice"},
		{"update that sets and deletes", update(items(cluster("x")), []xdscache.ResourceName{{TypeURL: resourcev3.ClusterType, Name: "x"}}), "is both set and deleted"},
		{"update that does not marshal", update(items(clusterOf("x", secret+"\xff")), nil), `marshal resource "x"`},
	} {
		t.Run(row.name, func(t *testing.T) {
			l := newLog(t)
			c := newCache(l)
			first := clusters(t, "1", cluster("a"))
			set(t, c, "n", first)
			w := watch(t, c, "n", resourcev3.ClusterType, "1", "a")
			require.Empty(t, l.appended(func() {
				err := row.set(c)
				require.ErrorContains(t, err, row.want)
				require.NotContains(t, err.Error(), secret)
			}))
			requireOpen(t, w)
			got, err := c.GetSnapshot("n")
			require.NoError(t, err)
			require.Same(t, first, got)
			require.Equal(t, 1, l.State().NumNodes())
			requireServed(t, l, c)
		})
	}
}

func update(upserts []types.ResourceWithTTL, deletes []xdscache.ResourceName) func(*xdscache.SnapshotCache) error {
	return func(c *xdscache.SnapshotCache) error {
		_, err := c.UpdateResources(context.Background(), "n", map[string][]types.ResourceWithTTL{resourcev3.ClusterType: upserts}, deletes, "2")
		return err
	}
}

func TestUpdateResources(t *testing.T) {
	del := func(url string, names ...string) []xdscache.ResourceName {
		var out []xdscache.ResourceName
		for _, name := range names {
			out = append(out, xdscache.ResourceName{TypeURL: url, Name: name})
		}
		return out
	}
	for _, row := range []struct {
		name    string
		upserts map[string][]types.ResourceWithTTL
		deletes []xdscache.ResourceName
		version string
		want    string
	}{
		{
			name:    "set, replace and remove, in two types",
			upserts: map[string][]types.ResourceWithTTL{resourcev3.ClusterType: items(cluster("new"), clusterOf("a", "x"))},
			deletes: append(del(resourcev3.ClusterType, "b"), del(resourcev3.EndpointType, "a")...),
			version: "2",
			want:    "update " + clusterName + "@2 +a +new -b " + endpointName + "@2 -a",
		}, {
			name:    "equal contents and a new version",
			upserts: map[string][]types.ResourceWithTTL{resourcev3.ClusterType: items(cluster("a"))},
			version: "2",
			want:    "update " + clusterName + "@2",
		}, {
			name:    "equal contents and the same version",
			upserts: map[string][]types.ResourceWithTTL{resourcev3.ClusterType: items(cluster("a"))},
			version: "1",
		}, {
			name:    "removal of what is not there",
			deletes: del(resourcev3.ClusterType, "nobody"),
			version: "1",
		}, {
			name:    "removal of a type that is not there",
			deletes: del(resourcev3.ListenerType, "nobody"),
			version: "2",
		}, {
			name:    "the same removal twice",
			deletes: del(resourcev3.ClusterType, "a", "a"),
			version: "2",
			want:    "update " + clusterName + "@2 -a",
		}, {
			name:    "the last resource and no version",
			deletes: del(resourcev3.EndpointType, "a"),
			want:    "update " + endpointName + "@ -a",
		}, {
			name:    "nothing",
			version: "2",
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			l := newLog(t)
			c := newCache(l)
			s := clusters(t, "1", cluster("a"), cluster("b"))
			s.Resources[types.Endpoint] = cachev3.NewResources("1", []types.Resource{endpoint("a")})
			first, err := c.Set(context.Background(), "n", s)
			require.NoError(t, err)
			require.EqualValues(t, 1, first)
			events := l.appended(func() {
				seq, err := c.UpdateResources(context.Background(), "n", row.upserts, row.deletes, row.version)
				require.NoError(t, err)
				require.Equal(t, c.GetNode("n").Sequence(), seq)
			})
			if row.want == "" {
				require.Empty(t, events)
			} else {
				require.Len(t, events, 1)
				require.Equal(t, row.want, describe(events[0]))
			}
			requireServed(t, l, c)
		})
	}
}

// An update creates a node that does not exist. Without resources it creates an empty
// node.
func TestUpdateResourcesMakesNode(t *testing.T) {
	l := newLog(t)
	c := newCache(l)
	events := l.appended(func() {
		require.NoError(t, update(items(cluster("a")), nil)(c))
		_, err := c.UpdateResources(context.Background(), "empty", nil, nil, "1")
		require.NoError(t, err)
	})
	require.Len(t, events, 2)
	require.Equal(t, "update "+clusterName+"@2 +a", describe(events[0]))
	require.Equal(t, "update", describe(events[1]))
	s, err := c.GetSnapshot("empty")
	require.NoError(t, err)
	require.Equal(t, &cachev3.Snapshot{}, s)
	requireServed(t, l, c)
}

// The cost of an update does not grow with its node.
func TestUpdateResourcesCost(t *testing.T) {
	cost := func(size int) float64 {
		b := state.NewBuilder(1, time.Now())
		require.NoError(t, b.Node(cachelog.SnapshotPrefix, "n", 1, time.Now()))
		require.NoError(t, b.Type(resourcev3.ClusterType, "1"))
		resources := make([]*journal.Resource, size)
		for i := range resources {
			resources[i] = &journal.Resource{Name: fmt.Sprintf("service-%06d", i), TypeURL: resourcev3.ClusterType}
		}
		require.NoError(t, b.Resources(resources))
		l := newLog(t)
		l.forget()
		l.state = b.Build()
		c := newCache(l)
		one := clusterOf(fmt.Sprintf("service-%06d", size/2), "")
		i := 0
		return testing.AllocsPerRun(100, func() {
			i++
			one = clusterOf(one.Name, fmt.Sprint(i))
			_, err := c.UpdateResources(context.Background(), "n", map[string][]types.ResourceWithTTL{resourcev3.ClusterType: items(one)}, nil, fmt.Sprint(i))
			require.NoError(t, err)
		})
	}
	small, large := cost(100), cost(100_000)
	t.Logf("%.0f allocations in a node of 100 resources, %.0f in one of 100,000", small, large)
	// The tree of 100,000 resources is a little higher.
	require.Less(t, large, small+20)
}

// A type that a client requests, and that a custom snapshot contains, is journaled before
// the client receives it, and is restored.
func TestDiscoverType(t *testing.T) {
	for _, row := range []struct {
		name string
		ask  func(t *testing.T, c *xdscache.SnapshotCache)
	}{
		{"by a watch", func(t *testing.T, c *xdscache.SnapshotCache) {
			require.Equal(t, "1", receive(t, watch(t, c, "n", durationURL, "")).GetResponseVersion())
		}},
		{"by a delta watch", func(t *testing.T, c *xdscache.SnapshotCache) {
			require.Equal(t, map[string]string{"one-second": "1"}, receive(t, deltaWatch(t, c, "n", durationURL, nil)).GetReturnedResources())
		}},
		{"by a fetch", func(t *testing.T, c *xdscache.SnapshotCache) {
			requireProtoEqual(t, durationpb.New(time.Second), fetch(t, c, "n", durationURL)["one-second"].Resource)
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			l := newLog(t)
			c := newCache(l)
			s := custom("1")
			set(t, c, "n", s)
			set(t, c, "other", custom("7"))
			set(t, c, "usual", clusters(t, "1", cluster("a")))
			require.Zero(t, l.State().NumResources()-1)
			events := l.appended(func() {
				watch(t, c, "usual", durationURL, "") // has it not: learns nothing
				require.Len(t, l.committed(), 3)
				row.ask(t, c)
			})
			require.Len(t, events, 2)
			for _, ev := range events {
				require.Contains(t, []string{"update google.protobuf.Duration@1 +one-second", "update google.protobuf.Duration@7 +one-second"}, describe(ev))
			}
			got, err := c.GetSnapshot("n")
			require.NoError(t, err)
			require.Same(t, s, got)

			// The type is now journaled when a snapshot is set.
			require.Len(t, l.appended(func() { set(t, c, "n", custom("2")) }), 1)
			requireServed(t, l, c)
			restarted := newCache(l)
			requireServed(t, l, restarted)
			require.Equal(t, "2", receive(t, watch(t, restarted, "n", durationURL, "1", "one-second")).GetResponseVersion())
		})
	}
}

func TestTypeURLsAreKnownBeforehand(t *testing.T) {
	l := newLog(t)
	c := newCache(l, xdscache.WithTypeURLs(durationURL, resourcev3.ClusterType))
	events := l.appended(func() { set(t, c, "n", custom("1")) })
	require.Len(t, events, 1)
	require.Equal(t, "update google.protobuf.Duration@1 +one-second", describe(events[0]))
	require.Empty(t, l.appended(func() { receive(t, watch(t, c, "n", durationURL, "")) }))
	requireServed(t, l, c)
}

// A type cannot be discovered while the journal fails: the watch fails, and the next watch
// succeeds.
func TestDiscoverTypeFails(t *testing.T) {
	l := newLog(t)
	c := newCache(l)
	set(t, c, "n", custom("1"))
	l.refuse = errDisk
	_, err := c.Fetch(context.Background(), &cachev3.Request{TypeUrl: durationURL})
	require.ErrorContains(t, err, "missing snapshot") // of another node
	w := make(chan cachev3.Response, 1)
	_, err = c.CreateWatch(request("n", durationURL), wildcard(), w)
	require.ErrorIs(t, err, errDisk)
	require.ErrorContains(t, err, "journal type "+durationURL)
	l.refuse = nil
	require.Equal(t, "1", receive(t, watch(t, c, "n", durationURL, "")).GetResponseVersion())
	requireServed(t, l, c)
}

// A snapshot that is set during the discovery of a type is not replaced by the one before
// it.
func TestDiscoverTypeDuringSet(t *testing.T) {
	for range 50 {
		l := newLog(t)
		c := newCache(l)
		const nodes = 4
		for i := range nodes {
			set(t, c, fmt.Sprint(i), custom("1"))
		}
		done := make(chan struct{}, 2*nodes)
		for i := range nodes {
			go func() {
				set(t, c, fmt.Sprint(i), custom("2"))
				done <- struct{}{}
			}()
			go func() {
				watch(t, c, fmt.Sprint(i), durationURL, "")
				done <- struct{}{}
			}()
		}
		for range 2 * nodes {
			receive(t, done)
		}
		for i := range nodes {
			receive(t, watch(t, c, fmt.Sprint(i), durationURL, ""))
			typ := l.State().Node(cachelog.SnapshotPrefix, fmt.Sprint(i)).Type(durationURL)
			require.NotNil(t, typ)
			require.Equal(t, "2", typ.Version())
		}
		requireServed(t, l, c)
	}
}

// The discovery of a type does not restore a node that is being cleared.
func TestDiscoverTypeOfClearedNode(t *testing.T) {
	l := newLog(t)
	c := newCacheWith(l, cachelog.Config{CommitTimeout: time.Millisecond})
	set(t, c, "n", custom("1"))
	l.hold()
	require.ErrorIs(t, second(c.Clear(context.Background(), "n")), cachelog.ErrCommitTimeout)
	watch(t, c, "n", durationURL, "")
	require.Len(t, l.appended(l.release), 1)
	require.Zero(t, l.State().NumNodes())
	require.Eventually(t, func() bool { return c.GetNode("n") == nil }, timeout, time.Millisecond)
	requireServed(t, l, c)
}

// A message keeps its own type if it is served under another.
func TestForeignMessage(t *testing.T) {
	l := newLog(t)
	c := newCache(l)
	s := foreign("1", nil)
	s.url = resourcev3.RuntimeType
	s.resources["x"] = types.ResourceWithTTL{Resource: durationpb.New(time.Second)}
	set(t, c, "n", s)
	r := c.GetNode("n").Type(resourcev3.RuntimeType).Get("x")
	require.Equal(t, durationURL, r.TypeURL)
	requireProtoEqual(t, durationpb.New(time.Second), fetch(t, newCache(l), "n", resourcev3.RuntimeType)["x"].Resource)
	requireServed(t, l, c)
}

func TestCacheNames(t *testing.T) {
	l := newLog(t)
	a, b, linear := newCache(l), newCache(l, xdscache.WithName("b")), newLinear(l, xdscache.WithName("b"))
	require.Equal(t, []string{"", "b", "b"}, []string{a.Name(), b.Name(), linear.Name()})
	set(t, a, "n", clusters(t, "1", cluster("a")))
	set(t, b, "n", clusters(t, "2", cluster("b")))
	require.NoError(t, linear.UpdateResource("c", cluster("c")))
	require.Equal(t, []string{"linear/b", "snapshot/", "snapshot/b"}, l.State().Caches())
	require.NoError(t, second(a.Clear(context.Background(), "n")))
	require.Len(t, fetch(t, b, "n", resourcev3.ClusterType), 1)
	requireServed(t, l, a)
	requireServed(t, l, b)
	for _, name := range []string{"a\x00b", "\xff"} {
		require.Panics(t, func() { newCache(l, xdscache.WithName(name)) })
	}
}

// An event contains types sorted by URL and resources sorted by name.
func TestEventsAreSorted(t *testing.T) {
	l := newLog(t)
	c := newCache(l)
	var resources []types.Resource
	for i := range 50 {
		resources = append(resources, cluster(fmt.Sprint(i)))
	}
	s := clusters(t, "1", resources...)
	s.Resources[types.Listener].Version = "1"
	s.Resources[types.Endpoint].Version = "1"
	set(t, c, "n", s)
	set(t, c, "n", clusters(t, "2"))
	events := l.committed()
	require.Len(t, events, 2)
	for _, ev := range events {
		for i := range ev.Types {
			require.True(t, i == 0 || ev.Types[i-1].TypeURL < ev.Types[i].TypeURL)
			requireSorted(t, ev.Types[i].Deletes)
			var names []string
			for _, r := range ev.Types[i].Upserts {
				names = append(names, r.Name)
			}
			requireSorted(t, names)
		}
	}
	require.Equal(t, journal.Update, events[0].Kind)
	requireServed(t, l, c)
}

func requireSorted(t *testing.T, names []string) {
	t.Helper()
	for i := 1; i < len(names); i++ {
		require.Negative(t, strings.Compare(names[i-1], names[i]))
	}
}
