package cache

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/log"
	"github.com/envoyproxy/go-control-plane/pkg/server/stream/v3"

	"github.com/xdswal/xdswal/internal/cachelog"
	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/journal"
	"github.com/xdswal/xdswal/xdscache"
)

type (
	Request       = cachev3.Request
	DeltaRequest  = cachev3.DeltaRequest
	Response      = cachev3.Response
	DeltaResponse = cachev3.DeltaResponse
)

var (
	GetResourceName = cachev3.GetResourceName
	MarshalResource = cachev3.MarshalResource
)

// HashResource returns the version that our caches give to a resource, which is shorter.
func HashResource(value []byte) string {
	sum := sha256.Sum256(value)
	return base64.RawURLEncoding.EncodeToString(sum[:12])
}

type rawResources interface {
	GetRawResources() []types.ResourceWithTTL
}

// made counts the resources that were made different.
var made atomic.Uint32

// LinearCache is our cache with the private methods that go-control-plane's tests use.
type LinearCache struct {
	*xdscache.LinearCache
}

type options struct {
	initial map[string]types.Resource
	cfg     cachelog.Config
	own     []xdscache.LinearOption
}

func WithInitialResources(r map[string]types.Resource) func(*options) {
	return func(o *options) { o.initial = r }
}

func WithVersionPrefix(prefix string) func(*options) {
	return func(o *options) { o.cfg.VersionPrefix = prefix }
}

func WithLogger(l log.Logger) func(*options) {
	return func(o *options) { o.own = append(o.own, xdscache.WithLogger(l)) }
}

// NewLinearCache returns a cache that contains the initial resources after a restart.
func NewLinearCache(typeURL string, opts ...func(*options)) *LinearCache {
	o := &options{}
	for _, opt := range opts {
		opt(o)
	}
	l := &memoryLog{state: &state.State{}}
	if o.initial != nil {
		if err := xdscache.NewLinearCache(l, o.cfg, typeURL).SetResources(o.initial); err != nil {
			panic(err)
		}
		l.state = restart(l.state)
	}
	return &LinearCache{xdscache.NewLinearCache(l, o.cfg, typeURL, o.own...)}
}

// restart returns a state with the same resources at sequence 0: the tests count versions
// from there.
func restart(st *state.State) *state.State {
	b := state.NewBuilder(0, time.Time{})
	for node := range st.All() {
		if err := b.Node(node.Cache(), node.Name(), 0, time.Time{}); err != nil {
			panic(err)
		}
		for i := range node.Types() {
			t := &node.Types()[i]
			if err := errors.Join(b.Type(t.URL(), t.Version()), b.Resources(slices.Collect(t.All()))); err != nil {
				panic(err)
			}
		}
	}
	return b.Build()
}

// getVersion returns the version that a client without a version receives.
func (c *LinearCache) getVersion() string {
	for _, url := range []string{testType, "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment", "type.googleapis.com/envoy.config.cluster.v3.Cluster"} {
		w := make(chan Response, 1)
		cancel, err := c.CreateWatch(&Request{TypeUrl: url}, stream.NewSotwSubscription(nil, true), w)
		if err != nil && strings.Contains(err.Error(), "does not match") {
			continue
		}
		defer cancel()
		return (<-w).GetResponseVersion()
	}
	panic("none of the cache's types")
}

func (c *LinearCache) numResourceWatches(name string) int {
	return c.NumWatches(name) - c.NumWildcardWatches()
}

func protoEqual(a, b any) bool { return cmp.Equal(a, b, cmp.Comparer(proto.Equal)) }

// memoryLog is a log that commits at once.
type memoryLog struct {
	mu    sync.Mutex
	state *state.State
}

func (l *memoryLog) State() *state.State {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state
}

func (l *memoryLog) RejectErr() error { return nil }

func (l *memoryLog) Subscribe(string, func()) {}

func (l *memoryLog) Generation() uint64 { return 0 }

func (l *memoryLog) Queue(_ uint64, ev *journal.Event) (cachelog.Commit, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ev.Sequence = l.state.Sequence() + 1
	next, err := l.state.Apply(ev)
	if err != nil {
		return nil, errors.New("not the next event")
	}
	l.state = next
	return committed{}, nil
}

type committed struct{}

func (committed) Done() <-chan struct{} {
	done := make(chan struct{})
	close(done)
	return done
}

func (committed) Err() error { return nil }
