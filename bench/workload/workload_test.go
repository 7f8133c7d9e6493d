package workload_test

import (
	"os"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/bench/fleet"
	"github.com/xdswal/xdswal/bench/harness"
	"github.com/xdswal/xdswal/bench/workload"
)

// TestMain lets the workloads start their clients: the test binary again.
func TestMain(m *testing.M) {
	fleet.Main()
	os.Exit(m.Run())
}

func TestNamesAreDistinct(t *testing.T) {
	for _, short := range []bool{true, false} {
		names := map[string]bool{}
		for _, w := range workload.All(t.TempDir(), short) {
			require.False(t, names[w.Name], w.Name)
			names[w.Name] = true
		}
	}
}

// The cheaper workloads run, pass their checks, and have figures for all candidates.
func TestWorkloadsRun(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	dir := t.TempDir()
	results, err := harness.Run(t.Context(), workload.All(dir, true), harness.Options{
		Match:  regexp.MustCompile(`^(append/16-writers|setsnapshot/1-of-10000|restore/100x100|snapshot/100x100|deliver/1-of-10000/1-client|connect/.*/delta|memory/.*)$`),
		Rounds: 1, Window: 10 * time.Millisecond, Short: true, Dir: dir,
	})
	require.NoError(t, err)
	require.Len(t, results, 7)
	for _, r := range results {
		require.Greater(t, len(r.Rows), 1, r.Name)
		for _, row := range r.Rows {
			require.Contains(t, row.Figures, r.Metrics[0].Name, "%s: %s", r.Name, row.Candidate)
			require.Positive(t, row.Figures[r.Metrics[0].Name].Median)
		}
		require.NotEmpty(t, r.Rows[len(r.Rows)-1].Ratios, r.Name)
	}
}

// The workloads with a server run too. In CI the server is installed.
func TestS3WorkloadsRun(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	dir := t.TempDir()
	results, err := harness.Run(t.Context(), workload.All(dir, true), harness.Options{
		Match:  regexp.MustCompile(`^(s3-transfer/64MiB|s3-outage/.*)$`),
		Rounds: 1, Window: 10 * time.Millisecond, Short: true, Dir: dir,
	})
	require.NoError(t, err)
	require.Len(t, results, 2)
	for _, r := range results {
		if r.Skipped != "" && os.Getenv("CI") != "true" {
			t.Skip(r.Skipped)
		}
		require.Empty(t, r.Skipped)
		for _, row := range r.Rows {
			require.Contains(t, row.Figures, r.Metrics[0].Name, "%s: %s", r.Name, row.Candidate)
		}
	}
}
