// Package prometheushooks exposes a store's work and its state as Prometheus
// metrics.
//
// The work, such as commits and snapshots, is counted by [Metrics.Hooks]. The
// state, such as the size of the journal, is asked of the store at each scrape;
// [Metrics.Attach] tells of whom, since a store wants its hooks before it
// exists:
//
//	metrics, err := prometheushooks.New(registry)
//	…
//	store, err := xdswal.Open(ctx, xdswal.Options{Dir: dir, Hooks: metrics.Hooks()})
//	…
//	metrics.Attach(store.Status)
//
// All names begin with xdswal_, all units are seconds and bytes, and no label
// has a value that comes from the configuration: no name of a node, a resource
// or a cache. The label location, of snapshots, is "local" for those in the data
// directory and "backend" for those that are shipped.
//
// The file rules.yaml beside the package holds alerts on these metrics. To
// have other hooks too, join them with [xdswal.JoinHooks].
package prometheushooks

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/xdswal/xdswal"
)

// Metrics are the metrics of one store. Its methods are safe for concurrent
// use.
type Metrics struct {
	work   work
	status atomic.Pointer[func() xdswal.Status]
}

// New registers the metrics of a store. A registry takes those of one store
// only and returns a [prometheus.AlreadyRegisteredError] for a second one;
// where a process has several, a label tells them apart:
//
//	prometheushooks.New(prometheus.WrapRegistererWith(prometheus.Labels{"store": "edge"}, registry))
func New(reg prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{work: newWork()}
	err := reg.Register(collector{m})
	if errors.As(err, new(prometheus.AlreadyRegisteredError)) {
		return nil, fmt.Errorf("register xdswal metrics: the registry has those of a store; wrap it with a label for each: see prometheus.WrapRegistererWith: %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("register xdswal metrics: %w", err)
	}
	return m, nil
}

// Hooks returns the hooks that count a store's work.
func (m *Metrics) Hooks() xdswal.Hooks { return m.work.hooks() }

// Attach sets whose state is exposed, as a rule that of [xdswal.Store.Status];
// it is called at each scrape. Before Attach, and after Attach(nil), there are
// no metrics of the state.
func (m *Metrics) Attach(status func() xdswal.Status) {
	if status == nil {
		m.status.Store(nil)
		return
	}
	m.status.Store(&status)
}

// collector registers Metrics all at once, and keeps the interface for it out
// of their methods.
type collector struct{ *Metrics }

var _ prometheus.Collector = collector{}

// Describe sends the descriptions of all metrics.
func (c collector) Describe(out chan<- *prometheus.Desc) {
	for _, w := range c.work.collectors() {
		w.Describe(out)
	}
	for _, g := range gauges {
		out <- g.desc
	}
}

// Collect sends all metrics that have a value.
func (c collector) Collect(out chan<- prometheus.Metric) {
	for _, w := range c.work.collectors() {
		w.Collect(out)
	}
	if status := c.status.Load(); status != nil {
		collectState((*status)(), c.work.compacts.Load(), out)
	}
}
