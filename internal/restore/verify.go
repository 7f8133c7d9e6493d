package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/internal/catalog"
	"github.com/xdswal/xdswal/internal/download"
	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/internal/format/snapshot"
	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/journal"
	"github.com/xdswal/xdswal/replay"
)

// Report is the result of [Verify].
type Report struct {
	// Snapshots are all snapshots, those of the directory first, newest first.
	Snapshots []SnapshotReport
	// First and Last are the bounds of the journal, Events the number of its events
	// that were verified.
	First, Last journal.Sequence
	Events      int
	// Batches is the number of batches in the backend that count and that were read,
	// ShippedEvents the number of their events that were verified.
	Batches       int
	ShippedEvents int
	// Folded is the number of snapshots that equal an older snapshot, or the empty
	// state, with the events between applied.
	Folded int
	// Sequence is that of the state that a restore yields.
	Sequence journal.Sequence
	Duration time.Duration
	// Problems are all errors that were found.
	Problems []error
}

// SnapshotReport is the result of Verify for one snapshot.
type SnapshotReport struct {
	Location string
	Name     string
	Sequence journal.Sequence
	Time     time.Time
	Created  time.Time
	// Bytes is the size of the file, ResourceBytes the sum of the sizes of the
	// resources' values.
	Bytes         int64
	Nodes         int
	Resources     int
	ResourceBytes int64
	// Err is what is wrong with the snapshot, or nil.
	Err error
}

// Verify reads everything in a directory and a backend, and changes nothing. It checks
// the bytes and the digest of each snapshot, and the checksum and the sequence of each
// event in the journal and in the batches. Where these have the events between two
// snapshots, it applies them to the older one and compares the result with the newer
// one. Superseded objects are not read, nor is what a writer prunes meanwhile. A backend without a directory in which only
// epochs are left is a problem; an empty one is not. The error is the context's cause
// if ctx ended the work, or else Report.Problems joined.
func Verify(ctx context.Context, opt Options) (Report, error) {
	start := time.Now()
	v := &verifier{opt: opt, digests: map[journal.Sequence][]snapshotDigest{}, proved: map[int]bool{}}
	err := v.run(ctx)
	v.report.Duration = time.Since(start)
	if err == nil {
		err = errors.Join(v.report.Problems...)
	}
	return v.report, err
}

type verifier struct {
	opt    Options
	report Report
	// digests are those of the intact snapshots.
	digests map[journal.Sequence][]snapshotDigest
	remote  *catalog.Remote // the newest listing; nil without a backend that can be listed
	// pruned is why an object of the backend could not be found that was pruned since it
	// was listed, or nil.
	pruned error
	// journal and batches are the folds of the journal's events and of the batches'.
	journal, batches fold
	// proved are the indexes in Report.Snapshots of those that equal a fold.
	proved map[int]bool
}

type snapshotDigest struct {
	digest [32]byte
	index  int // in Report.Snapshots
}

// fold is the state to which events are applied: at first the oldest intact snapshot
// that they continue, which base names. The state is nil if there is none.
type fold struct {
	state *state.State
	base  string
}

// begin sets the state, unless the fold begins with an older one.
func (f *fold) begin(st *state.State, name string) {
	if f.state == nil || st.Sequence() < f.state.Sequence() {
		f.state, f.base = st, name
	}
}

func (v *verifier) run(ctx context.Context) error {
	v.report.First, v.report.Last = 1, 0
	if v.opt.Journal != nil {
		first, last, err := v.opt.Journal.Bounds()
		if err != nil {
			v.problem(err)
		} else {
			v.report.First, v.report.Last = first, last
		}
	}
	if v.report.First == 1 {
		v.journal.begin(&state.State{}, emptyState)
	}
	var places []place
	if v.opt.Dir != "" {
		places = append(places, localPlace(v.opt.Dir))
	}
	if v.opt.Backend != nil {
		remote, err := catalog.List(ctx, v.opt.Backend)
		if err != nil {
			v.problem(err)
		} else {
			v.remote = remote
			places = append(places, backendPlace(v.opt.Backend, remote, v.opt.Hooks.Progress))
		}
	}
	if v.remote != nil && v.remote.Continues(0) {
		v.batches.begin(&state.State{}, emptyState)
	}
	for _, p := range places {
		v.snapshots(ctx, p)
	}
	v.verifyJournal(ctx)
	v.verifyBatches(ctx)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if v.pruned != nil && len(v.report.Snapshots) == 0 && v.report.Batches == 0 {
		v.problem(fmt.Errorf("all that was listed in %s was pruned before it was read; verify again: %w", v.opt.Backend, v.pruned))
	}
	v.report.Folded = len(v.proved)
	opt := v.opt
	opt.Hooks, opt.Remote = replay.Hooks{}, v.remote
	_, result, err := Restore(ctx, opt)
	v.report.Sequence = result.Sequence
	if err != nil {
		v.problem(err)
	}
	// A directory beside the backend may have what the epochs continue from, and only a
	// running store can read its newest events.
	if v.remote != nil && v.opt.Dir == "" && v.opt.Journal == nil {
		if err := v.remote.CheckEmpty(v.opt.Backend, v.report.Sequence); err != nil {
			v.problem(err)
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

const emptyState = "the empty state"

func (v *verifier) problem(err error) { v.report.Problems = append(v.report.Problems, err) }

// snapshots verifies the snapshots of a place.
func (v *verifier) snapshots(ctx context.Context, p place) {
	entries, err := p.list()
	if err != nil {
		v.problem(err)
		return
	}
	for _, e := range entries {
		st, contents, err := p.decode(ctx, e, nil)
		if ctx.Err() != nil {
			return
		}
		if v.prunedSnapshot(ctx, p, e, err) {
			continue
		}
		s := SnapshotReport{Location: p.location, Name: e.String(), Sequence: e.Sequence, Bytes: e.Size}
		if err == nil {
			err = v.check(st, contents, e.Name, &s)
		}
		if err != nil {
			s.Err = fmt.Errorf("verify snapshot %s in %s: %w", e.Name, p.location, err)
			v.problem(s.Err)
		}
		v.report.Snapshots = append(v.report.Snapshots, s)
	}
}

// prunedSnapshot reports whether a snapshot could not be found because it was pruned since
// it was listed.
func (v *verifier) prunedSnapshot(ctx context.Context, p place, e catalog.Entry, err error) bool {
	has := func(entries []catalog.Entry) bool {
		return slices.ContainsFunc(entries, func(o catalog.Entry) bool { return o.Path == e.Path })
	}
	if p.remote {
		return v.prunedObject(ctx, err, func(r *catalog.Remote) bool { return has(r.Snapshots) })
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	entries, err := p.list()
	return err == nil && !has(entries)
}

// prunedObject reports whether an object could not be found because it was pruned since the
// backend was listed. has reports whether a listing contains it.
func (v *verifier) prunedObject(ctx context.Context, err error, has func(*catalog.Remote) bool) bool {
	if !errors.Is(err, backends.ErrNotFound) {
		return false
	}
	if has(v.remote) {
		remote, listErr := v.remote.Relist(ctx, v.opt.Backend)
		if listErr != nil || has(remote) {
			return false
		}
		v.remote = remote
	}
	v.pruned = err
	return true
}

func (v *verifier) check(st *state.State, contents snapshot.Contents, name snapshot.Name, s *SnapshotReport) error {
	s.Time, s.Created = contents.Header.Time, contents.Header.Created
	s.Nodes, s.Resources, s.ResourceBytes = st.NumNodes(), st.NumResources(), st.Bytes()
	if err := checkName(name, contents.Header); err != nil {
		return err
	}
	digest := st.Digest()
	if digest != contents.Trailer.Digest {
		return fmt.Errorf("%w: got digest %x of the contents, want %x", event.ErrCorrupt, digest[:8], contents.Trailer.Digest[:8])
	}
	seq := st.Sequence()
	for _, f := range v.digests[seq] {
		if other := v.report.Snapshots[f.index]; f.digest != digest {
			return fmt.Errorf("%w: differs from %s in %s, which is of the same event", event.ErrCorrupt, other.Name, other.Location)
		}
	}
	v.digests[seq] = append(v.digests[seq], snapshotDigest{digest: digest, index: len(v.report.Snapshots)})
	if v.report.First <= seq+1 && v.report.Last >= seq {
		v.journal.begin(st, s.Name)
	}
	if v.remote != nil && v.remote.Continues(seq) {
		v.batches.begin(st, s.Name)
	}
	return nil
}

// verifyJournal reads every event of the journal and applies it to the fold.
func (v *verifier) verifyJournal(ctx context.Context) {
	if v.opt.Journal == nil || v.report.Last < v.report.First {
		return
	}
	err := v.opt.Journal.Range(ctx, v.report.First, 0, func(ev *journal.Event) error {
		v.report.Events++
		return v.step(&v.journal, ev)
	})
	if err != nil && ctx.Err() == nil {
		v.problem(err)
	}
}

// verifyBatches reads every event of the batches and applies it to the fold.
func (v *verifier) verifyBatches(ctx context.Context) {
	if v.remote == nil {
		return
	}
	remote := v.remote
	objects := make([]download.Object, len(remote.Batches))
	for i, b := range remote.Batches {
		objects[i] = download.Object{Key: b.Key(), Size: b.Size}
	}
	err := download.Each(ctx, v.opt.Backend, objects, parallelBatches, func(i int, data []byte, err error) error {
		b := remote.Batches[i]
		if v.prunedObject(ctx, err, func(r *catalog.Remote) bool {
			return slices.ContainsFunc(r.Batches, func(o catalog.Batch) bool { return o.Name == b.Name })
		}) {
			return nil
		}
		v.report.Batches++
		if err == nil {
			err = remote.Decode(b, data, func(ev *journal.Event) error {
				v.report.ShippedEvents++
				return v.step(&v.batches, ev)
			})
		}
		if err != nil && ctx.Err() == nil {
			v.problem(fmt.Errorf("verify batch %s in %s: %w", b.Name, v.opt.Backend, err))
		}
		return nil
	})
	if err != nil && ctx.Err() == nil {
		v.problem(err)
	}
}

// step applies an event to a fold, if it is the next one, and compares the result with
// the snapshots of that event. A gap is no error here: if no snapshot covers it, the
// restore reports it.
func (v *verifier) step(f *fold, ev *journal.Event) error {
	if f.state == nil || ev.Sequence != f.state.Sequence()+1 {
		return nil
	}
	st, err := f.state.Apply(ev)
	if err != nil {
		return err
	}
	f.state = st
	for _, d := range v.digests[ev.Sequence] {
		v.compare(f, d)
	}
	return nil
}

func (v *verifier) compare(f *fold, d snapshotDigest) {
	if f.state.Digest() == d.digest {
		v.proved[d.index] = true
		return
	}
	s := &v.report.Snapshots[d.index]
	s.Err = fmt.Errorf("verify snapshot %s in %s: %w: differs from %s with the events after it applied", s.Name, s.Location, event.ErrCorrupt, f.base)
	v.problem(s.Err)
}
