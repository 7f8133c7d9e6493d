package restore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/xdswal/xdswal/internal/catalog"
	"github.com/xdswal/xdswal/internal/download"
	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/internal/format/snapshot"
	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/journal"
	"github.com/xdswal/xdswal/replay"
)

// Report is what [Verify] found.
type Report struct {
	// Snapshots are all snapshots, newest first, place by place.
	Snapshots []SnapshotReport
	// First and Last bound the journal; Events is how many of its events were
	// read and verified.
	First, Last journal.Sequence
	Events      int
	// Batches is how many batches the backend holds that count; ShippedEvents
	// how many of their events were read and verified.
	Batches       int
	ShippedEvents int
	// Folded is how many snapshots were proved equal to an older snapshot, or
	// to the empty state, with the journal or the batches between applied.
	Folded int
	// Sequence is what a restore would restore.
	Sequence journal.Sequence
	Duration time.Duration
	// Problems is everything that is wrong; empty if nothing is.
	Problems []error
}

// SnapshotReport is what Verify found of one snapshot.
type SnapshotReport struct {
	Location string
	Name     string
	Sequence journal.Sequence
	Time     time.Time
	Created  time.Time
	Bytes    int64
	Nodes    int
	// Resources and ResourceBytes count what is in it.
	Resources     int
	ResourceBytes int64
	// Err is what is wrong with it, nil if it was read to the last byte and
	// holds the state that its digest says.
	Err error
}

// Verify reads everything there is in a directory and a backend, and changes
// nothing: each snapshot to its last byte and against its digest, each event of
// the journal and of the batches in the backend against its checksum and its
// neighbours. Where they have the events between two snapshots it applies them
// to the older and compares the result with the newer. What another writer
// superseded in the backend is not looked at. A backend alone that has lost all
// but its epochs is a problem; one that holds nothing is none. The
// error is the cause of the context's end, or Report.Problems joined.
func Verify(ctx context.Context, opt Options) (Report, error) {
	start := time.Now()
	v := &verifier{opt: opt, digests: map[journal.Sequence][]folded{}, proved: map[int]bool{}}
	err := v.run(ctx)
	v.report.Duration = time.Since(start)
	if err == nil {
		err = errors.Join(v.report.Problems...)
	}
	return v.report, err
}

type folded struct {
	digest [32]byte
	index  int // in Report.Snapshots
}

type verifier struct {
	opt     Options
	report  Report
	digests map[journal.Sequence][]folded
	remote  *catalog.Remote // nil without a backend that can be listed
	// journal and batches fold what is local and what was shipped.
	journal, batches fold
	// proved are the snapshots, by their index in the report, that were found
	// equal to a fold.
	proved map[int]bool
}

// fold applies events to the oldest good snapshot from which they go on; base
// names that snapshot. It is nil if there is none.
type fold struct {
	state *state.State
	base  string
}

// begin takes up a snapshot if it is the oldest.
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
			v.report.Batches = len(remote.Batches)
			places = append(places, backendPlace(&restore{opt: v.opt, remote: remote}))
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
	v.report.Folded = len(v.proved)
	opt := v.opt
	opt.Hooks, opt.Remote = replay.Hooks{}, v.remote
	_, result, err := Restore(ctx, opt)
	v.report.Sequence = result.Sequence
	if err != nil {
		v.problem(err)
	}
	// Beside a directory it is for that one to have what the epochs tell of, and
	// its newest events may be a running store's own to read.
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
	candidates, err := p.list(ctx)
	if err != nil {
		v.problem(err)
		return
	}
	for _, c := range candidates {
		st, contents, err := p.read(ctx, c, nil)
		if ctx.Err() != nil {
			return
		}
		s := SnapshotReport{Location: p.location, Name: c.name.String(), Sequence: c.name.Sequence, Bytes: c.size}
		if err == nil {
			err = v.check(st, contents, c.name, &s)
		}
		if err != nil {
			s.Err = fmt.Errorf("verify snapshot %s in %s: %w", c.name, p.location, err)
			v.problem(s.Err)
		}
		v.report.Snapshots = append(v.report.Snapshots, s)
	}
}

func (v *verifier) check(st *state.State, contents snapshot.Contents, name snapshot.Name, s *SnapshotReport) error {
	s.Time, s.Created = contents.Header.Time, contents.Header.Created
	s.Nodes, s.Resources, s.ResourceBytes = st.NumNodes(), st.NumResources(), st.Bytes()
	if contents.Header.Sequence != name.Sequence {
		return fmt.Errorf("%w: header has sequence %d", event.ErrCorrupt, contents.Header.Sequence)
	}
	digest := st.Digest()
	if digest != contents.Trailer.Digest {
		return fmt.Errorf("%w: its digest is not that of its contents", event.ErrCorrupt)
	}
	seq := st.Sequence()
	for _, f := range v.digests[seq] {
		if other := v.report.Snapshots[f.index]; f.digest != digest {
			return fmt.Errorf("%w: it differs from %s in %s, which is of the same event", event.ErrCorrupt, other.Name, other.Location)
		}
	}
	v.digests[seq] = append(v.digests[seq], folded{digest: digest, index: len(v.report.Snapshots)})
	if v.report.First <= seq+1 && v.report.Last >= seq {
		v.journal.begin(st, s.Name)
	}
	if v.remote != nil && v.remote.Continues(seq) {
		v.batches.begin(st, s.Name)
	}
	return nil
}

// verifyJournal reads every event, and folds from the oldest snapshot on to
// compare with the ones after it.
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

// verifyBatches is verifyJournal for what was shipped.
func (v *verifier) verifyBatches(ctx context.Context) {
	if v.remote == nil {
		return
	}
	objects := make([]download.Object, len(v.remote.Batches))
	for i, b := range v.remote.Batches {
		objects[i] = download.Object{Key: b.Key(), Size: b.Size}
	}
	err := download.Each(ctx, v.opt.Backend, objects, parallelBatches, func(i int, data []byte, err error) error {
		b := v.remote.Batches[i]
		if err == nil {
			err = v.remote.Decode(b, data, func(ev *journal.Event) error {
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

// step applies an event to a fold, if it is the next one, and compares the
// result with the snapshots of that event. A gap is the restore's to report:
// a snapshot may cover it.
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

func (v *verifier) compare(f *fold, d folded) {
	if f.state.Digest() == d.digest {
		v.proved[d.index] = true
		return
	}
	s := &v.report.Snapshots[d.index]
	s.Err = fmt.Errorf("verify snapshot %s in %s: %w: it is not what the events make of %s", s.Name, s.Location, event.ErrCorrupt, f.base)
	v.problem(s.Err)
}
