package replay

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/xdswal/xdswal/compactor/snapshot"
	"github.com/xdswal/xdswal/journal/event"
	"github.com/xdswal/xdswal/replay/state"
)

// Report is what [Verify] found.
type Report struct {
	// Snapshots are all snapshots, newest first, place by place.
	Snapshots []SnapshotReport
	// First and Last bound the journal; Events is how many of its events were
	// read and verified.
	First, Last event.Sequence
	Events      int
	// Folded is how many snapshots were proved equal to an older snapshot, or
	// to the empty state, with the journal between applied.
	Folded int
	// Sequence is what a restore would restore.
	Sequence event.Sequence
	Duration time.Duration
	// Problems is everything that is wrong; empty if nothing is.
	Problems []error
}

// SnapshotReport is what Verify found of one snapshot.
type SnapshotReport struct {
	Location string
	Name     string
	Sequence event.Sequence
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
// the journal against its checksum and its neighbours. Where the journal has
// the events between two snapshots it applies them to the older and compares
// the result with the newer. The error is the cause of the context's end, or
// Report.Problems joined.
func Verify(ctx context.Context, opt Options) (Report, error) {
	start := time.Now()
	v := &verifier{opt: opt, digests: map[event.Sequence][]folded{}}
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
	digests map[event.Sequence][]folded
	// oldest is the oldest good snapshot from which the journal goes on, and
	// then what the journal makes of it; base names that snapshot.
	oldest *state.State
	base   string
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
		v.oldest, v.base = &state.State{}, "the empty state"
	}
	var places []place
	if v.opt.Dir != "" {
		places = append(places, localPlace(v.opt.Dir))
	}
	if v.opt.Backend != nil {
		places = append(places, backendPlace(v.opt.Backend, "", false))
	}
	for _, p := range places {
		v.snapshots(ctx, p)
	}
	v.journal(ctx)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	opt := v.opt
	opt.KeepLocal, opt.Hooks = false, Hooks{}
	_, result, err := Restore(ctx, opt)
	v.report.Sequence = result.Sequence
	if err != nil {
		v.problem(err)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

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
	covers := v.report.First <= seq+1 && v.report.Last >= seq
	if covers && (v.oldest == nil || seq < v.oldest.Sequence()) {
		v.oldest, v.base = st, s.Name
	}
	return nil
}

// journal reads every event, and folds from the oldest snapshot on to compare
// with the ones after it.
func (v *verifier) journal(ctx context.Context) {
	if v.opt.Journal == nil || v.report.Last < v.report.First {
		return
	}
	err := v.opt.Journal.Range(ctx, v.report.First, 0, func(ev *event.Event) error {
		v.report.Events++
		if v.oldest == nil || ev.Sequence <= v.oldest.Sequence() {
			return nil
		}
		st, err := v.oldest.Apply(ev)
		if err != nil {
			return err
		}
		v.oldest = st
		for _, f := range v.digests[ev.Sequence] {
			v.compare(st, f)
		}
		return nil
	})
	if err != nil && ctx.Err() == nil {
		v.problem(err)
	}
}

func (v *verifier) compare(st *state.State, f folded) {
	if st.Digest() == f.digest {
		v.report.Folded++
		return
	}
	s := &v.report.Snapshots[f.index]
	s.Err = fmt.Errorf("verify snapshot %s in %s: %w: it is not what the journal's events make of %s", s.Name, s.Location, event.ErrCorrupt, v.base)
	v.problem(s.Err)
}
