package inspect

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/xdswal/xdswal/cmd/xdswal/internal/progress"
)

// printer writes what a command shows, and remembers if that fails.
type printer struct {
	out   *bufio.Writer
	notes io.Writer
}

func newPrinter(out, notes io.Writer) *printer {
	return &printer{out: bufio.NewWriter(out), notes: notes}
}

func (p *printer) flush() error {
	if err := p.out.Flush(); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	return nil
}

// note tells what is no part of the output. It comes after what was shown.
func (p *printer) note(format string, args ...any) {
	_ = p.out.Flush() // remembered by the writer
	fmt.Fprintf(p.notes, "note: "+format+"\n", args...)
}

// line writes a value as one line of JSON.
func (p *printer) line(v any) error {
	enc := json.NewEncoder(p.out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	return nil
}

// table writes rows under a heading.
func (p *printer) table(heading []string, rows [][]string) {
	w := tabwriter.NewWriter(p.out, 0, 0, 2, ' ', 0)
	if len(heading) > 0 {
		fmt.Fprintln(w, strings.Join(heading, "\t"))
	}
	for _, row := range rows {
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	_ = w.Flush() // remembered by p.out
}

// shown returns a name as it may stand in a table and on a terminal.
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
func when(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format(time.RFC3339Nano)
}

func whenPtr(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return when(*t)
}

// size returns a number of bytes, with a readable form beside it.
func size(n int64) string {
	if n < 1024 {
		return progress.Size(n)
	}
	return fmt.Sprintf("%d B (%s)", n, progress.Size(n))
}

func number[N ~uint64 | ~int | ~int64](n N) string { return fmt.Sprintf("%d", n) }

// lines joins errors that stand one a line, as errors.Join makes them.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

var errEnough = errors.New("enough")
