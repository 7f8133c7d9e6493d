package directory

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
	"time"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/internal/catalog"
	"github.com/xdswal/xdswal/internal/durable"
	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/journal"
)

// format is the format of a data directory.
const format = 1

// Metadata is the contents of xdswal.json, the identity of a data directory.
type Metadata struct {
	// Format is the format of the directory: 1.
	Format int `json:"format"`
	// StoreID is drawn when the directory is created and never changes.
	StoreID string `json:"store_id"`
	// Epoch is the epoch in which the store writes. It increases when the store is
	// opened again after the backend recorded it.
	Epoch uint64 `json:"epoch"`
	// Token, Parent, ParentToken and From belong to the claim of the epoch; see
	// catalog.Epoch. Claimed is set once the backend has recorded the epoch.
	Token       string           `json:"token"`
	Parent      uint64           `json:"parent,omitempty"`
	ParentToken string           `json:"parent_token,omitempty"`
	From        journal.Sequence `json:"from,omitempty"`
	Claimed     bool             `json:"claimed,omitempty"`
	// Inherited is set if the directory was created with a backend, so that Parent
	// is not one of its own epochs. Until the claim is recorded, its contents do not
	// count.
	Inherited bool `json:"inherited,omitempty"`
	// Sequence is the newest event that was durable when the store was last opened or
	// closed. A restore that does not reach it has lost events, even if no file with
	// them is left.
	Sequence journal.Sequence `json:"sequence"`
}

// readMetadata returns false if the directory has no metadata yet.
func readMetadata(dir string) (Metadata, bool, error) {
	var m Metadata
	path := filepath.Join(dir, metadataFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return m, false, nil
	}
	if err != nil {
		return m, false, fmt.Errorf("read data directory: %w", err)
	}
	if err := json.Unmarshal(data, &m); err != nil || m.Format < 1 || m.StoreID == "" {
		return m, false, fmt.Errorf("read data directory: %w: %s is not valid; it contains the store's identity and epoch: restore it from a copy", event.ErrCorrupt, path)
	}
	if m.Format > format {
		return m, false, fmt.Errorf("read data directory %s: %w: got format %d, want at most %d: use a newer xdswal", dir, event.ErrVersion, m.Format, format)
	}
	return m, true, nil
}

// writeMetadata replaces the metadata durably. A crash leaves the old or the new.
func writeMetadata(dir string, m Metadata) error {
	data, err := json.MarshalIndent(m, "", "  ")
	if err == nil {
		err = durable.WriteFile(filepath.Join(dir, metadataFile), func(w io.Writer) error {
			_, err := w.Write(append(data, '\n'))
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("write data directory: %w", err)
	}
	return nil
}

// newMetadata returns the metadata of a new directory: of a new store, or of one that
// continues what the backend contains.
func newMetadata(r *catalog.Remote, restoredEpoch uint64, restoredStoreID string) Metadata {
	m := Metadata{Format: format, StoreID: restoredStoreID, Epoch: restoredEpoch + 1, Parent: restoredEpoch}
	if r != nil {
		m.Epoch, m.Inherited = max(m.Epoch, r.Next()), true
		if newest, ok := r.Newest(); ok {
			m.StoreID, m.Parent, m.ParentToken = newest.StoreID, newest.Number, newest.Token
		}
	}
	m.StoreID = cmp.Or(m.StoreID, NewToken())
	return m
}

// next returns the metadata of the next opening, whose state has a sequence. An epoch
// that is not known to be claimed is claimed again with the same token: the claim may
// have succeeded without an answer.
func (m Metadata) next(seq journal.Sequence) Metadata {
	if m.Claimed {
		m.Parent, m.ParentToken = m.Epoch, m.Token
		m.Epoch++
		m.From, m.Claimed, m.Inherited, m.Token = seq, false, false, ""
	}
	m.Token = cmp.Or(m.Token, NewToken())
	m.Sequence = seq
	return m
}

// Claim returns the epoch to be recorded in the backend.
func (m Metadata) Claim() catalog.Epoch {
	return signed(catalog.Epoch{
		Number: m.Epoch, Parent: m.Parent, ParentToken: m.ParentToken, Sequence: m.From,
		StoreID: m.StoreID, Token: m.Token,
	})
}

// signed adds the host and the time to an epoch, for operators to read.
func signed(e catalog.Epoch) catalog.Epoch {
	e.Host, _ = os.Hostname()
	e.Claimed = time.Now().UTC().Round(time.Millisecond)
	return e
}

// unsettled reports whether a takeover from another machine was interrupted before the
// directory was served.
func (m Metadata) unsettled() bool { return m.Inherited && !m.Claimed }

// leads reports whether the directory belongs to the newest writer of a backend, and so
// contains all that this writer has written. The error is ErrForeign if the backend
// belongs to another store.
func (m Metadata) leads(b backends.Backend, newest catalog.Epoch) (bool, error) {
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
	// A backend whose newest epoch is older than the directory's has lost objects.
	return newest.Number < last || (newest.Number == last && newest.Token == token), nil
}

// NewToken returns 16 random hexadecimal digits.
func NewToken() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
