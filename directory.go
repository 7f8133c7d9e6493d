package xdswal

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/internal/catalog"
)

// Directory is what a data directory says of itself, to those who look into it
// without opening a store.
type Directory struct {
	// Path is the directory.
	Path string
	// StoreID and Epoch identify the store and its last opening.
	StoreID string
	Epoch   uint64

	meta metadata
}

// Leads reports whether the directory holds what the newest writer of a backend
// has written, because that is the one whose directory it is. If it does not,
// what it holds is stale, and the next Open with that backend sets it aside. A
// backend of another store is [ErrForeign].
func (d Directory) Leads(b backends.Backend, newest catalog.Epoch) (bool, error) {
	return d.meta.leads(b, newest)
}

// JournalDir returns where the directory keeps its journal. It may be missing.
func (d Directory) JournalDir() string { return filepath.Join(d.Path, journalDir) }

// SnapshotDir returns where the directory keeps its snapshots. It may be
// missing.
func (d Directory) SnapshotDir() string { return filepath.Join(d.Path, snapshotDir) }

// ReadDirectory reads what a data directory says of itself. It takes no lock
// and changes nothing, so it may be done while a store has the directory open.
// A directory of a newer format is [ErrVersion], a damaged one [ErrCorrupt].
func ReadDirectory(path string) (Directory, error) {
	info, err := os.Stat(path)
	if err != nil {
		return Directory{}, fmt.Errorf("read data directory: %w", err)
	}
	if !info.IsDir() {
		return Directory{}, fmt.Errorf("read data directory: %s is not a directory", path)
	}
	m, ok, err := readMetadata(path)
	if err != nil {
		return Directory{}, err
	}
	if !ok {
		return Directory{}, fmt.Errorf("read data directory: %s holds no %s: it is not a data directory of xdswal, or no store was ever opened there", path, metadataFile)
	}
	return Directory{Path: path, StoreID: m.StoreID, Epoch: m.Epoch, meta: m}, nil
}
