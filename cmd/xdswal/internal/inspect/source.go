package inspect

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/backends/backendurl"
	"github.com/xdswal/xdswal/compactor/catalog"
	"github.com/xdswal/xdswal/compactor/snapshot"
	"github.com/xdswal/xdswal/internal/view"
	"github.com/xdswal/xdswal/replay"
)

// source is what a command looks at.
type source struct {
	dir     *xdswal.Directory // nil for a backend alone
	tail    *tail             // nil where there is no journal
	backend backends.Backend  // nil for a directory alone
	// seen is the directory's extent before the journal's bounds were found.
	seen string
}

func (c *common) open(ctx context.Context) (*source, error) {
	if c.dir == "" && c.backend == "" {
		return nil, errors.New("name a data directory with --dir, a backend with --backend, or both")
	}
	s := &source{}
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
	}
	return s, nil
}

func (s *source) openDir(path string) error {
	d, err := xdswal.ReadDirectory(path)
	if err != nil {
		return err
	}
	s.dir = &d
	s.seen = s.extent()
	s.tail, err = openTail(d.JournalDir())
	return err
}

// options returns what a restore needs to know of the source.
func (s *source) options(t replay.Target) replay.Options {
	opt := replay.Options{Backend: s.backend, Target: t}
	if s.dir != nil {
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
func (s *source) steadily(ctx context.Context, fn func() error) error {
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
	list func(context.Context) ([]catalog.Entry, error)
	open func(context.Context, catalog.Entry) (io.ReadCloser, error)
}

func (s *source) locations() []location {
	var out []location
	if s.dir != nil {
		dir := s.dir.SnapshotDir()
		out = append(out, location{
			name: dir,
			list: func(context.Context) ([]catalog.Entry, error) { return catalog.Local(dir) },
			open: func(_ context.Context, e catalog.Entry) (io.ReadCloser, error) { return os.Open(e.Path) },
		})
	}
	if b := s.backend; b != nil {
		out = append(out, location{
			name: b.String(),
			list: func(ctx context.Context) ([]catalog.Entry, error) { return catalog.Remote(ctx, b) },
			open: func(ctx context.Context, e catalog.Entry) (io.ReadCloser, error) {
				return b.Get(ctx, e.Path, 0, -1)
			},
		})
	}
	return out
}

// describe tells of a snapshot what its name and its header say. It reports
// false for one that is not there any more.
func (l location) describe(ctx context.Context, e catalog.Entry) (view.SnapshotFile, bool) {
	out := view.SnapshotFile{Location: l.name, Name: e.String(), Seq: e.Sequence, Epoch: e.Epoch, Bytes: e.Size}
	h, err := l.header(ctx, e)
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
