// Package workload contains the workloads of the benchmark. Each workload checks that its
// work was done: a missing append, or a restore with another digest, is an error and has
// no figure.
package workload

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/xdswal/xdswal/bench/corpus"
	"github.com/xdswal/xdswal/bench/harness"
)

// The restored shapes. The last two are the extremes of what control planes serve.
var (
	small    = corpus.Shape{Nodes: 100, PerNode: 100}
	typical  = corpus.Shape{Nodes: 100, PerNode: 1000}
	oneNode  = corpus.Shape{Nodes: 1, PerNode: 100_000}
	tinyNode = corpus.Shape{Nodes: 10_000, PerNode: 10}
)

// All returns the workloads in the order of a run. A short run has the same ones on less
// data, except for the restore with claims. Data of several workloads is prepared in dir
// by the first one that requires it.
func All(dir string, short bool) []harness.Workload {
	fixtures := newFixtures(dir)
	restored := []corpus.Shape{small, typical, oneNode, tinyNode}
	written := []corpus.Shape{small, typical}
	beside, updated := typical, []int{100, 10_000, 100_000}
	connected, equal := 10_000, corpus.Shape{Nodes: 100, PerNode: 2_000}
	if short {
		restored = []corpus.Shape{small, typical}
		written = []corpus.Shape{small}
		beside, updated = small, updated[:2]
		connected, equal = 1_000, corpus.Shape{Nodes: 100, PerNode: 100}
	}
	var out []harness.Workload
	for _, writers := range []int{1, 16, 128, 1024} {
		out = append(out, appendWorkload(writers))
	}
	out = append(out,
		setSnapshotWorkload(), equalSnapshotWorkload(),
		updateWorkload(updated, false), updateWorkload(updated, true),
	)
	out = append(out, deliverWorkloads(short)...)
	for _, delta := range []bool{false, true} {
		out = append(out, connectWorkload(100, connected, delta))
	}
	out = append(out, memoryWorkload(equal))
	for _, shape := range restored {
		out = append(out, restoreWorkload(fixtures, shape))
	}
	for _, shape := range written {
		out = append(out, snapshotWorkload(fixtures, shape))
	}
	out = append(out, besideWorkload(fixtures, beside), replayWorkload())
	return append(out, s3Workloads(fixtures, short)...)
}

// deliverWorkloads returns the workloads of updates that clients wait for.
func deliverWorkloads(short bool) []harness.Workload {
	if short {
		sizes := []int{100, 10_000}
		return []harness.Workload{
			deliverWorkload(1), deliverWorkload(100), flatWorkload(1, sizes, false), flatWorkload(100, sizes, true),
		}
	}
	sizes := []int{100, 1_000, 10_000, 100_000}
	return []harness.Workload{
		deliverWorkload(0), deliverWorkload(1), deliverWorkload(100),
		flatWorkload(0, sizes, false),
		flatWorkload(1, sizes, false), flatWorkload(1, sizes, true),
		flatWorkload(100, sizes, false), flatWorkload(100, sizes, true),
	}
}

// s3Workloads returns the workloads that require an S3 server.
func s3Workloads(fixtures *fixtures, short bool) []harness.Workload {
	if short {
		return []harness.Workload{
			transferWorkload("64MiB", opaquePayload(64<<20), nil),
			s3RestoreWorkload(fixtures, typical, s3RestoreClaims()),
			outageWorkload(true),
		}
	}
	return []harness.Workload{
		transferWorkload("1GiB", opaquePayload(1<<30), transferClaims()),
		transferWorkload(typical.String(), fixturePayload(fixtures, typical), nil),
		s3RestoreWorkload(fixtures, typical, s3RestoreClaims()),
		outageWorkload(false),
	}
}

// Metrics of several workloads.
var (
	metricTime = harness.Metric{Name: "time", Unit: "ms"}
	metricP50  = harness.Metric{Name: "p50", Unit: "ms"}
	metricP99  = harness.Metric{Name: "p99", Unit: "ms"}
	metricHeap = harness.Metric{Name: "heap", Unit: "MiB"}
)

// driven is the result of drive.
type driven struct {
	counts  []int // operations of each writer
	total   int
	latency harness.Latencies
	elapsed time.Duration
}

// report sets the columns of throughput and latency.
func (d driven) report(r *harness.Round, throughput string) {
	r.Report(throughput, float64(d.total)/d.elapsed.Seconds())
	r.Report("p50", d.latency.Quantile(0.50))
	r.Report("p99", d.latency.Quantile(0.99))
}

// drive runs writers, each of which does one operation at a time, and at least one, until
// window is over.
func drive(ctx context.Context, writers int, window time.Duration, do func(ctx context.Context, writer, i int) error) (driven, error) {
	d := driven{counts: make([]int, writers)}
	latencies := make([]harness.Latencies, writers)
	g, ctx := errgroup.WithContext(ctx)
	start := time.Now()
	deadline := start.Add(window)
	for w := range writers {
		g.Go(func() error {
			for i, now := 0, time.Now(); i == 0 || now.Before(deadline); i++ {
				if err := do(ctx, w, i); err != nil {
					return err
				}
				done := time.Now()
				latencies[w] = append(latencies[w], done.Sub(now))
				d.counts[w]++
				now = done
			}
			return nil
		})
	}
	err := g.Wait()
	d.elapsed = time.Since(start)
	d.latency = harness.Merge(latencies)
	d.total = len(d.latency)
	return d, err
}

// timed returns the durations of sequential operations.
func timed(operations int, do func(i int) error) (harness.Latencies, error) {
	var l harness.Latencies
	for i := range operations {
		start := time.Now()
		if err := do(i); err != nil {
			return nil, err
		}
		l = append(l, time.Since(start))
	}
	return l, nil
}
