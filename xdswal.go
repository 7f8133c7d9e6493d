// Package xdswal makes the configuration of an Envoy xDS control plane survive
// its process.
//
// A [Store] journals every update of its caches before any Envoy sees it,
// folds the journal into snapshots, ships those to a backend, and restores all
// of it when it is opened, without asking the control plane's data source. Its
// caches are go-control-plane's with a journal in front: an existing control
// plane changes the line that makes its cache.
//
//	store, err := xdswal.Open(ctx, xdswal.Options{Dir: "/var/lib/control-plane"})
//	…
//	defer store.Close(ctx)
//	cache := store.SnapshotCache(true, cachev3.IDHash{}, logger)
package xdswal

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/log"

	"github.com/xdswal/xdswal/internal/catalog"
	"github.com/xdswal/xdswal/internal/durable"
	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/internal/wal"
	"github.com/xdswal/xdswal/journal"
	"github.com/xdswal/xdswal/xdscache"
)

// The identities of errors that callers may want to tell apart.
var (
	// ErrLocked: another process has the data directory open.
	ErrLocked = durable.ErrLocked
	// ErrClosed: the store was closed.
	ErrClosed = xdscache.ErrClosed
	// ErrCorrupt: bytes are not what was written.
	ErrCorrupt = event.ErrCorrupt
	// ErrVersion: a newer xdswal wrote it.
	ErrVersion = event.ErrVersion
	// ErrGap: events that were acknowledged are in no snapshot and not in the
	// journal.
	ErrGap = event.ErrGap
	// ErrJournalFull: the journal has reached its bound.
	ErrJournalFull = wal.ErrFull
	// ErrJournalPoisoned: an I/O error has made the journal refuse updates
	// until it has recovered, which the store tries by itself.
	ErrJournalPoisoned = wal.ErrPoisoned
	// ErrDisabled: the store's options leave out what was asked for.
	ErrDisabled = errors.New("disabled by the store's options")
	// ErrCommitTimeout: the commit of an update took too long.
	ErrCommitTimeout = xdscache.ErrCommitTimeout
	// ErrFenced: another store has taken over the backend. Updates are refused
	// with it, and clients go on being served.
	ErrFenced = catalog.ErrFenced
	// ErrForeign: the backend holds another store's data.
	ErrForeign = catalog.ErrForeign
	// ErrFollower: the store follows another one and takes no updates, until
	// it is promoted.
	ErrFollower = errors.New("the store follows another one, and takes no updates")
)

// Store is an open store. Its methods are safe for concurrent use.
type Store struct {
	opt Options
	log *eventLog
	// versions is what the versions of this opening's linear caches begin with.
	versions string
	// writer is what makes the store durable: nil in memory, and in a follower
	// until it is promoted.
	writer   atomic.Pointer[writer]
	follower *follower // nil in other stores

	changing  chan struct{} // full while the store is promoted or closed
	mu        sync.Mutex
	snapshots map[string]*xdscache.SnapshotCache
	linears   map[string]*xdscache.LinearCache
}

// Open restores what the data directory, or else the backend, holds, and
// returns a store that is ready to serve it and to take updates. ctx bounds the
// restore. If another process has the directory open, the error is [ErrLocked],
// at once; if what was acknowledged cannot all be restored, it is [ErrGap] or
// [ErrCorrupt], and nothing is changed.
//
// With a backend the store takes over as its writer: a store that wrote there
// before is fenced. Local data is preferred if it is that of the backend's
// newest writer, and otherwise set aside in a directory beside. If another
// store takes over in the same moment, one of the two gets [ErrFenced].
func Open(ctx context.Context, opt Options) (*Store, error) {
	if err := opt.setDefaults(); err != nil {
		return nil, err
	}
	s := &Store{
		opt:       opt,
		versions:  newToken()[:8] + ".",
		changing:  make(chan struct{}, 1),
		snapshots: map[string]*xdscache.SnapshotCache{},
		linears:   map[string]*xdscache.LinearCache{},
	}
	s.log = newEventLog(&s.opt)
	if opt.MemoryOnly {
		return s, nil
	}
	ctx, cancel := context.WithTimeout(ctx, opt.RestoreTimeout)
	defer cancel()
	if opt.Follow {
		if err := s.follow(ctx); err != nil {
			return nil, fmt.Errorf("follow %s: %w", opt.Backend, err)
		}
		return s, nil
	}
	w, err := s.newWriter(func(w *writer) error { return w.open(ctx) })
	if err != nil {
		return nil, fmt.Errorf("open store in %s: %w", opt.Dir, err)
	}
	s.writer.Store(w)
	return s, nil
}

// SnapshotCache returns the store's snapshot cache of a name, by default the
// empty one, with all that was restored for it. It takes the parameters of
// cachev3.NewSnapshotCache and is used in its place. A second call with the
// same name returns the same cache; what it was made with stays.
func (s *Store) SnapshotCache(ads bool, hash cachev3.NodeHash, logger log.Logger, opts ...xdscache.Option) *xdscache.SnapshotCache {
	s.mu.Lock()
	defer s.mu.Unlock()
	opts = s.cacheOptions(logger, opts)
	name := xdscache.Named("", opts...)
	if s.snapshots[name] == nil {
		s.snapshots[name] = xdscache.NewSnapshotCache(s.log, ads, hash, opts...)
	}
	return s.snapshots[name]
}

// LinearCache returns the store's linear cache of a name, by default its type
// URL, with all that was restored for it. A second call with the same name
// returns the same cache.
func (s *Store) LinearCache(typeURL string, opts ...xdscache.Option) *xdscache.LinearCache {
	s.mu.Lock()
	defer s.mu.Unlock()
	opts = s.cacheOptions(nil, opts)
	name := xdscache.Named(typeURL, opts...)
	if s.linears[name] == nil {
		s.linears[name] = xdscache.NewLinearCache(s.log, typeURL, append(opts, xdscache.WithVersionPrefix(s.versions))...)
	}
	return s.linears[name]
}

// cacheOptions puts what the store is set to before what the caller asks for.
func (s *Store) cacheOptions(logger log.Logger, opts []xdscache.Option) []xdscache.Option {
	own := []xdscache.Option{
		xdscache.WithCommitTimeout(s.opt.CommitTimeout),
		xdscache.WithErrorHandler(s.cacheError),
	}
	if logger != nil {
		own = append(own, xdscache.WithLogger(logger))
	}
	return slices.Concat(own, opts)
}

func (s *Store) cacheError(cache, node string, err error) {
	s.opt.Logger.Error("update failed", "cache", cache, "node", node, "error", err)
	if s.opt.Hooks.CacheError != nil {
		s.opt.Hooks.CacheError(cache, node, err)
	}
}

// State returns the fold of all acknowledged updates, of all caches. It is
// immutable and costs nothing.
func (s *Store) State() *state.State { return s.log.State() }

// Compact writes a snapshot now, unless nothing changed since the last one, and
// returns its sequence. Shipping it goes on beside.
func (s *Store) Compact(ctx context.Context) (journal.Sequence, error) {
	w := s.writer.Load()
	if w == nil || w.compact == nil {
		return 0, fmt.Errorf("compact: %w: the store keeps no snapshots: see MemoryOnly, Follow and DisableSnapshots", ErrDisabled)
	}
	if s.log.isClosed() {
		return 0, ErrClosed
	}
	return w.compact.Compact(ctx)
}

// Close makes what was acknowledged durable, ships it, writes a last snapshot
// unless nothing changed, ships that too, and closes the store. ctx bounds the
// snapshot and the shipping; without them nothing is lost here, the next Open
// only takes longer. The caches refuse updates from then on and go on serving. A
// second Close returns nil.
func (s *Store) Close(ctx context.Context) error {
	if err := s.begin(ctx); err != nil {
		return fmt.Errorf("close store in %s: %w", s.opt.Dir, err)
	}
	defer s.end()
	if s.log.isClosed() {
		return nil
	}
	s.log.close()
	if s.follower != nil {
		_ = s.follower.stop() // whoever does not return changes nothing any more
	}
	w := s.writer.Load()
	if w == nil {
		return nil
	}
	if err := w.close(ctx); err != nil {
		return fmt.Errorf("close store in %s: %w", s.opt.Dir, err)
	}
	return nil
}

// begin waits until the store is neither promoted nor closed by another.
func (s *Store) begin(ctx context.Context) error {
	select {
	case s.changing <- struct{}{}:
		return nil
	default:
	}
	select {
	case s.changing <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("it is being promoted or closed: %w", context.Cause(ctx))
	}
}

func (s *Store) end() { <-s.changing }
