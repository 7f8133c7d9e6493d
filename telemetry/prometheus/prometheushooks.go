// Package prometheushooks exposes a store's work and its state as Prometheus
// metrics.
//
// [Metrics.Hooks] count the work, such as commits and snapshots. The state, such as
// the size of the journal, is read from the store's status at each scrape; the
// store's status is attached after Open, because Open requires the hooks:
//
//	metrics, err := prometheushooks.New(registry)
//	…
//	store, err := xdswal.Open(ctx, xdswal.Options{Dir: dir, Hooks: metrics.Hooks()})
//	…
//	metrics.Attach(store.Status)
//
// All names begin with xdswal_, all units are seconds and bytes, and no label
// contains the name of a node, a resource or a cache. The label location of a
// snapshot is "local" in the data directory and "backend" in the backend.
//
// The file rules.yaml of this package contains alerts on these metrics.
// [xdswal.JoinHooks] joins the hooks with others.
package prometheushooks

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/xdsserver"
)

// Metrics are the metrics of one store. Its methods are safe for concurrent
// use.
type Metrics struct {
	work   *work
	status atomic.Pointer[func() xdswal.Status]
}

// New registers the metrics of a store. The error is a
// [prometheus.AlreadyRegisteredError] if the registry contains those of another
// store; wrap it with a label for each store of a process:
//
//	prometheushooks.New(prometheus.WrapRegistererWith(prometheus.Labels{"store": "edge"}, registry))
func New(reg prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{work: newWork()}
	err := reg.Register(collector{m})
	if errors.As(err, new(prometheus.AlreadyRegisteredError)) {
		return nil, fmt.Errorf("register xdswal metrics: the registry has those of another store; use prometheus.WrapRegistererWith with a label for each store: %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("register xdswal metrics: %w", err)
	}
	return m, nil
}

// Hooks returns the hooks that count a store's work.
func (m *Metrics) Hooks() xdswal.Hooks { return m.work.hooks() }

// ServerHooks returns the hooks that count what the clients of an xDS server do.
func (m *Metrics) ServerHooks() xdsserver.Hooks { return m.work.serverHooks() }

// Attach sets the function that returns the store's status, [xdswal.Store.Status]. It
// is called at each scrape. Before Attach, and after Attach(nil), the metrics of the
// state are absent.
func (m *Metrics) Attach(status func() xdswal.Status) {
	if status == nil {
		m.status.Store(nil)
		return
	}
	m.status.Store(&status)
}

// collector implements prometheus.Collector for all metrics, so that Metrics need not
// export its methods.
type collector struct{ *Metrics }

var _ prometheus.Collector = collector{}

// Describe sends the descriptions of all metrics.
func (c collector) Describe(out chan<- *prometheus.Desc) {
	for _, w := range c.work.collectors {
		w.Describe(out)
	}
	for _, g := range gauges {
		out <- g.desc
	}
}

// Collect sends all metrics that have a value.
func (c collector) Collect(out chan<- prometheus.Metric) {
	for _, w := range c.work.collectors {
		w.Collect(out)
	}
	if status := c.status.Load(); status != nil {
		collectState((*status)(), c.work.compacts.Load(), out)
	}
}
