// Package harness measures candidates side by side.
//
// A [Workload] is a piece of work and the [Candidate]s that do it: our code, a
// raw floor that nothing can be faster than, and what people would write
// without us. [Run] interleaves them: every round runs each candidate once, in
// an order that changes from round to round, so that what else the machine
// does meets all of them alike. A figure is the median over the rounds. A ratio
// is the median of the ratios within each round, and so holds even where the
// machine is twice as fast in one round as in the next. Only ratios are ever
// asserted, by way of a [Claim].
package harness

import (
	"context"
	"strings"
)

// Metric is one figure that candidates report.
type Metric struct {
	Name string `json:"name"`
	Unit string `json:"unit"`
}

// String returns the metric as the head of a column.
func (m Metric) String() string {
	if m.Unit == "" {
		return m.Name
	}
	return m.Name + " " + m.Unit
}

// Comparison asks for a column with a metric of every candidate, divided by
// that of one.
type Comparison struct {
	Metric string `json:"metric"`
	To     string `json:"to"`
}

// Claim is a ratio that is to hold on every machine: Candidate's Metric,
// divided by To's, is at most AtMost, or at least AtLeast, if those are not 0.
type Claim struct {
	Candidate string  `json:"candidate"`
	Metric    string  `json:"metric"`
	To        string  `json:"to"`
	AtMost    float64 `json:"at_most,omitempty"`
	AtLeast   float64 `json:"at_least,omitempty"`
}

// holds reports whether the claim holds of a ratio. It does not of NaN.
func (c Claim) holds(ratio float64) bool {
	return ratio >= c.AtLeast && (c.AtMost == 0 || ratio <= c.AtMost)
}

// bound returns what the claim says: "at most 1.50×".
func (c Claim) bound() string {
	var bounds []string
	if c.AtMost != 0 {
		bounds = append(bounds, "at most "+formatRatio(c.AtMost))
	}
	if c.AtLeast != 0 {
		bounds = append(bounds, "at least "+formatRatio(c.AtLeast))
	}
	return strings.Join(bounds, ", ")
}

// Workload is one piece of work and those who do it.
type Workload struct {
	// Name is what -run matches: "append/16-writers".
	Name string
	// About says what one round does and what its figures mean.
	About string
	// Metrics are the columns; of the first the spread is shown too.
	Metrics     []Metric
	Comparisons []Comparison
	Claims      []Claim
	// Open prepares the work, which is not measured. The candidates' own
	// Close is called when all rounds are done, or when a round has failed.
	Open func(ctx context.Context, env Env) (Prepared, error)
}

// Env is what a workload may use.
type Env struct {
	// Dir is an empty directory on the file system that is measured. It is
	// removed after the workload.
	Dir string
	// Short asks for less work of the same kind.
	Short bool
}

// Prepared is a workload that is ready to run.
type Prepared struct {
	// Skip says what this machine lacks: the workload is not run, and the report
	// says why. It is empty where nothing is missing.
	Skip       string
	Candidates []Candidate
	// Notes tell figures about the prepared data, which hold for all rounds.
	Notes []string
	// Close checks and releases what the candidates share; nil for nothing.
	Close func(ctx context.Context) error
}

// Candidate is one way to do the work.
type Candidate struct {
	Name string
	// Round does the work once, reports its figures, and checks that the work
	// was done: a figure without it must be an error.
	Round func(ctx context.Context, r *Round) error
	// Close checks and releases what the rounds share; nil for nothing.
	Close func(ctx context.Context) error
}
