package prometheushooks_test

import (
	"context"
	"errors"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/backends/backendtest"
	"github.com/xdswal/xdswal/backends/file"
	"github.com/xdswal/xdswal/compactor"
	"github.com/xdswal/xdswal/journal"
	"github.com/xdswal/xdswal/replay"
	prometheushooks "github.com/xdswal/xdswal/telemetry/prometheus"
	"github.com/xdswal/xdswal/xdsserver"
)

var errTest = errors.New("test")

// register returns metrics and their registry, and checks at the end of the test that
// all metrics follow the naming conventions.
func register(t *testing.T) (*prometheushooks.Metrics, *prometheus.Registry) {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	m, err := prometheushooks.New(reg)
	require.NoError(t, err)
	t.Cleanup(func() {
		problems, err := testutil.GatherAndLint(reg)
		assert.NoError(t, err)
		assert.Empty(t, problems)
	})
	return m, reg
}

// values returns the value of each series, and the count of each histogram.
func values(t *testing.T, reg prometheus.Gatherer) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	require.NoError(t, err)
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			switch {
			case m.Counter != nil:
				out[name] = m.GetCounter().GetValue()
			case m.Gauge != nil:
				out[name] = m.GetGauge().GetValue()
			case m.Histogram != nil:
				out[name+" count"] = float64(m.GetHistogram().GetSampleCount())
				out[name+" sum"] = m.GetHistogram().GetSampleSum()
			}
		}
	}
	return out
}

// nonzero returns the series that are not 0.
func nonzero(all map[string]float64) map[string]float64 {
	out := map[string]float64{}
	for name, v := range all {
		if v != 0 {
			out[name] = v
		}
	}
	return out
}

func fullStatus() xdswal.Status {
	return xdswal.Status{
		Dir: "/data", Epoch: 3, Sequence: 42, Nodes: 2, Resources: 5, Bytes: 600, Degraded: errTest,
		Journal:   journal.Status{First: 11, Last: 42, Segments: 2, Bytes: 4096},
		Compactor: compactor.Status{Sequence: 40, Time: time.Now().Add(-time.Hour)},
		Backend:   "s3://bucket/prefix",
		Shipper:   &compactor.ShipperStatus{Epoch: 3, Claimed: true, Shipped: 30, BehindSince: time.Now().Add(-time.Minute), Fenced: errTest},
		// A store has a shipper or a follower, never both.
		Follower: &replay.FollowerStatus{Epoch: 3, CurrentAt: time.Now().Add(-2 * time.Minute)},
	}
}

func TestHooks(t *testing.T) {
	here := compactor.Snapshot{Location: "/data/snapshots", Name: "n", Sequence: 7, Bytes: 100, Duration: 2 * time.Second}
	there := compactor.Snapshot{Location: "s3://bucket/prefix", Backend: true, Name: "n", Sequence: 6, Bytes: 90, Duration: 3 * time.Second}
	failure := func(s compactor.Snapshot) compactor.Snapshot {
		s.Err = errTest
		return s
	}
	tests := []struct {
		name string
		work func(xdswal.Hooks)
		want map[string]float64
	}{
		{"commits", func(h xdswal.Hooks) {
			h.Journal.Commit(journal.Commit{Events: 3, Bytes: 30, Duration: time.Second})
			h.Journal.Commit(journal.Commit{Events: 4, Bytes: 40, Duration: time.Second / 2})
			h.Journal.Commit(journal.Commit{Events: 5, Bytes: 50, Duration: time.Second, Err: errTest})
		}, map[string]float64{
			"xdswal_journal_commit_duration_seconds count": 2,
			"xdswal_journal_commit_duration_seconds sum":   1.5,
			"xdswal_journal_committed_events_total":        7,
			"xdswal_journal_committed_bytes_total":         70,
			"xdswal_journal_commit_failures_total":         1,
		}},
		{"segments", func(h xdswal.Hooks) {
			h.Journal.SegmentCreated(journal.Segment{})
			h.Journal.SegmentCreated(journal.Segment{})
			h.Journal.SegmentDropped(journal.Segment{})
		}, map[string]float64{
			"xdswal_journal_segments_created_total": 2,
			"xdswal_journal_segments_dropped_total": 1,
		}},
		{"compactions", func(h xdswal.Hooks) {
			h.Compactor.CompactionBegin(compactor.Compaction{Reason: compactor.ReasonInterval})
			h.Compactor.CompactionEnd(compactor.Compaction{Reason: compactor.ReasonInterval})
			h.Compactor.CompactionEnd(compactor.Compaction{Reason: compactor.ReasonClose, Unchanged: true})
			h.Compactor.CompactionEnd(compactor.Compaction{Reason: compactor.ReasonTail, Err: errTest})
		}, map[string]float64{
			"xdswal_compactions_total written interval": 1,
			"xdswal_compactions_total unchanged close":  1,
			"xdswal_compactions_total failed tail":      1,
		}},
		{"snapshot written locally", func(h xdswal.Hooks) {
			h.Compactor.SnapshotWriteBegin(here)
			h.Compactor.SnapshotWriteEnd(here)
			h.Compactor.SnapshotDeleted(here)
		}, map[string]float64{
			"xdswal_snapshot_write_started_total local":                  1,
			"xdswal_snapshot_write_succeeded_total local":                1,
			"xdswal_snapshot_write_duration_seconds local count":         1,
			"xdswal_snapshot_write_duration_seconds local sum":           2,
			"xdswal_snapshot_write_last_success_sequence local":          7,
			"xdswal_snapshot_size_bytes local":                           100,
			"xdswal_snapshots_deleted_total local":                       1,
			"xdswal_snapshot_write_last_success_timestamp_seconds local": -1,
		}},
		{"snapshot shipped on the second attempt", func(h xdswal.Hooks) {
			h.Compactor.SnapshotWriteBegin(there)
			h.Compactor.SnapshotWriteEnd(failure(there))
			h.Compactor.SnapshotWriteBegin(there)
			h.Compactor.SnapshotWriteEnd(there)
			h.Compactor.SnapshotDeleted(there)
		}, map[string]float64{
			"xdswal_snapshot_write_started_total backend":                  2,
			"xdswal_snapshot_write_failed_total backend":                   1,
			"xdswal_snapshot_write_succeeded_total backend":                1,
			"xdswal_snapshot_write_duration_seconds backend count":         1,
			"xdswal_snapshot_write_duration_seconds backend sum":           3,
			"xdswal_snapshot_write_last_success_sequence backend":          6,
			"xdswal_snapshot_size_bytes backend":                           90,
			"xdswal_snapshots_deleted_total backend":                       1,
			"xdswal_snapshot_write_last_success_timestamp_seconds backend": -1,
		}},
		{"batch shipped on the second attempt", func(h xdswal.Hooks) {
			h.Compactor.BatchWriteEnd(compactor.Batch{Bytes: 50, Duration: time.Second, Err: errTest})
			h.Compactor.BatchWriteEnd(compactor.Batch{Bytes: 50, Duration: 2 * time.Second})
			h.Compactor.BatchDeleted(compactor.Batch{Bytes: 50})
		}, map[string]float64{
			"xdswal_batch_ship_failures_total":         1,
			"xdswal_batches_shipped_total":             1,
			"xdswal_batch_bytes_shipped_total":         50,
			"xdswal_batch_ship_duration_seconds count": 1,
			"xdswal_batch_ship_duration_seconds sum":   2,
			"xdswal_batches_deleted_total":             1,
		}},
		{"restore that skips a snapshot", func(h xdswal.Hooks) {
			h.Replay.SnapshotReadBegin(here)
			h.Replay.SnapshotReadEnd(failure(here))
			h.Replay.SnapshotReadBegin(there)
			h.Replay.SnapshotReadEnd(there)
			h.Replay.RestoreEnd(replay.Result{Duration: 4 * time.Second, Events: 9, Shipped: 5, Skipped: make([]replay.Skipped, 1)})
		}, map[string]float64{
			"xdswal_snapshot_read_started_total local":            1,
			"xdswal_snapshot_read_failed_total local":             1,
			"xdswal_snapshot_read_started_total backend":          1,
			"xdswal_snapshot_read_succeeded_total backend":        1,
			"xdswal_snapshot_read_duration_seconds backend count": 1,
			"xdswal_snapshot_read_duration_seconds backend sum":   3,
			"xdswal_replay_duration_seconds":                      4,
			"xdswal_replay_events":                                9,
			"xdswal_replay_shipped_events":                        5,
			"xdswal_replay_skipped_snapshots":                     1,
		}},
		{"restore that fails", func(h xdswal.Hooks) {
			h.Replay.RestoreEnd(replay.Result{Duration: time.Second, Err: errTest})
		}, map[string]float64{
			"xdswal_replay_duration_seconds": 1,
			"xdswal_replay_failures_total":   1,
		}},
		{"degraded, and an update that failed", func(h xdswal.Hooks) {
			h.Degraded(errTest)
			h.CacheError("cache", "node", errTest)
		}, map[string]float64{
			"xdswal_degradations_total": 1,
			"xdswal_cache_errors_total": 1,
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, reg := register(t)
			tt.work(m.Hooks())
			got := nonzero(values(t, reg))
			for name, want := range tt.want {
				if want < 0 { // the current time
					assert.InDelta(t, time.Now().Unix(), got[name], 60)
					got[name] = want
				}
			}
			assert.Equal(t, tt.want, got)
		})
	}
}

// The label location depends on Snapshot.Backend, not on the text of the location.
func TestLocation(t *testing.T) {
	tests := []struct {
		location string
		backend  bool
		want     string
	}{
		{"/var/lib/xdswal/snapshots", false, "local"},
		{`C:\xdswal\snapshots`, false, "local"},
		{"memory:snapshots", false, "local"},
		{"file:///backup", true, "backend"},
		{"s3://bucket/prefix?region=eu-west-1", true, "backend"},
		{"memory:", true, "backend"},
	}
	for _, tt := range tests {
		t.Run(tt.location, func(t *testing.T) {
			m, reg := register(t)
			m.Hooks().Replay.SnapshotReadBegin(compactor.Snapshot{Location: tt.location, Backend: tt.backend})
			assert.Equal(t, map[string]float64{"xdswal_snapshot_read_started_total " + tt.want: 1}, nonzero(values(t, reg)))
		})
	}
}

func TestState(t *testing.T) {
	m, reg := register(t)
	m.Attach(fullStatus)
	got := nonzero(values(t, reg))
	for name, want := range map[string]float64{
		"xdswal_snapshot_age_seconds": 3600, "xdswal_ship_behind_seconds": 60, "xdswal_follower_lag_seconds": 120,
	} {
		assert.InDelta(t, want, got[name], 30, name)
		delete(got, name)
	}
	assert.Equal(t, map[string]float64{
		"xdswal_epoch":                  3,
		"xdswal_sequence":               42,
		"xdswal_degraded":               1,
		"xdswal_state_nodes":            2,
		"xdswal_state_resources":        5,
		"xdswal_state_bytes":            600,
		"xdswal_journal_bytes":          4096,
		"xdswal_journal_segments":       2,
		"xdswal_journal_first_sequence": 11,
		"xdswal_journal_last_sequence":  42,
		"xdswal_snapshot_sequence":      40,
		"xdswal_shipped_sequence":       30,
		"xdswal_epoch_claimed":          1,
		"xdswal_fenced":                 1,
		"xdswal_is_follower":            1,
	}, got)
}

// A gauge of a part that the store lacks is absent: an alert would take a 0 for a
// value.
func TestStateOfParts(t *testing.T) {
	tests := []struct {
		name   string
		change func(*xdswal.Status)
		work   func(xdswal.Hooks)
		absent []string
	}{
		{name: "every part", change: func(*xdswal.Status) {}},
		{
			name:   "no journal",
			change: func(s *xdswal.Status) { s.Journal = journal.Status{} },
			absent: []string{"xdswal_journal_bytes", "xdswal_journal_segments", "xdswal_journal_first_sequence", "xdswal_journal_last_sequence"},
		},
		{
			name:   "nothing is shipped",
			change: func(s *xdswal.Status) { s.Shipper = nil },
			absent: []string{"xdswal_shipped_sequence", "xdswal_ship_behind_seconds", "xdswal_epoch_claimed", "xdswal_fenced"},
		},
		{
			name:   "a writer",
			change: func(s *xdswal.Status) { s.Follower = nil },
			absent: []string{"xdswal_follower_lag_seconds"},
		},
		{
			name:   "no snapshots",
			change: func(s *xdswal.Status) { s.Compactor = compactor.Status{} },
			absent: []string{"xdswal_snapshot_sequence", "xdswal_snapshot_age_seconds"},
		},
		{
			name:   "the first snapshot is being written",
			change: func(s *xdswal.Status) { s.Compactor = compactor.Status{} },
			work:   func(h xdswal.Hooks) { h.Compactor.CompactionBegin(compactor.Compaction{}) },
			absent: []string{"xdswal_snapshot_age_seconds"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, reg := register(t)
			before := values(t, reg)
			status := fullStatus()
			tt.change(&status)
			m.Attach(func() xdswal.Status { return status })
			if tt.work != nil {
				tt.work(m.Hooks())
			}
			got := values(t, reg)
			for _, name := range tt.absent {
				assert.NotContains(t, got, name)
			}
			const gauges = 18 // of TestState
			assert.Len(t, got, len(before)+gauges-len(tt.absent))

			m.Attach(nil)
			assert.Len(t, values(t, reg), len(before))
		})
	}
}

func TestNewTwice(t *testing.T) {
	_, reg := register(t)
	_, err := prometheushooks.New(reg)
	require.ErrorContains(t, err, "register xdswal metrics: the registry has those of another store")
	require.ErrorAs(t, err, new(prometheus.AlreadyRegisteredError))
}

func TestTwoStoresWithLabels(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	for _, store := range []string{"a", "b"} {
		m, err := prometheushooks.New(prometheus.WrapRegistererWith(prometheus.Labels{"store": store}, reg))
		require.NoError(t, err)
		m.Attach(fullStatus)
	}
	got := values(t, reg)
	assert.Contains(t, got, "xdswal_sequence a")
	assert.Contains(t, got, "xdswal_sequence b")
}

// store opens a store with metrics attached.
func store(t *testing.T, m *prometheushooks.Metrics, opt xdswal.Options) *xdswal.Store {
	t.Helper()
	opt.Hooks = m.Hooks()
	s, err := xdswal.Open(context.Background(), opt)
	require.NoError(t, err)
	m.Attach(s.Status)
	return s
}

func snapshotCache(s *xdswal.Store) cachev3.SnapshotCache {
	return s.SnapshotCache(true, cachev3.IDHash{}, nil)
}

func update(t *testing.T, c cachev3.SnapshotCache, version string) {
	t.Helper()
	snap, err := cachev3.NewSnapshot(version, map[string][]types.Resource{
		resourcev3.ClusterType: {&clusterv3.Cluster{Name: "a"}, &clusterv3.Cluster{Name: "b" + version}},
	})
	require.NoError(t, err)
	require.NoError(t, c.SetSnapshot(context.Background(), "node", snap))
}

func TestStore(t *testing.T) {
	ctx := context.Background()
	b, err := file.New(file.Config{Dir: t.TempDir()})
	require.NoError(t, err)
	opt := xdswal.Options{Dir: t.TempDir(), Backend: b, ShipInterval: time.Millisecond}
	m, reg := register(t)

	s := store(t, m, opt)
	cache := snapshotCache(s)
	for _, version := range []string{"1", "2", "3"} {
		update(t, cache, version)
	}
	_, err = s.Compact(ctx)
	require.NoError(t, err)
	update(t, cache, "4")
	require.Eventually(t, func() bool { return s.Status().Shipper.Shipped == 4 }, 10*time.Second, time.Millisecond)
	status, got := s.Status(), values(t, reg)
	for name, want := range map[string]float64{
		"xdswal_epoch":                                      1,
		"xdswal_sequence":                                   4,
		"xdswal_degraded":                                   0,
		"xdswal_state_nodes":                                1,
		"xdswal_state_resources":                            2,
		"xdswal_state_bytes":                                float64(status.Bytes),
		"xdswal_journal_commit_duration_seconds count":      4,
		"xdswal_journal_committed_events_total":             4,
		"xdswal_journal_commit_failures_total":              0,
		"xdswal_journal_segments_created_total":             1,
		"xdswal_journal_bytes":                              float64(status.Journal.Bytes),
		"xdswal_journal_segments":                           1,
		"xdswal_journal_first_sequence":                     1,
		"xdswal_journal_last_sequence":                      4,
		"xdswal_compactions_total written demand":           1,
		"xdswal_snapshot_write_started_total local":         1,
		"xdswal_snapshot_write_succeeded_total local":       1,
		"xdswal_snapshot_write_failed_total local":          0,
		"xdswal_snapshot_write_last_success_sequence local": 3,
		"xdswal_snapshot_sequence":                          3,
		"xdswal_snapshot_read_started_total local":          0,
		"xdswal_shipped_sequence":                           4,
		"xdswal_ship_behind_seconds":                        0,
		"xdswal_epoch_claimed":                              1,
		"xdswal_fenced":                                     0,
		"xdswal_is_follower":                                0,
		"xdswal_batch_ship_failures_total":                  0,
	} {
		assert.Contains(t, got, name)
		assert.InDelta(t, want, got[name], 0, name)
	}
	assert.Positive(t, got["xdswal_journal_committed_bytes_total"])
	assert.Positive(t, got["xdswal_snapshot_size_bytes local"])
	assert.Less(t, got["xdswal_snapshot_age_seconds"], 60.)
	assert.Positive(t, got["xdswal_batches_shipped_total"])
	assert.InDelta(t, got["xdswal_batches_shipped_total"], got["xdswal_batch_ship_duration_seconds count"], 0)
	assert.Positive(t, got["xdswal_batch_bytes_shipped_total"])
	assert.NotContains(t, got, "xdswal_follower_lag_seconds")

	// Close writes a last snapshot and ships it.
	require.NoError(t, s.Close(ctx))
	got = values(t, reg)
	assert.InDelta(t, 1, got["xdswal_compactions_total written close"], 0)
	assert.InDelta(t, 4, got["xdswal_snapshot_sequence"], 0)
	assert.InDelta(t, 4, got["xdswal_shipped_sequence"], 0)
	assert.InDelta(t, 4, got["xdswal_snapshot_write_last_success_sequence backend"], 0)

	// A store that is opened again continues the same series.
	s = store(t, m, opt)
	got = values(t, reg)
	assert.InDelta(t, 2, got["xdswal_epoch"], 0)
	assert.InDelta(t, 4, got["xdswal_sequence"], 0)
	assert.InDelta(t, 1, got["xdswal_snapshot_read_succeeded_total local"], 0)
	assert.InDelta(t, 0, got["xdswal_replay_events"], 0)
	assert.Positive(t, got["xdswal_replay_duration_seconds"])
	require.NoError(t, s.Close(ctx))
	assert.InDelta(t, 1, values(t, reg)["xdswal_compactions_total unchanged close"], 0)
}

func TestFollower(t *testing.T) {
	ctx, b := context.Background(), backendtest.NewMemory()
	writerMetrics, writers := register(t)
	w := store(t, writerMetrics, xdswal.Options{Dir: t.TempDir(), Backend: b, ShipInterval: time.Millisecond})
	cache := snapshotCache(w)
	update(t, cache, "1")
	m, reg := register(t)
	f := store(t, m, xdswal.Options{Dir: t.TempDir(), Backend: b, Follow: true, FollowInterval: time.Millisecond})
	require.Eventually(t, func() bool { return f.State().Sequence() == 1 }, 10*time.Second, time.Millisecond)
	got := values(t, reg)
	assert.InDelta(t, 1, got["xdswal_is_follower"], 0)
	assert.InDelta(t, 1, got["xdswal_epoch"], 0)
	assert.Less(t, got["xdswal_follower_lag_seconds"], 30.)
	for _, name := range []string{"xdswal_shipped_sequence", "xdswal_fenced", "xdswal_journal_bytes"} {
		assert.NotContains(t, got, name)
	}

	require.NoError(t, f.Promote(ctx))
	got = values(t, reg)
	assert.InDelta(t, 0, got["xdswal_is_follower"], 0)
	assert.InDelta(t, 3, got["xdswal_epoch"], 0)
	assert.NotContains(t, got, "xdswal_follower_lag_seconds")
	assert.Contains(t, got, "xdswal_shipped_sequence")

	// The last writer is fenced when it ships next.
	update(t, cache, "2")
	require.Eventually(t, func() bool { return w.Status().Shipper.Fenced != nil }, 10*time.Second, time.Millisecond)
	got = values(t, writers)
	assert.InDelta(t, 1, got["xdswal_fenced"], 0)
	assert.InDelta(t, 1, got["xdswal_degraded"], 0)
	require.NoError(t, w.Close(ctx))
	require.NoError(t, f.Close(ctx))
}

func TestStoreInMemory(t *testing.T) {
	m, reg := register(t)
	s := store(t, m, xdswal.Options{MemoryOnly: true})
	update(t, snapshotCache(s), "1")
	got := values(t, reg)
	assert.InDelta(t, 1, got["xdswal_sequence"], 0)
	assert.NotContains(t, got, "xdswal_journal_bytes")
	assert.NotContains(t, got, "xdswal_snapshot_sequence")
	require.NoError(t, s.Close(context.Background()))
}

// promtool returns a command, or skips the test if promtool is not installed.
func promtool(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed: apt-get install prometheus")
	}
	return exec.CommandContext(t.Context(), path, args...)
}

func TestPromtoolCheckMetrics(t *testing.T) {
	cmd := promtool(t, "check", "metrics")
	m, reg := register(t)
	m.Attach(fullStatus)
	page := httptest.NewRecorder()
	promhttp.HandlerFor(reg, promhttp.HandlerOpts{}).ServeHTTP(page, httptest.NewRequest("GET", "/metrics", nil))
	cmd.Stdin = page.Body
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	assert.Empty(t, string(out))
}

func TestPromtoolRules(t *testing.T) {
	for _, args := range [][]string{{"check", "rules", "rules.yaml"}, {"test", "rules", "rules_test.yaml"}} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			out, err := promtool(t, args...).CombinedOutput()
			require.NoError(t, err, "%s", out)
		})
	}
}

// The alerts name metrics that exist.
func TestRulesNameMetrics(t *testing.T) {
	m, reg := register(t)
	m.Attach(fullStatus)
	got := values(t, reg)
	for _, file := range []string{"rules.yaml", "rules_test.yaml"} {
		rules, err := os.ReadFile(file)
		require.NoError(t, err)
		names := regexp.MustCompile(`\bxdswal_\w+`).FindAllString(string(rules), -1)
		require.NotEmpty(t, names)
		for _, name := range names {
			assert.Contains(t, got, name, file)
		}
	}
}

func TestServer(t *testing.T) {
	m, reg := register(t)
	h := m.ServerHooks()
	h.Rejected(xdsserver.Rejection{TypeURL: resourcev3.ClusterType})
	h.Refused("n", "127.0.0.1:1", "names")
	h.Refused("n", "127.0.0.1:1", "names")
	got := values(t, reg)
	require.EqualValues(t, 1, got["xdswal_xds_rejections_total "+resourcev3.ClusterType])
	require.EqualValues(t, 2, got["xdswal_xds_refused_streams_total names"])
}
