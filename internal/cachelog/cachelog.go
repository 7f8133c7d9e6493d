// Package cachelog defines what a store gives to its caches: the log that makes
// their events durable, and the settings that the store decides.
//
// It is the seam between the root package, which implements [Log], and xdscache,
// which uses it. It contains no journal and no cache.
//
// Invariants:
//   - [Log].State contains an event before the event's [Commit] is done.
//   - The events of one node become durable in the order in which they were queued.
//   - A log has at most one cache of a name.
package cachelog

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/journal"
)

// ErrCommitTimeout means that the commit of an update took longer than the commit
// timeout. The update may still become durable; if it does, it is served then.
var ErrCommitTimeout = errors.New("commit timed out")

// ErrClosed means that the store was closed before the update.
var ErrClosed = errors.New("store is closed")

// DefaultCommitTimeout is the time that an update waits for its commit.
const DefaultCommitTimeout = 10 * time.Second

// The name of a cache in events is a prefix and the cache's own name.
const (
	SnapshotPrefix = "snapshot/"
	LinearPrefix   = "linear/"
)

// Log makes the events of caches durable. Its methods are safe for concurrent use.
type Log interface {
	// State returns the state after all durable events.
	State() *state.State
	// RejectErr returns the error that updates return, or nil while the log accepts
	// updates. An update that changes nothing returns it too: while the log rejects
	// updates, the caller must not rely on the state.
	RejectErr() error
	// Generation returns a number that increases when an event fails.
	Generation() uint64
	// Queue queues an event that was computed in a generation. It returns an error
	// if an event has failed since then.
	Queue(generation uint64, ev *journal.Event) (Commit, error)
	// Subscribe registers a cache by its name in events. The log calls refresh after each
	// change of State that did not come from Queue, as in a follower. Subscribe panics if
	// the name is registered already.
	Subscribe(cache string, refresh func())
}

// Commit is a queued event.
type Commit interface {
	// Done returns a channel that is closed when the event is durable or has failed.
	Done() <-chan struct{}
	// Err is the error of an event that failed, or nil. It may be called only after
	// Done is closed.
	Err() error
}

// Config is what a store sets for its caches. The zero value is useful.
type Config struct {
	// CommitTimeout bounds the wait of an update for its commit; 0 means
	// [DefaultCommitTimeout].
	CommitTimeout time.Duration
	// OnError, if not nil, is called with the errors of updates by ClearSnapshot and
	// SetResources. The node is empty for a linear cache.
	OnError func(cache, node string, err error)
	// VersionPrefix is the prefix of the versions that are made of sequences. It must
	// differ each time the store is opened: a restore may return to an earlier sequence,
	// and a version that a client has already must not come again with other contents.
	VersionPrefix string
}

// Subscribers implements [Log].Subscribe. The zero value has no subscribers. It is
// safe for concurrent use.
type Subscribers struct {
	mu      sync.Mutex
	refresh map[string]func()
}

// Subscribe registers a cache; see [Log].
func (s *Subscribers) Subscribe(cache string, refresh func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, found := s.refresh[cache]; found {
		panic(fmt.Sprintf("xdswal: the store already has a cache %q: use that one, or choose another name with xdscache.WithName", cache))
	}
	if s.refresh == nil {
		s.refresh = map[string]func(){}
	}
	s.refresh[cache] = refresh
}

// Refresh calls the refresh function of each cache. The caller has changed the state
// before.
func (s *Subscribers) Refresh() {
	s.mu.Lock()
	// A cache that subscribes from here on reads the new state.
	refresh := slices.Collect(maps.Values(s.refresh))
	s.mu.Unlock()
	for _, fn := range refresh {
		fn()
	}
}
