package main

import (
	"fmt"
	"regexp"
	"strings"
)

// The lines around the table in the document.
const (
	tableBegin = "<!-- make stores: begin -->"
	tableEnd   = "<!-- make stores: end -->"
)

// row is the result of one server with one transport.
type row struct {
	server, version, transport string
	skipped                    string // why there is no result, or ""
	suite                      *suite
	creation                   string // what the driver's probe returned
	race                       race
}

func (r *row) String() string { return strings.Join(r.cells()[3:], " | ") }

var header = []string{"server", "version", "", "clauses passed", "clauses failed", "creation", "both wrote", "lost"}

func (r *row) cells() []string {
	cells := []string{r.server, r.version, r.transport, "", "", "", "", ""}
	if r.skipped != "" {
		cells[3] = "skipped: " + oneLine(r.skipped)
		return cells
	}
	cells[3] = fmt.Sprintf("%d of %d", r.suite.passed, r.suite.total)
	cells[4] = strings.Join(r.suite.failed, ", ")
	if r.suite.passed == 0 {
		cells[4] = "all"
	}
	cells[5] = r.creation
	switch race := r.race; {
	case r.creation == "": // not raced
	case race.rounds == 0 || race.shipped == 0:
		cells[6] = "no writer started: " + oneLine(fmt.Sprint(race.err))
	default:
		cells[6] = fmt.Sprintf("%d of %d", race.split, race.rounds)
		cells[7] = fmt.Sprintf("%d of %d", race.lost, race.shipped)
		if race.none > 0 {
			cells[6] += fmt.Sprintf("; neither: %d", race.none)
		}
		if race.err != nil {
			cells[7] += "; " + oneLine(race.err.Error())
		}
	}
	return cells
}

// endpoint is the part of an error that differs in each run.
var endpoint = regexp.MustCompile(`\?endpoint=https?://[\d.:]*\d`)

// oneLine returns an error's text for a cell, of bounded length.
func oneLine(s string) string {
	s = endpoint.ReplaceAllString(s, "")
	s = strings.ReplaceAll(strings.Join(strings.Fields(s), " "), "|", `\|`)
	if r := []rune(s); len(r) > 160 {
		s = string(r[:160]) + "…"
	}
	return s
}

// render returns the table as Markdown.
func render(rows []*row) string {
	var b strings.Builder
	line := func(cells []string) { fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | ")) }
	line(header)
	b.WriteString("|---|---|---|--:|---|---|--:|--:|\n")
	for _, r := range rows {
		line(r.cells())
	}
	return b.String()
}
