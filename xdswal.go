// Package xdswal makes the configuration of an Envoy xDS control plane survive its
// process.
//
// A [Store] journals every update of its caches before any Envoy sees it, folds the
// journal into snapshots, ships those to a backend, and restores all of it when it is
// opened, without the control plane's data source. Its caches are drop-in replacements
// of go-control-plane's: a control plane changes the line that creates its cache.
//
//	store, err := xdswal.Open(ctx, xdswal.Options{Dir: "/var/lib/control-plane"})
//	…
//	defer store.Close(ctx)
//	cache := store.SnapshotCache(true, cachev3.IDHash{}, logger)
//
// This package composes the others and contains no other subject; ARCHITECTURE.md lists
// them.
package xdswal

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/log"

	"github.com/xdswal/xdswal/internal/bounded"
	"github.com/xdswal/xdswal/internal/cachelog"
	"github.com/xdswal/xdswal/internal/catalog"
	"github.com/xdswal/xdswal/internal/directory"
	"github.com/xdswal/xdswal/internal/durable"
	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/internal/eventlog"
	"github.com/xdswal/xdswal/internal/follow"
	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/internal/wal"
	"github.com/xdswal/xdswal/journal"
	"github.com/xdswal/xdswal/replay"
	"github.com/xdswal/xdswal/xdscache"
)

// The identities of errors, for errors.Is.
var (
	// ErrLocked is the error of Open while another process has the data directory open.
	ErrLocked = durable.ErrLocked
	// ErrClosed is the error of an update after Close.
	ErrClosed = cachelog.ErrClosed
	// ErrCorrupt is the error about bytes that are not what was written.
	ErrCorrupt = event.ErrCorrupt
	// ErrVersion is the error about a format of a newer xdswal.
	ErrVersion = event.ErrVersion
	// ErrGap is the error about durable events that are neither in a snapshot nor in the
	// journal.
	ErrGap = event.ErrGap
	// ErrJournalFull is the error of an update when the journal has reached its bound.
	ErrJournalFull = wal.ErrFull
	// ErrJournalPoisoned is the error of an update after an I/O error of the journal, until
	// the store has recovered it, which it tries by itself.
	ErrJournalPoisoned = wal.ErrPoisoned
	// ErrDisabled is the error of a call that the store's options exclude.
	ErrDisabled = errors.New("disabled by the store's options")
	// ErrCommitTimeout is the error of an update whose commit took too long. The update may
	// still become durable.
	ErrCommitTimeout = cachelog.ErrCommitTimeout
	// ErrFenced is the error of an update after another store has taken over the backend.
	// Clients are still served.
	ErrFenced = catalog.ErrFenced
	// ErrForeign is the error about a backend that contains another store's data.
	ErrForeign = catalog.ErrForeign
	// ErrFollower is the error of an update of a follower that is not promoted.
	ErrFollower = errors.New("store is a follower, which accepts no updates until it is promoted")
)

// relistInterval is changed by tests.
var relistInterval = follow.DefaultRelistInterval

// Store is an open store. Its methods are safe for concurrent use.
type Store struct {
	opt Options
	log *eventlog.Log
	// versions is the prefix of the versions of linear caches. It differs each time the
	// store is opened.
	versions string
	// writer is nil in memory, and in a follower until it is promoted.
	writer   atomic.Pointer[writer]
	follower *follow.Follower // nil in other stores
	accept   func()           // ends the rejection of updates by a follower

	changing chan struct{} // full during Promote and Close
}

// Open restores the contents of the data directory, or else of the backend, and returns
// a store that is ready to serve and to accept updates. ctx bounds the restore. The error
// is [ErrLocked], at once, if another process has the directory open; it is [ErrGap] or
// [ErrCorrupt] if not all durable updates can be restored, and nothing is changed then.
//
// With a backend the store takes over as its writer, and the last writer is fenced. Local
// data is used if it belongs to the backend's newest writer; otherwise it is moved into a
// directory beside. If another store takes over in the same moment, one of the two gets
// [ErrFenced].
func Open(ctx context.Context, opt Options) (*Store, error) {
	if err := opt.setDefaults(); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	s := &Store{
		opt:      opt,
		log:      eventlog.New(opt.eventLog()),
		versions: directory.NewToken()[:8] + ".",
		changing: make(chan struct{}, 1),
	}
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

// SnapshotCache creates the store's snapshot cache of a name, which is empty unless an
// option sets it, with everything that was restored for it. It has the parameters of
// cachev3.NewSnapshotCache, which it replaces. It panics if the store already has a
// snapshot cache of that name, or if an option is invalid.
func (s *Store) SnapshotCache(ads bool, hash cachev3.NodeHash, logger log.Logger, opts ...xdscache.SnapshotOption) *xdscache.SnapshotCache {
	return xdscache.NewSnapshotCache(s.log, s.cacheConfig(), ads, hash, logger, opts...)
}

// LinearCache creates the store's linear cache of a name, which is the type URL unless
// an option sets it, with everything that was restored for it. It panics if the store
// already has a linear cache of that name, or if the type URL or an option is invalid.
func (s *Store) LinearCache(typeURL string, opts ...xdscache.LinearOption) *xdscache.LinearCache {
	return xdscache.NewLinearCache(s.log, s.cacheConfig(), typeURL, opts...)
}

func (s *Store) cacheConfig() cachelog.Config {
	return cachelog.Config{CommitTimeout: s.opt.CommitTimeout, OnError: s.cacheError, VersionPrefix: s.versions}
}

func (s *Store) cacheError(cache, node string, err error) {
	s.opt.Logger.Error("update failed", "cache", cache, "node", node, "error", err)
	if s.opt.Hooks.CacheError != nil {
		s.opt.Hooks.CacheError(cache, node, err)
	}
}

// State returns the fold of all updates that have returned, of all caches. It is
// immutable and costs nothing.
func (s *Store) State() *replay.State { return (*replay.State)(s.log.State()) }

// Events calls fn with the events from one sequence to another, both included, in order;
// to = 0 is the newest event. The error is [ErrGap] for events that have been compacted
// away. Events runs beside updates. The events may be kept, and must not be changed.
func (s *Store) Events(ctx context.Context, from, to journal.Sequence, fn func(*journal.Event) error) error {
	j := s.log.Journal()
	if j == nil {
		return fmt.Errorf("read events: %w: the store has no journal: see MemoryOnly and Follow", ErrDisabled)
	}
	return j.Range(ctx, from, to, fn)
}

// Compact writes a snapshot, unless nothing changed since the last one, and returns its
// sequence. It does not wait for the snapshot to be shipped.
func (s *Store) Compact(ctx context.Context) (journal.Sequence, error) {
	w := s.writer.Load()
	if w == nil || w.compact == nil {
		return 0, fmt.Errorf("compact: %w: the store has no snapshots: see MemoryOnly, Follow and DisableSnapshots", ErrDisabled)
	}
	if s.log.Closed() {
		return 0, ErrClosed
	}
	return w.compact.Compact(ctx)
}

// follow restores the contents of the backend and follows it.
func (s *Store) follow(ctx context.Context) (err error) {
	s.accept = s.log.Reject(ErrFollower)
	s.follower, err = follow.Open(ctx, follow.Options{
		Backend:        s.opt.Backend,
		Interval:       s.opt.FollowInterval,
		RelistInterval: relistInterval,
		SnapshotsOnly:  s.opt.ShipInterval == Off,
		State:          s.log.State,
		Serve: func(st *state.State) {
			s.log.SetState(st)
			s.log.Refresh()
		},
		Hooks:  s.opt.Hooks.Replay,
		Logger: s.opt.Logger,
	})
	return err
}

// Promote makes a follower the writer: it takes the backend over, which fences the last
// writer, and then accepts updates, which are journaled in the data directory. Data that
// is in the directory is set aside. Clients are served all the time. If Promote fails, the
// store still follows; the last writer may have been fenced by then, so call Promote again.
// Promote of a store that is the writer does nothing; the error is [ErrFenced] if it was
// superseded, and it takes over again when it is opened again.
func (s *Store) Promote(ctx context.Context) error {
	if err := s.lock(ctx); err != nil {
		return fmt.Errorf("promote %s: %w", s.opt.Backend, err)
	}
	defer s.unlock()
	switch {
	case s.writer.Load() != nil:
		return s.writer.Load().fencedBy()
	case s.follower == nil:
		return fmt.Errorf("promote: %w: the store is in memory only", ErrDisabled)
	case s.opt.Dir == "":
		return errors.New("promote: Options.Dir is empty: a writer requires a data directory")
	case s.log.Closed():
		return ErrClosed
	}
	if err := s.follower.Stop(); err != nil {
		return fmt.Errorf("promote: %w; the store does not follow any more: open it again", err)
	}
	w, err := s.newWriter(func(w *writer) error { return w.promote(ctx, s.follower) })
	if err != nil {
		s.follower.Start() //nolint:contextcheck // As at Open.
		return fmt.Errorf("promote %s: %w", s.opt.Backend, err)
	}
	s.writer.Store(w)
	s.accept()
	s.opt.Logger.Info("promoted", "backend", s.opt.Backend.String(), "epoch", w.dir.Metadata().Epoch, "sequence", uint64(s.log.State().Sequence()))
	s.log.Refresh()
	return nil
}

// Close makes all updates that have returned durable, ships them, writes a last snapshot
// unless nothing changed, ships that too, and closes the store. ctx bounds the snapshot
// and the shipping; without them nothing is lost locally, and the next Open takes longer.
// The caches then reject updates and still serve. A second Close returns nil.
func (s *Store) Close(ctx context.Context) error {
	if err := s.lock(ctx); err != nil {
		return fmt.Errorf("close store in %s: %w", s.opt.Dir, err)
	}
	defer s.unlock()
	if s.log.Closed() {
		return nil
	}
	s.log.Close()
	if s.follower != nil {
		_ = s.follower.Stop() // a call that does not return changes nothing any more
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

// lock waits until no other goroutine promotes or closes the store.
func (s *Store) lock(ctx context.Context) error {
	if err := bounded.Acquire(ctx, s.changing); err != nil {
		return fmt.Errorf("the store is being promoted or closed: %w", err)
	}
	return nil
}

func (s *Store) unlock() { <-s.changing }
