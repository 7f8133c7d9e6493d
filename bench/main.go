// Command bench compares xdswal with raw floors and with the code that one would write
// without it. See README.md for the method.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"runtime/pprof"
	"syscall"
	"time"

	"github.com/xdswal/xdswal/bench/fleet"
	"github.com/xdswal/xdswal/bench/harness"
	"github.com/xdswal/xdswal/bench/workload"
)

type options struct {
	run, only              string
	rounds                 int
	short, list, check     bool
	dir, json              string
	cpuProfile, memProfile string
	timeout                time.Duration
}

func main() {
	fleet.Main()
	var o options
	flag.StringVar(&o.run, "run", "", "run the workloads whose names match this `regexp`")
	flag.StringVar(&o.only, "only", "", "run the candidates whose names match this `regexp`")
	flag.IntVar(&o.rounds, "rounds", 0, "measure `n` rounds after the warm-up (default 5, with -short 2)")
	flag.BoolVar(&o.short, "short", false, "measure the same on less data, in about two minutes")
	flag.BoolVar(&o.list, "list", false, "list the workloads and exit")
	flag.BoolVar(&o.check, "check", false, "exit with status 1 if a claim does not hold")
	flag.StringVar(&o.dir, "dir", ".", "create the temporary data directory in this `directory`")
	flag.StringVar(&o.json, "json", "", "write the report with every sample to this `file`")
	flag.StringVar(&o.cpuProfile, "cpuprofile", "", "write a CPU profile to this `file`; its labels are workload and candidate")
	flag.StringVar(&o.memProfile, "memprofile", "", "write a profile of the last measured heap to this `file`")
	flag.DurationVar(&o.timeout, "timeout", 40*time.Minute, "stop after this time")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	holds, err := o.main(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	if o.check && !holds {
		fmt.Fprintln(os.Stderr, "bench: a claim does not hold")
		os.Exit(1)
	}
}

func (o *options) main(ctx context.Context) (holds bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	match, err := regexp.Compile(o.run)
	if err != nil {
		return false, fmt.Errorf("parse -run: %w", err)
	}
	only, err := regexp.Compile(o.only)
	if err != nil {
		return false, fmt.Errorf("parse -only: %w", err)
	}
	dir, err := os.MkdirTemp(o.dir, ".run-*")
	if err != nil {
		return false, fmt.Errorf("create data directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	workloads := workload.All(dir, o.short)
	if o.list {
		for _, w := range workloads {
			fmt.Println(w.Name)
		}
		return true, nil
	}
	stop, err := o.startProfile()
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	return o.measure(ctx, dir, workloads, match, only)
}

func (o *options) measure(ctx context.Context, dir string, workloads []harness.Workload, match, only *regexp.Regexp) (bool, error) {
	opt := harness.Options{
		Match: match, Only: only, Rounds: o.rounds, Short: o.short, Dir: dir,
		Window: 500 * time.Millisecond, Progress: os.Stderr,
	}
	if o.short {
		opt.Window = 150 * time.Millisecond
	}
	switch {
	case o.rounds > 0:
	case o.short:
		opt.Rounds = 2
	default:
		opt.Rounds = 5
	}
	if o.memProfile != "" {
		opt.HeapProfile = o.writeHeapProfile
	}
	machine, err := harness.Describe(ctx, dir)
	if err != nil {
		return false, err
	}
	results, err := harness.Run(ctx, workloads, opt)
	report := harness.Report{Machine: machine, Rounds: opt.Rounds, Short: o.short, Results: results}
	// The results before an error are reported too.
	return report.Holds(), errors.Join(err, report.WriteMarkdown(os.Stdout), o.writeJSON(&report))
}

func (o *options) writeJSON(report *harness.Report) error {
	if o.json == "" {
		return nil
	}
	return writeFile(o.json, report.WriteJSON)
}

func (o *options) startProfile() (stop func() error, err error) {
	if o.cpuProfile == "" {
		return func() error { return nil }, nil
	}
	f, err := os.Create(o.cpuProfile)
	if err != nil {
		return nil, fmt.Errorf("create profile: %w", err)
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(fmt.Errorf("start profile: %w", err), f.Close())
	}
	return func() error {
		pprof.StopCPUProfile()
		return f.Close()
	}, nil
}

func (o *options) writeHeapProfile() {
	if err := writeFile(o.memProfile, pprof.WriteHeapProfile); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
	}
}

func writeFile(path string, write func(io.Writer) error) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("create %s: %w", path, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return write(f)
}
