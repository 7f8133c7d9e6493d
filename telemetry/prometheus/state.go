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
	ofBackend
)

var gauges = []gauge{
	newGauge(always, "epoch", "Number of times that the data directory was opened; arbitrary in memory.",
		func(s *xdswal.Status) float64 { return float64(s.Epoch) }),
	newGauge(always, "sequence", "Sequence of the newest acknowledged update.",
		func(s *xdswal.Status) float64 { return float64(s.Sequence) }),
	newGauge(always, "degraded", "Whether updates are refused or not durable (1) or all is well (0).",
		func(s *xdswal.Status) float64 { return boolean(s.Degraded != nil) }),
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
	newGauge(ofBackend, "shipped_sequence", "Sequence of the newest snapshot that the backend is known to have.",
		func(s *xdswal.Status) float64 { return float64(s.Compactor.Shipped) }),
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
		ofBackend:        snapshots && s.Backend != "",
	}
	for _, g := range gauges {
		if has[g.of] {
			out <- prometheus.MustNewConstMetric(g.desc, prometheus.GaugeValue, g.value(&s))
		}
	}
}

func boolean(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
