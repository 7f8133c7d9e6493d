package prometheushooks

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/compactor"
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
	// A batch goes over a network, or to a disk: from 1 ms to 32 s.
	batchBuckets = prometheus.ExponentialBuckets(0.001, 2, 16)
	// A snapshot goes to a local disk or over a network: from 10 ms to 164 s.
	snapshotBuckets = prometheus.ExponentialBuckets(0.01, 2, 15)
)

// work counts what the hooks report.
type work struct {
	journal   journalWork
	compactor compactorWork
	snapshots snapshotWork
	shipper   shipperWork
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
		snapshots:    newSnapshotWork(),
		shipper:      newShipperWork(),
		replay:       newReplayWork(),
		degradations: counter("degradations_total", "Times that the journal ceased to take updates."),
		cacheErrors:  counter("cache_errors_total", "Updates that failed in a method without an error to return."),
		compacts:     new(atomic.Bool),
	}
}

func (w *work) collectors() []prometheus.Collector {
	out := []prometheus.Collector{w.degradations, w.cacheErrors}
	out = append(out, w.journal.collectors()...)
	out = append(out, w.compactor.compactions)
	out = append(out, w.snapshots.collectors()...)
	out = append(out, w.shipper.collectors()...)
	return append(out, w.replay.collectors()...)
}

func (w *work) hooks() xdswal.Hooks {
	return xdswal.Hooks{
		Journal: w.journal.hooks(),
		Compactor: compactor.Hooks{
			CompactionBegin:    func(compactor.Compaction) { w.compacts.Store(true) },
			CompactionEnd:      w.compactor.compacted,
			SnapshotWriteBegin: w.snapshots.writes.begin,
			SnapshotWriteEnd:   w.snapshots.written,
			SnapshotDeleted:    func(s compactor.Snapshot) { w.snapshots.deleted.WithLabelValues(location(s)).Inc() },
			BatchWriteEnd:      w.shipper.shipped,
			BatchDeleted:       func(compactor.Batch) { w.shipper.deleted.Inc() },
		},
		Replay: replay.Hooks{
			SnapshotReadBegin: w.replay.reads.begin,
			SnapshotReadEnd:   w.replay.reads.end,
			RestoreEnd:        w.replay.restored,
		},
		Degraded:   func(error) { w.degradations.Inc() },
		CacheError: func(string, string, error) { w.cacheErrors.Inc() },
	}
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
		SegmentCreated: func(journal.Segment) { w.segmentsCreated.Inc() },
		SegmentDropped: func(journal.Segment) { w.segmentsDropped.Inc() },
	}
}

func (w *journalWork) commit(info journal.Commit) {
	if info.Err != nil {
		w.failures.Inc()
		return
	}
	w.commitSeconds.Observe(info.Duration.Seconds())
	w.events.Add(float64(info.Events))
	w.bytes.Add(float64(info.Bytes))
}

// compactorWork counts compactions.
type compactorWork struct {
	compactions *prometheus.CounterVec
}

func newCompactorWork() compactorWork {
	w := compactorWork{
		compactions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: prefix + "compactions_total",
			Help: "Compactions that ended, by why they were begun, and whether they wrote a snapshot, found nothing changed or failed.",
		}, []string{"reason", "outcome"}),
	}
	for _, reason := range []compactor.Reason{compactor.ReasonInterval, compactor.ReasonTail, compactor.ReasonDemand, compactor.ReasonClose} {
		for _, outcome := range []string{written, unchanged, failed} {
			w.compactions.WithLabelValues(string(reason), outcome)
		}
	}
	return w
}

func (w *compactorWork) compacted(info compactor.Compaction) {
	outcome := written
	switch {
	case info.Err != nil:
		outcome = failed
	case info.Unchanged:
		outcome = unchanged
	}
	w.compactions.WithLabelValues(string(info.Reason), outcome).Inc()
}

// snapshotWork counts the snapshots that are written, here and to the backend.
type snapshotWork struct {
	writes       transfers
	deleted      *prometheus.CounterVec
	bytes        *prometheus.GaugeVec
	lastTime     *prometheus.GaugeVec
	lastSequence *prometheus.GaugeVec
}

func newSnapshotWork() snapshotWork {
	return snapshotWork{
		writes:  newTransfers("snapshot_write", "writing"),
		deleted: countersByLocation("snapshots_deleted_total", "Snapshots that retention deleted."),
		// These have no series before the first success: 0 would be wrong.
		bytes:        gaugeVec("snapshot_size_bytes", "Size of the snapshot that was last written."),
		lastTime:     gaugeVec("snapshot_write_last_success_timestamp_seconds", "Unix time at which a snapshot was last written."),
		lastSequence: gaugeVec("snapshot_write_last_success_sequence", "Sequence of the snapshot that was last written."),
	}
}

func (w *snapshotWork) collectors() []prometheus.Collector {
	return append(w.writes.collectors(), w.deleted, w.bytes, w.lastTime, w.lastSequence)
}

func (w *snapshotWork) written(info compactor.Snapshot) {
	w.writes.end(info)
	if info.Err != nil {
		return
	}
	at := location(info)
	w.bytes.WithLabelValues(at).Set(float64(info.Bytes))
	w.lastTime.WithLabelValues(at).SetToCurrentTime()
	w.lastSequence.WithLabelValues(at).Set(float64(info.Sequence))
}

// shipperWork counts the batches that are shipped.
type shipperWork struct {
	seconds                           prometheus.Histogram
	batches, bytes, failures, deleted prometheus.Counter
}

func newShipperWork() shipperWork {
	return shipperWork{
		seconds:  histogram("batch_ship_duration_seconds", "Time that shipping a batch of events took, where it succeeded.", batchBuckets),
		batches:  counter("batches_shipped_total", "Batches of events that were shipped."),
		bytes:    counter("batch_bytes_shipped_total", "Size of the batches that were shipped, as they are stored."),
		failures: counter("batch_ship_failures_total", "Times that shipping a batch failed."),
		deleted:  counter("batches_deleted_total", "Batches that retention deleted."),
	}
}

func (w *shipperWork) collectors() []prometheus.Collector {
	return []prometheus.Collector{w.seconds, w.batches, w.bytes, w.failures, w.deleted}
}

func (w *shipperWork) shipped(info compactor.Batch) {
	if info.Err != nil {
		w.failures.Inc()
		return
	}
	w.seconds.Observe(info.Duration.Seconds())
	w.batches.Inc()
	w.bytes.Add(float64(info.Bytes))
}

// replayWork counts the snapshots that are read and tells of the last restore.
type replayWork struct {
	reads    transfers
	seconds  prometheus.Gauge
	events   prometheus.Gauge
	shipped  prometheus.Gauge
	skipped  prometheus.Gauge
	failures prometheus.Counter
}

func newReplayWork() replayWork {
	return replayWork{
		reads:    newTransfers("snapshot_read", "reading"),
		seconds:  lastGauge("replay_duration_seconds", "Time that the last restore took."),
		events:   lastGauge("replay_events", "Events that the last restore applied to a snapshot."),
		shipped:  lastGauge("replay_shipped_events", "Those of the events that came from the backend."),
		skipped:  lastGauge("replay_skipped_snapshots", "Snapshots and batches that the last restore passed over as unusable."),
		failures: counter("replay_failures_total", "Restores that failed."),
	}
}

func (w *replayWork) collectors() []prometheus.Collector {
	return append(w.reads.collectors(), w.seconds, w.events, w.shipped, w.skipped, w.failures)
}

func (w *replayWork) restored(r replay.Result) {
	w.seconds.Set(r.Duration.Seconds())
	w.events.Set(float64(r.Events))
	w.shipped.Set(float64(r.Shipped))
	w.skipped.Set(float64(len(r.Skipped)))
	if r.Err != nil {
		w.failures.Inc()
	}
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

func (t *transfers) begin(info compactor.Snapshot) { t.started.WithLabelValues(location(info)).Inc() }

func (t *transfers) end(info compactor.Snapshot) {
	at := location(info)
	if info.Err != nil {
		t.failed.WithLabelValues(at).Inc()
		return
	}
	t.succeeded.WithLabelValues(at).Inc()
	t.seconds.WithLabelValues(at).Observe(info.Duration.Seconds())
}

// location returns the value of the label location.
func location(info compactor.Snapshot) string {
	if info.Backend {
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
