package prometheushooks

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/compactor"
	"github.com/xdswal/xdswal/journal"
	"github.com/xdswal/xdswal/replay"
	"github.com/xdswal/xdswal/xdsserver"
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
	collectors []prometheus.Collector

	commitSeconds                              prometheus.Histogram
	commitEvents, commitBytes, commitFailures  prometheus.Counter
	segmentsCreated, segmentsDropped           prometheus.Counter
	compacts                                   atomic.Bool // a compaction has begun
	compactions                                *prometheus.CounterVec
	writes, reads                              transfers
	snapshotsDeleted                           *prometheus.CounterVec
	snapshotBytes, writeTime, writeSequence    *prometheus.GaugeVec
	batchSeconds                               prometheus.Histogram
	batches, batchBytes, batchFailures         prometheus.Counter
	batchesDeleted                             prometheus.Counter
	restoreSeconds, restoreEvents              prometheus.Gauge
	restoreShipped, restoreSkipped             prometheus.Gauge
	restoreFailures, degradations, cacheErrors prometheus.Counter
	rejections, refusedStreams                 *prometheus.CounterVec
}

func newWork() *work {
	w := &work{}
	w.commitSeconds = w.histogram("journal_commit_duration_seconds", "Time to make a group of events durable.", commitBuckets)
	w.commitEvents = w.counter("journal_committed_events_total", "Events that were made durable.")
	w.commitBytes = w.counter("journal_committed_bytes_total", "Size of the records of the events that were made durable.")
	w.commitFailures = w.counter("journal_commit_failures_total", "Groups of events that could not be made durable.")
	w.segmentsCreated = w.counter("journal_segments_created_total", "Segments that were created.")
	w.segmentsDropped = w.counter("journal_segments_dropped_total", "Segments that were deleted because a snapshot covers them.")

	w.compactions = add(w, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: prefix + "compactions_total",
		Help: "Compactions that ended, by reason, and by outcome: snapshot written, state unchanged, or failed.",
	}, []string{"reason", "outcome"}))
	for _, reason := range []compactor.Reason{compactor.ReasonInterval, compactor.ReasonTail, compactor.ReasonDemand, compactor.ReasonClose} {
		for _, outcome := range []string{written, unchanged, failed} {
			w.compactions.WithLabelValues(string(reason), outcome)
		}
	}

	w.writes = w.transfers("snapshot_write", "writes")
	w.reads = w.transfers("snapshot_read", "reads")
	w.snapshotsDeleted = w.countersByLocation("snapshots_deleted_total", "Snapshots that retention deleted.")
	// These have no series before the first success: 0 would be wrong.
	w.snapshotBytes = w.gaugesByLocation("snapshot_size_bytes", "Size of the newest snapshot that was written.")
	w.writeTime = w.gaugesByLocation("snapshot_write_last_success_timestamp_seconds", "Unix time of the last successful write of a snapshot.")
	w.writeSequence = w.gaugesByLocation("snapshot_write_last_success_sequence", "Sequence of the newest snapshot that was written.")

	w.batchSeconds = w.histogram("batch_ship_duration_seconds", "Time to ship a batch of events, of those that succeeded.", batchBuckets)
	w.batches = w.counter("batches_shipped_total", "Batches of events that were shipped.")
	w.batchBytes = w.counter("batch_bytes_shipped_total", "Size of the objects of the batches that were shipped.")
	w.batchFailures = w.counter("batch_ship_failures_total", "Attempts to ship a batch that failed.")
	w.batchesDeleted = w.counter("batches_deleted_total", "Batches that retention deleted.")

	w.restoreSeconds = w.gauge("replay_duration_seconds", "Time that the last restore took.")
	w.restoreEvents = w.gauge("replay_events", "Events that the last restore applied to a snapshot.")
	w.restoreShipped = w.gauge("replay_shipped_events", "Events that the last restore read from the backend.")
	w.restoreSkipped = w.gauge("replay_skipped_snapshots", "Damaged snapshots and batches that the last restore skipped.")
	w.restoreFailures = w.counter("replay_failures_total", "Restores that failed.")

	w.degradations = w.counter("degradations_total", "Times that the journal stopped accepting updates.")
	w.cacheErrors = w.counter("cache_errors_total", "Updates that failed in a method that returns no error.")

	w.rejections = add(w, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: prefix + "xds_rejections_total",
		Help: "Answers that clients rejected, by type.",
	}, []string{"type_url"}))
	w.refusedStreams = add(w, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: prefix + "xds_refused_streams_total",
		Help: "Streams that the xDS server ended because they were over a bound or broke the protocol, by reason.",
	}, []string{"reason"}))
	return w
}

func (w *work) serverHooks() xdsserver.Hooks {
	return xdsserver.Hooks{
		Rejected: func(r xdsserver.Rejection) { w.rejections.WithLabelValues(r.TypeURL).Inc() },
		Refused:  func(_, _, reason string) { w.refusedStreams.WithLabelValues(reason).Inc() },
	}
}

func (w *work) hooks() xdswal.Hooks {
	return xdswal.Hooks{
		Journal: journal.Hooks{
			Commit:         w.commitEnd,
			SegmentCreated: func(journal.Segment) { w.segmentsCreated.Inc() },
			SegmentDropped: func(journal.Segment) { w.segmentsDropped.Inc() },
		},
		Compactor: compactor.Hooks{
			CompactionBegin:    func(compactor.Compaction) { w.compacts.Store(true) },
			CompactionEnd:      w.compactionEnd,
			SnapshotWriteBegin: w.writes.begin,
			SnapshotWriteEnd:   w.snapshotWriteEnd,
			SnapshotDeleted:    func(s compactor.Snapshot) { w.snapshotsDeleted.WithLabelValues(location(s)).Inc() },
			BatchWriteEnd:      w.batchWriteEnd,
			BatchDeleted:       func(compactor.Batch) { w.batchesDeleted.Inc() },
		},
		Replay: replay.Hooks{
			SnapshotReadBegin: w.reads.begin,
			SnapshotReadEnd:   w.reads.end,
			RestoreEnd:        w.restoreEnd,
		},
		Degraded:   func(error) { w.degradations.Inc() },
		CacheError: func(string, string, error) { w.cacheErrors.Inc() },
	}
}

func (w *work) commitEnd(c journal.Commit) {
	if c.Err != nil {
		w.commitFailures.Inc()
		return
	}
	w.commitSeconds.Observe(c.Duration.Seconds())
	w.commitEvents.Add(float64(c.Events))
	w.commitBytes.Add(float64(c.Bytes))
}

func (w *work) compactionEnd(c compactor.Compaction) {
	outcome := written
	switch {
	case c.Err != nil:
		outcome = failed
	case c.Unchanged:
		outcome = unchanged
	}
	w.compactions.WithLabelValues(string(c.Reason), outcome).Inc()
}

func (w *work) snapshotWriteEnd(s compactor.Snapshot) {
	w.writes.end(s)
	if s.Err != nil {
		return
	}
	at := location(s)
	w.snapshotBytes.WithLabelValues(at).Set(float64(s.Bytes))
	w.writeTime.WithLabelValues(at).SetToCurrentTime()
	w.writeSequence.WithLabelValues(at).Set(float64(s.Sequence))
}

func (w *work) batchWriteEnd(b compactor.Batch) {
	if b.Err != nil {
		w.batchFailures.Inc()
		return
	}
	w.batchSeconds.Observe(b.Duration.Seconds())
	w.batches.Inc()
	w.batchBytes.Add(float64(b.Bytes))
}

func (w *work) restoreEnd(r replay.Result) {
	w.restoreSeconds.Set(r.Duration.Seconds())
	w.restoreEvents.Set(float64(r.Events))
	w.restoreShipped.Set(float64(r.Shipped))
	w.restoreSkipped.Set(float64(len(r.Skipped)))
	if r.Err != nil {
		w.restoreFailures.Inc()
	}
}

// transfers counts the snapshots that are written to, or read from, each location.
type transfers struct {
	started, succeeded, failed *prometheus.CounterVec
	seconds                    *prometheus.HistogramVec
}

func (w *work) transfers(name, what string) transfers {
	t := transfers{
		started:   w.countersByLocation(name+"_started_total", "Snapshot "+what+" that were started."),
		succeeded: w.countersByLocation(name+"_succeeded_total", "Snapshot "+what+" that succeeded."),
		failed:    w.countersByLocation(name+"_failed_total", "Snapshot "+what+" that failed."),
		seconds: add(w, prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: prefix + name + "_duration_seconds", Help: "Duration of the snapshot " + what + " that succeeded.", Buckets: snapshotBuckets,
		}, []string{"location"})),
	}
	t.seconds.WithLabelValues(local)
	t.seconds.WithLabelValues(backend)
	return t
}

func (t *transfers) begin(s compactor.Snapshot) { t.started.WithLabelValues(location(s)).Inc() }

func (t *transfers) end(s compactor.Snapshot) {
	at := location(s)
	if s.Err != nil {
		t.failed.WithLabelValues(at).Inc()
		return
	}
	t.succeeded.WithLabelValues(at).Inc()
	t.seconds.WithLabelValues(at).Observe(s.Duration.Seconds())
}

// location returns the value of the label location.
func location(s compactor.Snapshot) string {
	if s.Backend {
		return backend
	}
	return local
}

// add returns c, which is collected with the other metrics.
func add[C prometheus.Collector](w *work, c C) C {
	w.collectors = append(w.collectors, c)
	return c
}

func (w *work) counter(name, help string) prometheus.Counter {
	return add(w, prometheus.NewCounter(prometheus.CounterOpts{Name: prefix + name, Help: help}))
}

// countersByLocation returns counters that exist from the start, with value 0, so
// that the first increase is visible as one.
func (w *work) countersByLocation(name, help string) *prometheus.CounterVec {
	v := add(w, prometheus.NewCounterVec(prometheus.CounterOpts{Name: prefix + name, Help: help}, []string{"location"}))
	v.WithLabelValues(local)
	v.WithLabelValues(backend)
	return v
}

func (w *work) gauge(name, help string) prometheus.Gauge {
	return add(w, prometheus.NewGauge(prometheus.GaugeOpts{Name: prefix + name, Help: help}))
}

func (w *work) gaugesByLocation(name, help string) *prometheus.GaugeVec {
	return add(w, prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: prefix + name, Help: help}, []string{"location"}))
}

func (w *work) histogram(name, help string, buckets []float64) prometheus.Histogram {
	return add(w, prometheus.NewHistogram(prometheus.HistogramOpts{Name: prefix + name, Help: help, Buckets: buckets}))
}
