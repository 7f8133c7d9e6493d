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
	"github.com/xdswal/xdswal/internal/format/snapshot"
	"github.com/xdswal/xdswal/internal/restore"
	"github.com/xdswal/xdswal/internal/view"
	"github.com/xdswal/xdswal/journal"
	"github.com/xdswal/xdswal/replay"
)

// source is what a command looks at.
type source struct {
	dir     *directory.Info  // nil for a backend alone
	tail    *tail            // nil where there is no journal that counts
	backend backends.Backend // nil for a directory alone
	remote  *catalog.Remote  // what the backend holds
	// stale is why the directory does not count beside the backend, and aside
	// its journal then.
	stale string
	aside *tail
	// seen is the directory's extent before the journal's bounds were found.
	seen string
	// notes is where downloads are shown, by report while there may be any.
	notes  io.Writer
	report func(replay.Progress)
}

func (c *common) open(ctx context.Context, p *printer) (*source, error) {
	if c.dir == "" && c.backend == "" {
		return nil, errors.New("name a data directory with --dir, a backend with --backend, or both")
	}
	s := &source{notes: p.notes}
	if c.dir != "" {
		if err := s.openDir(c.dir); err != nil {
			return nil, err
		}
	}
	if c.backend != "" {
		b, err := backendurl.OpenReadOnly(ctx, c.backend)
		if err != nil {
			return nil, fmt.Errorf("--backend: %w", err)
		}
		s.backend = b
		if s.remote, err = catalog.List(ctx, b); err != nil {
			return nil, err
		}
		if err := s.weigh(); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// weigh finds out whether the directory counts beside the backend, as a daemon
// does that starts on both: not if another writer has taken over since, who may
// have gone on from before the directory's end.
func (s *source) weigh() error {
	newest, claimed := s.remote.Newest()
	if s.dir == nil || !claimed {
		return nil
	}
	if leads, err := s.dir.Leads(s.backend, newest); err != nil || leads {
		return err
	}
	s.stale = fmt.Sprintf("the directory is stale: it is of epoch %d, and epoch %d was claimed%s at %s; the backend alone counts",
		s.dir.Epoch, newest.Number, onHost(newest.Host), when(newest.Claimed))
	s.tail, s.aside = nil, s.tail
	return nil
}

// warn says if the directory does not count.
func (s *source) warn(p *printer) {
	if s.stale != "" {
		p.note("%s", s.stale)
	}
}

// local reports whether there is a directory that counts.
func (s *source) local() bool { return s.dir != nil && s.stale == "" }

// lost returns why what was restored is not all, though nothing that was read says
// so: the epochs do, in a backend that has lost the rest. A daemon refuses to start
// there too. What cannot be read beside one is not lost.
func (s *source) lost(restored journal.Sequence) error {
	if s.backend == nil || s.tail.incomplete(restored) != nil {
		return nil
	}
	return s.remote.CheckEmpty(s.backend, restored)
}

// noteEmpty says if the backend can restore nothing, though that is no problem.
func (s *source) noteEmpty(p *printer) {
	switch {
	case s.backend == nil || !s.remote.Empty():
	case s.local():
		p.note("%s holds neither a snapshot nor an event that counts: there is nothing but the directory to restore from", s.backend)
	default:
		p.note("%s holds neither a snapshot nor an event that counts: no store has shipped there yet, or the URL names another place", s.backend)
	}
}

func onHost(host string) string {
	if host == "" {
		return ""
	}
	return " on " + shown(host)
}

func (s *source) openDir(path string) error {
	d, err := directory.Read(path)
	if err != nil {
		return err
	}
	s.dir = &d
	s.seen = s.extent()
	s.tail, err = openTail(d.JournalDir())
	return err
}

// options returns what a restore needs to know of the source.
func (s *source) options(t restore.Target) restore.Options {
	opt := restore.Options{Backend: s.backend, Remote: s.remote, Target: t, Hooks: replay.Hooks{Progress: s.report}}
	if s.local() {
		opt.Dir = s.dir.SnapshotDir()
	}
	if s.tail != nil {
		opt.Journal = s.tail
	}
	return opt
}

// attempts bounds how often a directory is read that changes meanwhile.
const attempts = 10

// steadily calls fn, which reads the source, and calls it again if it failed
// while a daemon rotated its journal or deleted what a newer snapshot covers.
// What fn downloads is shown.
func (s *source) steadily(ctx context.Context, fn func() error) error {
	if s.backend != nil {
		d := progress.Show(s.notes)
		defer d.Stop()
		s.report = d.Report
	}
	for try := 1; ; try++ {
		err := fn()
		if err == nil || ctx.Err() != nil || try == attempts {
			return err
		}
		now := s.extent()
		switch {
		case now != s.seen:
			s.look(now)
		case s.tail != nil && s.tail.moved:
			s.tail.moved = false // the bounds were corrected
		case errors.Is(err, backends.ErrNotFound):
			// Deleted after it was listed.
		default:
			return err
		}
	}
}

// look finds the journal's bounds again; now is the extent before that.
func (s *source) look(now string) {
	s.seen = now
	if s.tail != nil {
		s.tail.look()
	}
}

// extent returns something that changes when files of the directory come or
// go.
func (s *source) extent() string {
	if s.dir == nil {
		return ""
	}
	var names []string
	for _, dir := range []string{s.dir.JournalDir(), s.dir.SnapshotDir()} {
		entries, _ := os.ReadDir(dir) // who reads what is in it will tell
		for _, e := range entries {
			names = append(names, e.Name())
		}
	}
	return strings.Join(names, "/")
}

// location is a place with snapshots.
type location struct {
	name string
	list func() ([]entry, error)
	open func(context.Context, catalog.Entry) (io.ReadCloser, error)
}

// entry is a snapshot in a location.
type entry struct {
	catalog.Entry
	superseded bool
}

func (s *source) locations() []location {
	var out []location
	if s.dir != nil {
		dir := s.dir.SnapshotDir()
		out = append(out, location{
			name: dir,
			list: func() ([]entry, error) {
				local, err := catalog.Local(dir)
				return mapped(local, func(e catalog.Entry) entry { return entry{Entry: e} }), err
			},
			open: func(_ context.Context, e catalog.Entry) (io.ReadCloser, error) { return os.Open(e.Path) },
		})
	}
	if b := s.backend; b != nil {
		out = append(out, location{
			name: b.String(),
			list: func() ([]entry, error) { return remoteEntries(s.remote), nil },
			open: func(ctx context.Context, e catalog.Entry) (io.ReadCloser, error) {
				return b.Get(ctx, e.Path, 0, -1)
			},
		})
	}
	return out
}

// remoteEntries returns the snapshots in a backend, those too that do not count.
func remoteEntries(r *catalog.Remote) []entry {
	out := mapped(r.Snapshots, func(e catalog.Entry) entry { return entry{Entry: e} })
	for _, o := range r.Superseded {
		if name, ok := snapshot.ParseName(o.Key); ok {
			out = append(out, entry{Entry: catalog.Entry{Name: name, Path: o.Key, Size: o.Size, Written: o.ModTime}, superseded: true})
		}
	}
	return out
}

// describe tells of a snapshot what its name and its header say. It reports
// false for one that is not there any more.
func (l location) describe(ctx context.Context, e entry) (view.SnapshotFile, bool) {
	out := view.SnapshotFile{Location: l.name, Name: e.String(), Seq: e.Sequence, Epoch: e.Epoch, Bytes: e.Size, Superseded: e.superseded}
	h, err := l.header(ctx, e.Entry)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, backends.ErrNotFound) {
		return out, false // pruned meanwhile
	}
	if err != nil {
		out.Error = oneLine(err)
		return out, true
	}
	out.StoreID = h.StoreID
	if at, created := h.Time.UTC(), h.Created.UTC(); true {
		out.Time, out.Created = &at, &created
	}
	return out, true
}

func (l location) header(ctx context.Context, e catalog.Entry) (snapshot.Header, error) {
	r, err := l.open(ctx, e)
	if err != nil {
		return snapshot.Header{}, err
	}
	defer r.Close()
	return snapshot.ReadHeader(r)
}
