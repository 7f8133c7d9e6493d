package inspect

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/backends/backendurl"
	"github.com/xdswal/xdswal/cmd/xdswal/internal/progress"
	"github.com/xdswal/xdswal/internal/catalog"
	"github.com/xdswal/xdswal/internal/directory"
	"github.com/xdswal/xdswal/internal/restore"
	"github.com/xdswal/xdswal/journal"
	"github.com/xdswal/xdswal/replay"
)

// source is the directory and the backend that a command reads.
type source struct {
	dir     *directory.Info  // nil without --dir
	journal *localJournal    // nil if there is none, or if the directory is stale
	backend backends.Backend // nil without --backend
	remote  *catalog.Remote  // the objects in backend
	// stale says why the directory is stale, empty if it is not. staleJournal is
	// its journal.
	stale        string
	staleJournal *localJournal
	// listed is the result of list before the bounds of the journal were read.
	listed string
	notes  io.Writer
	report func(replay.Progress) // set by retry
}

// open opens the source that the flags name.
func (f *flags) open(ctx context.Context, p *printer) (*source, error) {
	if f.dir == "" && f.backend == "" {
		return nil, errors.New("--dir and --backend are missing: name a data directory, a backend, or both")
	}
	s := &source{notes: p.notes}
	if f.dir != "" {
		d, err := directory.Read(f.dir)
		if err != nil {
			return nil, err
		}
		s.dir = &d
		s.listed = s.list()
		if s.journal, err = openJournal(d.JournalDir()); err != nil {
			return nil, err
		}
	}
	if f.backend == "" {
		return s, nil
	}
	var err error
	if s.backend, err = backendurl.OpenReadOnly(ctx, f.backend); err != nil {
		return nil, fmt.Errorf("--backend: %w", err)
	}
	if s.remote, err = catalog.List(ctx, s.backend); err != nil {
		return nil, err
	}
	return s, s.checkStale()
}

// checkStale sets stale if another writer has claimed the backend since, and may
// have continued from before the end of the directory's journal. A daemon that
// starts on both makes the same check.
func (s *source) checkStale() error {
	newest, claimed := s.remote.Newest()
	if s.dir == nil || !claimed {
		return nil
	}
	if leads, err := s.dir.Leads(s.backend, newest); err != nil || leads {
		return err
	}
	s.stale = fmt.Sprintf("the directory is stale: it is of epoch %d, and epoch %d was claimed%s at %s; only the backend is read",
		s.dir.Epoch, newest.Number, onHost(newest.Host), when(&newest.Claimed))
	s.journal, s.staleJournal = nil, s.journal
	return nil
}

// noteStale notes that the directory is stale.
func (s *source) noteStale(p *printer) {
	if s.stale != "" {
		p.note("%s", s.stale)
	}
}

// local reports whether there is a directory that is not stale.
func (s *source) local() bool { return s.dir != nil && s.stale == "" }

// checkLost returns an error if the epochs in the backend record events after
// restored that were not found. A daemon does not start then. Events that are
// locked by a daemon are not lost.
func (s *source) checkLost(restored journal.Sequence) error {
	if s.backend == nil || s.journal.incomplete(restored) != nil {
		return nil
	}
	return s.remote.CheckEmpty(s.backend, restored)
}

// noteEmpty notes that nothing can be restored from the backend.
func (s *source) noteEmpty(p *printer) {
	switch {
	case s.backend == nil || !s.remote.Empty():
	case s.local():
		p.note("%s contains no usable snapshot or event: only the directory can be restored", s.backend)
	default:
		p.note("%s contains no usable snapshot or event: no store has shipped to it yet, or the URL is wrong", s.backend)
	}
}

func onHost(host string) string {
	if host == "" {
		return ""
	}
	return " on " + shown(host)
}

// options returns the options of a restore to t.
func (s *source) options(t restore.Target) restore.Options {
	opt := restore.Options{Backend: s.backend, Remote: s.remote, Target: t, Hooks: replay.Hooks{Progress: s.report}}
	if s.local() {
		opt.Dir = s.dir.SnapshotDir()
	}
	if s.journal != nil {
		opt.Journal = s.journal
	}
	return opt
}

// maxAttempts bounds how often a source that changes is read.
const maxAttempts = 10

// retry calls fn, which reads the source, and calls it again if it failed because
// a daemon rotated its journal or deleted files or objects meanwhile. It shows the
// progress of downloads.
func (s *source) retry(ctx context.Context, fn func() error) error {
	if s.backend != nil {
		d := progress.Show(s.notes)
		defer d.Stop()
		s.report = d.Report
	}
	for attempt := 1; ; attempt++ {
		err := fn()
		if err == nil || ctx.Err() != nil || attempt == maxAttempts {
			return err
		}
		listed := s.list()
		switch {
		case listed != s.listed:
			s.listed = listed
			if s.journal != nil {
				s.journal.refresh()
			}
		case s.journal != nil && s.journal.shrunk:
			s.journal.shrunk = false // the bounds are correct now
		case errors.Is(err, backends.ErrNotFound):
			// It was deleted after it was listed.
		default:
			return err
		}
	}
}

// list returns the names of the directory's segments and snapshots.
func (s *source) list() string {
	if s.dir == nil {
		return ""
	}
	var names []string
	for _, dir := range []string{s.dir.JournalDir(), s.dir.SnapshotDir()} {
		entries, _ := os.ReadDir(dir) // the error is returned when the files are read
		for _, e := range entries {
			names = append(names, e.Name())
		}
	}
	return strings.Join(names, "/")
}
