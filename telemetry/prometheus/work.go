package prometheushooks

import (
	"net/url"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/compactor"
	"github.com/xdswal/xdswal/compactor/snapshot"
	"github.com/xdswal/xdswal/journal"
	"github.com/xdswal/xdswal/replay"
)

// prefix begins the name of every metric.
const prefix = "xdswal_"

// Values of the label location.
const (
	local   = "local"
	backend = "backend"
)

// Values of the label outcome of a compaction.
const (
	written   = "written"
	unchanged = "unchanged"
	failed    = "failed"
)

var (
	// A commit is an fsync or, with SyncEvery and SyncNever, a write: from
	// 0.1 ms to 3.3 s.
	commitBuckets = prometheus.ExponentialBuckets(0.0001, 2, 16)
	// A snapshot goes to a local disk or over a network: from 10 ms to 164 s.
	snapshotBuckets = prometheus.ExponentialBuckets(0.01, 2, 15)
)

// work counts what the hooks report.
type work struct {
	journal   journalWork
	compactor compactorWork
	replay    replayWork

	degradations prometheus.Counter
	cacheErrors  prometheus.Counter

	// compacts is set once a compaction has begun.
	compacts *atomic.Bool
}

func newWork() work {
	return work{
		journal:      newJournalWork(),
		compactor:    newCompactorWork(),
		replay:       newReplayWork(),
		degradations: counter("degradations_total", "Times that the journal ceased to take updates."),
		cacheErrors:  counter("cache_errors_total", "Updates that failed in a method without an error to return."),
		compacts:     new(atomic.Bool),
	}
}

func (w *work) collectors() []prometheus.Collector {
	out := []prometheus.Collector{w.degradations, w.cacheErrors}
	out = append(out, w.journal.collectors()...)
	out = append(out, w.compactor.collectors()...)
	return append(out, w.replay.collectors()...)
}

func (w *work) hooks() xdswal.Hooks {
	h := xdswal.Hooks{
		Journal:    w.journal.hooks(),
		Compactor:  w.compactor.hooks(),
		Replay:     w.replay.hooks(),
		Degraded:   func(error) { w.degradations.Inc() },
		CacheError: func(string, string, error) { w.cacheErrors.Inc() },
	}
	h.Compactor.CompactionStart = func(compactor.CompactionInfo) { w.compacts.Store(true) }
	return h
}

// journalWork counts commits and segments.
type journalWork struct {
	commitSeconds                    prometheus.Histogram
	events, bytes, failures          prometheus.Counter
	segmentsCreated, segmentsDropped prometheus.Counter
}

func newJournalWork() journalWork {
	return journalWork{
		commitSeconds:   histogram("journal_commit_duration_seconds", "Time to make a batch of events durable.", commitBuckets),
		events:          counter("journal_committed_events_total", "Events that were made durable."),
		bytes:           counter("journal_committed_bytes_total", "Size of the records of the events that were made durable."),
		failures:        counter("journal_commit_failures_total", "Batches of events that could not be made durable."),
		segmentsCreated: counter("journal_segments_created_total", "Segments that were begun."),
		segmentsDropped: counter("journal_segments_dropped_total", "Segments that were deleted as covered by a snapshot."),
	}
}

func (w *journalWork) collectors() []prometheus.Collector {
	return []prometheus.Collector{w.commitSeconds, w.events, w.bytes, w.failures, w.segmentsCreated, w.segmentsDropped}
}

func (w *journalWork) hooks() journal.Hooks {
	return journal.Hooks{
		Commit:         w.commit,
		SegmentCreated: func(journal.SegmentInfo) { w.segmentsCreated.Inc() },
		SegmentDropped: func(journal.SegmentInfo) { w.segmentsDropped.Inc() },
	}
}

func (w *journalWork) commit(info journal.CommitInfo) {
	if info.Err != nil {
		w.failures.Inc()
		return
	}
	w.commitSeconds.Observe(info.Duration.Seconds())
	w.events.Add(float64(info.Events))
	w.bytes.Add(float64(info.Bytes))
}

// compactorWork counts compactions and the snapshots that they write.
type compactorWork struct {
	compactions  *prometheus.CounterVec
	writes       transfers
	deleted      *prometheus.CounterVec
	bytes        *prometheus.GaugeVec
	lastTime     *prometheus.GaugeVec
	lastSequence *prometheus.GaugeVec
}

func newCompactorWork() compactorWork {
	w := compactorWork{
		compactions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: prefix + "compactions_total",
			Help: "Compactions that ended, by why they were begun, and whether they wrote a snapshot, found nothing changed or failed.",
		}, []string{"reason", "outcome"}),
		writes:  newTransfers("snapshot_write", "writing"),
		deleted: countersByLocation("snapshots_deleted_total", "Snapshots that retention deleted."),
		// These have no series before the first success: 0 would be wrong.
		bytes:        gaugeVec("snapshot_size_bytes", "Size of the snapshot that was last written."),
		lastTime:     gaugeVec("snapshot_write_last_success_timestamp_seconds", "Unix time at which a snapshot was last written."),
		lastSequence: gaugeVec("snapshot_write_last_success_sequence", "Sequence of the snapshot that was last written."),
	}
	for _, reason := range []compactor.Reason{compactor.ReasonInterval, compactor.ReasonTail, compactor.ReasonDemand, compactor.ReasonClose} {
		for _, outcome := range []string{written, unchanged, failed} {
			w.compactions.WithLabelValues(string(reason), outcome)
		}
	}
	return w
}

func (w *compactorWork) collectors() []prometheus.Collector {
	return append(w.writes.collectors(), w.compactions, w.deleted, w.bytes, w.lastTime, w.lastSequence)
}

func (w *compactorWork) hooks() compactor.Hooks {
	return compactor.Hooks{
		CompactionStop:         w.compacted,
		CompactionException:    w.compacted,
		SnapshotWriteStart:     w.writes.start,
		SnapshotWriteStop:      w.stop,
		SnapshotWriteException: w.writes.exception,
		SnapshotDeleted:        func(info snapshot.Info) { w.deleted.WithLabelValues(location(info)).Inc() },
	}
}

func (w *compactorWork) compacted(info compactor.CompactionInfo) {
	outcome := written
	switch {
	case info.Err != nil:
		outcome = failed
	case info.Unchanged:
		outcome = unchanged
	}
	w.compactions.WithLabelValues(string(info.Reason), outcome).Inc()
}

func (w *compactorWork) stop(info snapshot.Info) {
	w.writes.stop(info)
	at := location(info)
	w.bytes.WithLabelValues(at).Set(float64(info.Bytes))
	w.lastTime.WithLabelValues(at).SetToCurrentTime()
	w.lastSequence.WithLabelValues(at).Set(float64(info.Sequence))
}

// replayWork counts the snapshots that are read and tells of the last restore.
type replayWork struct {
	reads    transfers
	seconds  prometheus.Gauge
	events   prometheus.Gauge
	skipped  prometheus.Gauge
	failures prometheus.Counter
}

func newReplayWork() replayWork {
	return replayWork{
		reads:    newTransfers("snapshot_read", "reading"),
		seconds:  lastGauge("replay_duration_seconds", "Time that the last restore took."),
		events:   lastGauge("replay_events", "Events of the journal that the last restore applied."),
		skipped:  lastGauge("replay_skipped_snapshots", "Snapshots that the last restore passed over as unusable."),
		failures: counter("replay_failures_total", "Restores that failed."),
	}
}

func (w *replayWork) collectors() []prometheus.Collector {
	return append(w.reads.collectors(), w.seconds, w.events, w.skipped, w.failures)
}

func (w *replayWork) hooks() replay.Hooks {
	return replay.Hooks{
		SnapshotReadStart:     w.reads.start,
		SnapshotReadStop:      w.reads.stop,
		SnapshotReadException: w.reads.exception,
		ReplayStop:            w.restored,
		ReplayException: func(r replay.Result) {
			w.restored(r)
			w.failures.Inc()
		},
	}
}

func (w *replayWork) restored(r replay.Result) {
	w.seconds.Set(r.Duration.Seconds())
	w.events.Set(float64(r.Events))
	w.skipped.Set(float64(len(r.Skipped)))
}

// transfers counts snapshots on their way to, or from, each location.
type transfers struct {
	started, succeeded, failed *prometheus.CounterVec
	seconds                    *prometheus.HistogramVec
}

func newTransfers(name, doing string) transfers {
	t := transfers{
		started:   countersByLocation(name+"_started_total", "Times that "+doing+" a snapshot began."),
		succeeded: countersByLocation(name+"_succeeded_total", "Times that "+doing+" a snapshot succeeded."),
		failed:    countersByLocation(name+"_failed_total", "Times that "+doing+" a snapshot failed."),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: prefix + name + "_duration_seconds", Help: "Time that " + doing + " a snapshot took, where it succeeded.", Buckets: snapshotBuckets,
		}, []string{"location"}),
	}
	t.seconds.WithLabelValues(local)
	t.seconds.WithLabelValues(backend)
	return t
}

func (t *transfers) collectors() []prometheus.Collector {
	return []prometheus.Collector{t.started, t.succeeded, t.failed, t.seconds}
}

func (t *transfers) start(info snapshot.Info) { t.started.WithLabelValues(location(info)).Inc() }

func (t *transfers) stop(info snapshot.Info) {
	t.succeeded.WithLabelValues(location(info)).Inc()
	t.seconds.WithLabelValues(location(info)).Observe(info.Duration.Seconds())
}

func (t *transfers) exception(info snapshot.Info) { t.failed.WithLabelValues(location(info)).Inc() }

// location tells a backend, which names itself by a URL, from a directory. A
// scheme of one letter is a Windows drive.
func location(info snapshot.Info) string {
	if u, err := url.Parse(info.Location); err == nil && len(u.Scheme) > 1 {
		return backend
	}
	return local
}

func counter(name, help string) prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{Name: prefix + name, Help: help})
}

// countersByLocation returns counters that all begin at 0, so that the first
// increase shows as one.
func countersByLocation(name, help string) *prometheus.CounterVec {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: prefix + name, Help: help}, []string{"location"})
	v.WithLabelValues(local)
	v.WithLabelValues(backend)
	return v
}

func lastGauge(name, help string) prometheus.Gauge {
	return prometheus.NewGauge(prometheus.GaugeOpts{Name: prefix + name, Help: help})
}

func gaugeVec(name, help string) *prometheus.GaugeVec {
	return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: prefix + name, Help: help}, []string{"location"})
}

func histogram(name, help string, buckets []float64) prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{Name: prefix + name, Help: help, Buckets: buckets})
}
