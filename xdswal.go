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
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/log"

	"github.com/xdswal/xdswal/compactor"
	"github.com/xdswal/xdswal/internal/durable"
	"github.com/xdswal/xdswal/journal"
	"github.com/xdswal/xdswal/journal/event"
	"github.com/xdswal/xdswal/replay"
	"github.com/xdswal/xdswal/replay/state"
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
	ErrJournalFull = journal.ErrFull
	// ErrJournalPoisoned: an I/O error has made the journal refuse updates
	// until it has recovered, which the store tries by itself.
	ErrJournalPoisoned = journal.ErrPoisoned
	// ErrDisabled: the store's options leave out what was asked for.
	ErrDisabled = errors.New("disabled by the store's options")
	// ErrCommitTimeout: the commit of an update took too long.
	ErrCommitTimeout = xdscache.ErrCommitTimeout
)

// Store is an open store. Its methods are safe for concurrent use.
type Store struct {
	opt      Options
	meta     metadata
	lock     *durable.LockFile
	log      *eventLog
	compact  *compactor.Compactor // nil where there are no snapshots
	restored replay.Result

	stop context.CancelFunc // of background
	work sync.WaitGroup

	mu        sync.Mutex
	snapshots map[string]*xdscache.SnapshotCache
	linears   map[string]*xdscache.LinearCache
	closed    bool
}

// Open restores what the data directory, or else the backend, holds, and
// returns a store that is ready to serve it and to take updates. ctx bounds the
// restore. If another process has the directory open, the error is [ErrLocked],
// at once; if what was acknowledged cannot all be restored, it is [ErrGap] or
// [ErrCorrupt], and nothing is changed.
func Open(ctx context.Context, opt Options) (*Store, error) {
	if err := opt.setDefaults(); err != nil {
		return nil, err
	}
	s := &Store{
		opt:       opt,
		snapshots: map[string]*xdscache.SnapshotCache{},
		linears:   map[string]*xdscache.LinearCache{},
	}
	s.log = newEventLog(&s.opt)
	if opt.MemoryOnly {
		// Versions of linear caches differ from those of the last process.
		s.meta.Epoch = uint64(time.Now().UnixNano())
		s.stop = func() {}
		return s, nil
	}
	ctx, cancel := context.WithTimeout(ctx, opt.RestoreTimeout)
	defer cancel()
	if err := s.open(ctx); err != nil {
		s.abandon()
		return nil, fmt.Errorf("open store in %s: %w", opt.Dir, err)
	}
	return s, nil
}

func (s *Store) open(ctx context.Context) error {
	dir := s.opt.Dir
	snapshots := filepath.Join(dir, snapshotDir)
	// A directory of a newer format is refused before anything is changed.
	if _, _, err := readMetadata(dir); err != nil {
		return err
	}
	if err := durable.MkdirAll(snapshots); err != nil {
		return err
	}
	var err error
	if s.lock, err = durable.Lock(filepath.Join(dir, lockFile)); err != nil {
		return err
	}
	// Whoever had the lock may have been a newer xdswal.
	last, _, err := readMetadata(dir)
	if err != nil {
		return err
	}
	if s.log.journal, err = journal.Open(filepath.Join(dir, journalDir), s.opt.journal(s.log)); err != nil {
		return err
	}
	st, result, err := replay.Restore(ctx, s.opt.replay(snapshots, s.log.journal, last))
	s.restored = result
	if err != nil {
		return err
	}
	s.log.state.Store(st)
	//nolint:contextcheck // It is not to be cut short.
	if err := s.log.journal.Advance(st.Sequence()+1, st.Time()); err != nil {
		return err
	}
	if s.meta, err = nextEpoch(dir, result); err != nil {
		return err
	}
	s.logRestored()
	//nolint:contextcheck // What it starts outlives the opening.
	return s.start(snapshots)
}

// start begins what runs beside the updates.
func (s *Store) start(snapshots string) error {
	snapshot := func(context.Context) (event.Sequence, error) { return 0, errors.New("snapshots are disabled") }
	if !s.opt.DisableSnapshots {
		c, err := compactor.New(s.log.State, compactedJournal{s.log.journal, s.opt.MaxJournalBytes}, s.opt.compactor(snapshots, s.meta, s.restored))
		if err != nil {
			return err
		}
		s.compact, s.log.grown, snapshot = c, c.Committed, c.Compact
		c.Start()
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	s.work.Add(1)
	go func() {
		defer s.work.Done()
		s.log.recoverLoop(ctx, snapshot)
	}()
	return nil
}

func (s *Store) logRestored() {
	r := s.restored
	for _, skipped := range r.Skipped {
		s.opt.Logger.Warn("snapshot was passed over", "location", skipped.Location, "name", skipped.Name, "error", skipped.Reason)
	}
	s.opt.Logger.Info("restored", "sequence", uint64(r.Sequence), "snapshot", r.Snapshot, "source", r.Source,
		"events", r.Events, "nodes", r.Nodes, "resources", r.Resources, "bytes", r.Bytes, "duration", r.Duration)
}

// abandon closes what a failed Open had opened.
func (s *Store) abandon() {
	if s.log.journal != nil {
		_ = s.log.journal.Close()
	}
	if s.lock != nil {
		_ = s.lock.Unlock()
	}
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
		// Each opening of the store has its own epoch, and so its own versions.
		prefix := strconv.FormatUint(s.meta.Epoch, 10) + "."
		s.linears[name] = xdscache.NewLinearCache(s.log, typeURL, append(opts, xdscache.WithVersionPrefix(prefix))...)
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
func (s *Store) Compact(ctx context.Context) (event.Sequence, error) {
	if s.compact == nil {
		return 0, fmt.Errorf("compact: %w: the store keeps no snapshots: see MemoryOnly and DisableSnapshots", ErrDisabled)
	}
	if s.log.isClosed() {
		return 0, ErrClosed
	}
	return s.compact.Compact(ctx)
}

// Close makes what was acknowledged durable, writes a last snapshot unless
// nothing changed, ships it, and closes the store. ctx bounds the snapshot and
// the shipping; without them nothing is lost, the next Open only takes longer.
// The caches refuse updates from then on and go on serving. A second Close
// returns nil.
func (s *Store) Close(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	s.log.close()
	s.stop()
	if s.compact != nil {
		s.compact.Stop()
	}
	s.work.Wait()
	var errs []error
	if s.log.journal != nil {
		errs = append(errs, s.log.journal.Close())
	}
	if s.compact != nil {
		errs = append(errs, s.compact.Close(ctx))
	}
	if s.lock != nil && errors.Join(errs...) == nil && s.log.health() == nil {
		s.meta.Sequence = s.log.State().Sequence()
		errs = append(errs, writeMetadata(s.opt.Dir, s.meta))
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Unlock())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close store in %s: %w", s.opt.Dir, err)
	}
	return nil
}
