package directory

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/xdswal/xdswal/internal/durable"
	"github.com/xdswal/xdswal/internal/format/snapshot"
	"github.com/xdswal/xdswal/internal/state"
)

// Write creates a data directory that contains a state, for a store to be opened in.
// The directory must be missing or empty. It belongs to a new store, which needs a
// backend prefix of its own.
//
// When Write returns nil, the directory is on stable storage. A crash before that
// leaves a directory that is not empty, and in which a store opens with all of the
// state or with none.
func Write(ctx context.Context, path string, st *state.State) (Info, error) {
	i := newInfo(path, Metadata{Format: format, StoreID: NewToken(), Epoch: 1, Sequence: st.Sequence()})
	if err := write(ctx, i, st); err != nil {
		return Info{}, fmt.Errorf("write data directory %s: %w", path, err)
	}
	return i, nil
}

func write(ctx context.Context, i Info, st *state.State) error {
	if err := CheckVacant(i.Path); err != nil {
		return err
	}
	if err := durable.MkdirAll(i.SnapshotDir()); err != nil {
		return err
	}
	lock, err := durable.Lock(filepath.Join(i.Path, lockFile))
	if err != nil {
		return err
	}
	err = writeSnapshot(ctx, i, st)
	if err == nil {
		// After the snapshot: metadata without a snapshot would be the directory of a
		// store that never contained anything.
		err = writeMetadata(i.Path, i.meta)
	}
	return errors.Join(err, lock.Unlock())
}

// CheckVacant returns an error if a directory exists and has entries.
func CheckVacant(path string) error {
	entries, err := os.ReadDir(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case len(entries) > 0:
		return fmt.Errorf("directory is not empty (contains %q); choose one that does not exist", entries[0].Name())
	}
	return nil
}

// WriteSnapshot writes a snapshot of a state in the directory's epoch.
func (d *Directory) WriteSnapshot(ctx context.Context, st *state.State) error {
	return writeSnapshot(ctx, newInfo(d.path, d.Metadata()), st)
}

func writeSnapshot(ctx context.Context, i Info, st *state.State) error {
	name := snapshot.Name{Epoch: i.Epoch, Sequence: st.Sequence()}
	return durable.WriteFile(filepath.Join(i.SnapshotDir(), name.String()), func(w io.Writer) error {
		_, err := snapshot.Encode(ctx, w, st, snapshot.Header{
			Sequence: st.Sequence(), Time: st.Time(), Epoch: i.Epoch, Created: time.Now().Round(0), StoreID: i.StoreID,
		})
		return err
	})
}
