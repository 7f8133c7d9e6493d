package prometheushooks

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/xdswal/xdswal"
)

// gauge is a metric of a store's state.
type gauge struct {
	desc  *prometheus.Desc
	of    part
	value func(*xdswal.Status) float64
}

// part is the part of a store that a gauge requires.
type part int

const (
	always part = iota
	ofJournal
	ofSnapshots
	ofNewestSnapshot
	ofShipping
	ofFollower
)

var gauges = []gauge{
	newGauge(always, "epoch", "Epoch of the writer: of this store, or of the one that it follows; 0 for a store in memory only.",
		func(s *xdswal.Status) float64 { return float64(s.Epoch) }),
	newGauge(always, "sequence", "Sequence of the newest update that has returned.",
		func(s *xdswal.Status) float64 { return float64(s.Sequence) }),
	newGauge(always, "degraded", "Whether updates are refused or not durable (1) or durable (0).",
		func(s *xdswal.Status) float64 { return boolean(s.Degraded != nil) }),
	newGauge(always, "is_follower", "Whether the store follows another one (1) or accepts updates itself (0).",
		func(s *xdswal.Status) float64 { return boolean(s.Follower != nil) }),
	newGauge(always, "state_nodes", "Nodes in the caches.",
		func(s *xdswal.Status) float64 { return float64(s.Nodes) }),
	newGauge(always, "state_resources", "Resources in the caches.",
		func(s *xdswal.Status) float64 { return float64(s.Resources) }),
	newGauge(always, "state_bytes", "Sum of the wire sizes of the resources in the caches.",
		func(s *xdswal.Status) float64 { return float64(s.Bytes) }),

	newGauge(ofJournal, "journal_bytes", "Size of the journal that counts against its bound.",
		func(s *xdswal.Status) float64 { return float64(s.Journal.Bytes) }),
	newGauge(ofJournal, "journal_segments", "Segments of the journal.",
		func(s *xdswal.Status) float64 { return float64(s.Journal.Segments) }),
	newGauge(ofJournal, "journal_first_sequence", "Sequence of the oldest event in the journal; one more than the newest if it is empty.",
		func(s *xdswal.Status) float64 { return float64(s.Journal.First) }),
	newGauge(ofJournal, "journal_last_sequence", "Sequence of the newest event in the journal.",
		func(s *xdswal.Status) float64 { return float64(s.Journal.Last) }),

	newGauge(ofSnapshots, "snapshot_sequence", "Sequence of the newest snapshot in the data directory, 0 before the first.",
		func(s *xdswal.Status) float64 { return float64(s.Compactor.Sequence) }),
	newGauge(ofNewestSnapshot, "snapshot_age_seconds", "Age of the newest snapshot in the data directory; it increases while nothing changes.",
		func(s *xdswal.Status) float64 { return time.Since(s.Compactor.Time).Seconds() }),

	newGauge(ofShipping, "shipped_sequence", "Sequence of the newest event that can be restored from the backend.",
		func(s *xdswal.Status) float64 { return float64(s.Shipper.Shipped) }),
	newGauge(ofShipping, "ship_behind_seconds", "Age of the oldest event that is not shipped, 0 if all are shipped.",
		func(s *xdswal.Status) float64 { return since(s.Shipper.BehindSince) }),
	newGauge(ofShipping, "epoch_claimed", "Whether the backend has recorded the epoch (1) or has not been reached since the start (0).",
		func(s *xdswal.Status) float64 { return boolean(s.Shipper.Claimed) }),
	newGauge(ofShipping, "fenced", "Whether another writer has taken over the backend (1) or not (0).",
		func(s *xdswal.Status) float64 { return boolean(s.Shipper.Fenced != nil) }),

	newGauge(ofFollower, "follower_lag_seconds", "Time since the follower last served everything that was shipped.",
		func(s *xdswal.Status) float64 { return s.Follower.Lag().Seconds() }),
}

func newGauge(of part, name, help string, value func(*xdswal.Status) float64) gauge {
	return gauge{desc: prometheus.NewDesc(prefix+name, help, nil, nil), of: of, value: value}
}

// collectState sends the gauges of the parts that the store has. A store that writes
// no snapshots has no snapshot_sequence, so that no snapshot seems overdue. Before the
// first snapshot, compacts distinguishes it from a store that writes them.
func collectState(s xdswal.Status, compacts bool, out chan<- prometheus.Metric) {
	snapshot := !s.Compactor.Time.IsZero()
	has := map[part]bool{
		always:           true,
		ofJournal:        s.Journal.Segments > 0,
		ofSnapshots:      compacts || snapshot,
		ofNewestSnapshot: snapshot,
		ofShipping:       s.Shipper != nil,
		ofFollower:       s.Follower != nil,
	}
	for _, g := range gauges {
		if has[g.of] {
			out <- prometheus.MustNewConstMetric(g.desc, prometheus.GaugeValue, g.value(&s))
		}
	}
}

// since returns the seconds since a time, 0 for none.
func since(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return time.Since(t).Seconds()
}

func boolean(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
