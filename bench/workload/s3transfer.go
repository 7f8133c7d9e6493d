package workload

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/aws/aws-sdk-go-v2/feature/s3/manager"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	cachetypes "github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/backends/s3"
	"github.com/xdswal/xdswal/bench/corpus"
	"github.com/xdswal/xdswal/bench/gateway"
	"github.com/xdswal/xdswal/bench/harness"
	"github.com/xdswal/xdswal/journal"
)

const (
	uploadName   = "bare upload"
	shipName     = "xdswal ships"
	downloadName = "bare download"
	bareName     = "xdswal restores"
)

// The defaults of s3.Config, for the bare transfers.
const (
	driverPartSize    = 8 << 20
	driverConcurrency = 4
)

// transferWorkload moves the snapshot of a payload to S3 and back.
func transferWorkload(name string, payload func(context.Context, harness.Env) (*fixture, error), claims []harness.Claim) harness.Workload {
	return harness.Workload{
		Name: "s3-transfer/" + name,
		About: "A snapshot to S3 and back, between this process and a versitygw on the same machine, which shares its processors and its disk. " +
			"Bare upload: the SDK's manager.Uploader sends the same file, while a store is open. Ships: a store that is opened on the file ships it; the time is that between its hooks, and includes the check for a newer writer. " +
			"Bare download: manager.Downloader writes the object to a file. " +
			"Restores: Open on an empty directory, from the bucket alone, until the cache serves: list, download, check and decode, take over as the writer. " +
			"All have the same part size and concurrency, and CRC32C on every upload. Sent and received count the bytes of the object; peak is the peak growth of the process's memory, for a restore with the restored state.",
		Metrics: []harness.Metric{
			metricTime,
			{Name: "sent", Unit: "MB/s"},
			{Name: "received", Unit: "MB/s"},
			{Name: "cpu", Unit: "ms"},
			metricServer,
			{Name: "peak", Unit: "MiB"},
		},
		Comparisons: []harness.Comparison{{Metric: "sent", To: uploadName}, {Metric: "received", To: downloadName}},
		Claims:      claims,
		Open: withGateway(func(ctx context.Context, env harness.Env, g *gateway.Gateway) (harness.Prepared, error) {
			f, err := payload(ctx, env)
			if err != nil {
				return harness.Prepared{}, err
			}
			t := &transfer{fixture: f, gateway: g, client: g.Client(), work: env.Dir}
			if err := t.prepare(ctx); err != nil {
				return harness.Prepared{}, err
			}
			return harness.Prepared{
				Notes: []string{fmt.Sprintf("%d resources of %d bytes on the wire in an object of %d.", t.total, t.wire/int64(t.total), t.size)},
				Candidates: []harness.Candidate{
					{Name: uploadName, Round: t.upload},
					{Name: shipName, Round: t.ship},
					{Name: downloadName, Round: t.download},
					{Name: bareName, Round: t.restore},
				},
			}, nil
		}),
	}
}

// transferClaims are the claims for a state of 1 GiB that does not compress, so that the
// transfer of the bytes dominates.
func transferClaims() []harness.Claim {
	return []harness.Claim{
		{Candidate: shipName, Metric: "sent", To: uploadName, AtLeast: 0.7},
		{Candidate: bareName, Metric: "received", To: downloadName, AtLeast: 0.7},
	}
}

// The size and number of the resources of an opaque payload.
const (
	opaqueSize    = 16 << 10
	opaquePerNode = 256
)

// opaquePayload creates a snapshot of about size bytes that do not compress.
func opaquePayload(size int) func(context.Context, harness.Env) (*fixture, error) {
	return func(ctx context.Context, env harness.Env) (*fixture, error) {
		dir := filepath.Join(env.Dir, "loading")
		// The only snapshot is written when the store is closed.
		store, err := open(ctx, xdswal.Options{
			Dir: dir, Sync: journal.SyncNever, CompactTailBytes: 2 * int64(size), MaxJournalBytes: 16 * int64(size),
		})
		if err != nil {
			return nil, err
		}
		shape := corpus.Shape{Nodes: size / opaqueSize / opaquePerNode, PerNode: opaquePerNode}
		err = parallel(ctx, shape.Nodes, func(node int) error {
			var secrets []cachetypes.Resource
			for i := range shape.PerNode {
				_, r := corpus.Opaque(node, i, opaqueSize)
				secrets = append(secrets, r)
			}
			s, err := cachev3.NewSnapshot("1", map[resourcev3.Type][]cachetypes.Resource{resourcev3.SecretType: secrets})
			if err != nil {
				return err
			}
			return store.cache.SetSnapshot(ctx, shape.Node(node), s)
		})
		st := store.State()
		out := &fixture{dir: dir, digest: st.Digest(), total: st.NumResources(), wire: st.Bytes()}
		if err := errors.Join(err, store.Close(ctx)); err != nil {
			return nil, err
		}
		out.snapshot, err = newest(filepath.Join(dir, "snapshots"))
		return out, errors.Join(err, os.RemoveAll(filepath.Join(dir, "journal")))
	}
}

// fixturePayload returns a fixture.
func fixturePayload(fixtures *fixtures, shape corpus.Shape) func(context.Context, harness.Env) (*fixture, error) {
	return func(ctx context.Context, _ harness.Env) (*fixture, error) { return fixtures.get(ctx, shape) }
}

// transfer moves the snapshot of a fixture.
type transfer struct {
	*fixture
	gateway *gateway.Gateway
	client  *awss3.Client
	work    string // directory for the rounds
	size    int64  // of the snapshot
	crc     uint32 // CRC32C of the snapshot
	key     string // of the downloaded object in the bucket
}

// restored is the prefix of the object that is downloaded and restored.
const restored = "restored"

// prepare ships the object that is downloaded later.
func (t *transfer) prepare(ctx context.Context) error {
	var err error
	if t.crc, t.size, err = sumFile(t.snapshot); err != nil {
		return err
	}
	b, _, err := t.shipOnce(ctx, restored)
	if err != nil {
		return err
	}
	key, size, err := objectOf(ctx, b)
	if err != nil {
		return err
	}
	if size != t.size {
		return fmt.Errorf("shipped object: got %d bytes, want %d", size, t.size)
	}
	t.key = restored + "/" + key
	return nil
}

// usage is the time and the resources of a transfer.
type usage struct {
	start  time.Time
	cpu    time.Duration
	server time.Duration
	memory harness.Memory
	took   time.Duration
	peak   float64
	peakIs bool
}

func (t *transfer) begin() *usage {
	u := &usage{memory: harness.StartMemory(), cpu: harness.CPUTime(), server: t.gateway.CPUTime()}
	u.start = time.Now()
	return u
}

func (t *transfer) end(u *usage) {
	u.took = time.Since(u.start)
	u.cpu, u.server = harness.CPUTime()-u.cpu, t.gateway.CPUTime()-u.server
	u.peak, u.peakIs = u.memory.Growth()
}

func (t *transfer) report(r *harness.Round, rate string, u *usage) {
	r.ReportTime("time", u.took)
	r.Report(rate, float64(t.size)/1e6/u.took.Seconds())
	r.ReportTime("cpu", u.cpu)
	r.ReportTime("server cpu", u.server)
	if u.peakIs {
		r.Report("peak", u.peak)
	}
}

// upload sends the file while a store with the same state is open, as in ship: the speed
// of allocations depends on the free memory of the system.
func (t *transfer) upload(ctx context.Context, r *harness.Round) (err error) {
	dir, key := filepath.Join(t.work, "upload"), fmt.Sprintf("upload-%d/object", r.Number)
	if err := withoutJournal(dir, t.dir, t.snapshot); err != nil {
		return err
	}
	store, err := open(ctx, xdswal.Options{Dir: dir})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close(ctx), os.RemoveAll(dir)) }()
	harness.Settle()
	u := t.begin()
	if err := t.uploadFile(ctx, key); err != nil {
		return err
	}
	t.end(u)
	t.report(r, "sent", u)
	return t.checkUploaded(key)
}

func (t *transfer) uploadFile(ctx context.Context, key string) error {
	f, err := os.Open(t.snapshot)
	if err != nil {
		return err
	}
	defer f.Close()
	uploader := manager.NewUploader(t.client, func(u *manager.Uploader) { //nolint:staticcheck // As the driver does.
		u.PartSize, u.Concurrency = driverPartSize, driverConcurrency
	})
	_, err = uploader.Upload(ctx, &awss3.PutObjectInput{ //nolint:staticcheck // As the driver does.
		Bucket: &t.gateway.Bucket, Key: &key, Body: f, ChecksumAlgorithm: types.ChecksumAlgorithmCrc32c,
	})
	return err
}

// checkUploaded checks the bytes of an object on the server, and removes the object.
func (t *transfer) checkUploaded(key string) error {
	sum, size, err := sumFile(t.gateway.Path(key))
	if err != nil {
		return err
	}
	if sum != t.crc || size != t.size {
		return fmt.Errorf("object %s: got %d bytes with checksum %x, want %d and %x", key, size, sum, t.size, t.crc)
	}
	return os.RemoveAll(t.gateway.Path(filepath.Dir(key)))
}

func (t *transfer) ship(ctx context.Context, r *harness.Round) error {
	harness.Settle()
	prefix := fmt.Sprintf("ship-%d", r.Number)
	b, u, err := t.shipOnce(ctx, prefix)
	if err != nil {
		return err
	}
	t.report(r, "sent", u)
	key, _, err := objectOf(ctx, b)
	if err != nil {
		return err
	}
	if err := t.checkUploaded(prefix + "/" + key); err != nil {
		return err
	}
	return os.RemoveAll(t.gateway.Path(prefix))
}

// shipOnce opens a store on the snapshot and waits until it has shipped it.
func (t *transfer) shipOnce(ctx context.Context, prefix string) (*s3.Backend, *usage, error) {
	b, err := s3.New(ctx, t.gateway.Config(prefix))
	if err != nil {
		return nil, nil, err
	}
	dir := filepath.Join(t.work, prefix)
	if err := withoutJournal(dir, t.dir, t.snapshot); err != nil {
		return nil, nil, err
	}
	var u *usage
	err = shipFrom(ctx, dir, b, func() { u = t.begin() }, func() { t.end(u) })
	if err != nil {
		return nil, nil, err
	}
	return b, u, os.RemoveAll(dir)
}

func (t *transfer) download(ctx context.Context, r *harness.Round) error {
	harness.Settle()
	path := filepath.Join(t.work, "downloaded")
	u := t.begin()
	if err := t.downloadTo(ctx, path); err != nil {
		return err
	}
	t.end(u)
	t.report(r, "received", u)
	sum, size, err := sumFile(path)
	if err != nil {
		return err
	}
	if sum != t.crc || size != t.size {
		return fmt.Errorf("downloaded object: got %d bytes with checksum %x, want %d and %x", size, sum, t.size, t.crc)
	}
	return os.Remove(path)
}

func (t *transfer) downloadTo(ctx context.Context, path string) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	downloader := manager.NewDownloader(t.client, func(d *manager.Downloader) { //nolint:staticcheck // As the uploader.
		d.PartSize, d.Concurrency = driverPartSize, driverConcurrency
	})
	_, err = downloader.Download(ctx, f, &awss3.GetObjectInput{Bucket: &t.gateway.Bucket, Key: &t.key}) //nolint:staticcheck // As above.
	return err
}

func (t *transfer) restore(ctx context.Context, r *harness.Round) (err error) {
	b, err := s3.New(ctx, t.gateway.Config(restored))
	if err != nil {
		return err
	}
	harness.Settle()
	dir := filepath.Join(t.work, "machine")
	u := t.begin()
	store, err := open(ctx, xdswal.Options{Dir: dir, Backend: b})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close(ctx), os.RemoveAll(dir)) }()
	t.end(u)
	t.report(r, "received", u)
	return t.check(store)
}

// sumFile returns the CRC32C and the size of a file.
func sumFile(path string) (uint32, int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	sum := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	n, err := io.Copy(sum, f)
	return sum.Sum32(), n, err
}
