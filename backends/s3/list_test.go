package s3_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/internal/s3test"
)

// List reads all pages, and skips objects of other programs.
func TestListPages(t *testing.T) {
	srv := start(t)
	dir := filepath.Join(srv.Dir, "test", "many")
	require.NoError(t, os.MkdirAll(dir, 0o700))
	const many = 2500
	for i := range many {
		require.NoError(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("%05d", i)), []byte("x"), 0o600))
	}
	for _, foreign := range []string{"test/many/no key", "test/many/.tmp-x", "testing", "other/a"} {
		path := filepath.Join(srv.Dir, filepath.FromSlash(foreign))
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, os.WriteFile(path, []byte("x"), 0o600))
	}
	cfg := config(srv)
	var counter s3test.Counter
	cfg.WrapTransport = counter.Wrap
	b := open(t, cfg)
	objects, err := b.List(t.Context(), "many/")
	require.NoError(t, err)
	require.Len(t, objects, many)
	for i, o := range objects {
		require.Equal(t, fmt.Sprintf("many/%05d", i), o.Key)
	}
	require.Equal(t, map[string]int{"LIST": 3}, counter.Requests())

	counter.Reset()
	objects, err = b.List(t.Context(), "../other/")
	require.NoError(t, err)
	require.Empty(t, objects)
	require.Empty(t, counter.Requests(), "no valid key has this prefix")
}

// A list whose connection breaks is requested again.
func TestListCut(t *testing.T) {
	srv := start(t)
	proxy := srv.Proxy(t)
	direct := open(t, config(srv))
	var want []string
	for i := range 50 {
		want = append(want, fmt.Sprintf("%03d", i))
		put(t, direct, want[i], nil)
	}
	cfg := config(srv)
	cfg.Endpoint = proxy.Endpoint
	remove := proxy.Add(s3test.LimitData(2000))
	cfg.WrapTransport = onSecond(isMethod(http.MethodGet), remove).wrap
	require.Equal(t, want, keys(t, open(t, cfg)))
}

// Sweep aborts old uploads of this backend and no others.
func TestSweep(t *testing.T) {
	srv := start(t)
	b := open(t, config(srv))
	for _, key := range []string{"test/a", "test/b/c", "test/no key", "other/a"} {
		_, err := client(t, srv).CreateMultipartUpload(t.Context(), &awss3.CreateMultipartUploadInput{Bucket: &srv.Bucket, Key: &key})
		require.NoError(t, err)
	}
	n, err := b.Sweep(t.Context(), time.Hour, "")
	require.NoError(t, err)
	require.Zero(t, n)
	require.Len(t, uploads(t, srv), 4)

	n, err = b.Sweep(t.Context(), -time.Minute, "")
	require.NoError(t, err)
	require.Equal(t, 2, n)
	require.ElementsMatch(t, []string{"test/no key", "other/a"}, uploads(t, srv))

	out, err := client(t, srv).ListMultipartUploads(t.Context(), &awss3.ListMultipartUploadsInput{Bucket: &srv.Bucket})
	require.NoError(t, err)
	for _, u := range out.Uploads {
		_, err := client(t, srv).AbortMultipartUpload(t.Context(), &awss3.AbortMultipartUploadInput{Bucket: &srv.Bucket, Key: u.Key, UploadId: u.UploadId})
		require.NoError(t, err)
	}
}

// Sweep finds uploads in stores that list them in their own ways, and fails if a store
// does not list them.
func TestSweepElsewhere(t *testing.T) {
	withPrefix := func(all []fakeUpload, prefix string) []fakeUpload {
		return slices.DeleteFunc(slices.Clone(all), func(u fakeUpload) bool { return !strings.HasPrefix(u.key, prefix) })
	}
	began := func(initiated string) func([]fakeUpload, string) []fakeUpload {
		return func(all []fakeUpload, prefix string) []fakeUpload {
			all = withPrefix(all, prefix)
			for i := range all {
				all[i].initiated = initiated
			}
			return all
		}
	}
	for _, r := range []struct {
		name    string
		uploads func([]fakeUpload, string) []fakeUpload
		want    string
	}{
		{"by prefix", withPrefix, ""},
		{"by whole key", func(all []fakeUpload, prefix string) []fakeUpload { // MinIO
			return slices.DeleteFunc(slices.Clone(all), func(u fakeUpload) bool { return prefix != "" && u.key != prefix })
		}, ""},
		{"without a time", began(""), ""},
		{"with the time of the request", began("<Initiated>2999-01-01T00:00:00Z</Initiated>"), ""}, // s3proxy
		{"not at all", func([]fakeUpload, string) []fakeUpload { return nil }, "the store does not list multipart uploads in progress"},
	} {
		t.Run(r.name, func(t *testing.T) {
			store := &fakeStore{uploads: r.uploads}
			cfg := store.start(t)
			cfg.Prefix = "fleet"
			b := open(t, cfg)
			store.parts = []fakeUpload{{key: "fleet/snapshots/1", id: "crashed"}, {key: "other/snapshots/1", id: "another's"}, {key: "fleet/users", id: "a user's"}}
			n, err := b.Sweep(t.Context(), time.Hour, "snapshots/")
			require.Zero(t, n)
			require.Len(t, store.parts, 3)
			if r.want != "" {
				require.ErrorContains(t, err, r.want)
				requirePlaced(t, b, "sweep", err)
				return
			}
			require.NoError(t, err)
			n, err = b.Sweep(t.Context(), 1, "snapshots/")
			require.NoError(t, err)
			require.Equal(t, 1, n)
			require.Len(t, store.parts, 2)
		})
	}
}

// A read-only backend sends no request that changes the store.
func TestReadOnly(t *testing.T) {
	srv := start(t)
	put(t, open(t, config(srv)), "a", []byte("x"))
	cfg := config(srv)
	var counter s3test.Counter
	cfg.ReadOnly, cfg.WrapTransport = true, counter.Wrap
	b := open(t, cfg)
	require.ErrorIs(t, b.Put(t.Context(), "b", body("x")), backends.ErrPermission)
	require.ErrorIs(t, b.Delete(t.Context(), "a"), backends.ErrPermission)
	_, err := b.Sweep(t.Context(), 0, "")
	require.ErrorIs(t, err, backends.ErrPermission)
	_, err = b.ProbeConditionalCreate(t.Context())
	require.ErrorIs(t, err, backends.ErrPermission)
	require.Empty(t, counter.Requests())
	requireContent(t, b, "a", []byte("x"))
	require.Equal(t, []string{"a"}, keys(t, b))
}
