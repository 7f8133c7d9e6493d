// Package harness measures candidates side by side.
//
// A [Workload] is a piece of work and the [Candidate]s that do it: xdswal, a raw floor
// that nothing can be faster than, and the code that one would write without xdswal.
// [Run] interleaves them: every round runs each candidate once, in an order that
// changes from round to round, so that other load on the machine affects all of them
// alike. A figure is the median over the rounds. A ratio is the median of the ratios
// within each round, so it is valid even if the machine is twice as fast in one round
// as in the next. Only ratios and differences within a round are asserted, by a [Claim].
package harness

import "context"

// Metric is one figure that candidates report.
type Metric struct {
	Name string `json:"name"`
	Unit string `json:"unit"`
}

// String returns the metric as the header of a column.
func (m Metric) String() string {
	if m.Unit == "" {
		return m.Name
	}
	return m.Name + " " + m.Unit
}

// Comparison is a column with a metric of every candidate, divided by that of one
// candidate.
type Comparison struct {
	Metric string `json:"metric"`
	To     string `json:"to"`
}

// Claim is a bound of a ratio on every machine: Candidate's Metric, divided by To's, is
// at most AtMost, or at least AtLeast, if those are not 0. If AtMostMore is not 0, it is a
// bound of the difference instead: Candidate's Metric is at most To's plus AtMostMore, in
// the metric's unit.
type Claim struct {
	Candidate  string  `json:"candidate"`
	Metric     string  `json:"metric"`
	To         string  `json:"to"`
	AtMost     float64 `json:"at_most,omitempty"`
	AtLeast    float64 `json:"at_least,omitempty"`
	AtMostMore float64 `json:"at_most_more,omitempty"`
}

// verdict compares the samples of both candidates, of which index i is the same round.
func (c Claim) verdict(own, other []float64) Verdict {
	v := Verdict{Claim: c, Ratio: Ratio(own, other).Median}
	if c.AtMostMore != 0 {
		v.Difference = difference(own, other).Median
		v.Holds = v.Difference <= c.AtMostMore // NaN is not
		return v
	}
	v.Holds = v.Ratio >= c.AtLeast && (c.AtMost == 0 || v.Ratio <= c.AtMost)
	return v
}

// Workload is one piece of work and the candidates that do it.
type Workload struct {
	// Name is matched by -run: "append/16-writers".
	Name string
	// About describes what one round does and what its figures mean.
	About string
	// Metrics are the columns. The first one is shown with its quartiles.
	Metrics     []Metric
	Comparisons []Comparison
	Claims      []Claim
	// Open prepares the work and is not measured. Close of each candidate is called
	// after the last round, or after a round has failed.
	Open func(ctx context.Context, env Env) (Prepared, error)
}

// Env is the environment of a workload.
type Env struct {
	// Dir is an empty directory on the measured file system. It is removed after the
	// workload.
	Dir string
	// Short selects less work of the same kind.
	Short bool
}

// Prepared is a workload that is ready to run.
type Prepared struct {
	// Skip is the reason to skip the workload on this machine, or empty. The report
	// contains it.
	Skip       string
	Candidates []Candidate
	// Notes describe the prepared data, which is the same in all rounds.
	Notes []string
	// Close checks and releases what the candidates share; it may be nil.
	Close func(ctx context.Context) error
}

// Candidate is one way to do the work.
type Candidate struct {
	Name string
	// Round does the work once, reports its figures, and checks that the work was
	// done: a figure without the work must be an error.
	Round func(ctx context.Context, r *Round) error
	// Close checks and releases what the rounds share; it may be nil.
	Close func(ctx context.Context) error
}
