package cloudurl_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/backends/backendurl"
	_ "github.com/xdswal/xdswal/backends/cloud/cloudurl"
	"github.com/xdswal/xdswal/backends/cloud/internal/cloudtest"
	"github.com/xdswal/xdswal/xdscache"
)

// timeout bounds waits that are short unless the test fails.
const timeout = time.Minute

func TestOpen(t *testing.T) {
	t.Setenv("AZURE_STORAGE_KEY", cloudtest.AzureKey)
	dir := t.TempDir()
	for raw, want := range map[string]string{
		"file://" + dir: "file://" + dir,
		"s3://bucket/p?endpoint=http://127.0.0.1:1&region=r": "s3://bucket/p?endpoint=http://127.0.0.1:1",
		"gs://bucket/p?endpoint=http://127.0.0.1:1":          "gs://bucket/p?endpoint=http://127.0.0.1:1",
		"azblob://container/p?account=acc":                   "azblob://container/p?account=acc",
	} {
		for _, open := range []func(context.Context, string) (backends.Backend, error){backendurl.Open, backendurl.OpenReadOnly} {
			b, err := open(t.Context(), raw)
			require.NoError(t, err)
			require.Equal(t, want, b.String())
		}
		b, err := backendurl.OpenReadOnly(t.Context(), raw)
		require.NoError(t, err)
		require.ErrorIs(t, b.Put(t.Context(), "k", strings.NewReader("x")), backends.ErrPermission)
	}
	const known = "; write azblob://... or file://... or gs://... or s3://..."
	for raw, want := range map[string]string{
		"ftp://hidden":           `open backend: unknown scheme "ftp"` + known,
		"gs://u:hidden%zz@b":     "it may contain credentials)" + known,
		"hidden":                 "it has no scheme" + known,
		"gs://u:hidden@bucket":   "open backend: parse gs URL",
		"azblob://c?sig=hidden":  "open backend: parse azblob URL",
		"s3://u:hidden@bucket/p": "open backend: parse S3 URL",
	} {
		b, err := backendurl.Open(t.Context(), raw)
		require.Nil(t, b)
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "hidden")
	}
}

// A store ships to a bucket; another one takes it over and fences the first; and a third
// one restores the bucket after both directories are gone.
func TestStore(t *testing.T) {
	for name, location := range map[string]func(*testing.T) string{
		"gs": func(t *testing.T) string {
			endpoint := cloudtest.GCS(t)
			return "gs://" + cloudtest.Bucket + "/" + cloudtest.Prefix(t) + "?endpoint=" + endpoint
		},
		"azblob": func(t *testing.T) string {
			t.Setenv("AZURE_STORAGE_KEY", cloudtest.AzureKey)
			endpoint := cloudtest.Azure(t)
			return "azblob://" + cloudtest.Bucket + "/" + cloudtest.Prefix(t) + "?account=" + cloudtest.AzureAccount + "&endpoint=" + endpoint
		},
	} {
		t.Run(name, func(t *testing.T) {
			raw := location(t)
			lost := openStore(t, raw)
			require.False(t, lost.Status().Shipper.Weak)
			for i := range 10 {
				write(t, lost, i)
				if i == 5 {
					_, err := lost.Compact(t.Context())
					require.NoError(t, err)
				}
			}
			requireShipped(t, lost)

			next := openStore(t, raw) // with a directory of its own
			require.Equal(t, lost.State().Digest(), next.State().Digest())
			write(t, next, 10)
			requireShipped(t, next)
			_ = lost.cache.SetSnapshot(t.Context(), "late", clusters(t, 11))
			require.Eventually(t, func() bool { return lost.Status().Shipper.Fenced != nil }, timeout, time.Millisecond)

			digest := next.State().Digest()
			require.NoError(t, next.Close(context.Background()))
			restored := openStore(t, raw)
			require.Equal(t, digest, restored.State().Digest())
		})
	}
}

// store is a store with its cache.
type store struct {
	*xdswal.Store
	cache *xdscache.SnapshotCache
}

// openStore opens a store in a new directory.
func openStore(t *testing.T, raw string) store {
	t.Helper()
	b, err := backendurl.Open(t.Context(), raw)
	require.NoError(t, err)
	s, err := xdswal.Open(t.Context(), xdswal.Options{
		Dir: t.TempDir(), Backend: b, ShipInterval: time.Millisecond, BackendTimeout: timeout,
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close(context.Background()) })
	return store{s, s.SnapshotCache(false, cachev3.IDHash{}, nil)}
}

func write(t *testing.T, s store, number int) {
	t.Helper()
	require.NoError(t, s.cache.SetSnapshot(t.Context(), "node", clusters(t, number)))
}

func clusters(t *testing.T, number int) *cachev3.Snapshot {
	t.Helper()
	snapshot, err := cachev3.NewSnapshot(fmt.Sprint(number), map[resourcev3.Type][]types.Resource{
		resourcev3.ClusterType: {&clusterv3.Cluster{Name: fmt.Sprint("cluster-", number)}},
	})
	require.NoError(t, err)
	return snapshot
}

// requireShipped waits until all events are shipped.
func requireShipped(t *testing.T, s store) {
	t.Helper()
	require.Eventually(t, func() bool { return s.Status().Shipper.Shipped == s.State().Sequence() }, timeout, time.Millisecond,
		"%+v", s.Status().Shipper)
}
