// Package sloghooks logs a store's work with log/slog.
//
// What begins is logged at Debug, what ended well at Info, and what failed at
// Error. Commits and segments come too often for that: they are at Debug, also
// those commits that failed, since a journal that ceases to take updates is
// reported once, at Error, as degraded. A compaction that found nothing
// changed, and what retention deletes, are at Debug too. So are the batches of
// events that are shipped; one that could not be is at Warn, since it is tried
// again. How far a download has come is not logged.
//
// Sequences are numbers, sizes are bytes, durations are of kind duration. No
// record holds a resource, and none names a node but the one about a node
// whose update failed.
//
// # The store's own logger
//
// xdswal.Options.Logger is told, without any hooks, what an operator should
// know: what was restored, which snapshots were passed over, that one could
// not be written, that nothing can be shipped and that it can again, that
// another writer has taken over, that the store is degraded and recovered, that
// a ClearSnapshot failed. These hooks tell the same outcomes, with the rest of
// the work. A program that gives both the same handler reads them twice; to
// read them once, leave Options.Logger unset. The price is what no hook tells:
// that retention could not delete a snapshot or truncate the journal, that local
// data was set aside, that the backend could not be reached at the start, and
// what a follower meets.
package sloghooks

import (
	"context"
	"log/slog"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/compactor"
	"github.com/xdswal/xdswal/compactor/catalog"
	"github.com/xdswal/xdswal/compactor/shipper"
	"github.com/xdswal/xdswal/compactor/snapshot"
	"github.com/xdswal/xdswal/journal"
	"github.com/xdswal/xdswal/journal/event"
	"github.com/xdswal/xdswal/replay"
)

// New returns hooks that log to logger, which must not be nil.
func New(logger *slog.Logger) xdswal.Hooks {
	h := hooks{logger}
	return xdswal.Hooks{
		Journal: journal.Hooks{
			Commit:         h.commit,
			SegmentCreated: h.segment("journal segment created"),
			SegmentDropped: h.segment("journal segment dropped"),
		},
		Compactor: compactor.Hooks{
			CompactionStart:        h.compaction(slog.LevelDebug, "compaction started"),
			CompactionStop:         h.compacted,
			CompactionException:    h.compaction(slog.LevelError, "compaction failed"),
			SnapshotWriteStart:     h.snapshot(slog.LevelDebug, "snapshot write started"),
			SnapshotWriteStop:      h.snapshot(slog.LevelInfo, "snapshot write finished"),
			SnapshotWriteException: h.snapshot(slog.LevelError, "snapshot write failed"),
			SnapshotDeleted:        h.snapshot(slog.LevelDebug, "snapshot deleted"),
		},
		Shipper: shipper.Hooks{
			BatchWriteStart:        h.batch(slog.LevelDebug, "batch write started"),
			BatchWriteStop:         h.batch(slog.LevelDebug, "batch write finished"),
			BatchWriteException:    h.batch(slog.LevelWarn, "batch write failed"),
			BatchDeleted:           h.batch(slog.LevelDebug, "batch deleted"),
			SnapshotWriteStart:     h.snapshot(slog.LevelDebug, "snapshot write started"),
			SnapshotWriteStop:      h.snapshot(slog.LevelInfo, "snapshot write finished"),
			SnapshotWriteException: h.snapshot(slog.LevelError, "snapshot write failed"),
			SnapshotDeleted:        h.snapshot(slog.LevelDebug, "snapshot deleted"),
			Claimed:                h.claimed,
			Fenced:                 func(err error) { h.log(slog.LevelError, "fenced", problem(err)...) },
		},
		Replay: replay.Hooks{
			SnapshotReadStart:     h.snapshot(slog.LevelDebug, "snapshot read started"),
			SnapshotReadStop:      h.snapshot(slog.LevelInfo, "snapshot read finished"),
			SnapshotReadException: h.snapshot(slog.LevelError, "snapshot read failed"),
			ReplayStart:           func(replay.Result) { h.log(slog.LevelDebug, "replay started") },
			ReplayStop:            h.replay(slog.LevelInfo, "replay finished"),
			ReplayException:       h.replay(slog.LevelError, "replay failed"),
		},
		Degraded:  func(err error) { h.log(slog.LevelError, "degraded", problem(err)...) },
		Recovered: func() { h.log(slog.LevelInfo, "recovered") },
		CacheError: func(cache, node string, err error) {
			h.log(slog.LevelError, "cache update failed", append(problem(err), slog.String("cache", cache), slog.String("node", node))...)
		},
	}
}

type hooks struct{ logger *slog.Logger }

func (h hooks) log(level slog.Level, msg string, attrs ...slog.Attr) {
	h.logger.LogAttrs(context.Background(), level, msg, attrs...) //nolint:sloglint // every caller gives a constant
}

func (h hooks) commit(info journal.CommitInfo) {
	// Every update waits for this: build nothing that nobody reads.
	if !h.logger.Enabled(context.Background(), slog.LevelDebug) {
		return
	}
	msg := "journal commit finished"
	if info.Err != nil {
		msg = "journal commit failed"
	}
	h.log(slog.LevelDebug, msg, append(problem(info.Err),
		sequence("first_sequence", info.First), sequence("last_sequence", info.Last),
		slog.Int("events", info.Events), slog.Int64("bytes", info.Bytes), slog.Duration("duration", info.Duration))...)
}

func (h hooks) segment(msg string) func(journal.SegmentInfo) {
	return func(info journal.SegmentInfo) {
		h.log(slog.LevelDebug, msg, slog.String("path", info.Path), sequence("first_sequence", info.First))
	}
}

func (h hooks) compaction(level slog.Level, msg string) func(compactor.CompactionInfo) {
	return func(info compactor.CompactionInfo) {
		attrs := append(problem(info.Err),
			slog.String("reason", string(info.Reason)), sequence("sequence", info.Sequence), slog.Bool("unchanged", info.Unchanged))
		if info.Duration > 0 {
			attrs = append(attrs, slog.Duration("duration", info.Duration))
		}
		h.log(level, msg, attrs...)
	}
}

// compacted keeps a store at rest from logging each interval.
func (h hooks) compacted(info compactor.CompactionInfo) {
	level := slog.LevelInfo
	if info.Unchanged {
		level = slog.LevelDebug
	}
	h.compaction(level, "compaction finished")(info)
}

// snapshot leaves out what is not known: the counts of a snapshot that was not
// looked into, and the duration of one that is only begun.
func (h hooks) snapshot(level slog.Level, msg string) func(snapshot.Info) {
	return func(info snapshot.Info) {
		attrs := append(problem(info.Err),
			slog.String("location", info.Location), slog.String("name", info.Name), sequence("sequence", info.Sequence))
		if info.Nodes > 0 {
			attrs = append(attrs, slog.Int("nodes", info.Nodes), slog.Int("resources", info.Resources), slog.Int64("resource_bytes", info.ResourceBytes))
		}
		if info.Bytes > 0 {
			attrs = append(attrs, slog.Int64("bytes", info.Bytes))
		}
		if info.Duration > 0 {
			attrs = append(attrs, slog.Duration("duration", info.Duration))
		}
		h.log(level, msg, attrs...)
	}
}

// batch leaves out what is not known, as snapshot does.
func (h hooks) batch(level slog.Level, msg string) func(shipper.BatchInfo) {
	return func(info shipper.BatchInfo) {
		attrs := append(problem(info.Err),
			slog.String("location", info.Location), slog.String("name", info.Name), sequence("first_sequence", info.First))
		if info.Last > 0 {
			attrs = append(attrs, sequence("last_sequence", info.Last))
		}
		attrs = append(attrs, slog.Int64("bytes", info.Bytes))
		if info.Duration > 0 {
			attrs = append(attrs, slog.Duration("duration", info.Duration))
		}
		h.log(level, msg, attrs...)
	}
}

func (h hooks) claimed(e catalog.Epoch) {
	h.log(slog.LevelInfo, "epoch claimed", slog.Uint64("epoch", e.Number), slog.Uint64("parent", e.Parent), sequence("sequence", e.Sequence))
}

func (h hooks) replay(level slog.Level, msg string) func(replay.Result) {
	return func(r replay.Result) {
		h.log(level, msg, append(problem(r.Err),
			slog.String("source", r.Source), slog.String("snapshot", r.Snapshot), sequence("sequence", r.Sequence),
			slog.Int("events", r.Events), slog.Int("shipped", r.Shipped), slog.Int("nodes", r.Nodes), slog.Int("resources", r.Resources), slog.Int64("resource_bytes", r.Bytes),
			slog.Int("skipped_snapshots", len(r.Skipped)), slog.Duration("duration", r.Duration))...)
	}
}

// problem is the attribute of an error, none for nil.
func problem(err error) []slog.Attr {
	if err == nil {
		return nil
	}
	return []slog.Attr{slog.Any("error", err)}
}

func sequence(key string, seq event.Sequence) slog.Attr { return slog.Uint64(key, uint64(seq)) }
