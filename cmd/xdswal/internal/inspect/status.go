package inspect

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/cmd/xdswal/internal/view"
	"github.com/xdswal/xdswal/internal/catalog"
	"github.com/xdswal/xdswal/internal/restore"
	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/replay"
)

func statusCommand() *cobra.Command {
	var f flags
	return f.command("status [--dir DIR] [--backend URL]", "Show what a data directory or a backend contains",
		`Status shows what a data directory, a backend or both contain, and what a daemon
that starts on them would restore. It changes nothing and is safe beside a running
daemon. The newest events of a running daemon cannot be read; status reports the
first of them.

The exit code is 1 if the newest state cannot be restored. It is also 1 if a backend
contains epochs that record events, but no events. A backend that contains nothing
may belong to a new store: status notes it and exits with code 0; verify fails.`,
		"print one JSON document, with the field names of GET /v1/status",
		func(ctx context.Context, p *printer) error { return status(ctx, p, &f) })
}

func status(ctx context.Context, p *printer, f *flags) error {
	s, err := f.open(ctx, p)
	if err != nil {
		return err
	}
	out, problem := s.status(ctx)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if f.json {
		if err := p.line(out); err != nil {
			return err
		}
	} else {
		p.table(nil, statusRows(out)...)
	}
	if out.Incomplete != nil {
		p.note("%s", out.Incomplete.Message)
	}
	if problem == nil {
		s.noteEmpty(p)
	}
	return problem
}

// status returns the status of a source. The error says why its newest state
// cannot be restored.
func (s *source) status(ctx context.Context) (view.DirectoryStatus, error) {
	var st *state.State
	var result replay.Result
	problem := s.retry(ctx, func() (err error) {
		st, result, err = restore.Restore(ctx, s.options(restore.Target{}))
		return err
	})
	if problem == nil {
		problem = s.checkLost(st.Sequence())
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
	journal := cmp.Or(s.journal, s.staleJournal)
	if journal != nil {
		full.Journal = journal.stats
	}
	out := view.DirectoryStatus{Status: view.NewStatus(full), Stale: s.stale, Open: journal.open(), Incomplete: s.journal.incomplete(st.Sequence())}
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
		row("journal", "%s, %d segments, %s", journalEvents(s.Journal, s.Open), s.Journal.Segments, size(s.Journal.Bytes))
		if s.Snapshot.Seq == 0 {
			row("newest snapshot", "none")
		} else {
			row("newest snapshot", "event %d, written %s", s.Snapshot.Seq, when(s.Snapshot.Time))
		}
	}
	if b := s.Backend; b != nil {
		row("backend", "%s", b.Location)
		if b.Epoch == 0 {
			row("newest epoch", "none was ever claimed")
		} else {
			row("newest epoch", "%d, claimed%s at %s", b.Epoch, onHost(b.Host), when(b.ClaimedAt))
		}
		row("shipped", "%s", shipped(b))
	}
	if s.Stale != "" {
		row("STALE", "%s", s.Stale)
	}
	least := ""
	if s.Incomplete != nil {
		least = "at least "
	}
	row("restores", "%sevent %d of %s", least, s.Restored.Seq, when(s.Restored.Time))
	row("", "%s", contents(s.Nodes, s.Resources, s.Bytes))
	if len(s.Caches) > 0 {
		row("caches", "%s", strings.Join(mapped(s.Caches, shown), ", "))
	}
	rows = append(rows, restoredFrom(s.Restored)...)
	if s.Problem != "" {
		row("PROBLEM", "%s", s.Problem)
	}
	return rows
}

func journalEvents(j view.Journal, open bool) string {
	switch {
	case j.Last >= j.First && open:
		return fmt.Sprintf("events %d to %d can be read", j.First, j.Last)
	case j.Last >= j.First:
		return fmt.Sprintf("events %d to %d", j.First, j.Last)
	case open:
		return fmt.Sprintf("events from %d on, none can be read", j.First)
	default:
		return "no events"
	}
}

func shipped(b *view.HeldBackend) string {
	out := "nothing"
	if b.Shipped != 0 {
		snapshots := "no snapshot"
		if b.Snapshots > 0 {
			snapshots = fmt.Sprintf("%d snapshots, the newest of event %d", b.Snapshots, b.Snapshot)
		}
		out = fmt.Sprintf("up to event %d, in %s, and %d batches", b.Shipped, snapshots, b.Batches)
	}
	if b.Superseded > 0 {
		out += fmt.Sprintf("; %d objects were superseded and are ignored", b.Superseded)
	}
	return out
}

func contents(nodes, resources int, bytes int64) string {
	return fmt.Sprintf("%d nodes, %d resources, %s", nodes, resources, size(bytes))
}

// restoredFrom returns the rows that say what a state was restored from.
func restoredFrom(r view.Restored) [][]string {
	snapshot := "no snapshot"
	if r.Snapshot != "" {
		snapshot = r.Snapshot + " in " + r.Source
	}
	from := fmt.Sprintf("%s and %d events of the journal", snapshot, r.Events-r.Shipped)
	if r.Shipped > 0 {
		from += fmt.Sprintf(", and %d events of %d shipped batches", r.Shipped, r.Batches)
	}
	rows := [][]string{{"from", from}}
	for _, skipped := range r.Skipped {
		rows = append(rows, []string{"skipped", skipped.Reason})
	}
	return rows
}
