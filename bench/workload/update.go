package workload

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"

	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/bench/corpus"
	"github.com/xdswal/xdswal/bench/harness"
	"github.com/xdswal/xdswal/xdscache"
)

// updateWorkload compares incremental updates of nodes of different sizes.
func updateWorkload(sizes []int, persist bool) harness.Workload {
	w := harness.Workload{
		Name: "update/memory",
		About: "UpdateResources with one changed resource, on nodes of different sizes. The cost grows with the change and with the depth of the node's tree, not with the node. " +
			"In memory only, so that the disk does not dominate.",
		Metrics:     []harness.Metric{metricP50, metricP99},
		Comparisons: []harness.Comparison{{Metric: "p50", To: updateName(100)}},
		Claims:      []harness.Claim{{Candidate: updateName(sizes[len(sizes)-1]), Metric: "p50", To: updateName(100), AtMost: 4}},
	}
	if persist {
		w.Name = "update/durable"
		w.About = "As update/memory, with every update durable. Floor: one raw durable append."
		w.Comparisons = append([]harness.Comparison{{Metric: "p50", To: rawName}}, w.Comparisons...)
		w.Claims = nil
	}
	w.Open = func(ctx context.Context, env harness.Env) (harness.Prepared, error) {
		var p harness.Prepared
		if persist {
			raw := &rawSetter{}
			if err := raw.open(env.Dir); err != nil {
				return p, err
			}
			p.Candidates = append(p.Candidates, harness.Candidate{Name: rawName, Round: raw.round, Close: raw.close})
		}
		for _, size := range sizes {
			store, err := open(ctx, xdswal.Options{Dir: filepath.Join(env.Dir, updateName(size)), MemoryOnly: !persist})
			if err != nil {
				return p, err
			}
			u := &nodeUpdater{opened: store, shape: corpus.Shape{Nodes: 1, PerNode: size}}
			p.Candidates = append(p.Candidates, harness.Candidate{Name: updateName(size), Round: u.round, Close: u.closeChecked})
			if err := u.load(ctx); err != nil {
				return p, err
			}
		}
		return p, nil
	}
	return w
}

func updateName(size int) string { return "node of " + strconv.Itoa(size) }

// nodeUpdater changes the resources of one node, one at a time.
type nodeUpdater struct {
	*opened
	shape    corpus.Shape
	revision int
}

func (u *nodeUpdater) load(ctx context.Context) error {
	first, err := u.shape.Snapshot(0, "1")
	if err != nil {
		return err
	}
	return u.cache.SetSnapshot(ctx, u.shape.Node(0), first)
}

func (u *nodeUpdater) round(ctx context.Context, r *harness.Round) error {
	calls := fastCalls
	if u.opt.MemoryOnly {
		calls *= 20
	}
	changes := make([]types.Resource, calls)
	for i := range changes {
		changes[i] = corpus.Endpoints(u.number(u.revision+i), u.revision+i)
	}
	l, err := timed(calls, func(i int) error {
		return setOne(ctx, u.cache, u.shape.Node(0), changes[i], strconv.Itoa(u.revision+i))
	})
	if err != nil {
		return err
	}
	u.revision += calls
	report(r, l)
	return u.check(changes[calls-1])
}

// number returns the number of the resource that a revision changes.
func (u *nodeUpdater) number(revision int) int {
	return endpointNumber(revision * 7919 % max(1, u.shape.PerNode/20))
}

func (u *nodeUpdater) check(last types.Resource) error {
	node := u.cache.GetNode(u.shape.Node(0))
	have := node.Type(resourcev3.EndpointType).Get(cachev3.GetResourceName(last))
	if node.NumResources() != u.shape.PerNode || have == nil {
		return fmt.Errorf("got %d resources in the node, want %d", node.NumResources(), u.shape.PerNode)
	}
	if seq := uint64(u.State().Sequence()); seq != uint64(u.revision+1) {
		return fmt.Errorf("got %d events, want %d", seq, u.revision+1)
	}
	return sameBytes((*xdscache.Resource)(have), last)
}
