// Command stores tests xdswal with the S3 servers that package registries offer. For each
// of them, over HTTP and over TLS, it runs the conformance suite of backends and races two
// first starts, and prints a row of the table in docs/s3.md. "make stores" installs the
// servers and runs it. Everything listens on loopback.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// settings are the flags.
type settings struct {
	tools   string
	tests   string
	servers string
	rounds  int
	doc     string
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == writerCommand {
		exit(write(os.Args[2:]))
	}
	var s settings
	flag.StringVar(&s.tools, "tools", ".tools", "directory of the installed servers")
	flag.StringVar(&s.tests, "tests", "bin", "directory of the compiled tests s3.test, gcs.test and azure.test")
	flag.StringVar(&s.servers, "servers", "", "servers to test, separated by commas; default all, which also writes the table")
	flag.IntVar(&s.rounds, "rounds", 10, "races of two first starts with each server")
	flag.StringVar(&s.doc, "doc", "docs/s3.md", "document whose table is replaced")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	exit(run(ctx, s))
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "stores:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func run(ctx context.Context, s settings) error {
	dir, err := os.MkdirTemp("", "xdswal-stores-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	cert, err := newCertificate(ctx, dir)
	if err != nil {
		return err
	}
	t := &tester{settings: s, dir: dir, cert: cert, env: os.Environ(), isolated: isolated()}
	if err := cert.setenv(); err != nil {
		return err
	}
	var rows []*row
	for _, srv := range servers() {
		if s.servers != "" && !slices.Contains(strings.Split(s.servers, ","), srv.name) {
			continue
		}
		for _, transport := range srv.transports {
			r := t.test(ctx, srv, transport)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			rows = append(rows, r)
		}
	}
	if len(rows) == 0 {
		return fmt.Errorf("no server is named %q", s.servers)
	}
	table := render(rows)
	fmt.Print("\n", table)
	if s.servers == "" {
		err = replaceTable(s.doc, table)
	}
	return err
}

// tester tests servers one after the other.
type tester struct {
	settings

	dir      string
	cert     certificate
	env      []string // of the servers
	isolated bool
}

// test returns a row, which contains the error if the server cannot be tested.
func (t *tester) test(ctx context.Context, srv server, transport string) *row {
	began := time.Now()
	r := &row{server: srv.name, version: version(t.tools, srv.name), transport: transport}
	defer func() {
		fmt.Fprintf(os.Stderr, "%s %s (%.0fs): %s\n", srv.name, transport, time.Since(began).Seconds(), r)
	}()
	switch {
	case r.version == "":
		r.skipped = "not installed"
		return r
	case srv.anyAddress && !t.isolated:
		r.skipped = "listens on all addresses, and there is no network namespace"
		return r
	}
	dir, err := os.MkdirTemp(t.dir, srv.name)
	if err != nil {
		r.skipped = err.Error()
		return r
	}
	defer func() { _ = os.RemoveAll(dir) }()
	p, err := t.start(ctx, srv, transport, dir)
	if err != nil {
		r.skipped = err.Error()
		return r
	}
	defer p.stop()
	r.suite, err = t.conform(ctx, srv, p)
	if err != nil {
		r.skipped = err.Error()
		return r
	}
	if srv.tests == s3Tests {
		r.creation = probe(ctx, p.url("probe"))
		r.race = t.race(ctx, p, filepath.Join(dir, "race"))
	}
	return r
}

// version returns the installed version of a server, which scripts/deps records in the
// name of an empty file, or "" if the server is not installed.
func version(tools, name string) string {
	prefix := "." + name + "-"
	files, err := filepath.Glob(filepath.Join(tools, "*", prefix+"*"))
	if err != nil || len(files) != 1 {
		return ""
	}
	return strings.TrimPrefix(filepath.Base(files[0]), prefix)
}

var errMarkers = errors.New("the lines " + tableBegin + " and " + tableEnd + " are missing")

// replaceTable replaces what is between the markers in a document.
func replaceTable(path, table string) error {
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(old), tableBegin+"\n")
	_, after, ok2 := strings.Cut(rest, tableEnd)
	if !ok || !ok2 {
		return fmt.Errorf("write the table to %s: %w", path, errMarkers)
	}
	return os.WriteFile(path, []byte(before+tableBegin+"\n"+table+tableEnd+after), 0o644)
}
