package xdswal

import (
	"github.com/xdswal/xdswal/compactor"
	"github.com/xdswal/xdswal/compactor/shipper"
	"github.com/xdswal/xdswal/journal"
	"github.com/xdswal/xdswal/replay"
)

// JoinHooks returns hooks that call those given, in their order. A callback
// that none of them has stays nil, and so costs nothing.
func JoinHooks(hooks ...Hooks) Hooks {
	var out Hooks
	for _, h := range hooks {
		out = Hooks{
			Journal:    joinJournal(out.Journal, h.Journal),
			Compactor:  joinCompactor(out.Compactor, h.Compactor),
			Shipper:    joinShipper(out.Shipper, h.Shipper),
			Replay:     joinReplay(out.Replay, h.Replay),
			Degraded:   both(out.Degraded, h.Degraded),
			Recovered:  joinRecovered(out.Recovered, h.Recovered),
			CacheError: joinCacheError(out.CacheError, h.CacheError),
		}
	}
	return out
}

func joinJournal(a, b journal.Hooks) journal.Hooks {
	return journal.Hooks{
		Commit:         both(a.Commit, b.Commit),
		SegmentCreated: both(a.SegmentCreated, b.SegmentCreated),
		SegmentDropped: both(a.SegmentDropped, b.SegmentDropped),
	}
}

func joinCompactor(a, b compactor.Hooks) compactor.Hooks {
	return compactor.Hooks{
		CompactionStart:        both(a.CompactionStart, b.CompactionStart),
		CompactionStop:         both(a.CompactionStop, b.CompactionStop),
		CompactionException:    both(a.CompactionException, b.CompactionException),
		SnapshotWriteStart:     both(a.SnapshotWriteStart, b.SnapshotWriteStart),
		SnapshotWriteStop:      both(a.SnapshotWriteStop, b.SnapshotWriteStop),
		SnapshotWriteException: both(a.SnapshotWriteException, b.SnapshotWriteException),
		SnapshotDeleted:        both(a.SnapshotDeleted, b.SnapshotDeleted),
	}
}

func joinShipper(a, b shipper.Hooks) shipper.Hooks {
	return shipper.Hooks{
		BatchWriteStart:        both(a.BatchWriteStart, b.BatchWriteStart),
		BatchWriteStop:         both(a.BatchWriteStop, b.BatchWriteStop),
		BatchWriteException:    both(a.BatchWriteException, b.BatchWriteException),
		BatchDeleted:           both(a.BatchDeleted, b.BatchDeleted),
		SnapshotWriteStart:     both(a.SnapshotWriteStart, b.SnapshotWriteStart),
		SnapshotWriteStop:      both(a.SnapshotWriteStop, b.SnapshotWriteStop),
		SnapshotWriteException: both(a.SnapshotWriteException, b.SnapshotWriteException),
		SnapshotDeleted:        both(a.SnapshotDeleted, b.SnapshotDeleted),
		Claimed:                both(a.Claimed, b.Claimed),
		Fenced:                 both(a.Fenced, b.Fenced),
	}
}

func joinReplay(a, b replay.Hooks) replay.Hooks {
	return replay.Hooks{
		SnapshotReadStart:     both(a.SnapshotReadStart, b.SnapshotReadStart),
		SnapshotReadStop:      both(a.SnapshotReadStop, b.SnapshotReadStop),
		SnapshotReadException: both(a.SnapshotReadException, b.SnapshotReadException),
		ReplayStart:           both(a.ReplayStart, b.ReplayStart),
		ReplayStop:            both(a.ReplayStop, b.ReplayStop),
		ReplayException:       both(a.ReplayException, b.ReplayException),
		Progress:              both(a.Progress, b.Progress),
	}
}

func both[T any](a, b func(T)) func(T) {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	}
	return func(v T) {
		a(v)
		b(v)
	}
}

func joinRecovered(a, b func()) func() {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	}
	return func() {
		a()
		b()
	}
}

func joinCacheError(a, b func(cache, node string, err error)) func(cache, node string, err error) {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	}
	return func(cache, node string, err error) {
		a(cache, node, err)
		b(cache, node, err)
	}
}
