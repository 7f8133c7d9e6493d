package workload

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/bench/corpus"
	"github.com/xdswal/xdswal/bench/harness"
	"github.com/xdswal/xdswal/compactor"
)

const (
	aloneName  = "alone"
	besideName = "beside a compaction"
	// besideWriters is the number of callers. Each sets snapshots of its own node.
	besideWriters = 4
)

func besideWorkload(fixtures *fixtures, shape corpus.Shape) harness.Workload {
	return harness.Workload{
		Name: "snapshot-beside-writers/" + shape.String(),
		About: fmt.Sprintf("%d callers set durable snapshots of nodes of 1,000 resources with one changed, in a store of 100,000, alone and while a snapshot of the store is written. "+
			"No call waits for the snapshot: the slowest call is far shorter. Both share the processors and the disk.", besideWriters),
		Metrics: []harness.Metric{
			metricP50, metricP99, {Name: "max", Unit: "ms"}, {Name: "sets", Unit: "/s"}, {Name: "snapshot", Unit: "ms"},
		},
		Comparisons: []harness.Comparison{{Metric: "p50", To: aloneName}, {Metric: "p99", To: aloneName}},
		Open: func(ctx context.Context, env harness.Env) (harness.Prepared, error) {
			f, err := fixtures.get(ctx, shape)
			if err != nil {
				return harness.Prepared{}, err
			}
			b, err := newBeside(ctx, f, shape, filepath.Join(env.Dir, "store"))
			if err != nil {
				return harness.Prepared{}, err
			}
			return harness.Prepared{
				Candidates: []harness.Candidate{
					{Name: aloneName, Round: b.alone},
					{Name: besideName, Round: b.compacting},
				},
				Close: b.closeChecked,
			}, nil
		},
	}
}

type beside struct {
	*opened
	shape corpus.Shape
	// writers are the series of the callers' nodes.
	writers []*series
	// wrote are the durations of the snapshots of this round.
	wrote []time.Duration
}

func newBeside(ctx context.Context, f *fixture, shape corpus.Shape, dir string) (*beside, error) {
	if err := os.CopyFS(dir, os.DirFS(f.dir)); err != nil {
		return nil, fmt.Errorf("copy fixture: %w", err)
	}
	b := &beside{shape: shape}
	store, err := open(ctx, xdswal.Options{Dir: dir, Hooks: xdswal.Hooks{
		Compactor: compactor.Hooks{SnapshotWriteEnd: func(s compactor.Snapshot) { b.wrote = append(b.wrote, s.Duration) }},
	}}, immutable)
	if err != nil {
		return nil, err
	}
	b.opened = store
	for w := range besideWriters {
		first, err := shape.Snapshot(w, "1")
		if err != nil {
			return nil, err
		}
		// From now on the cache recognizes the messages by their pointers.
		if err := b.cache.SetSnapshot(ctx, shape.Node(w), first); err != nil {
			return nil, err
		}
		b.writers = append(b.writers, newSeries(first))
	}
	return b, nil
}

func (b *beside) set(ctx context.Context, writer, _ int) error {
	return b.cache.SetSnapshot(ctx, b.shape.Node(writer), b.writers[writer].next())
}

func (b *beside) alone(ctx context.Context, r *harness.Round) error {
	d, err := drive(ctx, besideWriters, r.Window, b.set)
	if err != nil {
		return err
	}
	return b.report(r, d)
}

// compacting runs the callers while a snapshot is written.
func (b *beside) compacting(ctx context.Context, r *harness.Round) error {
	b.wrote = nil
	compacted := make(chan error, 1)
	working, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		defer stop()
		_, err := b.Compact(ctx)
		compacted <- err
	}()
	d, err := drive(ctx, besideWriters, time.Minute, func(ctx context.Context, writer, i int) error {
		if working.Err() != nil {
			return errOver
		}
		return b.set(ctx, writer, i)
	})
	if errors.Is(err, errOver) {
		err = ctx.Err()
	}
	if err := errors.Join(err, <-compacted); err != nil {
		return err
	}
	if len(b.wrote) != 1 {
		return fmt.Errorf("got %d snapshots, want 1", len(b.wrote))
	}
	r.ReportTime("snapshot", b.wrote[0])
	return b.report(r, d)
}

// errOver ends a drive before its window is over.
var errOver = errors.New("over")

func (b *beside) report(r *harness.Round, d driven) error {
	d.report(r, "sets")
	r.Report("max", d.latency.Quantile(1))
	for w, s := range b.writers {
		have, err := b.cache.GetSnapshot(b.shape.Node(w))
		if err != nil {
			return fmt.Errorf("check node: %w", err)
		}
		if err := s.checkNode(have, true); err != nil {
			return err
		}
	}
	return nil
}
