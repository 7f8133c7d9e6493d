package cache

import (
	"errors"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/log"
	"github.com/envoyproxy/go-control-plane/pkg/server/stream/v3"

	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/journal"
	"github.com/xdswal/xdswal/xdscache"
)

type (
	Request       = cachev3.Request
	DeltaRequest  = cachev3.DeltaRequest
	Response      = cachev3.Response
	DeltaResponse = cachev3.DeltaResponse
	RawResponse   = cachev3.RawResponse
)

var (
	GetResourceName = cachev3.GetResourceName
	MarshalResource = cachev3.MarshalResource
	HashResource    = cachev3.HashResource
)

// made counts the resources that are to differ from each other.
var made atomic.Uint32

// LinearCache is ours with what go-control-plane's tests look at inside of
// theirs.
type LinearCache struct {
	*xdscache.LinearCache
}

type options struct {
	initial map[string]types.Resource
	own     []xdscache.Option
}

func WithInitialResources(r map[string]types.Resource) func(*options) {
	return func(o *options) { o.initial = r }
}

func WithVersionPrefix(prefix string) func(*options) {
	return func(o *options) { o.own = append(o.own, xdscache.WithVersionPrefix(prefix)) }
}

func WithLogger(l log.Logger) func(*options) {
	return func(o *options) { o.own = append(o.own, xdscache.WithLogger(l)) }
}

// NewLinearCache returns a cache that was restarted with the initial resources.
func NewLinearCache(typeURL string, opts ...func(*options)) *LinearCache {
	// One test changes a message in place and sets it again.
	o := &options{own: []xdscache.Option{xdscache.WithContentComparison()}}
	for _, opt := range opts {
		opt(o)
	}
	l := &memoryLog{state: &state.State{}}
	if o.initial != nil {
		xdscache.NewLinearCache(l, typeURL).SetResources(o.initial)
	}
	return &LinearCache{xdscache.NewLinearCache(l, typeURL, o.own...)}
}

// getVersion is the version that a client without one is answered with.
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

func (l *memoryLog) Refusal() error { return nil }

func (l *memoryLog) Generation() uint64 { return 0 }

func (l *memoryLog) Queue(_ uint64, ev *journal.Event) (xdscache.Commit, error) {
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
