package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime/pprof"
	"slices"
	"strings"
	"time"
)

// Options select the workloads and the number of rounds.
type Options struct {
	// Match selects workloads by name, and Only candidates; nil selects all. A ratio
	// to a candidate that is not selected is omitted.
	Match, Only *regexp.Regexp
	// Rounds is the number of measured rounds, after the warm-up.
	Rounds int
	// Window is Round.Window.
	Window time.Duration
	Short  bool
	// Dir is the parent of the workloads' directories.
	Dir string
	// Progress receives a line for each round; it may be nil.
	Progress io.Writer
	// HeapProfile is called each time a candidate has measured the heap, while it
	// keeps the counted objects alive; it may be nil.
	HeapProfile func()
}

// Result is the result of a workload.
type Result struct {
	Name  string `json:"name"`
	About string `json:"about"`
	// Skipped is the reason why the workload was not run, or empty.
	Skipped     string       `json:"skipped,omitempty"`
	Metrics     []Metric     `json:"metrics"`
	Comparisons []Comparison `json:"-"`
	Notes       []string     `json:"notes,omitempty"`
	Rows        []Row        `json:"rows"`
	Claims      []Verdict    `json:"claims,omitempty"`
	// Seconds is the duration of the workload with its preparations.
	Seconds float64 `json:"seconds"`
}

// Row is the result of one candidate.
type Row struct {
	Candidate string             `json:"candidate"`
	Figures   map[string]Summary `json:"figures"`
	// Ratios are keyed by metric and candidate: "time/floor".
	Ratios map[string]Summary `json:"ratios,omitempty"`
}

// Verdict is a claim with the measured ratio, and the measured difference if the claim
// is about that.
type Verdict struct {
	Claim
	Ratio      float64 `json:"ratio"`
	Difference float64 `json:"difference,omitempty"`
	Holds      bool    `json:"holds"`
}

// Run runs the selected workloads. A workload that fails has no result; Run continues
// with the next one and returns all errors.
func Run(ctx context.Context, workloads []Workload, opt Options) ([]Result, error) {
	var results []Result
	var errs []error
	for _, w := range workloads {
		if opt.Match != nil && !opt.Match.MatchString(w.Name) {
			continue
		}
		result, err := runWorkload(ctx, w, opt)
		if ctx.Err() != nil {
			return results, errors.Join(append(errs, context.Cause(ctx))...)
		}
		if err != nil {
			progress(opt, "%s: FAILED: %v", w.Name, err)
			errs = append(errs, fmt.Errorf("run %s: %w", w.Name, err))
			continue
		}
		if result.Skipped != "" {
			progress(opt, "%s: skipped: %s", w.Name, result.Skipped)
		} else {
			progress(opt, "%s: done in %.1f s", w.Name, result.Seconds)
		}
		results = append(results, result)
	}
	return results, errors.Join(errs...)
}

func runWorkload(ctx context.Context, w Workload, opt Options) (result Result, err error) {
	start := time.Now()
	dir, err := os.MkdirTemp(opt.Dir, strings.ReplaceAll(w.Name, "/", "-")+"-*")
	if err != nil {
		return Result{}, fmt.Errorf("create directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if dir, err = filepath.Abs(dir); err != nil {
		return Result{}, fmt.Errorf("create directory: %w", err)
	}
	progress(opt, "%s: prepare", w.Name)
	prepared, err := w.Open(ctx, Env{Dir: dir, Short: opt.Short})
	if err != nil {
		return Result{}, fmt.Errorf("prepare: %w", err)
	}
	defer func() { err = errors.Join(err, closeAll(ctx, prepared)) }()
	if prepared.Skip != "" {
		return Result{Name: w.Name, About: w.About, Skipped: prepared.Skip}, nil
	}
	if opt.Only != nil {
		prepared.Candidates = slices.DeleteFunc(prepared.Candidates, func(c Candidate) bool {
			return !opt.Only.MatchString(c.Name)
		})
	}
	samples, err := runRounds(ctx, w, prepared.Candidates, opt)
	if err != nil {
		return Result{}, err
	}
	result = evaluate(w, prepared, samples)
	result.Seconds = time.Since(start).Seconds()
	return result, nil
}

func closeAll(ctx context.Context, p Prepared) error {
	var errs []error
	for _, c := range p.Candidates {
		if c.Close == nil {
			continue
		}
		if err := c.Close(ctx); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", c.Name, err))
		}
	}
	if p.Close != nil {
		errs = append(errs, p.Close(ctx))
	}
	return errors.Join(errs...)
}

// samples are the values of all rounds by candidate and metric.
type samples map[string]map[string][]float64

func runRounds(ctx context.Context, w Workload, candidates []Candidate, opt Options) (samples, error) {
	all := samples{}
	for _, c := range candidates {
		all[c.Name] = map[string][]float64{}
	}
	for number := range opt.Rounds + 1 {
		for _, i := range order(number, len(candidates)) {
			if err := ctx.Err(); err != nil {
				return nil, context.Cause(ctx)
			}
			c := candidates[i]
			values, err := runRound(ctx, w, c, number, opt)
			if err != nil {
				return nil, fmt.Errorf("%s, round %d: %w", c.Name, number, err)
			}
			if number == 0 {
				continue
			}
			for metric, v := range values {
				all[c.Name][metric] = append(all[c.Name][metric], v)
			}
		}
	}
	return all, nil
}

func runRound(ctx context.Context, w Workload, c Candidate, number int, opt Options) (map[string]float64, error) {
	r := &Round{Number: number, Window: opt.Window, HeapProfile: opt.HeapProfile}
	r.begin()
	var err error
	// The labels select a candidate in a profile: pprof -tagfocus candidate=NAME.
	pprof.Do(ctx, pprof.Labels("workload", w.Name, "candidate", c.Name), func(ctx context.Context) {
		err = c.Round(ctx, r)
	})
	if err != nil {
		return nil, err
	}
	for _, m := range w.Metrics {
		if v, ok := r.values[m.Name]; ok {
			progress(opt, "%s: round %d: %s: %s %s", w.Name, number, c.Name, format(v), m)
			break
		}
	}
	return r.values, nil
}

// order returns the order of n candidates in a round. It rotates, and every second
// round is reversed, so that over the rounds each candidate is first and last, and
// before and after each of its neighbors.
func order(round, n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = (i + round/2) % n
	}
	if round%2 == 1 {
		slices.Reverse(out)
	}
	return out
}

func evaluate(w Workload, p Prepared, all samples) Result {
	result := Result{Name: w.Name, About: w.About, Metrics: w.Metrics, Notes: p.Notes}
	for _, cmp := range w.Comparisons {
		if _, ran := all[cmp.To]; ran {
			result.Comparisons = append(result.Comparisons, cmp)
		}
	}
	for _, c := range p.Candidates {
		row := Row{Candidate: c.Name, Figures: map[string]Summary{}, Ratios: map[string]Summary{}}
		for metric, values := range all[c.Name] {
			row.Figures[metric] = Summarize(values)
		}
		for _, cmp := range result.Comparisons {
			own, other := all[c.Name][cmp.Metric], all[cmp.To][cmp.Metric]
			if len(own) > 0 && len(own) == len(other) {
				row.Ratios[cmp.Metric+"/"+cmp.To] = Ratio(own, other)
			}
		}
		result.Rows = append(result.Rows, row)
	}
	for _, claim := range w.Claims {
		own, other := all[claim.Candidate][claim.Metric], all[claim.To][claim.Metric]
		if len(own) == 0 || len(own) != len(other) {
			continue
		}
		result.Claims = append(result.Claims, claim.verdict(own, other))
	}
	return result
}

func progress(opt Options, layout string, args ...any) {
	if opt.Progress != nil {
		fmt.Fprintf(opt.Progress, layout+"\n", args...)
	}
}
