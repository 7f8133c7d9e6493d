package inspect

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/internal/catalog"
	"github.com/xdswal/xdswal/internal/restore"
	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/internal/view"
	"github.com/xdswal/xdswal/replay"
)

func statusCommand() *cobra.Command {
	var c common
	cmd := &cobra.Command{
		Use:   "status [--dir DIR] [--backend URL]",
		Short: "Show what a data directory or a backend holds",
		Long: `Status shows what a data directory, a backend or both hold, and what a daemon
that starts on it would restore. It changes nothing and is safe beside a running
daemon, whose newest events it cannot read: it says from which one on. It ends
with exit code 1 if the newest state cannot be restored; so it does if a backend
has lost all but its epochs, and they tell of events. A backend in which there is
nothing at all may be that of a new store: that is noted, with exit code 0, and
verify refuses it.`,
		Args: cobra.NoArgs,
		RunE: run(func(ctx context.Context, p *printer) error { return status(ctx, p, &c) }),
	}
	c.dirFlag(cmd)
	c.backendFlag(cmd)
	c.jsonFlag(cmd, "print one JSON document, with the names of GET /v1/status where it tells the same")
	return cmd
}

func status(ctx context.Context, p *printer, c *common) error {
	s, err := c.open(ctx, p)
	if err != nil {
		return err
	}
	out, problem := s.status(ctx)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if c.json {
		if err := p.line(out); err != nil {
			return err
		}
	} else {
		p.table(nil, statusRows(out))
	}
	if out.Incomplete != nil {
		p.note("%s", out.Incomplete.Message)
	}
	if problem == nil {
		s.noteEmpty(p)
	}
	return problem
}

// status looks at a source. The error is why what it holds cannot be restored.
func (s *source) status(ctx context.Context) (view.DirectoryStatus, error) {
	var st *state.State
	var result replay.Result
	problem := s.steadily(ctx, func() (err error) {
		st, result, err = restore.Restore(ctx, s.options(restore.Target{}))
		return err
	})
	if problem == nil {
		problem = s.lost(st.Sequence())
	}
	full := xdswal.Status{
		Sequence: st.Sequence(), Time: st.Time(), Nodes: st.NumNodes(), Resources: st.NumResources(),
		Bytes: st.Bytes(), Caches: st.Caches(), Restored: result,
	}
	if s.dir != nil {
		full.Dir, full.StoreID, full.Epoch = s.dir.Path, s.dir.StoreID, s.dir.Epoch
		local, err := catalog.Local(s.dir.SnapshotDir())
		problem = errors.Join(problem, err)
		if len(local) > 0 {
			full.Compactor.Sequence, full.Compactor.Time = local[0].Sequence, local[0].Written
		}
	} else {
		newest, _ := s.remote.Newest()
		full.StoreID, full.Epoch = cmp.Or(newest.StoreID, result.StoreID), cmp.Or(newest.Number, result.Epoch)
	}
	tail := cmp.Or(s.tail, s.aside)
	if tail != nil {
		full.Journal = tail.stats
	}
	out := view.DirectoryStatus{Status: view.NewStatus(full), Stale: s.stale, Open: tail.open(), Incomplete: s.tail.incomplete(st.Sequence())}
	if s.backend != nil {
		out.Backend = view.NewHeldBackend(s.backend.String(), s.remote, result.ShippedTo)
	}
	if problem != nil {
		out.Problem = oneLine(problem)
	}
	return out, problem
}

func statusRows(s view.DirectoryStatus) [][]string {
	var rows [][]string
	row := func(name, format string, args ...any) {
		rows = append(rows, []string{name, fmt.Sprintf(format, args...)})
	}
	if s.Dir != "" {
		row("directory", "%s", s.Dir)
		row("open", "%s", map[bool]string{true: "yes, a daemon has it open", false: "no"}[s.Open])
	}
	if s.StoreID != "" {
		row("store", "%s, epoch %d", s.StoreID, s.Epoch)
	}
	if s.Dir != "" {
		row("journal", "%s, %d segments, %s", eventsFromTo(s.Journal, s.Open), s.Journal.Segments, size(s.Journal.Bytes))
		row("newest snapshot", "%s", snapshotOf(uint64(s.Snapshot.Seq), whenPtr(s.Snapshot.Time)))
	}
	if b := s.Backend; b != nil {
		row("backend", "%s", b.Location)
		row("newest epoch", "%s", epochOf(b))
		row("shipped", "%s", shippedOf(b))
	}
	if s.Stale != "" {
		row("STALE", "%s", s.Stale)
	}
	least := ""
	if s.Incomplete != nil {
		least = "at least "
	}
	row("restores", "%sevent %d of %s", least, uint64(s.Restored.Seq), whenPtr(s.Restored.Time))
	row("", "%s", contents(s.Nodes, s.Resources, s.Bytes))
	if len(s.Caches) > 0 {
		row("caches", "%s", strings.Join(mapped(s.Caches, shown), ", "))
	}
	row("from", "%s", restoredFrom(s.Restored))
	for _, skipped := range s.Restored.Skipped {
		row("passed over", "%s", skipped.Reason)
	}
	if s.Problem != "" {
		row("PROBLEM", "%s", s.Problem)
	}
	return rows
}

func eventsFromTo(j view.Journal, open bool) string {
	switch {
	case j.Last >= j.First && open:
		return fmt.Sprintf("events %d to %d can be read", uint64(j.First), uint64(j.Last))
	case j.Last >= j.First:
		return fmt.Sprintf("events %d to %d", uint64(j.First), uint64(j.Last))
	case open:
		return fmt.Sprintf("events from %d on, none can be read", uint64(j.First))
	default:
		return "no events"
	}
}

func snapshotOf(seq uint64, written string) string {
	if seq == 0 {
		return "none"
	}
	return fmt.Sprintf("event %d, written %s", seq, written)
}

func epochOf(b *view.HeldBackend) string {
	if b.Epoch == 0 {
		return "none was ever claimed"
	}
	return fmt.Sprintf("%d, claimed%s at %s", b.Epoch, onHost(b.Host), whenPtr(b.ClaimedAt))
}

func shippedOf(b *view.HeldBackend) string {
	out := "nothing"
	if b.Shipped != 0 {
		snapshots := "no snapshot"
		if b.Snapshots > 0 {
			snapshots = fmt.Sprintf("%d snapshots, the newest of event %d", b.Snapshots, uint64(b.Snapshot))
		}
		out = fmt.Sprintf("up to event %d, in %s, and %d batches", uint64(b.Shipped), snapshots, b.Batches)
	}
	if b.Superseded > 0 {
		out += fmt.Sprintf("; %d objects were superseded and do not count", b.Superseded)
	}
	return out
}

func contents(nodes, resources int, bytes int64) string {
	return fmt.Sprintf("%d nodes, %d resources, %s", nodes, resources, size(bytes))
}

func restoredFrom(r view.Restored) string {
	out := fmt.Sprintf("no snapshot and %d events of the journal", r.Events-r.Shipped)
	if r.Snapshot != "" {
		out = fmt.Sprintf("%s in %s and %d events of the journal", r.Snapshot, r.Source, r.Events-r.Shipped)
	}
	if r.Shipped > 0 {
		out += fmt.Sprintf(", and %d events of %d batches that were shipped", r.Shipped, r.Batches)
	}
	return out
}

func mapped[T, U any](in []T, fn func(T) U) []U {
	out := make([]U, len(in))
	for i, v := range in {
		out[i] = fn(v)
	}
	return out
}
