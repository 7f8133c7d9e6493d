package xdswal_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/backends/s3"
	"github.com/xdswal/xdswal/compactor"
	"github.com/xdswal/xdswal/internal/catalog"
	"github.com/xdswal/xdswal/internal/s3test"
)

// openS3 returns a backend for a prefix of a server that is reached at endpoint.
func openS3(t testing.TB, server *s3test.Server, endpoint, prefix string, change ...func(*s3.Config)) *s3.Backend {
	t.Helper()
	cfg := s3.Config{Bucket: server.Bucket, Prefix: prefix, Region: server.Region, Endpoint: endpoint, PathStyle: true}
	for _, fn := range change {
		fn(&cfg)
	}
	b, err := s3.New(t.Context(), cfg)
	require.NoError(t, err)
	return b
}

// A store on an S3 server, with and without TLS: shipping, takeover, follower and
// promotion.
func TestS3(t *testing.T) {
	for _, row := range []struct {
		name    string
		options []s3test.Option
	}{
		{name: "http"},
		{name: "https", options: []s3test.Option{s3test.WithTLS()}},
	} {
		t.Run(row.name, func(t *testing.T) {
			server := s3test.Start(t, row.options...)
			server.Setenv(t)
			b := openS3(t, server, server.Endpoint, "fleet/one")
			lost := openStore(t, fast(b))
			require.False(t, lost.Status().Shipper.Weak)
			for i := range 30 {
				write(t, lost, nodeName(i%4), i)
				if i == 10 {
					_, err := lost.Compact(t.Context())
					require.NoError(t, err)
				}
			}
			requireShipped(t, lost)
			f := followStore(t, b)
			s := openStore(t, fast(b))
			require.Equal(t, lost.State().Digest(), s.State().Digest())
			write(t, s, "new", 1)
			requireFollows(t, f, s)
			_ = snapshotCache(lost).SetSnapshot(t.Context(), "late", clusters(t, "1", cluster("late")))
			requireFenced(t, lost)
			closeStore(t, s)
			require.NoError(t, f.Promote(t.Context()))
			write(t, f, "promoted", 1)
			requireShipped(t, f)
			digest := f.State().Digest()
			closeStore(t, f)
			require.Equal(t, digest, restored(t, b))
		})
	}
}

// The requests of a store to S3. docs/s3.md contains their cost.
func TestS3Requests(t *testing.T) {
	server := s3test.Start(t)
	server.Setenv(t)
	var counter s3test.Counter
	b := openS3(t, server, server.Endpoint, "fleet", func(c *s3.Config) { c.WrapTransport = counter.Wrap })
	opt := fast(b)
	opt.Dir = t.TempDir()
	s := openStore(t, opt)
	requireRequests(t, &counter, map[string]int{
		"PUT":    16, // 15 by the probe, and the claim
		"POST":   3,  // two by the probe, and one by the sweep
		"GET":    1,  // the claim, read back
		"LIST":   4,  // three of objects, and one of crashed uploads
		"DELETE": 5,  // what the probe and the sweep created
	})

	const updates, snapshots = 60, 6
	counter.Reset()
	for i := range updates {
		write(t, s, "n", i)
		requireShipped(t, s) // one batch each
		if i == 0 {
			counter.Reset() // without the check before the first object
		}
		if (i+1)%(updates/snapshots) == 0 {
			_, err := s.Compact(t.Context())
			require.NoError(t, err)
			require.Eventually(t, func() bool { return s.Status().Shipper.Snapshot == s.State().Sequence() }, timeout, time.Millisecond)
		}
	}
	steady := map[string]int{ // no LIST
		"PUT":    updates + snapshots - 1,
		"GET":    2 * (updates + snapshots - 1), // the next epoch and its own
		"DELETE": updates / snapshots,           // objects that the oldest snapshot covers
	}
	requireRequests(t, &counter, steady)
	hour := int(time.Hour / time.Second)
	t.Logf("an hour of updates at the defaults, a batch each second and a snapshot each 10 minutes: %d PUT, %d GET, no LIST; idle: %d GET",
		hour+6, 2*(hour+6), 2*int(time.Hour/(30*time.Second)))

	counter.Reset()
	closeStore(t, s)
	require.Empty(t, counter.Requests(), "everything was shipped")
	s = openStore(t, opt)
	requireRequests(t, &counter, map[string]int{
		"PUT":    15, // 14 by the probe, whose object exists, and the claim
		"POST":   3,
		"LIST":   4,
		"GET":    3, // the last epoch, the newest batch, and the claim
		"DELETE": 5,
	})
	closeStore(t, s)

	counter.Reset()
	opt.Dir = t.TempDir()
	s = openStore(t, opt)
	requireRequests(t, &counter, map[string]int{
		"PUT":    16, // 14 by the probe, the fence, and the claim
		"POST":   3,
		"LIST":   7,  // again after the fence
		"GET":    10, // the epochs, twice; the snapshot; the newest batch, twice; both claims
		"DELETE": 5,
	})
	closeStore(t, s)
}

// In each interval without events, a follower requests the next batch and the next epoch,
// and lists nothing.
func TestS3FollowerRequests(t *testing.T) {
	server := s3test.Start(t)
	server.Setenv(t)
	w := openStore(t, fast(openS3(t, server, server.Endpoint, "fleet")))
	write(t, w, "n", 1)
	requireShipped(t, w)
	var counter s3test.Counter
	f := followStore(t, openS3(t, server, server.Endpoint, "fleet", func(c *s3.Config) { c.WrapTransport = counter.Wrap }))
	require.Equal(t, 3, counter.Requests()["LIST"])
	counter.Reset()
	require.Eventually(t, func() bool { return counter.Requests()["GET"] >= 100 }, timeout, time.Millisecond)
	closeStore(t, f)
	got := counter.Requests()
	delete(got, "GET")
	require.Empty(t, got)
}

// requireRequests waits for as many requests as want, and checks that they are equal to
// want.
func requireRequests(t testing.TB, c *s3test.Counter, want map[string]int) {
	t.Helper()
	total := func(counts map[string]int) (n int) {
		for _, count := range counts {
			n += count
		}
		return n
	}
	require.Eventually(t, func() bool { return total(c.Requests()) >= total(want) }, timeout, time.Millisecond, "%v", c.Requests())
	require.Equal(t, want, c.Requests())
}

// While S3 is unreachable, updates succeed with bounded resources; afterwards all of them
// are shipped.
func TestS3Outage(t *testing.T) {
	server := s3test.Start(t)
	server.Setenv(t)
	b := openS3(t, server, server.Endpoint, "fleet", func(c *s3.Config) { c.MaxAttempts = 2 })
	opt := fast(b)
	opt.SegmentBytes, opt.CompactTailRecords = 1<<20, 2000
	s := openStore(t, opt)
	write(t, s, "n", 0)
	requireShipped(t, s)

	server.Stop()
	before := runtime.NumGoroutine()
	const updates = 10_000
	for i := range updates {
		write(t, s, nodeName(i%50), i)
	}
	require.EqualValues(t, updates+1, s.State().Sequence())
	status := s.Status().Shipper
	require.EqualValues(t, 1, status.Shipped)
	require.False(t, status.BehindSince.IsZero())
	require.Eventually(t, func() bool { return s.Status().Shipper.Err != nil }, timeout, time.Millisecond)
	require.NoError(t, s.Status().Degraded)
	require.Less(t, runtime.NumGoroutine(), before+20)
	requireServed(t, s)

	server.Restart()
	requireShipped(t, s)
	require.Eventually(t, func() bool { return s.Status().Shipper.Err == nil }, timeout, time.Millisecond)
	require.True(t, s.Status().Shipper.BehindSince.IsZero())
	digest := s.State().Digest()
	closeStore(t, s)
	require.Equal(t, digest, restored(t, b))
}

// The network between a store and S3 fails in each way during shipping and takeover. A
// restore afterwards is complete.
func TestS3BadNetwork(t *testing.T) {
	server := s3test.Start(t)
	server.Setenv(t)
	for _, row := range []struct {
		name  string
		toxic s3test.Toxic
	}{
		{"answers are lost", s3test.LoseAnswers()},
		{"connections are reset", s3test.ResetPeer(0)},
		{"uploads hang", s3test.HangUploads()},
		{"answers hang", s3test.Hang()},
		{"objects are cut", s3test.LimitData(900)},
	} {
		t.Run(row.name, func(t *testing.T) {
			proxy := server.Proxy(t)
			prefix := fmt.Sprintf("fleet-%d", time.Now().UnixNano())
			b := openS3(t, server, proxy.Endpoint, prefix, func(c *s3.Config) { c.IdleTimeout, c.MaxAttempts = time.Second, 2 })
			dir := t.TempDir()
			opt := in(dir, fast(b))
			opt.BackendTimeout = time.Second
			s := openStore(t, opt)
			for i := range 3 {
				write(t, s, "n", i)
			}
			remove := proxy.Add(row.toxic)
			for i := range 50 {
				write(t, s, nodeName(i%5), i)
			}
			_, err := s.Compact(t.Context())
			require.NoError(t, err)
			require.Eventually(t, func() bool {
				status := s.Status() // the driver may succeed after retries
				return status.Shipper.Err != nil || status.Shipper.Shipped == status.Sequence
			}, timeout, time.Millisecond)
			// A restart during the outage, which also affects the claim.
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			_ = s.Close(ctx)
			cancel()
			s = openStore(t, opt)
			write(t, s, "restarted", 1)
			remove()
			requireShipped(t, s)
			require.NoError(t, s.Status().Shipper.Fenced)
			digest := s.State().Digest()
			closeStore(t, s)
			require.Equal(t, digest, restored(t, openS3(t, server, server.Endpoint, prefix)))
		})
	}
}

// A snapshot that is damaged on the server's disk, which the server's checksum detects, is
// skipped for the one before it.
func TestS3DamagedSnapshot(t *testing.T) {
	server := s3test.Start(t)
	server.Setenv(t)
	b := openS3(t, server, server.Endpoint, "fleet")
	s := openStore(t, fast(b))
	for i := range 9 {
		write(t, s, nodeName(i%4), i)
		requireShipped(t, s)
		if i%3 == 2 && i < 8 {
			seq, err := s.Compact(t.Context())
			require.NoError(t, err)
			require.Eventually(t, func() bool { return s.Status().Shipper.Snapshot == seq }, timeout, time.Millisecond)
		}
	}
	remote, err := catalog.List(t.Context(), b)
	require.NoError(t, err)
	require.Len(t, remote.Snapshots, 2)
	path := filepath.Join(server.Dir, "fleet", remote.Snapshots[0].Path)
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	data[len(data)/2] ^= 0x10
	require.NoError(t, os.WriteFile(path, data, 0o600))

	var skipped []string
	opt := in(t.TempDir(), fast(b))
	opt.Hooks.Replay.SnapshotReadEnd = func(s compactor.Snapshot) {
		if s.Err == nil {
			return
		}
		skipped = append(skipped, s.Name)
		require.ErrorIs(t, s.Err, backends.ErrDamaged)
	}
	next := openStore(t, opt)
	require.Equal(t, s.State().Digest(), next.State().Digest())
	require.Equal(t, []string{remote.Snapshots[0].String()}, skipped)
}
