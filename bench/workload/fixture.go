package workload

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"

	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"golang.org/x/sync/errgroup"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/bench/corpus"
	"github.com/xdswal/xdswal/internal/wal"
	"github.com/xdswal/xdswal/journal"
	"github.com/xdswal/xdswal/xdscache"
)

// fixture is the data directory of a store that was closed: a snapshot, and a journal
// whose active segment is half full, as it is on average, of events that the snapshot
// covers.
type fixture struct {
	dir      string
	snapshot string // path of the newest one
	digest   [32]byte
	nodes    []string
	total    int
	wire     int64 // sum of the resources' wire sizes
}

func (f *fixture) note() string {
	return fmt.Sprintf("%d resources on %d nodes, on average %d bytes on the wire.", f.total, len(f.nodes), f.wire/int64(f.total))
}

// fixtures creates each fixture once. It is not safe for concurrent use.
type fixtures struct {
	dir  string
	made map[corpus.Shape]*fixture
}

func newFixtures(dir string) *fixtures {
	return &fixtures{dir: dir, made: map[corpus.Shape]*fixture{}}
}

func (fs *fixtures) get(ctx context.Context, shape corpus.Shape) (*fixture, error) {
	if f, ok := fs.made[shape]; ok {
		return f, nil
	}
	f := &fixture{dir: filepath.Join(fs.dir, shape.String())}
	if err := f.make(ctx, shape); err != nil {
		return nil, fmt.Errorf("create fixture %s: %w", shape, err)
	}
	fs.made[shape] = f
	return f, nil
}

func (f *fixture) make(ctx context.Context, shape corpus.Shape) error {
	loaded, err := load(ctx, f.dir+"-loading", shape)
	if err != nil {
		return err
	}
	// Omit the journal of that store, whose segments would long be dropped.
	if err := withoutJournal(f.dir, f.dir+"-loading", loaded); err != nil {
		return err
	}
	if err := os.RemoveAll(f.dir + "-loading"); err != nil {
		return err
	}
	store, err := openToPrepare(ctx, f.dir)
	if err != nil {
		return err
	}
	if err := halfFill(ctx, store.cache, shape); err != nil {
		return err
	}
	st := store.State()
	f.digest, f.total, f.wire = st.Digest(), st.NumResources(), st.Bytes()
	for n := range st.Nodes() {
		f.nodes = append(f.nodes, n.Name())
	}
	if err := store.Close(ctx); err != nil {
		return err
	}
	f.snapshot, err = newest(filepath.Join(f.dir, "snapshots"))
	return err
}

// load sets the snapshot of every node, and returns the path of the store's snapshot.
func load(ctx context.Context, dir string, shape corpus.Shape) (string, error) {
	store, err := openToPrepare(ctx, dir)
	if err != nil {
		return "", err
	}
	err = parallel(ctx, shape.Nodes, func(i int) error {
		snapshot, err := shape.Snapshot(i, "1")
		if err != nil {
			return err
		}
		return store.cache.SetSnapshot(ctx, shape.Node(i), snapshot)
	})
	if err := errors.Join(err, store.Close(ctx)); err != nil {
		return "", err
	}
	return newest(filepath.Join(dir, "snapshots"))
}

// openToPrepare opens a store that loads fast.
func openToPrepare(ctx context.Context, dir string) (*opened, error) {
	return open(ctx, xdswal.Options{Dir: dir, Sync: journal.SyncNever})
}

// halfFill appends small events until the active segment is about half full.
func halfFill(ctx context.Context, cache *xdscache.SnapshotCache, shape corpus.Shape) error {
	events := int(wal.DefaultSegmentBytes / 2 / 600)
	return parallel(ctx, events, func(i int) error {
		node := i % shape.Nodes
		number := endpointNumber(i / shape.Nodes % max(1, shape.PerNode/20))
		return setOne(ctx, cache, shape.Node(node), corpus.Endpoints(number, i), "2."+strconv.Itoa(i))
	})
}

// endpointNumber returns the number of the i-th resource that is an assignment
// of endpoints: the corpus has one at 1 in every 20.
func endpointNumber(i int) int { return 20*i + 1 }

// setOne changes one resource of a node.
func setOne(ctx context.Context, cache *xdscache.SnapshotCache, node string, m types.Resource, version string) error {
	_, err := cache.UpdateResources(ctx, node, map[string][]types.ResourceWithTTL{
		resourcev3.EndpointType: {{Resource: m}},
	}, nil, version)
	return err
}

// parallel calls do for 0 to n-1.
func parallel(ctx context.Context, n int, do func(i int) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(4 * runtime.GOMAXPROCS(0))
	for i := range n {
		if ctx.Err() != nil {
			break
		}
		g.Go(func() error { return do(i) })
	}
	return g.Wait()
}

func newest(snapshots string) (string, error) {
	files, err := filepath.Glob(filepath.Join(snapshots, "snapshot-*.zst"))
	if err != nil {
		return "", err
	}
	if len(files) == 0 {
		return "", fmt.Errorf("no snapshot in %s", snapshots)
	}
	return slices.Max(files), nil
}
