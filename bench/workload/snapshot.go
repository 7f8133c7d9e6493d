package workload

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/xdswal/xdswal/bench/corpus"
	"github.com/xdswal/xdswal/bench/harness"
	"github.com/xdswal/xdswal/internal/durable"
	"github.com/xdswal/xdswal/internal/format/snapshot"
	"github.com/xdswal/xdswal/internal/state"
)

const (
	deflateName = "zstd, one stream"
	encodeName  = "xdswal snapshot"
)

func snapshotWorkload(fixtures *fixtures, shape corpus.Shape) harness.Workload {
	return harness.Workload{
		Name: "snapshot/" + shape.String(),
		About: "Write a snapshot: encode, digest, compress, write the file, fsync. Floor: compress the same bytes as one stream at the same level, and discard the result. " +
			"xdswal compresses with half of the processors, and leaves the others to serve.",
		Metrics: []harness.Metric{
			metricTime, {Name: "raw", Unit: "MB/s"}, {Name: "compressed", Unit: "MB/s"}, {Name: "raw÷file"},
		},
		Comparisons: []harness.Comparison{{Metric: "time", To: deflateName}},
		Open: func(ctx context.Context, env harness.Env) (harness.Prepared, error) {
			f, err := fixtures.get(ctx, shape)
			if err != nil {
				return harness.Prepared{}, err
			}
			w, err := newSnapshotWriter(ctx, f, env.Dir)
			if err != nil {
				return harness.Prepared{}, err
			}
			return harness.Prepared{
				Notes: []string{f.note()},
				Candidates: []harness.Candidate{
					{Name: deflateName, Round: w.deflate},
					{Name: encodeName, Round: w.encode},
				},
			}, nil
		},
	}
}

type snapshotWriter struct {
	path   string
	state  *state.State
	digest [32]byte
	raw    [][]byte
	size   int64 // of raw
}

func newSnapshotWriter(ctx context.Context, f *fixture, dir string) (*snapshotWriter, error) {
	w := &snapshotWriter{path: filepath.Join(dir, "snapshot.zst"), digest: f.digest}
	st, err := decode(ctx, f.snapshot)
	if err != nil {
		return nil, err
	}
	w.state = st
	if w.raw, err = inflate(f.snapshot); err != nil {
		return nil, err
	}
	for _, b := range w.raw {
		w.size += int64(len(b))
	}
	return w, nil
}

func decode(ctx context.Context, path string) (*state.State, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	st, _, err := snapshot.Decode(ctx, file, nil)
	return st, err
}

func (w *snapshotWriter) report(r *harness.Round, d time.Duration, compressed int64) {
	r.ReportTime("time", d)
	r.Report("raw", float64(w.size)/1e6/d.Seconds())
	r.Report("compressed", float64(compressed)/1e6/d.Seconds())
	r.Report("raw÷file", float64(w.size)/float64(compressed))
}

func (w *snapshotWriter) encode(ctx context.Context, r *harness.Round) error {
	start := time.Now()
	var size int64
	err := durable.WriteFile(w.path, func(out io.Writer) error {
		var err error
		size, err = snapshot.Encode(ctx, out, w.state, snapshot.Header{
			Sequence: w.state.Sequence(), Time: w.state.Time(), Epoch: 1, Created: start, StoreID: "bench",
		})
		return err
	})
	if err != nil {
		return err
	}
	w.report(r, time.Since(start), size)
	back, err := decode(ctx, w.path)
	if err != nil {
		return err
	}
	if back.Digest() != w.digest {
		return errOtherState
	}
	return nil
}

func (w *snapshotWriter) deflate(_ context.Context, r *harness.Round) error {
	start := time.Now()
	var size counter
	enc, err := zstd.NewWriter(&size, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedDefault))
	if err != nil {
		return fmt.Errorf("create zstd encoder: %w", err)
	}
	for _, b := range w.raw {
		if _, err := enc.Write(b); err != nil {
			return fmt.Errorf("compress: %w", err)
		}
	}
	if err := enc.Close(); err != nil {
		return fmt.Errorf("compress: %w", err)
	}
	w.report(r, time.Since(start), int64(size))
	return nil
}

// counter counts the bytes written to it.
type counter int64

// Write counts p.
func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}
