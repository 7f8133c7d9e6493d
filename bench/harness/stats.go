package harness

import (
	"math"
	"slices"
	"time"
)

// Summary is the median and the quartiles of samples.
type Summary struct {
	Median float64 `json:"median"`
	// Low and High are the first and the third quartile.
	Low     float64   `json:"q1"`
	High    float64   `json:"q3"`
	Samples []float64 `json:"samples"`
}

// Summarize returns the summary of samples, whose order it keeps.
func Summarize(samples []float64) Summary {
	sorted := slices.Sorted(slices.Values(samples))
	return Summary{
		Median:  quantile(sorted, 0.5),
		Low:     quantile(sorted, 0.25),
		High:    quantile(sorted, 0.75),
		Samples: slices.Clone(samples),
	}
}

// quantile interpolates between the two nearest of the sorted samples. It returns NaN
// for no samples.
func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return math.NaN()
	}
	at := q * float64(len(sorted)-1)
	low := int(math.Floor(at))
	high := min(low+1, len(sorted)-1)
	return sorted[low] + (at-float64(low))*(sorted[high]-sorted[low])
}

// Ratio returns the summary of the ratios of samples to others within each round: index
// i of both is the same round.
func Ratio(samples, others []float64) Summary {
	ratios := make([]float64, 0, len(samples))
	for i := range min(len(samples), len(others)) {
		ratios = append(ratios, samples[i]/others[i])
	}
	return Summarize(ratios)
}

// difference returns the summary of the differences of samples to others within each
// round.
func difference(samples, others []float64) Summary {
	differences := make([]float64, 0, len(samples))
	for i := range min(len(samples), len(others)) {
		differences = append(differences, samples[i]-others[i])
	}
	return Summarize(differences)
}

// Latencies are the durations of operations. They are not safe for concurrent use;
// Merge joins those of several goroutines.
type Latencies []time.Duration

// Merge concatenates latencies.
func Merge(parts []Latencies) Latencies { return slices.Concat(parts...) }

// Quantile returns a quantile in milliseconds, or NaN for no latencies.
func (l Latencies) Quantile(q float64) float64 {
	if len(l) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(l))
	at := int(math.Ceil(q*float64(len(sorted)))) - 1
	return float64(sorted[max(0, at)]) / float64(time.Millisecond)
}
