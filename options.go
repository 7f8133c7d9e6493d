package xdswal

import (
	"errors"
	"log/slog"
	"time"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/internal/cachelog"
	"github.com/xdswal/xdswal/internal/compact"
	"github.com/xdswal/xdswal/internal/directory"
	"github.com/xdswal/xdswal/internal/eventlog"
	"github.com/xdswal/xdswal/internal/follow"
	"github.com/xdswal/xdswal/internal/option"
	"github.com/xdswal/xdswal/internal/ship"
	"github.com/xdswal/xdswal/internal/wal"
	"github.com/xdswal/xdswal/journal"
	"github.com/xdswal/xdswal/replay"
)

// Off is the value of a setting that turns off what the setting controls, where its
// field says so.
const Off = option.Off

const (
	// defaultRestoreTimeout is the default of Options.RestoreTimeout.
	defaultRestoreTimeout = 10 * time.Minute
	// maxSegmentBytes is far above what is useful, and its multiples fit an int64.
	maxSegmentBytes = 1 << 40
)

// Options are the settings of a store. Only Dir must be set. Of each setting, zero is
// the default, and a value out of its range is an error of [Open] that names the field.
type Options struct {
	// Dir is the data directory, which one store at a time can have open. It is created
	// with mode 0700 if it is missing. Not used with MemoryOnly.
	Dir string
	// MemoryOnly keeps the state in memory alone: nothing survives the process.
	MemoryOnly bool

	// Sync is when an update that has returned is on stable storage; the default is
	// journal.SyncAlways.
	Sync journal.SyncPolicy
	// SegmentBytes is the size of a journal segment; at least 64 KiB, at most 1 TiB, default 32 MiB.
	SegmentBytes int64
	// MaxJournalBytes bounds the journal; at least two segments, default 4 GiB. Updates
	// beyond it fail with ErrJournalFull.
	MaxJournalBytes int64
	// CommitTimeout bounds the wait of an update for its commit; default 10 seconds.
	CommitTimeout time.Duration
	// FailOpen applies updates that the journal cannot take, for example while the disk
	// is full: Envoys receive them at once, the store is degraded, and a snapshot makes
	// them durable as soon as one can be written. A crash before that loses them.
	// Without it such an update fails and changes nothing.
	FailOpen bool

	// DisableSnapshots keeps the journal alone, which then grows to its bound. A snapshot
	// is written only of a state that was restored from the backend.
	DisableSnapshots bool
	// CompactInterval is the time between snapshots; default 10 minutes. With Off,
	// snapshots depend on CompactTailBytes and CompactTailRecords alone.
	CompactInterval time.Duration
	// CompactTailBytes and CompactTailRecords write a snapshot earlier, when the events
	// since the last one exceed them; or Off. The defaults are 256 MiB, or an eighth of
	// MaxJournalBytes if that is less, and 1,000,000. CompactTailBytes is at most an
	// eighth of MaxJournalBytes.
	CompactTailBytes   int64
	CompactTailRecords int64
	// KeepSnapshots is the number of snapshots kept in the data directory and in the
	// backend; at least 2, default 3.
	KeepSnapshots int
	// KeepFor also keeps all snapshots up to that age, or none with Off; default an
	// hour. Every moment since the oldest kept snapshot can be restored.
	KeepFor time.Duration

	// Backend is where snapshots and the events between them are shipped to, or nil; see
	// backends/file and backends/s3.
	Backend backends.Backend
	// ShipInterval is the least time between two batches of events: losing the machine
	// loses what was committed since the last one. Nothing is shipped while nothing
	// changes. With Off only snapshots are shipped. Default a second, or Off for a
	// backend that may be on this machine.
	ShipInterval time.Duration
	// NoPrune deletes nothing from the backend, for credentials that must not.
	NoPrune bool
	// RequireBackend makes Open fail if the backend cannot be reached. Without it, the
	// local data is served, with a warning, and the backend is taken over when it can be
	// reached; without local data, Open fails.
	RequireBackend bool
	// BackendTimeout bounds the wait of Open for the backend when the local data is
	// complete; default 5 seconds.
	BackendTimeout time.Duration
	// Follow makes the store a follower, a read-only replica of the store that ships to
	// Backend. Its updates fail with ErrFollower until Promote makes it the writer.
	Follow bool
	// FollowInterval is how often a follower looks for new events; default a second.
	FollowInterval time.Duration
	// RestoreTimeout bounds the restore at Open, with the backend; default 10 minutes.
	RestoreTimeout time.Duration

	// Hooks report the store's work.
	Hooks Hooks
	// Logger receives what an operator should know. The default discards it.
	Logger *slog.Logger
}

// Validate returns the error that Open would return for the options.
func (o *Options) Validate() error {
	check := *o
	return check.setDefaults()
}

// setDefaults replaces zero values by the defaults, and returns an error for values that
// are out of range or contradict each other.
func (o *Options) setDefaults() error {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	shipInterval := ship.DefaultInterval
	if l, ok := o.Backend.(backends.Local); ok && l.IsLocal() {
		shipInterval = Off
	}
	err := errors.Join(
		option.Number[int64]{Field: "SegmentBytes", Value: &o.SegmentBytes, Default: wal.DefaultSegmentBytes, Least: wal.MinSegmentBytes, Most: maxSegmentBytes}.Apply(),
		option.Number[time.Duration]{Field: "CommitTimeout", Value: &o.CommitTimeout, Default: cachelog.DefaultCommitTimeout, Least: 1}.Apply(),
		option.Number[time.Duration]{Field: "CompactInterval", Value: &o.CompactInterval, Default: compact.DefaultInterval, Least: 1, CanOff: true}.Apply(),
		option.Number[int64]{Field: "CompactTailRecords", Value: &o.CompactTailRecords, Default: compact.DefaultTailRecords, Least: 1, CanOff: true}.Apply(),
		option.Number[int]{Field: "KeepSnapshots", Value: &o.KeepSnapshots, Default: compact.DefaultKeepSnapshots, Least: 2}.Apply(),
		option.Number[time.Duration]{Field: "KeepFor", Value: &o.KeepFor, Default: compact.DefaultKeepFor, Least: 1, CanOff: true}.Apply(),
		option.Number[time.Duration]{Field: "ShipInterval", Value: &o.ShipInterval, Default: shipInterval, Least: 1, CanOff: true}.Apply(),
		option.Number[time.Duration]{Field: "BackendTimeout", Value: &o.BackendTimeout, Default: directory.DefaultBackendTimeout, Least: 1}.Apply(),
		option.Number[time.Duration]{Field: "FollowInterval", Value: &o.FollowInterval, Default: follow.DefaultInterval, Least: 1}.Apply(),
		option.Number[time.Duration]{Field: "RestoreTimeout", Value: &o.RestoreTimeout, Default: defaultRestoreTimeout, Least: 1}.Apply(),
	)
	if err == nil {
		// Their bounds depend on other settings.
		err = option.Number[int64]{
			Field: "MaxJournalBytes", Value: &o.MaxJournalBytes,
			Default: max(wal.DefaultMaxBytes, 2*o.SegmentBytes), Least: 2 * o.SegmentBytes,
		}.Apply()
	}
	if err == nil {
		// The events of a tail take up to about three times their size in the segments,
		// and the tail before it is kept too: compact well before the journal is full.
		most := o.MaxJournalBytes / 8
		err = option.Number[int64]{
			Field: "CompactTailBytes", Value: &o.CompactTailBytes,
			Default: min(compact.DefaultTailBytes, most), Least: 1, Most: most, CanOff: true,
		}.Apply()
	}
	return errors.Join(err, o.checkCombination())
}

// checkCombination returns an error for settings that contradict each other.
func (o *Options) checkCombination() error {
	refuse := func(field, problem string) error { return &option.Error{Field: field, Problem: problem} }
	switch {
	case o.MemoryOnly && o.Follow:
		return refuse("Follow", "and MemoryOnly are mutually exclusive: a follower keeps its state in memory until it is promoted")
	case o.MemoryOnly && o.Backend != nil:
		return refuse("Backend", "and MemoryOnly are mutually exclusive: what is in memory alone is not shipped")
	case o.Follow && o.Backend == nil:
		return refuse("Backend", "is nil: Follow requires the backend that the writer ships to")
	case o.MemoryOnly:
		return nil
	case o.Dir == "" && !o.Follow: // Promote checks it
		return refuse("Dir", "is empty: set a data directory, or MemoryOnly")
	case o.FailOpen && o.DisableSnapshots:
		return refuse("FailOpen", "requires snapshots, which make durable what the journal could not take: unset DisableSnapshots or FailOpen")
	}
	return nil
}

func (o *Options) eventLog() eventlog.Options {
	return eventlog.Options{
		FailOpen: o.FailOpen, Logger: o.Logger, Degraded: o.Hooks.Degraded, Recovered: o.Hooks.Recovered,
	}
}

func (o *Options) journal(l *eventlog.Log) wal.Options {
	return wal.Options{
		Sync:         o.Sync,
		SegmentBytes: o.SegmentBytes,
		MaxBytes:     o.MaxJournalBytes,
		Receiver:     l,
		Hooks:        o.Hooks.Journal,
	}
}

func (o *Options) takeover() directory.TakeoverOptions {
	return directory.TakeoverOptions{
		Backend:        o.Backend,
		RequireBackend: o.RequireBackend,
		BackendTimeout: o.BackendTimeout,
		Hooks:          o.Hooks.Replay,
		Logger:         o.Logger,
	}
}

func (o *Options) compactor(dir *directory.Directory, restored replay.Result) compact.Options {
	var damaged []string
	for _, s := range restored.Skipped {
		if s.Location == dir.SnapshotDir() {
			damaged = append(damaged, s.Name)
		}
	}
	m := dir.Metadata()
	return compact.Options{
		Damaged:       damaged,
		Dir:           dir.SnapshotDir(),
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

func (o *Options) shipper() ship.Options {
	return ship.Options{
		Backend:       o.Backend,
		Interval:      o.ShipInterval,
		KeepSnapshots: o.KeepSnapshots,
		KeepFor:       o.KeepFor,
		NoPrune:       o.NoPrune,
		Hooks:         o.Hooks.Compactor,
		Logger:        o.Logger,
	}
}
