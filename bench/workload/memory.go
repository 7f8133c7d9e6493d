package workload

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"

	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/bench/corpus"
	"github.com/xdswal/xdswal/bench/harness"
	"github.com/xdswal/xdswal/journal"
)

const (
	bytesOnceName   = "marshaled bytes, once"
	ownRestoredName = "xdswal, restored"
)

// memoryWorkload measures the heap of nodes that have the same resources.
func memoryWorkload(shape corpus.Shape) harness.Workload {
	return harness.Workload{
		Name: "memory/" + shape.String() + "-equal",
		About: fmt.Sprintf("The heap of %d nodes with the same %d resources, after two collections. The caller creates the messages of each node anew and does not keep them, as a control plane does that renders each node from its data source. ", shape.Nodes, shape.PerNode) +
			"Restored: the same after Open has read them from the data directory. Floor: the marshaled bytes of one node. Time: setting all nodes, with the creation of the messages; for restored, Open.",
		Metrics:     []harness.Metric{metricHeap, metricTime},
		Comparisons: []harness.Comparison{{Metric: "heap", To: bytesOnceName}, {Metric: "heap", To: upstreamName}},
		Claims: []harness.Claim{
			{Candidate: memoryName, Metric: "heap", To: upstreamName, AtMost: 1.0 / 20},
			{Candidate: ownRestoredName, Metric: "heap", To: upstreamName, AtMost: 1.0 / 20},
		},
		Open: func(ctx context.Context, env harness.Env) (harness.Prepared, error) {
			e := equalNodes{shape: shape, dir: filepath.Join(env.Dir, "store")}
			if err := e.prepare(ctx); err != nil {
				return harness.Prepared{}, err
			}
			return harness.Prepared{Candidates: []harness.Candidate{
				{Name: bytesOnceName, Round: e.bytesOnce},
				{Name: upstreamName, Round: e.upstream},
				{Name: memoryName, Round: e.own},
				{Name: ownRestoredName, Round: e.restored},
			}}, nil
		},
	}
}

// equalNodes are nodes with the same resources.
type equalNodes struct {
	shape corpus.Shape
	dir   string // of a store that contains them
}

// prepare creates the data directory of the restore.
func (e *equalNodes) prepare(ctx context.Context) error {
	store, err := open(ctx, xdswal.Options{Dir: e.dir, Sync: journal.SyncNever})
	if err != nil {
		return err
	}
	return errors.Join(e.set(ctx, store.cache), store.Close(ctx))
}

// set sets each node to messages of its own.
func (e *equalNodes) set(ctx context.Context, cache cachev3.SnapshotCache) error {
	for i := range e.shape.Nodes {
		snapshot, err := e.shape.Snapshot(0, "1")
		if err != nil {
			return err
		}
		if err := cache.SetSnapshot(ctx, e.shape.Node(i), snapshot); err != nil {
			return err
		}
	}
	return nil
}

func (e *equalNodes) bytesOnce(_ context.Context, r *harness.Round) error {
	bodies := make([][]byte, e.shape.PerNode)
	for i := range bodies {
		_, m := corpus.Resource(0, i)
		b, err := cachev3.MarshalResource(m)
		if err != nil {
			return fmt.Errorf("marshal: %w", err)
		}
		bodies[i] = b
	}
	r.ReportHeap("heap")
	runtime.KeepAlive(bodies)
	return nil
}

func (e *equalNodes) upstream(ctx context.Context, r *harness.Round) error {
	cache := cachev3.NewSnapshotCache(true, cachev3.IDHash{}, nil)
	watch := startWatch()
	if err := e.set(ctx, cache); err != nil {
		return err
	}
	watch.stop()
	r.ReportTime("time", watch.took)
	r.ReportHeap("heap")
	for i := range e.shape.Nodes {
		s, err := cache.GetSnapshot(e.shape.Node(i))
		if err != nil {
			return fmt.Errorf("check node: %w", err)
		}
		n := 0
		for _, url := range corpus.Types {
			n += len(s.GetResources(url))
		}
		if err := e.checkNode(i, n); err != nil {
			return err
		}
	}
	return nil
}

func (e *equalNodes) own(ctx context.Context, r *harness.Round) error {
	return e.measure(ctx, r, xdswal.Options{MemoryOnly: true}, func(store *opened) error { return e.set(ctx, store.cache) })
}

func (e *equalNodes) restored(ctx context.Context, r *harness.Round) error {
	return e.measure(ctx, r, xdswal.Options{Dir: e.dir}, func(*opened) error { return nil })
}

func (e *equalNodes) measure(ctx context.Context, r *harness.Round, opt xdswal.Options, fill func(*opened) error) (err error) {
	watch := startWatch()
	store, err := open(ctx, opt)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close(ctx)) }()
	if err := fill(store); err != nil {
		return err
	}
	watch.stop()
	r.ReportTime("time", watch.took)
	r.ReportHeap("heap")
	for i := range e.shape.Nodes {
		n := 0
		if node := store.cache.GetNode(e.shape.Node(i)); node != nil {
			n = node.NumResources()
		}
		if err := e.checkNode(i, n); err != nil {
			return err
		}
	}
	return nil
}

func (e *equalNodes) checkNode(i, got int) error {
	if got != e.shape.PerNode {
		return fmt.Errorf("got %d resources in node %s, want %d", got, e.shape.Node(i), e.shape.PerNode)
	}
	return nil
}
