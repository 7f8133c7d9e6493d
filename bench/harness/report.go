package harness

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strings"
	"unicode/utf8"
)

// Report is the report of a run.
type Report struct {
	Machine Machine  `json:"machine"`
	Rounds  int      `json:"rounds"`
	Short   bool     `json:"short"`
	Results []Result `json:"results"`
}

// Holds reports whether every claim that was measured holds.
func (r *Report) Holds() bool {
	for _, result := range r.Results {
		for _, c := range result.Claims {
			if !c.Holds {
				return false
			}
		}
	}
	return true
}

// WriteJSON writes the report with every sample.
func (r *Report) WriteJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	if err := enc.Encode(r); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

// WriteMarkdown writes the report as Markdown tables that are aligned as plain text.
func (r *Report) WriteMarkdown(w io.Writer) error {
	var b strings.Builder
	b.WriteString("## Machine\n\n")
	rows := [][]string{{"fact", "value"}}
	for _, f := range r.Machine.Facts() {
		rows = append(rows, []string{f.Name, f.Value})
	}
	writeTable(&b, rows)
	fmt.Fprintf(&b, "\nMedians of %d interleaved rounds after an uncounted warm-up; the brackets contain the quartiles. A ratio is the median of the ratios within the rounds.\n", r.Rounds)
	for i := range r.Results {
		r.Results[i].write(&b)
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

func (r *Result) write(b *strings.Builder) {
	fmt.Fprintf(b, "\n## %s\n\n%s\n", r.Name, r.About)
	if r.Skipped != "" {
		fmt.Fprintf(b, "\nSkipped: %s.\n", r.Skipped)
		return
	}
	for _, n := range r.Notes {
		fmt.Fprintf(b, "%s\n", n)
	}
	b.WriteByte('\n')
	writeTable(b, r.table())
	if len(r.Claims) > 0 {
		b.WriteByte('\n')
	}
	for _, c := range r.Claims {
		verdict := "holds"
		if !c.Holds {
			verdict = "DOES NOT HOLD"
		}
		fmt.Fprintf(b, "- %s: %s of %s is %s\n", verdict, c.Metric, c.Candidate, c.measured(r.unit(c.Metric)))
	}
}

// unit returns the unit of a metric.
func (r *Result) unit(metric string) string {
	for _, m := range r.Metrics {
		if m.Name == metric {
			return m.Unit
		}
	}
	return ""
}

// measured returns what was measured and the bound as text: "1.20× that of floor, at most
// 1.50×", or "0.3 ms more than that of floor, at most 1 ms more".
func (v Verdict) measured(unit string) string {
	if v.AtMostMore != 0 {
		return fmt.Sprintf("%s %s more than that of %s, at most %s %s more", format(v.Difference), unit, v.To, format(v.AtMostMore), unit)
	}
	out := fmt.Sprintf("%s that of %s", formatRatio(v.Ratio), v.To)
	if v.AtMost != 0 {
		out += ", at most " + formatRatio(v.AtMost)
	}
	if v.AtLeast != 0 {
		out += ", at least " + formatRatio(v.AtLeast)
	}
	return out
}

func (r *Result) table() [][]string {
	head := []string{"candidate"}
	for _, m := range r.Metrics {
		head = append(head, m.String())
	}
	for _, c := range r.Comparisons {
		head = append(head, fmt.Sprintf("%s ÷ %s", c.Metric, c.To))
	}
	rows := [][]string{head}
	for _, row := range r.Rows {
		line := []string{row.Candidate}
		for i, m := range r.Metrics {
			line = append(line, cell(row.Figures, m.Name, i == 0))
		}
		for _, c := range r.Comparisons {
			ratio, ok := row.Ratios[c.Metric+"/"+c.To]
			if !ok {
				line = append(line, "")
				continue
			}
			line = append(line, formatRatio(ratio.Median))
		}
		rows = append(rows, line)
	}
	return rows
}

func cell(figures map[string]Summary, metric string, spread bool) string {
	s, ok := figures[metric]
	if !ok {
		return ""
	}
	if !spread {
		return format(s.Median)
	}
	return fmt.Sprintf("%s [%s–%s]", format(s.Median), format(s.Low), format(s.High))
}

// writeTable writes rows, of which the first is the header. The first column is
// left-aligned, the others are right-aligned.
func writeTable(b *strings.Builder, rows [][]string) {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, c := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(c))
		}
	}
	for n, row := range rows {
		for i, c := range row {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c))
			if i == 0 {
				fmt.Fprintf(b, "| %s%s ", c, pad)
			} else {
				fmt.Fprintf(b, "| %s%s ", pad, c)
			}
		}
		b.WriteString("|\n")
		if n > 0 {
			continue
		}
		for i, width := range widths {
			if i == 0 {
				fmt.Fprintf(b, "|%s", strings.Repeat("-", width+2))
			} else {
				fmt.Fprintf(b, "|%s:", strings.Repeat("-", width+1))
			}
		}
		b.WriteString("|\n")
	}
}

// format returns a figure with three significant digits.
func format(v float64) string {
	abs := math.Abs(v)
	switch {
	case math.IsNaN(v):
		return "–"
	case v == 0:
		return "0"
	case abs >= 100:
		return fmt.Sprintf("%.0f", v)
	case abs >= 10:
		return fmt.Sprintf("%.1f", v)
	case abs >= 1:
		return fmt.Sprintf("%.2f", v)
	default:
		return fmt.Sprintf("%.3g", v)
	}
}

func formatRatio(v float64) string {
	switch abs := math.Abs(v); {
	case abs < 0.01 && abs != 0:
		return fmt.Sprintf("%.2g×", v)
	case abs < 0.1:
		return fmt.Sprintf("%.3f×", v)
	}
	return format(v) + "×"
}
