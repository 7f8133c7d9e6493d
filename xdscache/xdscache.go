// Package xdscache journals go-control-plane's caches.
//
// A [SnapshotCache] and a [LinearCache] are go-control-plane's own caches with
// a journal in front: an update is compared with what its node holds, what
// differs is queued as one event, and when the event is durable, and only
// then, go-control-plane's cache is told, which answers the watches of Envoys.
//
// Resources are held as the bytes that were journaled. They pass through
// go-control-plane as a [proto.Message] that marshals by copying them, so a
// restart decodes and hashes nothing, and an Envoy gets the same bytes, and in
// the delta protocol the same versions, as before it.
//
// # Rules for callers
//
// They are go-control-plane's: a message that was handed to a cache must not be
// changed any more. xdswal relies on it: a message that is set again under the
// same address is taken to be unchanged, unless the cache was made
// [WithContentComparison].
package xdscache

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/envoyproxy/go-control-plane/pkg/log"

	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/journal"
)

// ErrCommitTimeout is the identity of the error about an update whose commit
// took longer than the commit timeout. The update may still become durable; if
// it does, it is published then.
var ErrCommitTimeout = errors.New("the journal did not answer in time")

// ErrClosed is the identity of the error about an update after the store was
// closed.
var ErrClosed = errors.New("store is closed")

// Log is what the caches need of their store. Its methods are safe for
// concurrent use.
type Log interface {
	// State returns the fold of all durable events.
	State() *state.State
	// RejectErr is why no update is taken, nil if they are. One that changes
	// nothing is refused too: the state is not what the caller is to rely on.
	RejectErr() error
	// Generation grows when an event fails; see wal.Generation.
	Generation() uint64
	// Queue queues an event that was computed in a generation, and refuses
	// it if that has passed. Events of one node become durable in the order
	// in which they are queued. Before Done is closed, State has the event.
	Queue(generation uint64, ev *journal.Event) (Commit, error)
}

// Commit is an event on its way to being durable.
type Commit interface {
	// Done is closed when the event is durable or has failed.
	Done() <-chan struct{}
	// Err is why it failed; it may be called only after Done is closed.
	Err() error
}

// DefaultCommitTimeout is how long an update waits for its commit.
const DefaultCommitTimeout = 10 * time.Second

// Option changes a cache.
type Option func(*options)

type options struct {
	name           string
	logger         log.Logger
	commitTimeout  time.Duration
	compareContent bool
	typeURLs       []string
	heartbeatCtx   context.Context
	heartbeat      time.Duration
	onError        func(cache, node string, err error)
	versionPrefix  string
}

// WithName names the cache among the caches of its store; the default is
// empty for a snapshot cache and the type URL for a linear one. The name is
// what finds the cache's contents again after a restart. A name that is not
// UTF-8, or holds a zero byte, makes the constructor panic.
func WithName(name string) Option { return func(o *options) { o.name = name } }

// WithLogger sets the logger of the go-control-plane cache.
func WithLogger(l log.Logger) Option { return func(o *options) { o.logger = l } }

// WithCommitTimeout bounds how long an update waits for its commit; the
// default is [DefaultCommitTimeout].
func WithCommitTimeout(d time.Duration) Option {
	return func(o *options) { o.commitTimeout = d }
}

// WithContentComparison compares every message by its content. Without it a
// message that is set again under the same address is taken to be unchanged,
// which is much faster; a control plane that changes messages in place, against
// go-control-plane's rules, needs this option.
func WithContentComparison() Option { return func(o *options) { o.compareContent = true } }

// WithTypeURLs names types, beyond the ten that go-control-plane knows, that
// ResourceSnapshots of the user's own making hold. A ResourceSnapshot cannot
// tell its types; one that is not named here becomes durable when the first
// client asks for it.
func WithTypeURLs(urls ...string) Option {
	return func(o *options) { o.typeURLs = append(o.typeURLs, urls...) }
}

// WithHeartbeat makes a snapshot cache send heartbeats for resources with a
// TTL, every interval until ctx is done, as
// cachev3.NewSnapshotCacheWithHeartbeating does.
func WithHeartbeat(ctx context.Context, interval time.Duration) Option {
	return func(o *options) { o.heartbeatCtx, o.heartbeat = ctx, interval }
}

// WithErrorHandler sets what is called when an update fails in a method that
// go-control-plane gave no error to return: ClearSnapshot and SetResources.
func WithErrorHandler(fn func(cache, node string, err error)) Option {
	return func(o *options) { o.onError = fn }
}

// WithVersionPrefix sets the prefix of a linear cache's versions. It must
// differ each time the store is opened: go-control-plane counts from 0 again,
// and a client must not meet an old version with new contents. The store sets
// it.
func WithVersionPrefix(prefix string) Option {
	return func(o *options) { o.versionPrefix = prefix }
}

func newOptions(opts []Option) options {
	o := options{commitTimeout: DefaultCommitTimeout}
	for _, opt := range opts {
		opt(&o)
	}
	if o.logger == nil {
		o.logger = log.NewDefaultLogger()
	}
	if !utf8.ValidString(o.name) || strings.Contains(o.name, "\x00") {
		panic(fmt.Sprintf("xdscache: the cache name %q is not UTF-8 without zero bytes", o.name))
	}
	if o.onError == nil {
		o.onError = func(string, string, error) {}
	}
	return o
}

// Named returns the name that options give a cache, or else the default.
func Named(byDefault string, opts ...Option) string {
	o := options{name: byDefault}
	for _, opt := range opts {
		opt(&o)
	}
	return o.name
}

// Names of caches in events.
const (
	snapshotPrefix = "snapshot/"
	linearPrefix   = "linear/"
)

// SnapshotCacheName returns the name that events give a snapshot cache.
func SnapshotCacheName(name string) string { return snapshotPrefix + name }

// LinearCacheName returns the name that events give a linear cache.
func LinearCacheName(name string) string { return linearPrefix + name }
