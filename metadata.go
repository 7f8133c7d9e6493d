package xdswal

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/internal/catalog"
	"github.com/xdswal/xdswal/internal/durable"
	"github.com/xdswal/xdswal/journal"
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
	// Epoch is the one in which the store writes. It goes on when the store is
	// opened again after its backend was taken over in this one.
	Epoch uint64 `json:"epoch"`
	// Token, Parent, ParentToken and From are of the epoch's claim; see
	// catalog.Epoch. Claimed is set once the backend knows of it.
	Token       string           `json:"token"`
	Parent      uint64           `json:"parent,omitempty"`
	ParentToken string           `json:"parent_token,omitempty"`
	From        journal.Sequence `json:"from,omitempty"`
	Claimed     bool             `json:"claimed,omitempty"`
	// Inherited is set if the directory was made with a backend, and so the
	// parent is none of its own epochs: until the claim is made, what it holds is
	// nobody's.
	Inherited bool `json:"inherited,omitempty"`
	// Sequence is the newest event that was durable when the store was last
	// opened or closed. A restore that does not reach it has lost events, even
	// if no file is left that tells of them.
	Sequence journal.Sequence `json:"sequence"`
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

// newDirectory returns the metadata of a directory that is new: that of a store
// of its own, or that continues what a backend holds.
func newDirectory(r *catalog.Remote, restored catalog.Epoch) metadata {
	m := metadata{Format: directoryFormat, StoreID: restored.StoreID, Epoch: restored.Number + 1, Parent: restored.Number}
	if r != nil {
		m.Epoch, m.Inherited = max(m.Epoch, r.Next()), true
		if newest, ok := r.Newest(); ok {
			m.StoreID, m.Parent, m.ParentToken = newest.StoreID, newest.Number, newest.Token
		}
	}
	if m.StoreID == "" {
		m.StoreID = newToken()
	}
	return m
}

// next returns the metadata of the next opening, whose state has a sequence. An
// epoch that is not known to be claimed is still the one to claim, and with the
// same token: it may have been, without an answer.
func (m metadata) next(seq journal.Sequence) metadata {
	if m.Claimed {
		m.Parent, m.ParentToken = m.Epoch, m.Token
		m.Epoch++
		m.From, m.Claimed, m.Inherited, m.Token = seq, false, false, ""
	}
	if m.Token == "" {
		m.Token = newToken()
	}
	m.Sequence = seq
	return m
}

// claim returns the epoch as the backend is to know it.
func (m metadata) claim() catalog.Epoch {
	return signed(catalog.Epoch{
		Number: m.Epoch, Parent: m.Parent, ParentToken: m.ParentToken, Sequence: m.From,
		StoreID: m.StoreID, Token: m.Token,
	})
}

// signed returns an epoch with what tells people who claimed it.
func signed(e catalog.Epoch) catalog.Epoch {
	e.Host, _ = os.Hostname()
	e.Claimed = time.Now().UTC().Round(time.Millisecond)
	return e
}

// unsettled reports whether a takeover from another machine did not come so far
// that the directory served anything.
func (m metadata) unsettled() bool { return m.Inherited && !m.Claimed }

// leads reports whether a directory holds what the newest writer of a backend
// has written: that writer is the one whose directory it is. An error is about
// another store's backend.
func (m metadata) leads(b backends.Backend, newest catalog.Epoch) (bool, error) {
	if m.unsettled() {
		return newest.Number == m.Epoch && newest.Token == m.Token, nil
	}
	if newest.StoreID != m.StoreID {
		return false, catalog.Foreign(b, newest.StoreID, m.StoreID)
	}
	last, token := m.Epoch, m.Token
	if !m.Claimed && newest.Number != m.Epoch {
		last, token = m.Parent, m.ParentToken
	}
	// A backend that knows less than the directory has lost something.
	return newest.Number < last || (newest.Number == last && newest.Token == token), nil
}

// newToken returns what nobody else has drawn.
func newToken() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
