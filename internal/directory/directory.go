// Package directory is a store's data directory: its layout, its metadata, its lock,
// and the takeover, which decides whether the directory or the backend counts when a
// store is opened.
//
//	DIR/LOCK          the lock of the process that has the directory open
//	DIR/xdswal.json   the metadata: store, epoch, newest sequence
//	DIR/journal/      internal/wal
//	DIR/snapshots/    internal/compact
//	DIR/superseded-*/ local data that another writer had superseded
//
// Invariants: only the process that holds the lock changes the metadata, and only while
// it holds the lock. Data is set aside, never deleted. docs/format/directory.md
// describes the layout.
package directory

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/internal/catalog"
	"github.com/xdswal/xdswal/internal/durable"
)

// Names in a data directory.
const (
	metadataFile = "xdswal.json"
	lockFile     = "LOCK"
	journalDir   = "journal"
	snapshotDir  = "snapshots"
)

// Info is the identity of a data directory, read without its lock.
type Info struct {
	Path string
	// StoreID and Epoch identify the store and its last opening.
	StoreID string
	Epoch   uint64

	meta Metadata
}

// Read reads the identity of a data directory. It takes no lock and changes nothing, so
// a store may have the directory open. The error is event.ErrVersion for a directory of
// a newer format, and event.ErrCorrupt for a damaged one.
func Read(path string) (Info, error) {
	info, err := os.Stat(path)
	if err != nil {
		return Info{}, fmt.Errorf("read data directory: %w", err)
	}
	if !info.IsDir() {
		return Info{}, fmt.Errorf("read data directory: %s is not a directory", path)
	}
	m, ok, err := readMetadata(path)
	if err != nil {
		return Info{}, err
	}
	if !ok {
		return Info{}, fmt.Errorf("read data directory: %s does not contain %s: it is not a data directory of xdswal, or no store was ever opened in it", path, metadataFile)
	}
	return newInfo(path, m), nil
}

func newInfo(path string, m Metadata) Info {
	return Info{Path: path, StoreID: m.StoreID, Epoch: m.Epoch, meta: m}
}

// Leads reports whether the directory belongs to the newest writer of a backend. If it
// does not, its contents are stale, and the next opening with that backend sets them
// aside. The error is catalog.ErrForeign if the backend belongs to another store.
func (i Info) Leads(b backends.Backend, newest catalog.Epoch) (bool, error) {
	return i.meta.leads(b, newest)
}

// JournalDir returns the directory of the journal, which may be missing.
func (i Info) JournalDir() string { return filepath.Join(i.Path, journalDir) }

// SnapshotDir returns the directory of the snapshots, which may be missing.
func (i Info) SnapshotDir() string { return filepath.Join(i.Path, snapshotDir) }

// errReleased is the error of a change after the lock was released.
var errReleased = errors.New("data directory is not locked any more")

// Directory is a data directory that this process has locked. Its methods are safe for
// concurrent use.
type Directory struct {
	path string
	lock *durable.LockFile

	mu       sync.Mutex
	meta     Metadata
	known    bool // the directory has metadata
	released bool
}

// Open creates the data directory if it is missing, locks it, and reads its metadata.
// The error is durable.ErrLocked, at once, while another process holds the lock.
func Open(path string) (*Directory, error) {
	// A directory of a newer format is refused before anything is changed.
	if _, _, err := readMetadata(path); err != nil {
		return nil, err
	}
	if err := durable.MkdirAll(path); err != nil {
		return nil, err
	}
	lock, err := durable.Lock(filepath.Join(path, lockFile))
	if err != nil {
		return nil, err
	}
	d := &Directory{path: path, lock: lock}
	// The holder of the lock until now may have been a newer xdswal.
	if d.meta, d.known, err = readMetadata(path); err != nil {
		return nil, errors.Join(err, lock.Unlock())
	}
	return d, nil
}

// JournalDir returns the directory of the journal, which may be missing.
func (d *Directory) JournalDir() string { return filepath.Join(d.path, journalDir) }

// SnapshotDir returns the directory of the snapshots, which may be missing.
func (d *Directory) SnapshotDir() string { return filepath.Join(d.path, snapshotDir) }

// HasJournal reports whether there are files of a journal.
func (d *Directory) HasJournal() bool { return !isEmpty(d.JournalDir()) }

// Metadata returns the current metadata.
func (d *Directory) Metadata() Metadata {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.meta
}

// Update changes the metadata durably. After Close it changes nothing and returns an
// error, so that work that a timeout has abandoned cannot write into a directory that
// another process may have locked since.
func (d *Directory) Update(change func(*Metadata)) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.released {
		return fmt.Errorf("write data directory %s: %w", d.path, errReleased)
	}
	m := d.meta
	change(&m)
	if err := writeMetadata(d.path, m); err != nil {
		return err
	}
	d.meta, d.known = m, true
	return nil
}

// removeMetadata makes the directory one in which no store was ever opened.
func (d *Directory) removeMetadata() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.released {
		return errReleased
	}
	d.meta, d.known = Metadata{}, false
	return os.Remove(filepath.Join(d.path, metadataFile))
}

// Close releases the lock. A second Close returns nil.
func (d *Directory) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.released {
		return nil
	}
	d.released = true
	return d.lock.Unlock()
}

// isEmpty reports whether a path is missing or a directory without entries.
func isEmpty(path string) bool {
	info, err := os.Stat(path)
	if err != nil || !info.IsDir() {
		return err != nil
	}
	entries, err := os.ReadDir(path)
	return err == nil && len(entries) == 0
}

// MakeSnapshotDir creates the directory of the snapshots if it is missing.
func (d *Directory) MakeSnapshotDir() error { return durable.MkdirAll(d.SnapshotDir()) }
