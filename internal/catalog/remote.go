package catalog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/internal/format/batch"
	"github.com/xdswal/xdswal/internal/format/snapshot"
	"github.com/xdswal/xdswal/journal"
)

// ErrForeign is the identity of the error about a backend that contains another
// store's data.
var ErrForeign = errors.New("belongs to another store")

// Batch is a batch of events in a backend.
type Batch struct {
	batch.Name
	// Size is the size of the object in bytes.
	Size int64
	// Written is the modification time of the object.
	Written time.Time
}

// Key returns the batch's key.
func (b Batch) Key() string { return BatchPrefix + b.String() }

// BatchPrefix begins the keys of batches.
const BatchPrefix = "events/"

// Remote is a listing of a backend, and the part of it that counts. Each epoch names
// its parent and the last event of the parent that counts, so the epochs form a chain
// from the newest one back. A snapshot or a batch was superseded, and does not count,
// if its epoch is not in the chain, or if it begins after the last event of its epoch
// that counts.
type Remote struct {
	// Epochs are the epochs of the chain whose objects were read, newest first.
	Epochs []Epoch
	// Snapshots are the snapshots that count, newest first.
	Snapshots []Entry
	// Batches are the batches that count, whole or in part, sorted by their first
	// sequence and then by epoch.
	Batches []Batch
	// Superseded are the snapshots and batches that do not count.
	Superseded []backends.Object
	// Numbers are the epochs that have an object, sorted.
	Numbers []uint64

	read      map[uint64]Epoch
	snapshots []Entry
	batches   []Batch
	limits    map[uint64]journal.Sequence // nil if there are no epochs
	until     journal.Sequence            // later events do not count
	// unread is the oldest epoch of the chain if its object is missing, or 0. All
	// epochs before it have the same limit.
	unread uint64
}

// parallelReads is the number of epochs that are read at a time.
const parallelReads = 8

// List lists a backend and reads its epochs. An error does not mean that the backend
// is empty.
func List(ctx context.Context, b backends.Backend) (*Remote, error) {
	r := &Remote{read: map[uint64]Epoch{}}
	// The three lists need not be of one moment: each contains at least what was
	// published before the call, which is what callers rely on.
	var lists [3][]backends.Object
	g, listing := errgroup.WithContext(ctx)
	for i, prefix := range []string{epochPrefix, SnapshotPrefix, BatchPrefix} {
		g.Go(func() (err error) {
			lists[i], err = b.List(listing, prefix)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, fmt.Errorf("list backend: %w", err)
	}
	for i, add := range []func(backends.Object){r.addEpoch, r.addSnapshot, r.addBatch} {
		for _, o := range lists[i] {
			add(o)
		}
	}
	newestFirst(r.snapshots)
	slices.SortFunc(r.batches, func(a, b Batch) int {
		return cmp.Or(cmp.Compare(a.First, b.First), cmp.Compare(a.Epoch, b.Epoch))
	})
	if err := r.readEpochs(ctx, b); err != nil {
		return nil, err
	}
	r.resolve(math.MaxUint64)
	return r, nil
}

// Relist lists the backend again, with the bound that [Remote.Until] has set.
func (r *Remote) Relist(ctx context.Context, b backends.Backend) (*Remote, error) {
	out, err := List(ctx, b)
	if err != nil {
		return nil, err
	}
	out.resolve(r.until)
	return out, nil
}

func (r *Remote) addEpoch(o backends.Object) {
	if n, ok := parseEpochKey(o.Key); ok {
		r.Numbers = append(r.Numbers, n)
	}
}

func (r *Remote) addSnapshot(o backends.Object) {
	// An object below another prefix is a user's copy.
	if name, ok := snapshot.ParseName(o.Key); ok && o.Key == SnapshotPrefix+name.String() {
		r.snapshots = append(r.snapshots, Entry{Name: name, Path: o.Key, Size: o.Size, Written: o.ModTime})
	}
}

func (r *Remote) addBatch(o backends.Object) {
	if name, ok := batch.ParseName(o.Key); ok && o.Key == BatchPrefix+name.String() {
		r.batches = append(r.batches, Batch{Name: name, Size: o.Size, Written: o.ModTime})
	}
}

// readEpochs reads the epochs that decide what counts: from the oldest one that has a
// snapshot or a batch to the newest.
func (r *Remote) readEpochs(ctx context.Context, b backends.Backend) error {
	if len(r.Numbers) == 0 {
		return nil
	}
	oldest := r.Numbers[len(r.Numbers)-1]
	for _, s := range r.snapshots {
		oldest = min(oldest, s.Epoch)
	}
	for _, b := range r.batches {
		oldest = min(oldest, b.Epoch)
	}
	at, _ := slices.BinarySearch(r.Numbers, oldest)
	epochs := make([]Epoch, len(r.Numbers)-at)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallelReads)
	for i, n := range r.Numbers[at:] {
		g.Go(func() (err error) {
			epochs[i], err = ReadEpoch(ctx, b, n)
			if errors.Is(err, backends.ErrNotFound) {
				return nil // deleted since it was listed
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, e := range epochs {
		if e.Number != 0 {
			r.read[e.Number] = e
		}
	}
	return nil
}

// Claim claims e, which continues what was listed, and updates r to what counts then.
// The error is [ErrFenced] if another writer has taken over, and [ErrForeign] if the
// backend contains another store. After any other error the epoch may or may not be
// claimed: list the backend and call Claim again.
func (r *Remote) Claim(ctx context.Context, b backends.Backend, e Epoch) error {
	if newest, ok := r.Newest(); ok {
		switch {
		case newest.StoreID != e.StoreID:
			return Foreign(b, newest.StoreID, e.StoreID)
		case newest.Number == e.Number && newest.Token == e.Token:
			return nil // an earlier call claimed it
		case newest.Number > e.Parent || (newest.Number == e.Parent && newest.Token != e.ParentToken):
			return Fenced(newest)
		}
		if err := r.claimFence(ctx, b, newest, e); err != nil {
			return err
		}
	}
	if err := Claim(ctx, b, e); err != nil {
		return err
	}
	r.Numbers = append(r.Numbers, e.Number)
	r.read[e.Number] = e
	r.resolve(math.MaxUint64)
	return nil
}

// claimFence claims the epoch after the newest one, if e has a higher number because
// the backend has lost the epochs between. The writer of the newest epoch checks only
// that one number, so it would not notice e.
func (r *Remote) claimFence(ctx context.Context, b backends.Backend, newest, e Epoch) error {
	if newest.Number+1 >= e.Number || newest.Token == e.Token {
		return nil
	}
	f := e
	f.Number, f.Parent, f.ParentToken, f.Sequence, f.Fence = newest.Number+1, newest.Number, newest.Token, 0, true
	return Claim(ctx, b, f)
}

// Foreign returns the error about a backend that contains the store theirs, for the
// store ours.
func Foreign(b backends.Backend, theirs, ours string) error {
	return fmt.Errorf("%s %w: got store %s, want %s; give each store a backend prefix of its own; to take that store over, start on an empty data directory",
		b, ErrForeign, theirs, ours)
}

// Until returns the listing with a bound: events after seq do not count. A writer that
// has continued from seq, and could not claim its epoch yet, sees the backend so.
func (r *Remote) Until(seq journal.Sequence) *Remote {
	out := *r
	out.resolve(seq)
	return &out
}

// resolve determines what counts, of the events up to a limit.
func (r *Remote) resolve(limit journal.Sequence) {
	r.until, r.unread = limit, 0
	r.Epochs, r.Snapshots, r.Batches, r.Superseded, r.limits = nil, nil, nil, nil, nil
	newest := uint64(0)
	for n := range r.read {
		newest = max(newest, n)
	}
	if newest != 0 {
		r.limits = map[uint64]journal.Sequence{}
	}
	for n := newest; n != 0; {
		r.limits[n] = limit
		e, ok := r.read[n]
		if !ok {
			// The store began without this backend, or the object was lost.
			r.unread = n
			break
		}
		r.Epochs = append(r.Epochs, e)
		if !e.Fence {
			limit = min(limit, e.Sequence)
		}
		n = e.Parent
	}
	for _, s := range r.snapshots {
		if s.Sequence <= r.Limit(s.Epoch) {
			r.Snapshots = append(r.Snapshots, s)
		} else {
			r.Superseded = append(r.Superseded, backends.Object{Key: s.Path, Size: s.Size, ModTime: s.Written})
		}
	}
	for _, b := range r.batches {
		if b.First <= r.Limit(b.Epoch) {
			r.Batches = append(r.Batches, b)
		} else {
			r.Superseded = append(r.Superseded, backends.Object{Key: b.Key(), Size: b.Size, ModTime: b.Written})
		}
	}
}

// Limit returns the last event of an epoch that counts.
func (r *Remote) Limit(epoch uint64) journal.Sequence {
	if r.limits == nil {
		return math.MaxUint64 // no writer has ever claimed an epoch
	}
	if limit, ok := r.limits[epoch]; ok || epoch >= r.unread {
		return limit
	}
	return r.limits[r.unread]
}

// Includes reports whether the events up to seq of an epoch all count, so that what
// counts continues a state at seq. That is so if the epoch is in the chain, with the
// same token, and its limit is seq or later. If the listing does not reach back to the
// epoch, Includes returns false. If no writer has ever claimed an epoch, everything
// counts.
func (r *Remote) Includes(e Epoch, seq journal.Sequence) bool {
	if r.limits == nil {
		return true
	}
	limit, ok := r.limits[e.Number]
	return ok && seq <= limit && r.token(e.Number) == e.Token
}

// token returns the token of an epoch of the chain. That of an epoch without an object
// is in the epoch after it.
func (r *Remote) token(number uint64) string {
	for _, e := range r.Epochs {
		switch number {
		case e.Number:
			return e.Token
		case e.Parent:
			return e.ParentToken
		}
	}
	return ""
}

// Newest returns the newest epoch, or false if there is none.
func (r *Remote) Newest() (Epoch, bool) {
	if len(r.Epochs) == 0 {
		return Epoch{}, false
	}
	return r.Epochs[0], true
}

// Next returns the number of the next epoch to claim.
func (r *Remote) Next() uint64 {
	next := uint64(1)
	if n := len(r.Numbers); n > 0 {
		next = r.Numbers[n-1] + 1
	}
	for _, s := range r.snapshots {
		if r.limits == nil {
			next = max(next, s.Epoch+1) // an xdswal without epochs shipped it
		}
	}
	return next
}

// Empty reports whether no snapshot and no batch counts.
func (r *Remote) Empty() bool { return len(r.Snapshots) == 0 && len(r.Batches) == 0 }

// CheckEmpty returns an error for a backend in which only epochs are left, if one of
// them continues from an event after seq: a writer that starts with it would serve
// nothing. The error is [event.ErrGap].
func (r *Remote) CheckEmpty(b backends.Backend, seq journal.Sequence) error {
	if !r.Empty() {
		return nil
	}
	for _, e := range r.Epochs {
		if e.Sequence > seq {
			return fmt.Errorf("%w: epoch %d in %s continues from event %d, but the backend has no snapshot and no batch that counts: they were deleted, or never shipped; start with the data directory that has the events, or give a new store another prefix",
				event.ErrGap, e.Number, b, uint64(e.Sequence))
		}
	}
	return nil
}

// Known returns the newest event that is known to exist from the names of what counts.
// The newest batch contains this event and possibly later ones.
func (r *Remote) Known() journal.Sequence {
	known := journal.Sequence(0)
	if len(r.Snapshots) > 0 {
		known = r.Snapshots[0].Sequence
	}
	if n := len(r.Batches); n > 0 {
		known = max(known, r.Batches[n-1].First)
	}
	return known
}

// ShipAfter returns the event after which a new writer continues to ship batches. How
// far the newest batch reaches is unknown, so it is shipped again. Events that so far
// only a snapshot contains are shipped too, if the journal still has them: then each
// state since the oldest snapshot can be restored.
func (r *Remote) ShipAfter() journal.Sequence {
	after := journal.Sequence(0)
	if n := len(r.Snapshots); n > 0 {
		after = r.Snapshots[n-1].Sequence
	}
	if n := len(r.Batches); n > 0 {
		after = max(after, r.Batches[n-1].First-1)
	}
	return after
}

// After returns the batches that may contain events after seq, in the order in which
// to apply them.
func (r *Remote) After(seq journal.Sequence) []Batch {
	// Of each epoch, only the last batch that begins at seq+1 or before can reach
	// beyond seq+1.
	begins := map[uint64]journal.Sequence{}
	for _, b := range r.Batches {
		if b.First <= seq+1 {
			begins[b.Epoch] = max(begins[b.Epoch], b.First)
		}
	}
	var out []Batch
	for _, b := range r.Batches {
		if b.First >= begins[b.Epoch] {
			out = append(out, b)
		}
	}
	return out
}

// Continues reports whether a batch may contain the event after seq.
func (r *Remote) Continues(seq journal.Sequence) bool {
	after := r.After(seq)
	return len(after) > 0 && after[0].First <= seq+1
}

// Decode calls fn for the events of a batch that count, in order; see
// [batch.Decode].
func (r *Remote) Decode(b Batch, data []byte, fn func(*journal.Event) error) error {
	limit := r.Limit(b.Epoch)
	err := batch.Decode(data, b.Name, func(ev *journal.Event) error {
		if ev.Sequence > limit {
			return errSuperseded
		}
		return fn(ev)
	})
	if errors.Is(err, errSuperseded) {
		return nil
	}
	return err
}

// errSuperseded ends the decoding of a batch at the last event that counts.
var errSuperseded = errors.New("superseded")
