package inspect

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/xdswal/xdswal/cmd/xdswal/internal/view"
	"github.com/xdswal/xdswal/internal/restore"
)

func verifyCommand() *cobra.Command {
	var f flags
	cmd := f.command("verify [--dir DIR] [--backend URL]", "Prove that a data directory or a backend can be restored",
		`Verify reads everything in a data directory, a backend or both: each snapshot
completely and against its digest, and each event of the journal and of the shipped
batches against its checksum and its neighbors. If the journal or the batches
contain the events between two snapshots, verify applies them to the older snapshot
and compares the result with the newer one. It does not read objects that another
writer superseded. It changes nothing and is safe beside a running daemon.

A backend alone that contains no snapshot and no event fails, because it is no
backup. Beside a data directory it is only noted, because the daemon may not have
shipped yet.

Exit code 0: everything was read and is correct. 1: something is damaged or missing,
see the report. 3: everything that could be read is correct, but a daemon has the
newest segment of the journal open; with --allow-partial the exit code is 0.`,
		"print the report as one JSON document",
		func(ctx context.Context, p *printer) error { return verify(ctx, p, &f) })
	cmd.Flags().BoolVar(&f.partial, "allow-partial", false, "succeed if the newest events of a running daemon cannot be read")
	return cmd
}

func verify(ctx context.Context, p *printer, f *flags) error {
	s, err := f.open(ctx, p)
	if err != nil {
		return err
	}
	s.noteStale(p)
	var report restore.Report
	err = s.retry(ctx, func() (err error) {
		report, err = restore.Verify(ctx, s.options(restore.Target{}))
		return err
	})
	if err != nil && len(report.Problems) == 0 {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if len(report.Problems) == 0 {
		if err := s.checkMissing(report); err != nil {
			report.Problems = append(report.Problems, err)
		}
	}
	out := view.NewReport(report)
	if s.backend != nil {
		out.Shipped = &view.VerifiedBatches{Batches: report.Batches, Events: report.ShippedEvents}
	}
	out.Incomplete = s.journal.incomplete(report.Sequence)
	if f.json {
		if err := p.line(out); err != nil {
			return err
		}
	} else {
		printReport(p, out)
	}
	if out.OK {
		s.noteEmpty(p)
	}
	return verdict(p, out, f.partial)
}

// checkMissing returns an error if the source, in which everything that was read
// is correct, lacks events.
func (s *source) checkMissing(r restore.Report) error {
	if !s.local() && len(r.Snapshots) == 0 && r.Batches == 0 {
		return fmt.Errorf("%s contains no usable snapshot or event, so nothing can be restored from it: correct the URL, or let a store ship to it first", s.backend)
	}
	return s.checkLost(r.Sequence)
}

func verdict(p *printer, r view.Report, partial bool) error {
	switch {
	case len(r.Problems) == 1:
		return errors.New("verify: 1 problem, see the report")
	case !r.OK:
		return fmt.Errorf("verify: %d problems, see the report", len(r.Problems))
	case r.Incomplete == nil:
		return nil
	case !partial:
		return &incompleteError{fmt.Errorf("verify: everything that could be read is correct, but %s", r.Incomplete.Message)}
	}
	p.note("%s", r.Incomplete.Message)
	return nil
}

func printReport(p *printer, r view.Report) {
	if len(r.Snapshots) > 0 {
		p.table([]string{"SNAPSHOT", "SEQ", "EVENT TIME", "NODES", "RESOURCES", "SIZE", "LOCATION", "VERDICT"}, mapped(r.Snapshots, verifiedRow)...)
	}
	journal := "no events"
	if r.Journal.Last >= r.Journal.First {
		journal = fmt.Sprintf("events %d to %d, %d read", r.Journal.First, r.Journal.Last, r.Journal.Events)
	}
	rows := [][]string{{"journal", journal}}
	if r.Shipped != nil {
		rows = append(rows, []string{"shipped", fmt.Sprintf("%d batches, %d events read", r.Shipped.Batches, r.Shipped.Events)})
	}
	p.table(nil, append(rows,
		[]string{"replayed", fmt.Sprintf("%d of %d snapshots equal an older snapshot with the events applied", r.Folded, len(r.Snapshots))},
		[]string{"restores", fmt.Sprintf("event %d", r.Seq)},
	)...)
	for _, problem := range r.Problems {
		p.table(nil, []string{"PROBLEM", problem})
	}
	if r.OK {
		p.table(nil, []string{"ok"})
	}
}

func verifiedRow(s view.VerifiedSnapshot) []string {
	result := "ok"
	if s.Error != "" {
		result = "BAD, see below"
	}
	return []string{
		s.Name, number(s.Seq), when(s.Time), number(s.Nodes), number(s.Resources), size(s.Bytes), s.Location, result,
	}
}
