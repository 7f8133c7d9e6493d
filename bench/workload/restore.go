package workload

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/klauspost/compress/zstd"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/bench/corpus"
	"github.com/xdswal/xdswal/bench/harness"
)

const (
	inflateName  = "read and decompress"
	restoreName  = "xdswal"
	fetchName    = "xdswal, all fetched"
	eagerName    = "eager decode"
	eagerAllName = "eager decode, all cores"
)

func restoreWorkload(fixtures *fixtures, shape corpus.Shape) harness.Workload {
	return harness.Workload{
		Name: "restore/" + shape.String(),
		About: "From a data directory to a cache that serves. xdswal: Open and SnapshotCache. Eager: read the same snapshot file, unmarshal each resource, and set go-control-plane's own cache. " +
			"Fetched: the same and one Fetch of every type of every node, which completes xdswal's lazy work. " +
			"Floor: read and decompress the file, and keep the bytes. Each: time per resource. The heap is the live size after two collections.",
		Metrics: []harness.Metric{
			metricTime, {Name: "cpu", Unit: "ms"}, {Name: "fetched", Unit: "ms"}, {Name: "each", Unit: "µs"}, metricHeap, {Name: "heap÷wire"},
		},
		Comparisons: []harness.Comparison{
			{Metric: "time", To: inflateName},
			{Metric: "time", To: eagerName},
			{Metric: "cpu", To: eagerName},
			{Metric: "fetched", To: eagerName},
			{Metric: "heap", To: eagerName},
		},
		Claims: restoreClaims(shape),
		Open: func(ctx context.Context, env harness.Env) (harness.Prepared, error) {
			f, err := fixtures.get(ctx, shape)
			if err != nil {
				return harness.Prepared{}, err
			}
			p := harness.Prepared{
				Notes: []string{f.note()},
				Candidates: []harness.Candidate{
					{Name: inflateName, Round: f.inflateRound},
					{Name: restoreName, Round: f.restoreRound(false)},
					{Name: fetchName, Round: f.restoreRound(true)},
					{Name: eagerName, Round: f.eagerRound(1)},
				},
			}
			if !env.Short && shape == typical {
				p.Candidates = append(p.Candidates, harness.Candidate{Name: eagerAllName, Round: f.eagerRound(runtime.GOMAXPROCS(0))})
			}
			return p, nil
		},
	}
}

// restoreClaims are the claims for 100,000 resources.
func restoreClaims(shape corpus.Shape) []harness.Claim {
	if shape.Total() < 100_000 {
		return nil
	}
	return []harness.Claim{
		{Candidate: restoreName, Metric: "time", To: eagerName, AtMost: 0.10},
		{Candidate: restoreName, Metric: "heap", To: eagerName, AtMost: 0.25},
		{Candidate: fetchName, Metric: "heap", To: eagerName, AtMost: 0.25},
	}
}

// stopwatch measures a restore until the cache serves.
type stopwatch struct {
	start     time.Time
	cpu       time.Duration // at the start
	took      time.Duration
	processor time.Duration
}

func startWatch() *stopwatch { return &stopwatch{start: time.Now(), cpu: harness.CPUTime()} }

func (s *stopwatch) stop() { s.took, s.processor = time.Since(s.start), harness.CPUTime()-s.cpu }

// report sets the columns of a restore and of its heap. The caller keeps the restored
// data alive.
func (f *fixture) report(r *harness.Round, s *stopwatch) {
	r.ReportTime("time", s.took)
	r.ReportTime("cpu", s.processor)
	r.Report("each", float64(s.took.Microseconds())/float64(f.total))
	heap := r.ReportHeap("heap")
	r.Report("heap÷wire", heap/float64(f.wire))
}

func (f *fixture) restoreRound(fetch bool) func(context.Context, *harness.Round) error {
	return func(ctx context.Context, r *harness.Round) (err error) {
		watch := startWatch()
		store, err := open(ctx, xdswal.Options{Dir: f.dir})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, store.Close(ctx)) }()
		watch.stop()
		if fetch {
			if err := f.fetch(ctx, r, store.cache, watch.start); err != nil {
				return err
			}
		}
		f.report(r, watch)
		return f.check(store)
	}
}

// fetch fetches every type of every node, and reports the time since start.
func (f *fixture) fetch(ctx context.Context, r *harness.Round, cache cachev3.SnapshotCache, start time.Time) error {
	n := 0
	for _, name := range f.nodes {
		for _, url := range corpus.Types {
			resp, err := cache.Fetch(ctx, &discoveryv3.DiscoveryRequest{Node: &corev3.Node{Id: name}, TypeUrl: url})
			var none *types.SkipFetchError
			if errors.As(err, &none) {
				continue // a small node does not have all types
			}
			if err != nil {
				return fmt.Errorf("fetch %s of %s: %w", url, name, err)
			}
			n += len(resp.GetReturnedResources())
		}
	}
	r.ReportTime("fetched", time.Since(start))
	if n != f.total {
		return fmt.Errorf("got %d fetched resources, want %d", n, f.total)
	}
	return nil
}

// check checks the restored state and that the cache serves it.
func (f *fixture) check(store *opened) error {
	if store.State().Digest() != f.digest {
		return errOtherState
	}
	n := 0
	for node := range store.cache.Nodes() {
		n += node.NumResources()
	}
	if n != f.total {
		return fmt.Errorf("got %d served resources, want %d", n, f.total)
	}
	return nil
}

// inflateRound reads and decompresses the snapshot as one stream. Its heap is the
// smallest that contains the resources.
func (f *fixture) inflateRound(_ context.Context, r *harness.Round) error {
	watch := startWatch()
	chunks, err := inflate(f.snapshot)
	if err != nil {
		return err
	}
	watch.stop()
	f.report(r, watch)
	size := int64(0)
	for _, c := range chunks {
		size += int64(len(c))
	}
	if size < f.wire {
		return fmt.Errorf("got %d bytes, want at least the %d of the resources", size, f.wire)
	}
	return nil
}

const chunkSize = 1 << 20

func inflate(path string) ([][]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	dec, err := zstd.NewReader(file)
	if err != nil {
		return nil, fmt.Errorf("create zstd decoder: %w", err)
	}
	defer dec.Close()
	var chunks [][]byte
	for {
		chunk := make([]byte, chunkSize)
		n, err := io.ReadFull(dec, chunk)
		chunks = append(chunks, chunk[:n])
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return chunks, nil
		case err != nil:
			return nil, fmt.Errorf("decompress %s: %w", path, err)
		}
	}
}

func (f *fixture) eagerRound(workers int) func(context.Context, *harness.Round) error {
	return func(ctx context.Context, r *harness.Round) error {
		cache := cachev3.NewSnapshotCache(true, cachev3.IDHash{}, nil)
		watch := startWatch()
		if err := eagerRestore(ctx, f.snapshot, cache, workers); err != nil {
			return err
		}
		watch.stop()
		if err := f.fetch(ctx, r, cache, watch.start); err != nil {
			return err
		}
		f.report(r, watch)
		if err := f.checkEager(ctx, cache, r.Number == 0); err != nil {
			return err
		}
		runtime.KeepAlive(cache)
		return nil
	}
}
