// Package catalog lists what a directory and a backend hold, and tells what of
// it counts: a backend may also hold what a writer published after another had
// taken over.
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

// KeyPrefix is where snapshots are in a backend.
const KeyPrefix = "snapshots/"

// Entry is a snapshot in a directory or in a backend.
type Entry struct {
	snapshot.Name
	// Path is the file's path in a directory, the key in a backend.
	Path string
	// Size is the size of the file in bytes.
	Size int64
	// Written is when the file or the object came into being.
	Written time.Time
}

// Local returns the snapshots in a directory, newest first. A directory that
// is not there has none.
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
			continue // pruned meanwhile
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
