package xdswal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/xdswal/xdswal/internal/compact"
	"github.com/xdswal/xdswal/internal/durable"
	"github.com/xdswal/xdswal/internal/format/snapshot"
	"github.com/xdswal/xdswal/internal/state"
)

// WriteDirectory makes a data directory that holds a state, for [Open] to start
// from. The directory must not exist, or be empty.
//
// It is the directory of a store of its own: it gets a new identity, and needs
// a backend prefix of its own.
//
// When WriteDirectory has returned nil the directory is on stable storage. A
// crash before that leaves a directory that is not empty, and that a store
// opens with all of the state or with none.
func WriteDirectory(ctx context.Context, path string, st *state.State) (Directory, error) {
	m := metadata{Format: directoryFormat, StoreID: newToken(), Epoch: 1, Sequence: st.Sequence()}
	d := Directory{Path: path, StoreID: m.StoreID, Epoch: m.Epoch, meta: m}
	if err := writeDirectory(ctx, d, st); err != nil {
		return Directory{}, fmt.Errorf("write data directory %s: %w", path, err)
	}
	return d, nil
}

func writeDirectory(ctx context.Context, d Directory, st *state.State) error {
	if err := checkVacant(d.Path); err != nil {
		return err
	}
	if err := durable.MkdirAll(d.SnapshotDir()); err != nil {
		return err
	}
	lock, err := durable.Lock(filepath.Join(d.Path, lockFile))
	if err != nil {
		return err
	}
	err = writeState(ctx, d, st)
	if err == nil {
		// The snapshot first: a crash here leaves a directory that a store
		// takes up, while one with an identity and without the snapshot would
		// look like a store that never held anything.
		err = writeMetadata(d.Path, d.meta)
	}
	return errors.Join(err, lock.Unlock())
}

// checkVacant refuses a directory with anything in it.
func checkVacant(path string) error {
	entries, err := os.ReadDir(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case len(entries) > 0:
		return fmt.Errorf("it is not empty: it holds %q; name a directory that does not exist yet", entries[0].Name())
	}
	return nil
}

func writeState(ctx context.Context, d Directory, st *state.State) error {
	name := snapshot.Name{Epoch: d.Epoch, Sequence: st.Sequence()}
	return durable.WriteFile(filepath.Join(d.SnapshotDir(), name.String()), func(w io.Writer) error {
		_, err := compact.Encode(ctx, w, st, snapshot.Header{
			Sequence: st.Sequence(), Time: st.Time(), Epoch: d.Epoch, Created: time.Now().Round(0), StoreID: d.StoreID,
		})
		return err
	})
}
