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

// part is what a store must have for a gauge to say anything.
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
	newGauge(always, "epoch", "Epoch of the writer: of this store, or of the one that it follows; 0 in memory.",
		func(s *xdswal.Status) float64 { return float64(s.Epoch) }),
	newGauge(always, "sequence", "Sequence of the newest acknowledged update.",
		func(s *xdswal.Status) float64 { return float64(s.Sequence) }),
	newGauge(always, "degraded", "Whether updates are refused or not durable (1) or all is well (0).",
		func(s *xdswal.Status) float64 { return boolean(s.Degraded != nil) }),
	newGauge(always, "is_follower", "Whether the store follows another one (1) or takes updates itself (0).",
		func(s *xdswal.Status) float64 { return boolean(s.Follower != nil) }),
	newGauge(always, "state_nodes", "Nodes that the caches hold.",
		func(s *xdswal.Status) float64 { return float64(s.Nodes) }),
	newGauge(always, "state_resources", "Resources that the caches hold.",
		func(s *xdswal.Status) float64 { return float64(s.Resources) }),
	newGauge(always, "state_bytes", "Sum of the wire sizes of the resources that the caches hold.",
		func(s *xdswal.Status) float64 { return float64(s.Bytes) }),

	newGauge(ofJournal, "journal_bytes", "Size of the journal, as it counts against its bound.",
		func(s *xdswal.Status) float64 { return float64(s.Journal.Bytes) }),
	newGauge(ofJournal, "journal_segments", "Segments that the journal consists of.",
		func(s *xdswal.Status) float64 { return float64(s.Journal.Segments) }),
	newGauge(ofJournal, "journal_first_sequence", "Sequence of the oldest event in the journal; one more than the newest if it is empty.",
		func(s *xdswal.Status) float64 { return float64(s.Journal.First) }),
	newGauge(ofJournal, "journal_last_sequence", "Sequence of the newest event in the journal.",
		func(s *xdswal.Status) float64 { return float64(s.Journal.Last) }),

	newGauge(ofSnapshots, "snapshot_sequence", "Sequence of the newest snapshot in the data directory, 0 if there is none yet.",
		func(s *xdswal.Status) float64 { return float64(s.Compactor.Sequence) }),
	newGauge(ofNewestSnapshot, "snapshot_age_seconds", "Time since the newest snapshot in the data directory was written; it grows while nothing changes.",
		func(s *xdswal.Status) float64 { return time.Since(s.Compactor.Time).Seconds() }),

	newGauge(ofShipping, "shipped_sequence", "Sequence of the newest event that can be restored from the backend.",
		func(s *xdswal.Status) float64 { return float64(s.Shipper.Shipped) }),
	newGauge(ofShipping, "ship_behind_seconds", "Time since which there has been an event that is not shipped, 0 if there is none.",
		func(s *xdswal.Status) float64 { return since(s.Shipper.BehindSince) }),
	newGauge(ofShipping, "epoch_claimed", "Whether the backend knows of the epoch (1) or has not been reached since the start (0).",
		func(s *xdswal.Status) float64 { return boolean(s.Shipper.Claimed) }),
	newGauge(ofShipping, "fenced", "Whether another writer has taken over the backend (1) or not (0).",
		func(s *xdswal.Status) float64 { return boolean(s.Shipper.Fenced != nil) }),

	newGauge(ofFollower, "follower_lag_seconds", "Time since everything that was shipped was served.",
		func(s *xdswal.Status) float64 { return s.Follower.Lag().Seconds() }),
}

func newGauge(of part, name, help string, value func(*xdswal.Status) float64) gauge {
	return gauge{desc: prometheus.NewDesc(prefix+name, help, nil, nil), of: of, value: value}
}

// collectState sends the gauges of what the store has. A store without
// snapshots has no sequence of the newest one, so that none seems overdue;
// that it compacts tells it from one that has yet to write the first.
func collectState(s xdswal.Status, compacts bool, out chan<- prometheus.Metric) {
	snapshots := compacts || !s.Compactor.Time.IsZero()
	has := map[part]bool{
		always:           true,
		ofJournal:        s.Journal.Segments > 0,
		ofSnapshots:      snapshots,
		ofNewestSnapshot: !s.Compactor.Time.IsZero(),
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
