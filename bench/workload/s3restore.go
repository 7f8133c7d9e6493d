package workload

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/backends/s3"
	"github.com/xdswal/xdswal/bench/corpus"
	"github.com/xdswal/xdswal/bench/gateway"
	"github.com/xdswal/xdswal/bench/harness"
)

const (
	localName   = "local, no backend"
	restartName = "local, with its bucket"
	machineName = "bare machine"
)

func s3RestoreWorkload(fixtures *fixtures, shape corpus.Shape, claims []harness.Claim) harness.Workload {
	return harness.Workload{
		Name: "s3-restore/" + shape.String(),
		About: "To a cache that serves: Open and SnapshotCache. Local, no backend: from the data directory, as in restore/" + shape.String() + ". " +
			"With its bucket: the same directory in a store that ships to a versitygw on the same machine; it looks up the last writer there, and claims the next epoch. " +
			"Bare machine: an empty directory, from the bucket alone; it takes over as the writer, and writes its local snapshot while it serves.",
		Metrics: []harness.Metric{
			metricTime, {Name: "cpu", Unit: "ms"}, {Name: "each", Unit: "µs"}, metricHeap, {Name: "heap÷wire"},
		},
		Comparisons: []harness.Comparison{{Metric: "time", To: localName}, {Metric: "cpu", To: localName}},
		Claims:      claims,
		Open: withGateway(func(ctx context.Context, env harness.Env, g *gateway.Gateway) (harness.Prepared, error) {
			f, err := fixtures.get(ctx, shape)
			if err != nil {
				return harness.Prepared{}, err
			}
			s := &s3Restore{fixture: f, gateway: g, work: env.Dir}
			// A store that takes over a prefix fences the other, so each has its own.
			for _, prefix := range []string{restartPrefix, machinePrefix} {
				if err := s.ship(ctx, prefix); err != nil {
					return harness.Prepared{}, err
				}
			}
			return harness.Prepared{
				Notes: []string{f.note()},
				Candidates: []harness.Candidate{
					{Name: localName, Round: s.local},
					{Name: restartName, Round: s.restart},
					{Name: machineName, Round: s.machine},
				},
			}, nil
		}),
	}
}

// s3RestoreClaims are the claims for a machine that has lost its disk.
func s3RestoreClaims() []harness.Claim {
	return []harness.Claim{{Candidate: machineName, Metric: "time", To: localName, AtMost: 1.5}}
}

// Prefixes in the bucket.
const (
	restartPrefix = "restart"
	machinePrefix = "machine"
)

type s3Restore struct {
	*fixture
	gateway *gateway.Gateway
	work    string
}

func (s *s3Restore) dir(prefix string) string { return filepath.Join(s.work, prefix) }

// ship copies the fixture and ships the copy to a prefix.
func (s *s3Restore) ship(ctx context.Context, prefix string) error {
	dir := s.dir(prefix)
	if err := os.CopyFS(dir, os.DirFS(s.fixture.dir)); err != nil {
		return fmt.Errorf("copy fixture: %w", err)
	}
	b, err := s3.New(ctx, s.gateway.Config(prefix))
	if err != nil {
		return err
	}
	if err := shipFrom(ctx, dir, b, func() {}, func() {}); err != nil {
		return err
	}
	_, _, err = objectOf(ctx, b)
	return err
}

func (s *s3Restore) local(ctx context.Context, r *harness.Round) error {
	return s.restoreFrom(ctx, r, s.fixture.dir, nil)
}

func (s *s3Restore) restart(ctx context.Context, r *harness.Round) error {
	return s.open(ctx, r, restartPrefix)
}

func (s *s3Restore) machine(ctx context.Context, r *harness.Round) error {
	if err := os.RemoveAll(s.dir(machinePrefix)); err != nil {
		return err
	}
	return s.open(ctx, r, machinePrefix)
}

func (s *s3Restore) open(ctx context.Context, r *harness.Round, prefix string) (err error) {
	b, err := s3.New(ctx, s.gateway.Config(prefix))
	if err != nil {
		return err
	}
	return s.restoreFrom(ctx, r, s.dir(prefix), b)
}

func (f *fixture) restoreFrom(ctx context.Context, r *harness.Round, dir string, b backends.Backend) (err error) {
	harness.Settle()
	watch := startWatch()
	store, err := open(ctx, xdswal.Options{Dir: dir, Backend: b})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close(ctx)) }()
	watch.stop()
	f.report(r, watch)
	return f.check(store)
}
