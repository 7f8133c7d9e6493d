package catalog

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
	"time"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/journal"
)

// ErrFenced is the identity of the error about a writer whose backend another
// one has taken over.
var ErrFenced = errors.New("superseded by another writer")

// Epoch is a writer's turn at a backend. The object that tells of it is created
// once, by the writer who claims the epoch, and settles two things: nobody else
// has that epoch, and what the writers before published after Sequence does not
// count.
type Epoch struct {
	// Format is the format of the object: 1.
	Format int `json:"format"`
	// Number is the epoch, one more than the newest before it.
	Number uint64 `json:"epoch"`
	// Parent is the epoch before, which is continued, and ParentToken the token
	// of its writer; 0 and empty if there was none.
	Parent      uint64 `json:"parent"`
	ParentToken string `json:"parent_token,omitempty"`
	// Sequence is the last event of the parent that counts.
	Sequence journal.Sequence `json:"sequence"`
	// Fence says that the epoch is there to supersede its parent alone: nothing
	// is published in it, and all of the parent counts, Sequence or not. Whoever
	// takes over from another machine claims one, looks what there is, and then
	// claims the epoch to write in.
	Fence bool `json:"fence,omitempty"`
	// StoreID identifies the store whose events the backend holds.
	StoreID string `json:"store_id"`
	// Token is drawn by the writer, who knows its own claim by it.
	Token string `json:"token"`
	// Host is the writer's machine and Claimed when it claimed the epoch: for
	// people.
	Host    string    `json:"host,omitempty"`
	Claimed time.Time `json:"claimed"`
}

const (
	epochPrefix = "epochs/"
	epochFormat = 1
	// maxEpochSize bounds what is read of an epoch's object.
	maxEpochSize = 64 << 10
)

// EpochKey returns the key of an epoch's object.
func EpochKey(number uint64) string { return fmt.Sprintf("%s%010d", epochPrefix, number) }

func parseEpochKey(key string) (uint64, bool) {
	digits, ok := strings.CutPrefix(key, epochPrefix)
	n, err := event.ParseSequence(digits)
	if !ok || err != nil || n == 0 || EpochKey(uint64(n)) != key {
		return 0, false
	}
	return uint64(n), true
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// marshal returns the object: a line of JSON, and a line with the CRC-32C of the
// first, newline included.
func (e Epoch) marshal() ([]byte, error) {
	e.Format = epochFormat
	data, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("encode epoch %d: %w", e.Number, err)
	}
	data = append(data, '\n')
	return fmt.Appendf(data, "%08x\n", crc32.Checksum(data, castagnoli)), nil
}

func unmarshalEpoch(data []byte, number uint64) (Epoch, error) {
	var e Epoch
	line, sum, ok := bytes.Cut(data, []byte("\n"))
	if !ok || string(sum) != fmt.Sprintf("%08x\n", crc32.Checksum(data[:len(line)+1], castagnoli)) {
		return e, fmt.Errorf("%w: checksum of the epoch differs", event.ErrCorrupt)
	}
	if err := json.Unmarshal(line, &e); err != nil {
		return e, fmt.Errorf("%w: not an epoch", event.ErrCorrupt)
	}
	if e.Format > epochFormat {
		return e, fmt.Errorf("%w: epoch has format %d, this xdswal reads %d", event.ErrVersion, e.Format, epochFormat)
	}
	if e.Number != number || e.Parent >= e.Number {
		return e, fmt.Errorf("%w: it is of epoch %d with parent %d", event.ErrCorrupt, e.Number, e.Parent)
	}
	return e, nil
}

// ReadEpoch reads what an epoch's object says. An epoch that nobody has claimed
// is [backends.ErrNotFound].
func ReadEpoch(ctx context.Context, b backends.Backend, number uint64) (Epoch, error) {
	fail := func(err error) error { return fmt.Errorf("read epoch %d: %w", number, err) }
	r, err := b.Get(ctx, EpochKey(number), 0, -1)
	if err != nil {
		return Epoch{}, fail(err)
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, maxEpochSize))
	if err != nil {
		return Epoch{}, fail(err)
	}
	e, err := unmarshalEpoch(data, number)
	if err != nil {
		return Epoch{}, fail(fmt.Errorf("%s in %s: %w", EpochKey(number), b, err))
	}
	return e, nil
}

// Claim makes an epoch the writer's, or finds that it is. If another writer has
// it, the error is [ErrFenced]. Any other error leaves open whether the epoch
// was claimed: calling Claim again with the same epoch tells.
func Claim(ctx context.Context, b backends.Backend, e Epoch) error {
	if e.Parent >= e.Number {
		return fmt.Errorf("claim epoch %d: its parent %d is not older", e.Number, e.Parent)
	}
	data, err := e.marshal()
	if err != nil {
		return err
	}
	putErr := b.Put(ctx, EpochKey(e.Number), bytes.NewReader(data))
	if putErr == nil {
		return nil
	}
	// The answer may have been lost, or this is not the first try.
	there, err := ReadEpoch(ctx, b, e.Number)
	switch {
	case errors.Is(err, backends.ErrNotFound):
		return fmt.Errorf("claim epoch %d: %w", e.Number, putErr)
	case err != nil:
		return fmt.Errorf("claim epoch %d: %w", e.Number, errors.Join(putErr, err))
	case there.Token != e.Token:
		return Fenced(there)
	}
	return nil
}

// Fenced returns the error of a writer that another one supersedes.
func Fenced(by Epoch) error {
	host := ""
	if by.Host != "" {
		host = " on " + by.Host
	}
	return fmt.Errorf("%w: epoch %d was claimed%s at %s; stop one of the two, or give each a backend prefix of its own",
		ErrFenced, by.Number, host, by.Claimed.UTC().Format(time.RFC3339))
}
