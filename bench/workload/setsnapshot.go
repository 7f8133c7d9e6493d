package workload

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/bench/corpus"
	"github.com/xdswal/xdswal/bench/harness"
	"github.com/xdswal/xdswal/internal/durable"
	"github.com/xdswal/xdswal/xdscache"
)

const (
	upstreamName = "go-control-plane"
	memoryName   = "xdswal, memory only"
	durableName  = "xdswal, durable"
	persistName  = "marshal and fsync all"

	memoryImmutableName  = "xdswal, memory only, immutable"
	durableImmutableName = "xdswal, durable, immutable"
	commitName           = "xdswal, durable, the change alone"
	marshalName          = "marshal all, one core"
)

// setters is the shape of the node of SetSnapshot.
var setters = corpus.Shape{Nodes: 1, PerNode: 10_000}

// The number of calls in a round.
const (
	fastCalls = 50
	slowCalls = 4
)

// numSlow returns the number of slow calls in a round.
func numSlow(env harness.Env) int {
	if env.Short {
		return slowCalls / 2
	}
	return slowCalls
}

func setSnapshotWorkload() harness.Workload {
	return harness.Workload{
		Name: "setsnapshot/1-of-10000",
		About: "One caller sets snapshots of a node of 10,000 resources; in each, one is new and all others are the same pointers as before. Creating the snapshots is not measured. " +
			"Immutable: the caller promises not to change a message that it has set, so the same pointer is unchanged. Without that promise, xdswal marshals all messages to compare their contents. " +
			"Floors: go-control-plane's own cache, which stores a pointer and persists nothing; one raw durable append of an event of the same size; the commit of the same change alone; and marshaling all messages on one core. " +
			"Peer, the simplest durable code: marshal all, write a file, fsync, rename.",
		Metrics: []harness.Metric{metricP50, metricP99, metricCPU},
		Comparisons: []harness.Comparison{
			{Metric: "p50", To: rawName}, {Metric: "p50", To: commitName}, {Metric: "p50", To: marshalName}, {Metric: "cpu", To: marshalName}, {Metric: "p50", To: persistName},
		},
		Claims: []harness.Claim{
			{Candidate: durableImmutableName, Metric: "p50", To: commitName, AtMostMore: 1},
			{Candidate: durableName, Metric: "p50", To: marshalName, AtMost: 0.6},
		},
		Open: func(ctx context.Context, env harness.Env) (harness.Prepared, error) {
			first, err := setters.Snapshot(0, "1")
			if err != nil {
				return harness.Prepared{}, err
			}
			upstream, raw := upstreamSetter(first), rawSetter{}
			slow := numSlow(env)
			marshal := marshalSetter{series: newSeries(first), number: slow}
			persist := persistSetter{dir: env.Dir, marshalSetter: marshalSetter{series: newSeries(first), number: slow}}
			if err := raw.open(env.Dir); err != nil {
				return harness.Prepared{}, err
			}
			candidates := []harness.Candidate{
				{Name: upstreamName, Round: upstream.changed},
				{Name: rawName, Round: raw.round, Close: raw.close},
			}
			for _, own := range []struct {
				name  string
				calls int
				round func(*storeSetter, context.Context, *harness.Round) error
			}{
				{commitName, fastCalls, (*storeSetter).commit},
				{memoryImmutableName, fastCalls, (*storeSetter).changed},
				{durableImmutableName, fastCalls, (*storeSetter).changed},
				{memoryName, slow, (*storeSetter).changed},
				{durableName, slow, (*storeSetter).changed},
			} {
				if env.Short && (own.name == memoryName || own.name == memoryImmutableName) {
					continue
				}
				s, err := newStoreSetter(ctx, env.Dir, own.name, first)
				if err != nil {
					return harness.Prepared{Candidates: candidates}, err
				}
				s.number = own.calls
				candidates = append(candidates, harness.Candidate{
					Name: own.name, Close: s.store.closeChecked,
					Round: func(ctx context.Context, r *harness.Round) error { return own.round(s, ctx, r) },
				})
			}
			candidates = append(candidates,
				harness.Candidate{Name: marshalName, Round: marshal.round},
				harness.Candidate{Name: persistName, Round: persist.round})
			return harness.Prepared{Candidates: candidates}, nil
		},
	}
}

func equalSnapshotWorkload() harness.Workload {
	return harness.Workload{
		Name: "setsnapshot/equal-content",
		About: "One caller sets snapshots of a node of 10,000 resources with unchanged content in new messages, as a control plane does that rebuilds everything from its data source. " +
			"Every message must be marshaled to find that nothing changed; nothing is journaled.",
		Metrics:     []harness.Metric{metricP50, metricCPU},
		Comparisons: []harness.Comparison{{Metric: "p50", To: persistName}, {Metric: "cpu", To: persistName}},
		Open: func(ctx context.Context, env harness.Env) (harness.Prepared, error) {
			first, err := setters.Snapshot(0, "1")
			if err != nil {
				return harness.Prepared{}, err
			}
			again, err := setters.Snapshot(0, "1")
			if err != nil {
				return harness.Prepared{}, err
			}
			slow := numSlow(env)
			upstream, persist := upstreamSetter(first), persistSetter{dir: env.Dir, marshalSetter: marshalSetter{series: newSeries(first), number: slow}}
			upstream.again, upstream.number = again, slow
			candidates := []harness.Candidate{{Name: upstreamName, Round: upstream.equal}}
			for _, name := range []string{memoryName, durableName} {
				s, err := newStoreSetter(ctx, env.Dir, name, first)
				if err != nil {
					return harness.Prepared{Candidates: candidates}, err
				}
				s.again, s.number = again, slow
				candidates = append(candidates, harness.Candidate{Name: name, Round: s.equal, Close: s.store.closeChecked})
			}
			candidates = append(candidates, harness.Candidate{Name: persistName, Round: persist.round})
			return harness.Prepared{Candidates: candidates}, nil
		},
	}
}

// timedCPU reports the durations of sequential operations, and their processor time, which
// other load on the machine hardly changes.
func timedCPU(r *harness.Round, operations int, do func(i int) error) error {
	before := harness.CPUTime()
	l, err := timed(operations, do)
	if err != nil {
		return err
	}
	r.ReportTime("cpu", (harness.CPUTime()-before)/time.Duration(operations))
	report(r, l)
	return nil
}

func report(r *harness.Round, l harness.Latencies) {
	r.Report("p50", l.Quantile(0.50))
	r.Report("p99", l.Quantile(0.99))
}

// setter sets snapshots of one node in a snapshot cache.
type setter struct {
	cache  cachev3.SnapshotCache
	series *series
	again  *cachev3.Snapshot // new messages with the content of first
	first  *cachev3.Snapshot
	number int // calls in a round
}

func upstreamSetter(first *cachev3.Snapshot) *setter {
	return &setter{cache: cachev3.NewSnapshotCache(true, cachev3.IDHash{}, nil), series: newSeries(first), first: first, number: fastCalls}
}

// changed sets snapshots in which one resource differs.
func (s *setter) changed(ctx context.Context, r *harness.Round) error {
	snapshots := s.series.take(s.number)
	err := timedCPU(r, len(snapshots), func(i int) error {
		return s.cache.SetSnapshot(ctx, setters.Node(0), snapshots[i])
	})
	if err != nil {
		return err
	}
	have, err := s.cache.GetSnapshot(setters.Node(0))
	if err != nil {
		return fmt.Errorf("check node: %w", err)
	}
	return s.series.checkNode(have, r.Number == 0)
}

// equal sets equal snapshots of two sets of messages in turn.
func (s *setter) equal(ctx context.Context, r *harness.Round) error {
	return timedCPU(r, s.number, func(i int) error {
		if i%2 == 0 {
			return s.cache.SetSnapshot(ctx, setters.Node(0), s.again)
		}
		return s.cache.SetSnapshot(ctx, setters.Node(0), s.first)
	})
}

// storeSetter is a setter of xdswal's cache.
type storeSetter struct {
	setter
	store *opened
	// calls is the number of calls that journal an event.
	calls uint64
}

func newStoreSetter(ctx context.Context, dir, name string, first *cachev3.Snapshot) (*storeSetter, error) {
	opt := xdswal.Options{Dir: filepath.Join(dir, name), MemoryOnly: name == memoryName || name == memoryImmutableName}
	var promise []xdscache.SnapshotOption
	if name == memoryImmutableName || name == durableImmutableName {
		promise = append(promise, immutable)
	}
	store, err := open(ctx, opt, promise...)
	if err != nil {
		return nil, err
	}
	s := &storeSetter{setter: setter{cache: store.cache, series: newSeries(first), first: first}, store: store, calls: 1}
	return s, s.cache.SetSnapshot(ctx, setters.Node(0), first)
}

func (s *storeSetter) changed(ctx context.Context, r *harness.Round) error {
	s.calls += uint64(s.number)
	if err := s.setter.changed(ctx, r); err != nil {
		return err
	}
	return s.checkSequence()
}

// commit makes the changes of the series without its snapshots.
func (s *storeSetter) commit(ctx context.Context, r *harness.Round) error {
	changes := make([]types.Resource, s.number)
	for i := range changes {
		changes[i] = s.series.change()
	}
	err := timedCPU(r, len(changes), func(i int) error {
		s.calls++
		return setOne(ctx, s.store.cache, setters.Node(0), changes[i], version(int(s.calls)))
	})
	if err != nil {
		return err
	}
	return s.checkSequence()
}

func (s *storeSetter) equal(ctx context.Context, r *harness.Round) error {
	if err := s.setter.equal(ctx, r); err != nil {
		return err
	}
	return s.checkSequence()
}

// checkSequence checks that each change, and nothing else, has an event.
func (s *storeSetter) checkSequence() error {
	if seq := uint64(s.store.State().Sequence()); seq != s.calls {
		return fmt.Errorf("got %d events, want %d", seq, s.calls)
	}
	return nil
}

// rawSetter appends a record to a raw log.
type rawSetter struct {
	log    *rawLog
	record []byte
	calls  int
}

func (s *rawSetter) open(dir string) (err error) {
	s.record = make([]byte, 500)
	s.log, err = newRawLog(dir)
	return err
}

func (s *rawSetter) round(_ context.Context, r *harness.Round) error {
	err := timedCPU(r, fastCalls, func(int) error { return s.log.append(s.record) })
	if err != nil {
		return err
	}
	s.calls += fastCalls
	return nil
}

func (s *rawSetter) close(context.Context) error {
	records, err := s.log.close()
	if err == nil && records != s.calls {
		err = fmt.Errorf("got %d appends, want %d", records, s.calls)
	}
	return err
}

// marshalSetter marshals the whole snapshot, and keeps nothing.
type marshalSetter struct {
	series *series
	number int // calls in a round
}

func (s *marshalSetter) round(_ context.Context, r *harness.Round) error {
	snapshots := s.series.take(s.number)
	err := timedCPU(r, len(snapshots), func(i int) error {
		for _, group := range snapshots[i].Resources {
			for _, item := range group.Items {
				if _, err := cachev3.MarshalResource(item.Resource); err != nil {
					return fmt.Errorf("marshal: %w", err)
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return nil
}

// persistSetter writes the whole snapshot to a file for each change.
type persistSetter struct {
	marshalSetter
	dir string
}

func (s *persistSetter) round(_ context.Context, r *harness.Round) error {
	snapshots := s.series.take(s.number)
	var size int
	err := timedCPU(r, len(snapshots), func(i int) error {
		b, err := marshalAll(snapshots[i])
		if err != nil {
			return err
		}
		size = len(b)
		return durable.WriteFile(filepath.Join(s.dir, "snapshot.bin"), func(w io.Writer) error {
			_, err := w.Write(b)
			return err
		})
	})
	if err != nil {
		return err
	}
	info, err := os.Stat(filepath.Join(s.dir, "snapshot.bin"))
	if err == nil && info.Size() != int64(size) {
		err = fmt.Errorf("got a file of %d bytes, want %d", info.Size(), size)
	}
	return err
}

// marshalAll returns the bytes of all resources of a snapshot, each after its length.
func marshalAll(snapshot *cachev3.Snapshot) ([]byte, error) {
	var out []byte
	for _, group := range snapshot.Resources {
		for _, item := range group.Items {
			b, err := cachev3.MarshalResource(item.Resource)
			if err != nil {
				return nil, fmt.Errorf("marshal: %w", err)
			}
			out = binary.AppendUvarint(out, uint64(len(b)))
			out = append(out, b...)
		}
	}
	return out, nil
}
