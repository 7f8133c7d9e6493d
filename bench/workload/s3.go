package workload

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/backends/s3"
	"github.com/xdswal/xdswal/bench/gateway"
	"github.com/xdswal/xdswal/bench/harness"
	"github.com/xdswal/xdswal/compactor"
)

// withGateway returns an Open that runs a server during the workload, and skips the
// workload if the server is not installed.
func withGateway(prepare func(context.Context, harness.Env, *gateway.Gateway) (harness.Prepared, error)) func(context.Context, harness.Env) (harness.Prepared, error) {
	return func(ctx context.Context, env harness.Env) (harness.Prepared, error) {
		g, err := gateway.Start(ctx, filepath.Join(env.Dir, "gateway"))
		if errors.Is(err, gateway.ErrMissing) {
			return harness.Prepared{Skip: err.Error()}, nil
		}
		if err != nil {
			return harness.Prepared{}, err
		}
		p, err := prepare(ctx, env, g)
		if err != nil {
			g.Stop()
			return harness.Prepared{}, err
		}
		p.Close = func(context.Context) error {
			g.Stop()
			return nil
		}
		return p, nil
	}
}

// metricServer is the processor time of the server, which shares the machine with the
// candidates.
var metricServer = harness.Metric{Name: "server cpu", Unit: "ms"}

// withoutJournal creates a copy of a data directory without its journal: it contains one
// snapshot, and the identity of the store.
func withoutJournal(dir, like, snapshot string) error {
	path := filepath.Join(dir, "snapshots", filepath.Base(snapshot))
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if err := os.Link(snapshot, path); err != nil {
		return err
	}
	return copyFile(filepath.Join(dir, identity), filepath.Join(like, identity))
}

// identity is the file with the identity of the store of a data directory.
const identity = "xdswal.json"

func copyFile(to, from string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o600)
}

// shipFrom opens a store in a directory and waits until it has shipped its snapshot. It
// calls start and stop when the shipping starts and stops.
func shipFrom(ctx context.Context, dir string, b *s3.Backend, start, stop func()) error {
	shipped := make(chan error, 1)
	store, err := open(ctx, xdswal.Options{Dir: dir, Backend: b, Hooks: xdswal.Hooks{Compactor: compactor.Hooks{
		SnapshotWriteBegin: func(s compactor.Snapshot) {
			if s.Backend {
				start()
			}
		},
		SnapshotWriteEnd: func(s compactor.Snapshot) {
			if !s.Backend {
				return
			}
			if s.Err == nil {
				stop()
			}
			shipped <- s.Err
		},
	}}})
	if err != nil {
		return err
	}
	select {
	case err = <-shipped:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	return errors.Join(err, store.Close(ctx))
}

// objectOf returns the key and the size of the only snapshot in a backend.
func objectOf(ctx context.Context, b *s3.Backend) (key string, size int64, err error) {
	objects, err := b.List(ctx, "snapshots/")
	if err != nil {
		return "", 0, err
	}
	if len(objects) != 1 {
		return "", 0, fmt.Errorf("%s: got %d snapshots, want 1", b, len(objects))
	}
	return objects[0].Key, objects[0].Size, nil
}
