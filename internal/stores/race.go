package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/backends/backendurl"
)

const (
	// raceTimeout bounds all rounds with a server; a round that it ends does not count.
	raceTimeout = 75 * time.Second
	// restoreTimeout bounds each restore.
	restoreTimeout = 30 * time.Second
)

// race is the result of races of two first starts.
type race struct {
	rounds int
	// split counts the rounds in which neither writer was fenced, and none those in which
	// neither could write.
	split, none int
	// shipped counts the updates that a writer reported as shipped, and lost those of them
	// that a restore did not return.
	shipped, lost int
	// err is the first error of a writer that was not fenced, or of a restore.
	err error
}

// race runs the rounds, each with a prefix of its own.
func (t *tester) race(ctx context.Context, p *process, dir string) race {
	ctx, cancel := context.WithTimeout(ctx, raceTimeout)
	defer cancel()
	var sum race
	for i := range t.rounds {
		r := round(ctx, p.url(fmt.Sprintf("race/%d", i)), filepath.Join(dir, fmt.Sprint(i)))
		if ctx.Err() != nil {
			return sum
		}
		sum.add(r)
		if sum.rounds > 1 && sum.shipped == 0 {
			return sum // the store does not start with this server
		}
	}
	return sum
}

func (r *race) add(other race) {
	r.rounds += other.rounds
	r.split += other.split
	r.none += other.none
	r.shipped += other.shipped
	r.lost += other.lost
	if r.err == nil {
		r.err = other.err
	}
}

// round starts two writers on an empty prefix, and restores it.
func round(ctx context.Context, url, dir string) race {
	r := race{rounds: 1}
	reports, err := compete(ctx, url, dir, []string{"a", "b"})
	if err != nil {
		r.err = err
		return r
	}
	writing := 0
	for _, report := range reports {
		r.shipped += report.Shipped
		if report.Err == "" && !report.Fenced {
			writing++
		}
		if report.Err != "" && !report.Fenced {
			r.err = errors.New(report.Err)
		}
	}
	switch writing {
	case 0:
		r.none++
	case 2:
		r.split++
	}
	if r.shipped == 0 {
		return r
	}
	if r.lost, err = missing(ctx, url, filepath.Join(dir, "restored"), reports); err != nil {
		r.err = fmt.Errorf("restore: %w", err)
	}
	return r
}

// compete runs writers that claim the prefix in the same instant, and returns their
// reports.
func compete(ctx context.Context, url, dir string, names []string) (map[string]report, error) {
	writers := map[string]*writer{}
	defer func() {
		for _, w := range writers {
			w.kill()
		}
	}()
	for _, name := range names {
		w, err := startWriter(ctx, url, filepath.Join(dir, name), name)
		if err != nil {
			return nil, err
		}
		writers[name] = w
	}
	lines := map[string]string{}
	for name, w := range writers {
		var err error
		if lines[name], err = w.out.ReadString('\n'); err != nil {
			return nil, fmt.Errorf("writer %s ended without a report: %w", name, err)
		}
	}
	for _, w := range writers {
		_, _ = io.WriteString(w.in, "\n") // A writer that failed has ended.
	}
	reports := map[string]report{}
	for name, w := range writers {
		line := lines[name]
		if line == claiming+"\n" {
			line, _ = w.out.ReadString('\n') // An incomplete line is no report.
		}
		var r report
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			return nil, fmt.Errorf("writer %s ended without a report: %w", name, err)
		}
		reports[name] = r
	}
	return reports, nil
}

// writer is a process that runs write.
type writer struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func startWriter(ctx context.Context, url, dir, name string) (*writer, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	w := &writer{cmd: exec.CommandContext(ctx, self, writerCommand, url, dir, name)}
	w.cmd.Stderr = os.Stderr
	if w.in, err = w.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	w.out = bufio.NewReader(out)
	return w, w.cmd.Start()
}

// kill ends the writer, which has nothing to do any more.
func (w *writer) kill() {
	_ = w.cmd.Process.Kill() // fails only after its end
	_ = w.cmd.Wait()
}

// missing restores the backend on a new machine, and counts what was reported as shipped
// and is not there. Without a restore that is all.
func missing(ctx context.Context, url, dir string, reports map[string]report) (int, error) {
	lost := 0
	for _, report := range reports {
		lost += report.Shipped
	}
	ctx, cancel := context.WithTimeout(ctx, restoreTimeout)
	defer cancel()
	b, err := backendurl.Open(ctx, url)
	if err != nil {
		return lost, err
	}
	s, err := xdswal.Open(ctx, xdswal.Options{Dir: dir, Backend: b})
	if err != nil {
		return lost, errors.Unwrap(err) // without the directory
	}
	cache := s.SnapshotCache(true, cachev3.IDHash{}, nil)
	for name, report := range reports {
		for i := range report.Shipped {
			if _, err := cache.GetSnapshot(nodeName(name, i)); err == nil {
				lost--
			}
		}
	}
	return lost, s.Close(ctx)
}
