package inspect

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/cmd/xdswal/internal/view"
	"github.com/xdswal/xdswal/internal/catalog"
	"github.com/xdswal/xdswal/internal/format/snapshot"
)

func snapshotsCommand() *cobra.Command {
	var f flags
	return f.command("snapshots [--dir DIR] [--backend URL]", "List the snapshots of a data directory or a backend",
		`Snapshots lists the snapshots of a data directory, a backend or both, the newest
first. It reads only their headers; verify reads all of them. A snapshot in a
backend is marked as superseded if its writer shipped it after another writer had
taken over; no restore uses it. The command changes nothing and is safe beside a
running daemon.

A snapshot whose header is damaged or cannot be read is listed with the error. The
exit code is 1 then.`,
		"print one line of JSON for each snapshot",
		func(ctx context.Context, p *printer) error { return snapshots(ctx, p, &f) })
}

func snapshots(ctx context.Context, p *printer, f *flags) error {
	s, err := f.open(ctx, p)
	if err != nil {
		return err
	}
	files, err := s.snapshots(ctx)
	if err != nil {
		return err
	}
	slices.SortStableFunc(files, func(a, b view.SnapshotFile) int {
		return cmp.Or(cmp.Compare(b.Seq, a.Seq), cmp.Compare(b.Epoch, a.Epoch))
	})
	heading := []string{"SEQ", "EPOCH", "EVENT TIME", "CREATED", "SIZE", "STORE", "NAME", "LOCATION"}
	if err := printAll(p, f.json, files, heading, snapshotRow); err != nil {
		return err
	}
	bad := 0
	for _, f := range files {
		if f.Error != "" {
			bad++
		}
	}
	if bad > 0 {
		return fmt.Errorf("read snapshots: the header of %d of %d snapshots cannot be read, see the list; xdswal verify reports what can be restored", bad, len(files))
	}
	return nil
}

// snapshots returns the snapshots of the directory and of the backend.
func (s *source) snapshots(ctx context.Context) ([]view.SnapshotFile, error) {
	var files []view.SnapshotFile
	if s.dir != nil {
		dir := s.dir.SnapshotDir()
		entries, err := catalog.Local(dir)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			files = describe(files, dir, e, false, func() (io.ReadCloser, error) { return os.Open(e.Path) })
		}
	}
	if s.backend != nil {
		add := func(e catalog.Entry, superseded bool) {
			files = describe(files, s.backend.String(), e, superseded, func() (io.ReadCloser, error) { return s.backend.Get(ctx, e.Path, 0, -1) })
		}
		for _, e := range s.remote.Snapshots {
			add(e, false)
		}
		for _, o := range s.remote.Superseded {
			if name, ok := snapshot.ParseName(o.Key); ok {
				add(catalog.Entry{Name: name, Path: o.Key, Size: o.Size, Written: o.ModTime}, true)
			}
		}
	}
	return files, context.Cause(ctx)
}

// describe appends a snapshot with the contents of its header, unless it was
// deleted after it was listed.
func describe(files []view.SnapshotFile, location string, e catalog.Entry, superseded bool, open func() (io.ReadCloser, error)) []view.SnapshotFile {
	f := view.SnapshotFile{Location: location, Name: e.String(), Seq: e.Sequence, Epoch: e.Epoch, Bytes: e.Size, Superseded: superseded}
	var h snapshot.Header
	r, err := open()
	if err == nil {
		h, err = snapshot.ReadHeader(r)
		r.Close()
	}
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, backends.ErrNotFound):
		return files
	case err != nil:
		f.Error = oneLine(err)
	default:
		at, created := h.Time.UTC(), h.Created.UTC()
		f.StoreID, f.Time, f.Created = h.StoreID, &at, &created
	}
	return append(files, f)
}

func snapshotRow(f view.SnapshotFile) []string {
	location := f.Location
	if f.Superseded {
		location += "  superseded"
	}
	if f.Error != "" {
		location += "  " + f.Error
	}
	return []string{
		number(f.Seq), number(f.Epoch), when(f.Time), when(f.Created), size(f.Bytes), cmp.Or(f.StoreID, "-"), f.Name, location,
	}
}
