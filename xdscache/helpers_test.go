package xdscache_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/stream/v3"
	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/xdswal/xdswal/internal/cachelog"
	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/journal"
	"github.com/xdswal/xdswal/replay"
	"github.com/xdswal/xdswal/xdscache"
)

// timeout bounds waits that are short unless a test fails.
const timeout = 60 * time.Second

// fakeLog is a log in memory. It commits at once, or, while it is held, when the test calls
// commit or release.
type fakeLog struct {
	t testing.TB

	mu         sync.Mutex
	state      *state.State
	generation uint64
	events     []*journal.Event // committed
	queue      []*fakeCommit
	held       bool
	refuse     error
	forgotten  bool
	// queued receives a value for each queued event.
	queued chan struct{}
	// subscribers are the caches of the log. A test may create several of one name,
	// as after a restart.
	subscribers []func()
	// Called, if they are set, around the subscription of a cache, and before a refresh.
	beforeSubscribe, afterSubscribe, beforeRefresh func()
}

var _ cachelog.Log = (*fakeLog)(nil)

func newLog(t testing.TB) *fakeLog {
	l := &fakeLog{t: t, state: &state.State{}, queued: make(chan struct{}, 1000)}
	t.Cleanup(l.check)
	return l
}

type fakeCommit struct {
	ev   *journal.Event
	done chan struct{}
	err  error
}

func (c *fakeCommit) Done() <-chan struct{} { return c.done }
func (c *fakeCommit) Err() error            { return c.err }

func (c *fakeCommit) finish(err error) {
	c.err = err
	close(c.done)
}

var errStale = errors.New("of an earlier generation")

func (l *fakeLog) State() *state.State {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state
}

func (l *fakeLog) RejectErr() error { return nil }

func (l *fakeLog) Subscribe(_ string, refresh func()) {
	if l.beforeSubscribe != nil {
		l.beforeSubscribe()
	}
	l.mu.Lock()
	l.subscribers = append(l.subscribers, refresh)
	l.mu.Unlock()
	if l.afterSubscribe != nil {
		l.afterSubscribe()
	}
}

// follow sets a state that did not come from Queue, and refreshes the caches.
func (l *fakeLog) follow(st *state.State) {
	l.mu.Lock()
	l.state, l.forgotten = st, true
	subscribers := slices.Clone(l.subscribers)
	l.mu.Unlock()
	if l.beforeRefresh != nil {
		l.beforeRefresh()
	}
	for _, refresh := range subscribers {
		refresh()
	}
}

func (l *fakeLog) Generation() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.generation
}

func (l *fakeLog) Queue(generation uint64, ev *journal.Event) (cachelog.Commit, error) {
	if _, err := event.Marshal(ev); err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.refuse != nil {
		return nil, l.refuse
	}
	if generation != l.generation {
		return nil, errStale
	}
	c := &fakeCommit{ev: ev, done: make(chan struct{})}
	l.queue = append(l.queue, c)
	if !l.held {
		l.commit(len(l.queue))
	}
	select {
	case l.queued <- struct{}{}:
	default:
	}
	return c, nil
}

// commit commits the first n of the queue together.
func (l *fakeLog) commit(n int) {
	for _, c := range l.queue[:n] {
		c.ev.Sequence, c.ev.Time = l.state.Sequence()+1, time.Now()
		next, err := l.state.Apply(c.ev)
		if err != nil {
			l.t.Error(err)
			return
		}
		l.state = next
		l.events = append(l.events, c.ev)
	}
	for _, c := range l.queue[:n] {
		c.finish(nil)
	}
	l.queue = l.queue[n:]
}

// forget drops the events so far, and makes check do nothing.
func (l *fakeLog) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events, l.forgotten = nil, true
}

// hold keeps events in the queue from now on.
func (l *fakeLog) hold() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = true
}

// release commits the queued events, and later ones at once.
func (l *fakeLog) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = false
	l.commit(len(l.queue))
}

// fail fails all queued events.
func (l *fakeLog) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.generation++
	for _, c := range l.queue {
		c.finish(err)
	}
	l.queue = nil
}

// awaitQueued waits until n events have been queued.
func (l *fakeLog) awaitQueued(n int) {
	l.t.Helper()
	for range n {
		receive(l.t, l.queued)
	}
}

// drain drops the values that awaitQueued would receive.
func (l *fakeLog) drain() {
	for len(l.queued) > 0 {
		<-l.queued
	}
}

func (l *fakeLog) committed() []*journal.Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.events)
}

// appended returns the events that fn appends.
func (l *fakeLog) appended(fn func()) []*journal.Event {
	before := len(l.committed())
	fn()
	return l.committed()[before:]
}

// check is the invariant of every test: the state is the fold of the events.
func (l *fakeLog) check() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.forgotten {
		return
	}
	st := &state.State{}
	for _, ev := range l.events {
		next, err := st.Apply(ev)
		require.NoError(l.t, err)
		st = next
	}
	require.Equal(l.t, st.Digest(), l.state.Digest())
}

// requireServed checks that a cache serves exactly the log's state to a client that
// requests everything: bytes, versions and TTLs.
func requireServed(t testing.TB, l *fakeLog, c *xdscache.SnapshotCache) {
	t.Helper()
	st := l.State()
	nodes := 0
	for n := range st.Cache(cachelog.SnapshotPrefix + c.Name()) {
		nodes++
		require.Same(t, (*replay.Node)(n), c.GetNode(n.Name()))
		for i := range n.Types() {
			typ := &n.Types()[i]
			got := fetch(t, c, n.Name(), typ.URL())
			require.Len(t, got, typ.Len())
			for r := range typ.All() {
				item, ok := got[r.Name]
				require.True(t, ok, "%s is not served", r.Name)
				value, err := cachev3.MarshalResource(item.Resource)
				require.NoError(t, err)
				require.Equal(t, string(r.Value), string(value))
				require.Equal(t, r.TTL, item.TTL)
			}
		}
	}
	require.Len(t, slices.Collect(c.Nodes()), nodes)
}

// rawResources is a response that gives its resources as messages.
type rawResources interface {
	GetRawResources() []types.ResourceWithTTL
}

// fetch returns all resources of a type that a node is served.
func fetch(t testing.TB, c cachev3.Cache, node, url string) map[string]types.ResourceWithTTL {
	t.Helper()
	resp, err := c.Fetch(context.Background(), &cachev3.Request{Node: &corev3.Node{Id: node}, TypeUrl: url, VersionInfo: "none such"})
	require.NoError(t, err)
	out := map[string]types.ResourceWithTTL{}
	for _, r := range resp.(rawResources).GetRawResources() {
		out[cachev3.GetResourceName(r.Resource)] = r
	}
	return out
}

func newCache(l cachelog.Log, opts ...xdscache.SnapshotOption) *xdscache.SnapshotCache {
	return newCacheWith(l, cachelog.Config{}, opts...)
}

func newCacheWith(l cachelog.Log, cfg cachelog.Config, opts ...xdscache.SnapshotOption) *xdscache.SnapshotCache {
	return xdscache.NewSnapshotCache(l, cfg, false, cachev3.IDHash{}, nil, opts...)
}

// second returns the error of two results.
func second[T any](_ T, err error) error { return err }

func cluster(name string) *clusterv3.Cluster { return &clusterv3.Cluster{Name: name} }

// clusterOf returns a cluster whose contents differ by alt.
func clusterOf(name, alt string) *clusterv3.Cluster {
	return &clusterv3.Cluster{Name: name, AltStatName: alt}
}

func endpoint(name string) *endpointv3.ClusterLoadAssignment {
	return &endpointv3.ClusterLoadAssignment{ClusterName: name}
}

func items(resources ...types.Resource) []types.ResourceWithTTL {
	out := make([]types.ResourceWithTTL, len(resources))
	for i, r := range resources {
		out[i].Resource = r
	}
	return out
}

// clusters returns a snapshot of clusters.
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

// counted counts how often a message is marshaled or read.
type counted struct {
	*clusterv3.Cluster
	looks *atomic.Int64
}

func (c *counted) ProtoReflect() protoreflect.Message {
	c.looks.Add(1)
	return c.Cluster.ProtoReflect()
}

// broken is a message that does not marshal.
func broken(name string) *clusterv3.Cluster { return clusterOf(name, "\xff") }

// watch opens a SotW watch that knows a version.
func watch(t testing.TB, c cachev3.Cache, node, url, version string, known ...string) chan cachev3.Response {
	t.Helper()
	w := make(chan cachev3.Response, 1)
	sub := stream.NewSotwSubscription(nil, true)
	returned := map[string]string{}
	for _, name := range known {
		returned[name] = version
	}
	sub.SetReturnedResources(returned)
	_, err := c.CreateWatch(&cachev3.Request{Node: &corev3.Node{Id: node}, TypeUrl: url, VersionInfo: version}, sub, w)
	require.NoError(t, err)
	return w
}

// deltaWatch opens a wildcard delta watch that knows versions.
func deltaWatch(t testing.TB, c cachev3.Cache, node, url string, known map[string]string) chan cachev3.DeltaResponse {
	t.Helper()
	w := make(chan cachev3.DeltaResponse, 1)
	req := &cachev3.DeltaRequest{Node: &corev3.Node{Id: node}, TypeUrl: url, InitialResourceVersions: known, ResponseNonce: "1"}
	_, err := c.CreateDeltaWatch(req, stream.NewDeltaSubscription(nil, nil, known, true), w)
	require.NoError(t, err)
	return w
}

func receive[T any](t testing.TB, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(timeout):
		require.FailNow(t, "nothing came")
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

// names returns the names of the resources in a response.
func names(t testing.TB, resp cachev3.Response) []string {
	t.Helper()
	return slices.Sorted(maps.Keys(resp.GetReturnedResources()))
}

// describe returns an event as text.
func describe(ev *journal.Event) string {
	out := ev.Kind.String()
	for _, tc := range ev.Types {
		out += fmt.Sprintf(" %s@%s", tc.TypeURL[len(resourcev3.APITypePrefix):], tc.Version)
		for _, r := range tc.Upserts {
			out += " +" + r.Name
		}
		for _, name := range tc.Deletes {
			out += " -" + name
		}
	}
	return out
}

func requireProtoEqual(t testing.TB, want, got proto.Message) {
	t.Helper()
	require.True(t, proto.Equal(want, got), "got %v, want %v", got, want)
}

var errDisk = errors.New("the disk is full")

func request(node, url string) *cachev3.Request {
	return &cachev3.Request{Node: &corev3.Node{Id: node}, TypeUrl: url}
}

func wildcard() cachev3.Subscription { return stream.NewSotwSubscription(nil, true) }

// background starts fn, and returns a channel that receives its result.
func background(fn func() error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- fn() }()
	return done
}

// requireProtoDeepEqual compares messages by proto.Equal, and all else deeply.
func requireProtoDeepEqual(t testing.TB, want, got any) {
	t.Helper()
	require.Empty(t, cmp.Diff(want, got, cmp.Comparer(proto.Equal)))
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// hashOf returns the version of a resource for which the caller chose none.
func hashOf(value []byte) string {
	sum := sha256.Sum256(value)
	return base64.RawURLEncoding.EncodeToString(sum[:12])
}
