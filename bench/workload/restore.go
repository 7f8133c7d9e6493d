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
	"github.com/xdswal/xdswal/xdscache"
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
		About: "From a data directory to a cache that serves. xdswal: Open and SnapshotCache. Eager: read the same snapshot file, decode each resource into its message, and set go-control-plane's own cache. " +
			"Fetched: the same and one Fetch of every type of every node, after which xdswal has nothing left to do lazily. " +
			"Floor: read the file and decompress it, and keep the bytes. Each: time by resource. The heap is what is retained after two collections.",
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

// restoreClaims are what xdswal promises for 100,000 resources.
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

// stopwatch measures a restore, until the cache serves.
type stopwatch struct {
	start     time.Time
	cpu       time.Duration // used before
	took      time.Duration
	processor time.Duration
}

func startWatch() *stopwatch { return &stopwatch{start: time.Now(), cpu: harness.CPUTime()} }

func (s *stopwatch) stop() { s.took, s.processor = time.Since(s.start), harness.CPUTime()-s.cpu }

// report sets the columns of a restore and of what it retains, which the caller
// keeps alive.
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
		store, err := xdswal.Open(ctx, xdswal.Options{Dir: f.dir, KeepFor: -1})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, store.Close(ctx)) }()
		cache := store.SnapshotCache(true, cachev3.IDHash{}, nil) //nolint:contextcheck // It takes none.
		watch.stop()
		if fetch {
			if err := f.fetch(ctx, r, cache, watch.start); err != nil {
				return err
			}
		}
		f.report(r, watch)
		if digest := store.State().Digest(); digest != f.digest {
			return fmt.Errorf("the restored state has digest %x, want %x", digest, f.digest)
		}
		return checkServed(cache, f.total)
	}
}

// fetch asks for every type of every node, and reports the time since start.
func (f *fixture) fetch(ctx context.Context, r *harness.Round, cache cachev3.SnapshotCache, start time.Time) error {
	n := 0
	for _, name := range f.nodes {
		for _, url := range corpus.Types {
			resp, err := cache.Fetch(ctx, &discoveryv3.DiscoveryRequest{Node: &corev3.Node{Id: name}, TypeUrl: url})
			var none *types.SkipFetchError
			if errors.As(err, &none) {
				continue // a small node has not all types
			}
			if err != nil {
				return fmt.Errorf("fetch %s of %s: %w", url, name, err)
			}
			n += len(resp.GetReturnedResources())
		}
	}
	r.ReportTime("fetched", time.Since(start))
	if n != f.total {
		return fmt.Errorf("%d of %d resources were fetched", n, f.total)
	}
	return nil
}

func checkServed(cache *xdscache.SnapshotCache, total int) error {
	n := 0
	for node := range cache.Nodes() {
		n += node.NumResources()
	}
	if n != total {
		return fmt.Errorf("%d of %d resources are served", n, total)
	}
	return nil
}

// inflateRound reads and decompresses the snapshot as one stream. Its heap is
// the least that holds the resources at all.
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
		return fmt.Errorf("%d bytes cannot hold resources of %d", size, f.wire)
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
		return nil, fmt.Errorf("make zstd decoder: %w", err)
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
