package catalog

import (
	"bytes"
	"cmp"
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
	"github.com/xdswal/xdswal/internal/retry"
	"github.com/xdswal/xdswal/journal"
)

// ErrFenced is the identity of the error of a writer after another writer has taken
// over its backend.
var ErrFenced = errors.New("superseded by another writer")

// Epoch is a writer's term of office at a backend. Its object is created once, by
// the writer that claims the epoch. From then on no other writer can claim it, and
// events that earlier writers publish after Sequence do not count.
type Epoch struct {
	// Format is the format of the object: 1.
	Format int `json:"format"`
	// Number is the number of the epoch: one more than the newest existing one.
	Number uint64 `json:"epoch"`
	// Parent is the epoch that this one continues, and ParentToken the token of its
	// writer. They are 0 and empty if there was none.
	Parent      uint64 `json:"parent"`
	ParentToken string `json:"parent_token,omitempty"`
	// Sequence is the last event of the parent that counts.
	Sequence journal.Sequence `json:"sequence"`
	// Fence reports that the epoch only ends its parent: nothing is published in it,
	// and it sets no limit, so all of the parent counts. A writer that takes over from
	// another machine claims such an epoch, lists the backend, and then claims the
	// epoch in which it publishes.
	Fence bool `json:"fence,omitempty"`
	// StoreID identifies the store whose events the backend contains.
	StoreID string `json:"store_id"`
	// Token is a random string by which a writer recognizes its own claim.
	Token string `json:"token"`
	// Host is the writer's machine, and Claimed the time of the claim. They are for
	// operators only.
	Host    string    `json:"host,omitempty"`
	Claimed time.Time `json:"claimed"`
}

const (
	epochPrefix = "epochs/"
	epochFormat = 1
	// maxEpochSize bounds how many bytes of an epoch's object are read.
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
		return e, fmt.Errorf("%w: the epoch is cut or damaged: its checksum does not match", event.ErrCorrupt)
	}
	if err := json.Unmarshal(line, &e); err != nil {
		return e, fmt.Errorf("%w: not an epoch", event.ErrCorrupt)
	}
	if e.Format > epochFormat {
		return e, fmt.Errorf("%w: got epoch format %d, want at most %d", event.ErrVersion, e.Format, epochFormat)
	}
	if e.Number != number {
		return e, fmt.Errorf("%w: got epoch %d, want %d", event.ErrCorrupt, e.Number, number)
	}
	if e.Parent >= e.Number {
		return e, fmt.Errorf("%w: got parent %d of epoch %d, want an older one", event.ErrCorrupt, e.Parent, e.Number)
	}
	return e, nil
}

// ReadEpoch reads the object of an epoch. The error is [backends.ErrNotFound] if no
// writer has claimed the epoch.
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

// tornReads is how often an epoch that cannot be decoded is read again, after tornPause:
// a store that does not create objects atomically may return half of one meanwhile.
const (
	tornReads = 3
	tornPause = 100 * time.Millisecond
)

// ReadClaim is ReadEpoch for an epoch that a writer may be claiming now.
func ReadClaim(ctx context.Context, b backends.Backend, number uint64) (Epoch, error) {
	for again := tornReads; ; again-- {
		e, err := ReadEpoch(ctx, b, number)
		if again == 0 || !errors.Is(err, event.ErrCorrupt) || !retry.Sleep(ctx, tornPause) {
			return e, err
		}
	}
}

// Claim creates the object of an epoch, or finds that an earlier call has created
// it, and reads it back. The error is [ErrFenced] if another writer has the epoch. After
// any other error the epoch may or may not be claimed: call Claim again with the same
// epoch.
func Claim(ctx context.Context, b backends.Backend, e Epoch) error {
	fail := func(err error) error { return fmt.Errorf("claim epoch %d: %w", e.Number, err) }
	if e.Parent >= e.Number {
		return fail(fmt.Errorf("got parent %d, want an older one", e.Parent))
	}
	data, err := e.marshal()
	if err != nil {
		return err
	}
	// After an error the object may exist: the answer to this Put, or to an earlier one,
	// was lost. After none it may be another writer's: a weak backend accepts two claims
	// of the same instant.
	putErr := b.Put(ctx, EpochKey(e.Number), bytes.NewReader(data))
	existing, err := ReadClaim(ctx, b, e.Number)
	switch {
	case errors.Is(err, backends.ErrNotFound):
		return fail(cmp.Or(putErr, err))
	case errors.Is(err, event.ErrCorrupt) && putErr == nil:
		return fail(fmt.Errorf("%w; what was just written cannot be read back: the store or a proxy changes objects, or two writers claimed the epoch in the same instant; correct that, and delete the object", err))
	case err != nil:
		return fail(errors.Join(putErr, err))
	case existing.Token != e.Token:
		return Fenced(existing)
	}
	return nil
}

// Fenced returns the error of a writer after another writer has claimed an epoch.
func Fenced(by Epoch) error {
	host := ""
	if by.Host != "" {
		host = " on " + by.Host
	}
	return fmt.Errorf("%w: epoch %d was claimed%s at %s; stop one of the two writers, or give each its own backend prefix",
		ErrFenced, by.Number, host, by.Claimed.UTC().Format(time.RFC3339))
}
