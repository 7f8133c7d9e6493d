package harness_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/bench/harness"
)

func TestSummarize(t *testing.T) {
	for name, tc := range map[string]struct {
		samples           []float64
		median, low, high float64
	}{
		"one":       {[]float64{7}, 7, 7, 7},
		"odd":       {[]float64{5, 1, 3}, 3, 2, 4},
		"even":      {[]float64{4, 1, 3, 2}, 2.5, 1.75, 3.25},
		"outlier":   {[]float64{1, 1, 1, 1, 1000}, 1, 1, 1},
		"identical": {[]float64{2, 2, 2, 2}, 2, 2, 2},
	} {
		t.Run(name, func(t *testing.T) {
			s := harness.Summarize(tc.samples)
			require.Equal(t, []float64{tc.median, tc.low, tc.high}, []float64{s.Median, s.Low, s.High})
			require.Equal(t, tc.samples, s.Samples, "samples stay in the order of the rounds")
		})
	}
	require.True(t, math.IsNaN(harness.Summarize(nil).Median))
}

// A ratio that is the same in all rounds does not depend on rounds in which the machine
// was slower.
func TestRatioIsWithinRounds(t *testing.T) {
	floor := []float64{1, 10, 2, 50, 3}
	ours := []float64{2, 20, 4, 100, 6}
	s := harness.Ratio(ours, floor)
	require.Equal(t, []float64{2, 2, 2}, []float64{s.Median, s.Low, s.High})
}

func TestLatencies(t *testing.T) {
	var parts []harness.Latencies
	for i := range 10 {
		var l harness.Latencies
		for k := range 10 {
			l = append(l, time.Duration(i*10+k+1)*time.Millisecond)
		}
		parts = append(parts, l)
	}
	l := harness.Merge(parts)
	require.Equal(t, 50.0, l.Quantile(0.5))
	require.Equal(t, 99.0, l.Quantile(0.99))
	require.Equal(t, 100.0, l.Quantile(1))
	require.True(t, math.IsNaN(harness.Latencies{}.Quantile(0.5)))
}

// fixed returns a workload whose candidates report the values of a function.
func fixed(value func(candidate string, round int) float64, log *[]string, names ...string) harness.Workload {
	w := harness.Workload{
		Name:        "fixed/work",
		About:       "Work.",
		Metrics:     []harness.Metric{{Name: "time", Unit: "ms"}},
		Comparisons: []harness.Comparison{{Metric: "time", To: "floor"}},
		Claims:      []harness.Claim{{Candidate: "ours", Metric: "time", To: "floor", AtMost: 2.5}},
	}
	w.Open = func(context.Context, harness.Env) (harness.Prepared, error) {
		p := harness.Prepared{Notes: []string{"A note."}, Close: func(context.Context) error {
			*log = append(*log, "close")
			return nil
		}}
		for _, name := range names {
			p.Candidates = append(p.Candidates, harness.Candidate{
				Name: name,
				Round: func(_ context.Context, r *harness.Round) error {
					*log = append(*log, fmt.Sprintf("%d %s", r.Number, name))
					r.Report("time", value(name, r.Number))
					return nil
				},
			})
		}
		return p, nil
	}
	return w
}

func run(t *testing.T, w harness.Workload, rounds int) ([]harness.Result, error) {
	t.Helper()
	dir := t.TempDir()
	results, err := harness.Run(t.Context(), []harness.Workload{w}, harness.Options{Rounds: rounds, Dir: dir})
	left, readErr := os.ReadDir(dir)
	require.NoError(t, readErr)
	require.Empty(t, left, "the directories of workloads are removed")
	return results, err
}

func TestRunInterleaves(t *testing.T) {
	var log []string
	names := []string{"a", "b", "c"}
	_, err := run(t, fixed(func(string, int) float64 { return 1 }, &log, names...), 6)
	require.NoError(t, err)
	require.Equal(t, "close", log[len(log)-1])

	log = log[:len(log)-1]
	require.Len(t, log, 7*len(names))
	first, last := map[string]bool{}, map[string]bool{}
	for round := range 7 {
		of := log[round*3 : round*3+3]
		for _, name := range names {
			require.Contains(t, of, fmt.Sprintf("%d %s", round, name), "every round runs every candidate once")
		}
		first[of[0][2:]], last[of[2][2:]] = true, true
	}
	require.Len(t, first, 3, "each is first in some round")
	require.Len(t, last, 3, "each is last in some round")
}

func TestRunDropsTheWarmUp(t *testing.T) {
	var log []string
	w := fixed(func(name string, round int) float64 {
		switch {
		case round == 0:
			return 1e9
		case name == "floor":
			return float64(round)
		default:
			return 2 * float64(round)
		}
	}, &log, "floor", "ours")
	results, err := run(t, w, 5)
	require.NoError(t, err)
	rows := results[0].Rows
	require.Equal(t, []float64{1, 2, 3, 4, 5}, rows[0].Figures["time"].Samples)
	require.Equal(t, 6.0, rows[1].Figures["time"].Median)
	require.Equal(t, 2.0, rows[1].Ratios["time/floor"].Median)
	require.Equal(t, 2.0, results[0].Claims[0].Ratio)
	require.True(t, results[0].Claims[0].Holds)
}

func TestClaimThatDoesNotHold(t *testing.T) {
	var log []string
	w := fixed(func(name string, _ int) float64 { return map[string]float64{"floor": 1, "ours": 3}[name] }, &log, "floor", "ours")
	results, err := run(t, w, 3)
	require.NoError(t, err)
	require.False(t, results[0].Claims[0].Holds)
	report := harness.Report{Results: results}
	require.False(t, report.Holds())
	var b bytes.Buffer
	require.NoError(t, report.WriteMarkdown(&b))
	require.Contains(t, b.String(), "DOES NOT HOLD")
}

func TestClaimOfAtMostMore(t *testing.T) {
	for name, tc := range map[string]struct {
		ours  float64
		holds bool
	}{
		"less": {ours: 9, holds: true}, "as much more": {ours: 12, holds: true}, "too much more": {ours: 12.1},
	} {
		t.Run(name, func(t *testing.T) {
			var log []string
			w := fixed(func(candidate string, round int) float64 {
				// The machine is slower in some rounds, by the same for both.
				if candidate == "ours" {
					return tc.ours + float64(round)
				}
				return 10 + float64(round)
			}, &log, "floor", "ours")
			w.Claims = []harness.Claim{{Candidate: "ours", Metric: "time", To: "floor", AtMostMore: 2}}
			results, err := run(t, w, 3)
			require.NoError(t, err)
			report := harness.Report{Results: results}
			require.Equal(t, tc.holds, report.Holds())
			var b bytes.Buffer
			require.NoError(t, report.WriteMarkdown(&b))
			require.Contains(t, b.String(), "ms more than that of floor, at most 2.00 ms more")
		})
	}
}

func TestClaimOfAtLeast(t *testing.T) {
	for name, tc := range map[string]struct {
		ours  float64
		holds bool
	}{
		"less": {ours: 6.9}, "as much": {ours: 7, holds: true}, "more": {ours: 70, holds: true},
	} {
		t.Run(name, func(t *testing.T) {
			var log []string
			w := fixed(func(candidate string, _ int) float64 {
				if candidate == "ours" {
					return tc.ours
				}
				return 10
			}, &log, "floor", "ours")
			w.Claims = []harness.Claim{{Candidate: "ours", Metric: "time", To: "floor", AtLeast: 0.7}}
			results, err := harness.Run(t.Context(), []harness.Workload{w}, harness.Options{Rounds: 1, Dir: t.TempDir()})
			require.NoError(t, err)
			report := harness.Report{Results: results}
			require.Equal(t, tc.holds, report.Holds())
			var b bytes.Buffer
			require.NoError(t, report.WriteMarkdown(&b))
			require.Contains(t, b.String(), "that of floor, at least 0.7×")
		})
	}
}

// A workload that cannot run on this machine is skipped, and the report contains why.
func TestSkippedWorkload(t *testing.T) {
	closed := false
	w := harness.Workload{Name: "skipped/work", About: "Work.", Open: func(context.Context, harness.Env) (harness.Prepared, error) {
		return harness.Prepared{Skip: "needs a server; run make deps", Close: func(context.Context) error {
			closed = true
			return nil
		}}, nil
	}}
	results, err := harness.Run(t.Context(), []harness.Workload{w}, harness.Options{Rounds: 1, Dir: t.TempDir()})
	require.NoError(t, err)
	require.True(t, closed)
	report := harness.Report{Results: results}
	require.True(t, report.Holds())
	var b bytes.Buffer
	require.NoError(t, report.WriteMarkdown(&b))
	require.Contains(t, b.String(), "Skipped: needs a server; run make deps.")
}

// A candidate whose work was not done has no figures.
func TestFailedRoundFailsTheRun(t *testing.T) {
	var log []string
	lost := errors.New("an append is missing")
	w := fixed(func(string, int) float64 { return 1 }, &log, "floor")
	open := w.Open
	w.Open = func(ctx context.Context, env harness.Env) (harness.Prepared, error) {
		p, err := open(ctx, env)
		p.Candidates = append(p.Candidates, harness.Candidate{Name: "ours", Round: func(context.Context, *harness.Round) error {
			return lost
		}})
		return p, err
	}
	results, err := run(t, w, 3)
	require.ErrorIs(t, err, lost)
	require.ErrorContains(t, err, "fixed/work: ours, round 0")
	require.Empty(t, results)
	require.Equal(t, "close", log[len(log)-1], "the prepared workload is closed")
}

func TestFailedCheckAtCloseFailsTheRun(t *testing.T) {
	var log []string
	w := fixed(func(string, int) float64 { return 1 }, &log, "ours")
	open := w.Open
	lost := errors.New("the digests differ")
	w.Open = func(ctx context.Context, env harness.Env) (harness.Prepared, error) {
		p, err := open(ctx, env)
		p.Candidates[0].Close = func(context.Context) error { return lost }
		return p, err
	}
	_, err := run(t, w, 1)
	require.ErrorIs(t, err, lost)
}

func TestSelection(t *testing.T) {
	var log []string
	value := func(string, int) float64 { return 1 }
	other := fixed(value, &log, "ours")
	other.Name = "other"
	results, err := harness.Run(t.Context(), []harness.Workload{fixed(value, &log, "floor", "ours"), other}, harness.Options{
		Match: regexp.MustCompile("^fixed"), Only: regexp.MustCompile("ours"), Rounds: 1, Dir: t.TempDir(),
	})
	require.NoError(t, err)
	require.Len(t, results, 1)
	require.Len(t, results[0].Rows, 1)
	require.Empty(t, results[0].Comparisons, "the other candidate is not selected")
	require.Empty(t, results[0].Claims)
}

func TestRunEndsWithItsContext(t *testing.T) {
	var log []string
	ctx, cancel := context.WithCancel(t.Context())
	w := fixed(func(string, int) float64 {
		cancel()
		return 1
	}, &log, "ours")
	_, err := harness.Run(ctx, []harness.Workload{w}, harness.Options{Rounds: 1000, Dir: t.TempDir()})
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, []string{"0 ours", "close"}, log)
}

func TestReport(t *testing.T) {
	var log []string
	w := fixed(func(name string, _ int) float64 { return map[string]float64{"floor": 1, "ours": 2}[name] }, &log, "floor", "ours")
	results, err := run(t, w, 3)
	require.NoError(t, err)
	report := harness.Report{Rounds: 3, Results: results}

	var b bytes.Buffer
	require.NoError(t, report.WriteMarkdown(&b))
	require.Contains(t, b.String(), strings.Join([]string{
		"| candidate |          time ms | time ÷ floor |",
		"|-----------|-----------------:|-------------:|",
		"| floor     | 1.00 [1.00–1.00] |        1.00× |",
		"| ours      | 2.00 [2.00–2.00] |        2.00× |",
		"",
		"- holds: time of ours is 2.00× that of floor, at most 2.50×",
	}, "\n"))

	b.Reset()
	require.NoError(t, report.WriteJSON(&b))
	var back harness.Report
	require.NoError(t, json.Unmarshal(b.Bytes(), &back))
	require.Equal(t, []float64{2, 2, 2}, back.Results[0].Rows[1].Figures["time"].Samples)
}

func TestHeapCountsWhatIsKept(t *testing.T) {
	w := harness.Workload{
		Name: "heap", Metrics: []harness.Metric{{Name: "heap", Unit: "MiB"}},
		Open: func(context.Context, harness.Env) (harness.Prepared, error) {
			return harness.Prepared{Candidates: []harness.Candidate{{Name: "ours", Round: func(_ context.Context, r *harness.Round) error {
				garbage := make([]byte, 32<<20)
				kept := make([]byte, 8<<20)
				kept[0] = garbage[1]
				r.ReportHeap("heap")
				runtime.KeepAlive(kept)
				return nil
			}}}}, nil
		},
	}
	results, err := run(t, w, 3)
	require.NoError(t, err)
	require.InDelta(t, 8, results[0].Rows[0].Figures["heap"].Median, 0.5)
}

func TestDescribe(t *testing.T) {
	m, err := harness.Describe(t.Context(), t.TempDir())
	require.NoError(t, err)
	require.Positive(t, m.Sync.Median)
	for _, f := range m.Facts() {
		require.NotEmpty(t, f.Value, f.Name)
	}
}
