package xdswal

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/xdswal/xdswal/internal/durable"
	"github.com/xdswal/xdswal/journal/event"
	"github.com/xdswal/xdswal/replay"
)

// Names in a data directory. docs/format/directory.md describes it.
const (
	metadataFile = "xdswal.json"
	lockFile     = "LOCK"
	journalDir   = "journal"
	snapshotDir  = "snapshots"

	directoryFormat = 1
)

// metadata is what a data directory says of itself, in xdswal.json.
type metadata struct {
	// Format is the format of the directory: 1.
	Format int `json:"format"`
	// StoreID is drawn when the directory is made and never changes.
	StoreID string `json:"store_id"`
	// Epoch counts how often the store was opened.
	Epoch uint64 `json:"epoch"`
	// Sequence is the newest event that was durable when the store was last
	// opened or closed. A restore that does not reach it has lost events, even
	// if no file is left that tells of them.
	Sequence event.Sequence `json:"sequence"`
}

// readMetadata returns false if the directory has none yet.
func readMetadata(dir string) (metadata, bool, error) {
	var m metadata
	path := filepath.Join(dir, metadataFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return m, false, nil
	}
	if err != nil {
		return m, false, fmt.Errorf("read data directory: %w", err)
	}
	if err := json.Unmarshal(data, &m); err != nil || m.Format < 1 || m.StoreID == "" {
		return m, false, fmt.Errorf("%w: %s is not what xdswal writes: restore it from a copy; it holds the store's identity and epoch", ErrCorrupt, path)
	}
	if m.Format > directoryFormat {
		return m, false, fmt.Errorf("%w: directory %s has format %d, this xdswal reads %d: run the newer xdswal", ErrVersion, dir, m.Format, directoryFormat)
	}
	return m, true, nil
}

// nextEpoch begins a new epoch of the directory, durably. A directory that is
// new takes on the identity of the store whose snapshot was restored into it,
// and its epochs go on behind that snapshot's, so that none comes twice.
func nextEpoch(dir string, restored replay.Result) (metadata, error) {
	m, ok, err := readMetadata(dir)
	if err != nil {
		return m, err
	}
	if !ok {
		m = metadata{Format: directoryFormat, StoreID: cmp.Or(restored.StoreID, newStoreID())}
	}
	m.Epoch = max(m.Epoch, restored.Epoch) + 1
	m.Sequence = restored.Sequence
	return m, writeMetadata(dir, m)
}

// writeMetadata writes what a data directory says of itself, durably. A crash
// leaves what was there before, or this.
func writeMetadata(dir string, m metadata) error {
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("write data directory: %w", err)
	}
	err = durable.WriteFile(filepath.Join(dir, metadataFile), func(w io.Writer) error {
		_, err := w.Write(append(data, '\n'))
		return err
	})
	if err != nil {
		return fmt.Errorf("write data directory: %w", err)
	}
	return nil
}

func newStoreID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
