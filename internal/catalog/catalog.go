// Package catalog lists the snapshots, batches and epochs of a directory and of a
// backend, and decides which of them count and which are kept.
//
// A backend may also hold objects that a writer published after another writer had
// taken over. They do not count: the chain of epochs decides; see [Remote]. The
// package reads names and epochs, never the contents of snapshots and batches. It
// writes epochs and nothing else.
package catalog

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/xdswal/xdswal/internal/format/snapshot"
)

// SnapshotPrefix begins the keys of snapshots in a backend.
const SnapshotPrefix = "snapshots/"

// Entry is a snapshot in a directory or in a backend.
type Entry struct {
	snapshot.Name
	// Path is the file's path in a directory, the key in a backend.
	Path string
	// Size is the size of the file in bytes.
	Size int64
	// Written is the modification time of the file or the object.
	Written time.Time
}

// Local returns the snapshots in a directory, newest first. A missing directory
// contains none.
func Local(dir string) ([]Entry, error) {
	files, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	var out []Entry
	for _, f := range files {
		name, ok := snapshot.ParseName(f.Name())
		if !ok {
			continue
		}
		info, err := f.Info()
		if errors.Is(err, os.ErrNotExist) {
			continue // deleted since ReadDir
		}
		if err != nil {
			return nil, fmt.Errorf("list snapshots: %w", err)
		}
		out = append(out, Entry{Name: name, Path: filepath.Join(dir, f.Name()), Size: info.Size(), Written: info.ModTime()})
	}
	return newestFirst(out), nil
}

func newestFirst(entries []Entry) []Entry {
	slices.SortFunc(entries, func(a, b Entry) int {
		return cmp.Or(cmp.Compare(b.Sequence, a.Sequence), cmp.Compare(b.Epoch, a.Epoch))
	})
	return entries
}
