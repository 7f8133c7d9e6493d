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

// ErrForeign is the identity of the error about a backend that holds another
// store's data.
var ErrForeign = errors.New("belongs to another store")

// Batch is a batch of events in a backend.
type Batch struct {
	batch.Name
	// Size is the size of the object in bytes.
	Size int64
	// Written is when the object came into being.
	Written time.Time
}

// Key returns the batch's key.
func (b Batch) Key() string { return BatchPrefix + b.String() }

// BatchPrefix begins the keys of batches.
const BatchPrefix = "events/"

// Remote is what a backend held when it was listed, and what of that counts:
// each epoch names its parent and the last of the parent's events that counts,
// which makes a chain. What was published in no epoch of the chain, or behind
// the point from which the next epoch went on, was superseded.
type Remote struct {
	// Epochs are the epochs of the chain whose objects were read, newest first.
	Epochs []Epoch
	// Snapshots are those that count, newest first.
	Snapshots []Entry
	// Batches are those of which something may count, sorted by their first
	// sequence and then by epoch.
	Batches []Batch
	// Superseded are the keys of snapshots and batches that do not count.
	Superseded []backends.Object
	// Numbers are the epochs that have an object, sorted.
	Numbers []uint64

	read      map[uint64]Epoch
	snapshots []Entry
	batches   []Batch
	limits    map[uint64]journal.Sequence // nil where there are no epochs
	until     journal.Sequence            // behind it nothing counts
	// rootless is the oldest epoch of the chain if its object is missing: those
	// before it count up to the same limit.
	rootless uint64
}

// parallelReads is how many epochs are read at a time.
const parallelReads = 8

// List lists a backend.
func List(ctx context.Context, b backends.Backend) (*Remote, error) {
	r := &Remote{read: map[uint64]Epoch{}}
	// At once: whoever has to know what was published until a moment lists after
	// it, and each list has that.
	var lists [3][]backends.Object
	g, listing := errgroup.WithContext(ctx)
	for i, prefix := range []string{epochPrefix, KeyPrefix, BatchPrefix} {
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

// Relist lists the backend anew, with the same bound of what counts.
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
	// What lies deeper is somebody's copy.
	if name, ok := snapshot.ParseName(o.Key); ok && o.Key == KeyPrefix+name.String() {
		r.snapshots = append(r.snapshots, Entry{Name: name, Path: o.Key, Size: o.Size, Written: o.ModTime})
	}
}

func (r *Remote) addBatch(o backends.Object) {
	if name, ok := batch.ParseName(o.Key); ok && o.Key == BatchPrefix+name.String() {
		r.batches = append(r.batches, Batch{Name: name, Size: o.Size, Written: o.ModTime})
	}
}

// readEpochs reads the objects of the epochs that tell what counts: those newer
// than the oldest that published something that is there.
func (r *Remote) readEpochs(ctx context.Context, b backends.Backend) error {
	if len(r.Numbers) == 0 {
		return nil
	}
	oldest := r.Numbers[len(r.Numbers)-1]
	for _, s := range r.snapshots {
		oldest = min(oldest, s.Epoch)
	}
	for _, t := range r.batches {
		oldest = min(oldest, t.Epoch)
	}
	at, _ := slices.BinarySearch(r.Numbers, oldest)
	epochs := make([]Epoch, len(r.Numbers)-at)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallelReads)
	for i, n := range r.Numbers[at:] {
		g.Go(func() (err error) {
			epochs[i], err = ReadEpoch(ctx, b, n)
			if errors.Is(err, backends.ErrNotFound) {
				return nil // pruned meanwhile
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

// Claim makes e, which continues what was listed, the newest epoch, and r what
// counts then. If another writer has taken over, the error is [ErrFenced]; if
// the backend is another store's, [ErrForeign]. After any other error it is open
// whether the epoch was claimed; calling Claim again, with a new listing, tells.
func (r *Remote) Claim(ctx context.Context, b backends.Backend, e Epoch) error {
	if newest, ok := r.Newest(); ok {
		switch {
		case newest.StoreID != e.StoreID:
			return Foreign(b, newest.StoreID, e.StoreID)
		case newest.Number == e.Number && newest.Token == e.Token:
			return nil // by an earlier call
		case newest.Number > e.Parent || (newest.Number == e.Parent && newest.Token != e.ParentToken):
			return Fenced(newest)
		}
		if err := r.fenceOlder(ctx, b, newest, e); err != nil {
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

// fenceOlder sees to it that the writer of the newest epoch here learns of e,
// where the backend has lost the epochs between the two: it looks for the number
// after its own alone.
func (r *Remote) fenceOlder(ctx context.Context, b backends.Backend, newest, e Epoch) error {
	if newest.Number+1 >= e.Number || newest.Token == e.Token {
		return nil
	}
	f := e
	f.Number, f.Parent, f.ParentToken, f.Sequence, f.Fence = newest.Number+1, newest.Number, newest.Token, 0, true
	return Claim(ctx, b, f)
}

// Foreign returns the error about a backend that another store ships to.
func Foreign(b backends.Backend, theirs, ours string) error {
	return fmt.Errorf("%s %w: it holds store %s, and this is store %s: give each store a backend prefix of its own; to take that store over, start on an empty data directory",
		b, ErrForeign, theirs, ours)
}

// Until returns what counts for a writer who has gone on from an event and has
// not been able to claim an epoch yet.
func (r *Remote) Until(seq journal.Sequence) *Remote {
	out := *r
	out.resolve(seq)
	return &out
}

// resolve finds what counts, if nothing after an event does.
func (r *Remote) resolve(limit journal.Sequence) {
	r.until, r.rootless = limit, 0
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
			// The backend is younger than the store, or has lost it.
			r.rootless = n
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
	for _, t := range r.batches {
		if t.First <= r.Limit(t.Epoch) {
			r.Batches = append(r.Batches, t)
		} else {
			r.Superseded = append(r.Superseded, backends.Object{Key: t.Key(), Size: t.Size, ModTime: t.Written})
		}
	}
}

// Limit returns the last event of an epoch that counts.
func (r *Remote) Limit(epoch uint64) journal.Sequence {
	if r.limits == nil {
		return math.MaxUint64 // no writer has ever claimed an epoch
	}
	if limit, ok := r.limits[epoch]; ok || epoch >= r.rootless {
		return limit
	}
	return r.limits[r.rootless]
}

// GoesOnFrom reports whether what counts goes on from an event of an epoch, and all
// events until then count: whether the epoch is of the chain, that of the writer
// with this token, and the chain leaves it there or later. Of an epoch that
// the chain is too short to tell of, that is not known. Where no writer has ever
// claimed an epoch, all counts.
func (r *Remote) GoesOnFrom(e Epoch, seq journal.Sequence) bool {
	if r.limits == nil {
		return true
	}
	limit, ok := r.limits[e.Number]
	return ok && seq <= limit && r.token(e.Number) == e.Token
}

// token returns that of an epoch of the chain. The oldest may be known by the one
// after it alone.
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

// Newest returns the newest epoch of the chain, false if there is none.
func (r *Remote) Newest() (Epoch, bool) {
	if len(r.Epochs) == 0 {
		return Epoch{}, false
	}
	return r.Epochs[0], true
}

// Next returns the number that the next epoch has to have.
func (r *Remote) Next() uint64 {
	next := uint64(1)
	if n := len(r.Numbers); n > 0 {
		next = r.Numbers[n-1] + 1
	}
	for _, s := range r.snapshots {
		if r.limits == nil {
			next = max(next, s.Epoch+1) // shipped before there were epochs
		}
	}
	return next
}

// Empty reports whether nothing counts.
func (r *Remote) Empty() bool { return len(r.Snapshots) == 0 && len(r.Batches) == 0 }

// CheckEmpty returns [event.ErrGap] for a backend that has lost all but its epochs,
// and these tell of events after seq: who starts on it would serve nothing.
func (r *Remote) CheckEmpty(b backends.Backend, seq journal.Sequence) error {
	if !r.Empty() {
		return nil
	}
	for _, e := range r.Epochs {
		if e.Sequence > seq {
			return fmt.Errorf("%w: epoch %d in %s tells of events up to %d, and neither a snapshot nor an event that counts is there: they were deleted, or never shipped; start where the data directory is, or give a new store another prefix",
				event.ErrGap, e.Number, b, uint64(e.Sequence))
		}
	}
	return nil
}

// Trace returns the newest event that what counts tells of without being read:
// the newest batch holds one or more from there on.
func (r *Remote) Trace() journal.Sequence {
	trace := journal.Sequence(0)
	if len(r.Snapshots) > 0 {
		trace = r.Snapshots[0].Sequence
	}
	if n := len(r.Batches); n > 0 {
		trace = max(trace, r.Batches[n-1].First)
	}
	return trace
}

// Tail returns the event behind which a writer who takes over goes on to ship. What
// the newest batch holds beyond its first event is not known, and is shipped again.
// What went into a snapshot alone is shipped too, if the journal has it, so that
// each moment since the oldest snapshot can be restored.
func (r *Remote) Tail() journal.Sequence {
	tail := journal.Sequence(0)
	if n := len(r.Snapshots); n > 0 {
		tail = r.Snapshots[n-1].Sequence
	}
	if n := len(r.Batches); n > 0 {
		tail = max(tail, r.Batches[n-1].First-1)
	}
	return tail
}

// After returns the batches that may hold events after seq, in an order in
// which their events continue each other.
func (r *Remote) After(seq journal.Sequence) []Batch {
	// Of each epoch, the last batch that begins at seq+1 or before may reach
	// beyond it, and those before that may not.
	begins := map[uint64]journal.Sequence{}
	for _, t := range r.Batches {
		if t.First <= seq+1 {
			begins[t.Epoch] = max(begins[t.Epoch], t.First)
		}
	}
	var out []Batch
	for _, t := range r.Batches {
		if t.First >= begins[t.Epoch] {
			out = append(out, t)
		}
	}
	return out
}

// Continues reports whether the batches go on behind an event.
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

// errSuperseded says that the rest of a batch was superseded by a later epoch.
var errSuperseded = errors.New("superseded")
