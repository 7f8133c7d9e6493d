package xdswal

import (
	"cmp"
	"errors"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/internal/catalog"
	"github.com/xdswal/xdswal/internal/compact"
	"github.com/xdswal/xdswal/internal/ship"
	"github.com/xdswal/xdswal/internal/wal"
	"github.com/xdswal/xdswal/journal"
	"github.com/xdswal/xdswal/replay"
	"github.com/xdswal/xdswal/xdscache"
)

// Options are the settings of a store. Only Dir has to be set.
type Options struct {
	// Dir is the data directory, which one store at a time may have open. It
	// is created, with mode 0700, if need be.
	Dir string
	// MemoryOnly keeps everything in memory alone: Dir and all that is about
	// persistence is ignored, and nothing survives the process.
	MemoryOnly bool

	// Sync says when an acknowledged update is on stable storage; default
	// journal.SyncAlways.
	Sync journal.SyncPolicy
	// SegmentBytes is the size of a journal segment; default 32 MiB.
	SegmentBytes int64
	// MaxJournalBytes bounds the journal; default 4 GiB. Updates fail with
	// ErrJournalFull beyond it.
	MaxJournalBytes int64
	// CommitTimeout bounds how long an update waits for its commit; default
	// 10 seconds.
	CommitTimeout time.Duration
	// FailOpen applies updates that the journal cannot take, as when the disk
	// is full: Envoys get them at once, the store is degraded, and a snapshot
	// makes them durable as soon as one can be written. A crash before that
	// loses them. Default: such an update fails and changes nothing.
	FailOpen bool

	// DisableSnapshots keeps the journal alone, which grows to its bound.
	DisableSnapshots bool
	// CompactInterval is the time between snapshots; default 10 minutes.
	CompactInterval time.Duration
	// CompactTailBytes and CompactTailRecords write a snapshot earlier, when
	// the events since the last one exceed them; default 256 MiB, at most an
	// eighth of MaxJournalBytes, and 1,000,000.
	CompactTailBytes   int64
	CompactTailRecords int64
	// KeepSnapshots is how many snapshots are kept, here and in the backend;
	// default 3, at least 2.
	KeepSnapshots int
	// KeepFor keeps all snapshots of that age or younger besides; default an
	// hour, a negative one keeps none besides. Within what is kept, every
	// moment can be restored.
	KeepFor time.Duration

	// Backend is where snapshots and the journal's tail are shipped to, nil for
	// none; see backends/file and backends/s3.
	Backend backends.Backend
	// ShipInterval is the least time between two shipments of the journal's
	// tail: what is lost with the machine is what was committed since the last
	// one. Nothing is shipped where nothing changed. Default a second, or, with
	// a backend that may be on this machine, none; a negative one ships only
	// snapshots.
	ShipInterval time.Duration
	// NoPrune deletes nothing from the backend, for credentials that may not.
	NoPrune bool
	// RequireBackend makes Open fail if the backend cannot be reached. Default:
	// what is local is served, with a warning, and the backend is taken over
	// when it can be; with nothing local, Open fails all the same.
	RequireBackend bool
	// BackendTimeout bounds how long Open waits for the backend when what is
	// local will do; default 5 seconds.
	BackendTimeout time.Duration
	// Follow makes the store a read-only replica of the one that ships to
	// Backend: it serves what that one does, as far as it was shipped, and its
	// updates fail with ErrFollower until Promote makes it the writer.
	Follow bool
	// FollowInterval is how often a follower looks for what is new; default a
	// second.
	FollowInterval time.Duration
	// RestoreTimeout bounds the restore at Open, the backend included;
	// default 10 minutes.
	RestoreTimeout time.Duration

	// Hooks reports the store's work.
	Hooks Hooks
	// Logger gets what an operator should know; default: nobody.
	Logger *slog.Logger
}

// Defaults of Options that no package below has.
const (
	DefaultRestoreTimeout = 10 * time.Minute
	DefaultBackendTimeout = 5 * time.Second
	DefaultFollowInterval = time.Second
)

func (o *Options) setDefaults() error {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	o.CommitTimeout = cmp.Or(o.CommitTimeout, xdscache.DefaultCommitTimeout)
	o.MaxJournalBytes = cmp.Or(o.MaxJournalBytes, wal.DefaultMaxBytes)
	// A tail takes up to some three times its bytes in the segments' pages, and
	// the tail before it is kept too: compact well before the journal is full.
	o.CompactTailBytes = min(cmp.Or(o.CompactTailBytes, compact.DefaultTailBytes), o.MaxJournalBytes/8)
	o.KeepSnapshots = max(2, cmp.Or(o.KeepSnapshots, compact.DefaultKeepSnapshots))
	o.KeepFor = cmp.Or(o.KeepFor, compact.DefaultKeepFor)
	o.RestoreTimeout = cmp.Or(o.RestoreTimeout, DefaultRestoreTimeout)
	o.BackendTimeout = cmp.Or(o.BackendTimeout, DefaultBackendTimeout)
	o.FollowInterval = cmp.Or(o.FollowInterval, DefaultFollowInterval)
	if l, ok := o.Backend.(backends.Local); ok && l.IsLocal() && o.ShipInterval == 0 {
		o.ShipInterval = -1
	}
	o.ShipInterval = cmp.Or(o.ShipInterval, ship.DefaultInterval)
	switch {
	case o.MemoryOnly && o.Follow:
		return errors.New("open store: Follow and MemoryOnly contradict each other: a follower keeps nothing until it is promoted; unset MemoryOnly")
	case o.MemoryOnly:
		o.Backend = nil
	case o.Follow && o.Backend == nil:
		return errors.New("open store: Follow needs a Backend to follow: set it to the one that the writer ships to")
	case o.Follow: // Promote needs the rest
	case o.Dir == "":
		return errors.New("open store: Options.Dir is empty: name a data directory, or set MemoryOnly")
	case o.FailOpen && o.DisableSnapshots:
		return errors.New("open store: FailOpen needs snapshots to make good what the journal missed: unset DisableSnapshots or FailOpen")
	}
	return nil
}

func (o *Options) journal(l *eventLog) wal.Options {
	return wal.Options{
		Sync:         o.Sync,
		SegmentBytes: o.SegmentBytes,
		MaxBytes:     o.MaxJournalBytes,
		Receiver:     l,
		Hooks:        o.Hooks.Journal,
	}
}

func (o *Options) compactor(m metadata, restored replay.Result) compact.Options {
	dir := filepath.Join(o.Dir, snapshotDir)
	var damaged []string
	for _, s := range restored.Skipped {
		if s.Location == dir {
			damaged = append(damaged, s.Name)
		}
	}
	return compact.Options{
		Damaged:       damaged,
		Dir:           dir,
		StoreID:       m.StoreID,
		Epoch:         m.Epoch,
		Interval:      o.CompactInterval,
		TailBytes:     o.CompactTailBytes,
		TailRecords:   o.CompactTailRecords,
		KeepSnapshots: o.KeepSnapshots,
		KeepFor:       o.KeepFor,
		Hooks:         o.Hooks.Compactor,
		Logger:        o.Logger,
	}
}

func (o *Options) shipper(j ship.Journal) ship.Options {
	return ship.Options{
		Backend:       o.Backend,
		Journal:       j,
		Snapshots:     func() ([]catalog.Entry, error) { return nil, nil },
		Interval:      o.ShipInterval,
		KeepSnapshots: o.KeepSnapshots,
		KeepFor:       o.KeepFor,
		NoPrune:       o.NoPrune,
		Hooks:         o.Hooks.Compactor,
		Logger:        o.Logger,
	}
}
