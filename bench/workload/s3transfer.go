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

// transferWorkload moves a snapshot to S3 and back. The payload is made when
// the workload is prepared.
func transferWorkload(name string, payload func(context.Context, harness.Env) (*transferred, error), claims []harness.Claim) harness.Workload {
	return harness.Workload{
		Name: "s3-transfer/" + name,
		About: "A snapshot to S3 and back, between this process and a versitygw on the same machine, which shares its processors and its disk. " +
			"Bare upload: the SDK's manager.Uploader sends the very file, beside an open store. Ships: a store that was opened on it ships it; the time is that of its hooks, with the look for a newer writer. " +
			"Bare download: manager.Downloader writes the object to a file. " +
			"Restores: Open on an empty directory, from the bucket alone, until the cache serves: list, download, check and decode, take over as the writer. " +
			"All have the same part size and concurrency, and CRC32C on every upload. Sent and received count the bytes of the object; peak is by how much more memory the process had in use, for a restore with the state that it keeps.",
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
			what, err := payload(ctx, env)
			if err != nil {
				return harness.Prepared{}, err
			}
			t := &transfer{transferred: *what, gateway: g, client: g.Client(), work: env.Dir}
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

// transferClaims are what is promised of a state of 1 GiB that does not
// compress: what is measured then is how bytes are moved.
func transferClaims() []harness.Claim {
	return []harness.Claim{
		{Candidate: shipName, Metric: "sent", To: uploadName, AtLeast: 0.7},
		{Candidate: bareName, Metric: "received", To: downloadName, AtLeast: 0.7},
	}
}

// transferred is a snapshot, and what it holds.
type transferred struct {
	dir      string // of the store whose it is
	snapshot string // path
	digest   [32]byte
	total    int
	wire     int64
}

// The resources of an opaque payload, large as those of large clusters are.
const (
	opaqueSize    = 16 << 10
	opaquePerNode = 256
)

// opaquePayload makes a snapshot of about size bytes that do not compress.
func opaquePayload(size int) func(context.Context, harness.Env) (*transferred, error) {
	return func(ctx context.Context, env harness.Env) (*transferred, error) {
		dir := filepath.Join(env.Dir, "loading")
		// One snapshot, written when the store is closed.
		store, err := xdswal.Open(ctx, xdswal.Options{
			Dir: dir, Sync: journal.SyncNever, KeepFor: -1, CompactTailBytes: 2 * int64(size), MaxJournalBytes: 16 * int64(size),
		})
		if err != nil {
			return nil, err
		}
		cache := store.SnapshotCache(true, cachev3.IDHash{}, nil) //nolint:contextcheck // It takes none.
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
			return cache.SetSnapshot(ctx, shape.Node(node), s)
		})
		st := store.State()
		out := &transferred{dir: dir, digest: st.Digest(), total: st.NumResources(), wire: st.Bytes()}
		if err := errors.Join(err, store.Close(ctx)); err != nil {
			return nil, err
		}
		out.snapshot, err = newest(filepath.Join(dir, "snapshots"))
		return out, errors.Join(err, os.RemoveAll(filepath.Join(dir, "journal")))
	}
}

// fixturePayload returns the snapshot of a fixture.
func fixturePayload(fixtures *fixtures, shape corpus.Shape) func(context.Context, harness.Env) (*transferred, error) {
	return func(ctx context.Context, _ harness.Env) (*transferred, error) {
		f, err := fixtures.get(ctx, shape)
		if err != nil {
			return nil, err
		}
		return &transferred{dir: f.dir, snapshot: f.snapshot, digest: f.digest, total: f.total, wire: f.wire}, nil
	}
}

// transfer moves a snapshot.
type transfer struct {
	transferred
	gateway *gateway.Gateway
	client  *awss3.Client
	work    string // directory for the rounds
	size    int64  // of the snapshot
	crc     uint32 // CRC32C of it
	key     string // in the bucket, of the object that is downloaded
}

// restored is the prefix of what is downloaded and restored.
const restored = "restored"

// prepare ships what is downloaded later.
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
		return fmt.Errorf("the object has %d bytes, the file %d", size, t.size)
	}
	t.key = restored + "/" + key
	return nil
}

// usage is what a transfer took.
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

// upload sends the file from a process that holds what is in it, as the one that
// ships does: how fast the system hands out memory depends on what it has left.
func (t *transfer) upload(ctx context.Context, r *harness.Round) (err error) {
	dir, key := filepath.Join(t.work, "upload"), fmt.Sprintf("upload-%d/object", r.Number)
	if err := withoutJournal(dir, t.dir, t.snapshot); err != nil {
		return err
	}
	store, err := xdswal.Open(ctx, xdswal.Options{Dir: dir, KeepFor: -1})
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

// checkUploaded checks the bytes that the server has of an object, and removes
// the object.
func (t *transfer) checkUploaded(key string) error {
	sum, size, err := sumFile(t.gateway.Path(key))
	if err != nil {
		return err
	}
	if sum != t.crc || size != t.size {
		return fmt.Errorf("the object %s has %d bytes with the checksum %x, want %d and %x", key, size, sum, t.size, t.crc)
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

// shipOnce has a store that is opened on the snapshot ship it.
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
		return fmt.Errorf("%d bytes were downloaded, with the checksum %x, want %d and %x", size, sum, t.size, t.crc)
	}
	return os.Remove(path)
}

func (t *transfer) downloadTo(ctx context.Context, path string) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	downloader := manager.NewDownloader(t.client, func(d *manager.Downloader) { //nolint:staticcheck // The twin of the uploader.
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
	store, err := xdswal.Open(ctx, xdswal.Options{Dir: dir, KeepFor: -1, Backend: b})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close(ctx), os.RemoveAll(dir)) }()
	cache := store.SnapshotCache(true, cachev3.IDHash{}, nil) //nolint:contextcheck // It takes none.
	t.end(u)
	t.report(r, "received", u)
	if digest := store.State().Digest(); digest != t.digest {
		return fmt.Errorf("the restored state has digest %x, want %x", digest, t.digest)
	}
	return checkServed(cache, t.total)
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
