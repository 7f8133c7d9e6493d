package workload

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/bench/corpus"
	"github.com/xdswal/xdswal/bench/harness"
	"github.com/xdswal/xdswal/compactor"
	"github.com/xdswal/xdswal/xdscache"
)

const (
	aloneName  = "alone"
	besideName = "beside a compaction"
	// besideWriters is how many callers set snapshots, each of its own node.
	besideWriters = 4
)

func besideWorkload(fixtures *fixtures, shape corpus.Shape) harness.Workload {
	return harness.Workload{
		Name: "snapshot-beside-writers/" + shape.String(),
		About: fmt.Sprintf("%d callers set durable snapshots of nodes of 1,000 resources with one changed, in a store of 100,000, alone and while a snapshot of the store is written. "+
			"No caller waits for the snapshot: the slowest call is far shorter than it. They share the processors and the disk with it.", besideWriters),
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
				Close: b.close,
			}, nil
		},
	}
}

type beside struct {
	dir   string
	shape corpus.Shape
	store *xdswal.Store
	cache *xdscache.SnapshotCache
	// writers are the series of the callers' nodes.
	writers []*series
	// wrote is how long the snapshots of this round took to write.
	wrote []time.Duration
}

func newBeside(ctx context.Context, f *fixture, shape corpus.Shape, dir string) (*beside, error) {
	if err := os.CopyFS(dir, os.DirFS(f.dir)); err != nil {
		return nil, fmt.Errorf("copy fixture: %w", err)
	}
	b := &beside{dir: dir, shape: shape}
	if err := b.open(ctx); err != nil {
		return nil, err
	}
	for w := range besideWriters {
		first, err := shape.Snapshot(w, "1")
		if err != nil {
			return nil, err
		}
		// From now on the messages are known by their addresses.
		if err := b.cache.SetSnapshot(ctx, shape.Node(w), first); err != nil {
			return nil, err
		}
		b.writers = append(b.writers, newSeries(first))
	}
	return b, nil
}

func (b *beside) open(ctx context.Context) error {
	store, err := xdswal.Open(ctx, xdswal.Options{Dir: b.dir, KeepFor: -1, Hooks: xdswal.Hooks{
		Compactor: compactor.Hooks{SnapshotWriteEnd: func(info compactor.Snapshot) { b.wrote = append(b.wrote, info.Duration) }},
	}})
	if err != nil {
		return err
	}
	b.store, b.cache = store, store.SnapshotCache(true, cachev3.IDHash{}, nil) //nolint:contextcheck // It takes none.
	return nil
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

// compacting has the callers work for as long as a snapshot is written.
func (b *beside) compacting(ctx context.Context, r *harness.Round) error {
	b.wrote = nil
	compacted := make(chan error, 1)
	working, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		defer stop()
		_, err := b.store.Compact(ctx)
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
		return fmt.Errorf("%d snapshots were written, want 1", len(b.wrote))
	}
	r.ReportTime("snapshot", b.wrote[0])
	return b.report(r, d)
}

// errOver ends a drive whose time depends on something else.
var errOver = errors.New("over")

func (b *beside) report(r *harness.Round, d driven) error {
	d.report(r, "sets")
	r.Report("max", d.latency.Quantile(1))
	for w, s := range b.writers {
		have, err := b.cache.GetSnapshot(b.shape.Node(w))
		if err != nil {
			return fmt.Errorf("check node: %w", err)
		}
		if err := s.checkNode(have); err != nil {
			return err
		}
	}
	return nil
}

// close checks that what was set is there after a restart.
func (b *beside) close(ctx context.Context) error {
	digest := b.store.State().Digest()
	if err := b.store.Close(ctx); err != nil {
		return err
	}
	if err := b.open(ctx); err != nil {
		return err
	}
	if b.store.State().Digest() != digest {
		return errors.Join(errors.New("the restored state is another"), b.store.Close(ctx))
	}
	return b.store.Close(ctx)
}
