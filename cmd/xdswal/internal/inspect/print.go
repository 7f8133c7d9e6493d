package inspect

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/dustin/go-humanize"
)

// printer writes the output of a command. A write error is returned by flush.
type printer struct {
	out   *bufio.Writer
	notes io.Writer
}

func newPrinter(out, notes io.Writer) *printer {
	return &printer{out: bufio.NewWriter(out), notes: notes}
}

func (p *printer) flush() error { return wrapWrite(p.out.Flush()) }

func wrapWrite(err error) error {
	if err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	return nil
}

// note writes a note that is not part of the output, after the output so far.
func (p *printer) note(format string, args ...any) {
	_ = p.out.Flush() // the writer keeps the error
	fmt.Fprintf(p.notes, "note: "+format+"\n", args...)
}

func (p *printer) write(data []byte) error {
	_, err := p.out.Write(data)
	return wrapWrite(err)
}

// line writes a value as one line of JSON.
func (p *printer) line(v any) error {
	enc := json.NewEncoder(p.out)
	enc.SetEscapeHTML(false)
	return wrapWrite(enc.Encode(v))
}

// table writes rows under a heading.
func (p *printer) table(heading []string, rows ...[]string) {
	w := tabwriter.NewWriter(p.out, 0, 0, 2, ' ', 0)
	if len(heading) > 0 {
		fmt.Fprintln(w, strings.Join(heading, "\t"))
	}
	for _, row := range rows {
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	_ = w.Flush() // p.out keeps the error
}

// printAll writes values as lines of JSON, or as the rows of a table.
func printAll[T any](p *printer, asJSON bool, values []T, heading []string, row func(T) []string) error {
	if !asJSON {
		p.table(heading, mapped(values, row)...)
		return nil
	}
	for _, v := range values {
		if err := p.line(v); err != nil {
			return err
		}
	}
	return nil
}

// shown returns a name that is safe in a table and on a terminal.
func shown(s string) string {
	odd := func(r rune) bool { return !unicode.IsPrint(r) || r == ' ' || r == '"' }
	if s == "" || strings.ContainsFunc(s, odd) {
		return strconv.Quote(s)
	}
	return s
}

const typePrefix = "type.googleapis.com/"

func shortType(url string) string { return shown(strings.TrimPrefix(url, typePrefix)) }

// when returns a time in RFC 3339, UTC.
func when(t *time.Time) string {
	if t == nil || t.IsZero() {
		return "-"
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// size returns a number of bytes, followed by a readable form.
func size(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%d B (%s)", n, humanize.IBytes(uint64(n)))
}

func number[N ~uint64 | ~int](n N) string { return fmt.Sprintf("%d", n) }

// oneLine returns an error's text without the line breaks of errors.Join.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

func mapped[T, U any](in []T, fn func(T) U) []U {
	out := make([]U, len(in))
	for i, v := range in {
		out[i] = fn(v)
	}
	return out
}
