package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// suiteTimeout bounds the conformance suite with one server.
const suiteTimeout = 75 * time.Second

// suite is the result of the conformance suite.
type suite struct {
	passed, total int
	failed        []string
}

// A clause is a subtest of the first level.
var clause = regexp.MustCompile(`(?m)^(?:=== RUN   |    --- (PASS|FAIL): )Test[^/\s]+/([^/\s]+)(?: \(.*\))?$`)

// conform runs the suite of the server's driver.
func (t *tester) conform(ctx context.Context, srv server, p *process) (*suite, error) {
	url := p.endpoint + srv.tests.path
	if srv.tests == s3Tests {
		url = p.url("conformance")
	}
	path := filepath.Join(t.tests, srv.tests.binary)
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("%s is not built", path)
	}
	ctx, cancel := context.WithTimeout(ctx, suiteTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "-test.run", srv.tests.run, "-test.v")
	cmd.Env = append(os.Environ(), srv.tests.variable+"="+url)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return nil, fmt.Errorf("run the conformance suite: %w", err)
	}
	s := parseSuite(out)
	if s.total == 0 {
		return nil, fmt.Errorf("the conformance suite ran no clause: %s", lastLine(out))
	}
	return s, nil
}

// parseSuite reads the output of the suite. A clause without a result failed: it ran when
// the time was over.
func parseSuite(out []byte) *suite {
	s := &suite{}
	passed := map[string]bool{}
	var names []string
	for _, m := range clause.FindAllSubmatch(out, -1) {
		if result, name := string(m[1]), string(m[2]); result == "" {
			names = append(names, name)
		} else {
			passed[name] = result == "PASS"
		}
	}
	for _, name := range names {
		s.total++
		if passed[name] {
			s.passed++
		} else {
			s.failed = append(s.failed, strings.ReplaceAll(name, "_", " "))
		}
	}
	return s
}

func lastLine(out []byte) []byte {
	lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
	return lines[len(lines)-1]
}
