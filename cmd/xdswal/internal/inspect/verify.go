package inspect

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/xdswal/xdswal/internal/restore"
	"github.com/xdswal/xdswal/internal/view"
)

func verifyCommand() *cobra.Command {
	var c common
	var partial bool
	cmd := &cobra.Command{
		Use:   "verify [--dir DIR] [--backend URL]",
		Short: "Prove that a data directory or a backend can be restored",
		Long: `Verify reads everything that a data directory, a backend or both hold: each
snapshot to its last byte and against its digest, each event of the journal, and
of the batches that were shipped of it, against its checksum and its neighbours.
Where journal or batches have the events between two snapshots, it applies them to
the older and compares the result with the newer. What another writer superseded
it does not look at. It changes nothing and is safe beside a running daemon.

A backend alone in which there is neither a snapshot nor an event is wrong: it is
no backup. Beside a data directory, whose daemon may have yet to ship there, that
is only noted.

Exit code 0: everything was read and is right. 1: something is wrong; the report
says what. 3: what could be read is right, but a daemon has the newest segment of
the journal open; with --allow-partial that is 0.`,
		Args: cobra.NoArgs,
		RunE: run(func(ctx context.Context, p *printer) error { return verify(ctx, p, &c, partial) }),
	}
	c.dirFlag(cmd)
	c.backendFlag(cmd)
	c.jsonFlag(cmd, "print the report as one JSON document")
	cmd.Flags().BoolVar(&partial, "allow-partial", false, "be content with what can be read beside a running daemon")
	return cmd
}

func verify(ctx context.Context, p *printer, c *common, partial bool) error {
	s, err := c.open(ctx, p)
	if err != nil {
		return err
	}
	s.warn(p)
	var report restore.Report
	err = s.steadily(ctx, func() (err error) {
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
		if err := s.missing(report); err != nil {
			report.Problems = append(report.Problems, err)
		}
	}
	out := view.NewReport(report)
	if s.backend != nil {
		out.Shipped = &view.VerifiedBatches{Batches: report.Batches, Events: report.ShippedEvents}
	}
	out.Incomplete = s.tail.incomplete(report.Sequence)
	if c.json {
		if err := p.line(out); err != nil {
			return err
		}
	} else {
		printReport(p, out)
	}
	if out.OK {
		s.noteEmpty(p)
	}
	return verdict(p, out, partial)
}

// missing returns what is wrong with a source in which all that was read is right.
func (s *source) missing(r restore.Report) error {
	if !s.local() && len(r.Snapshots) == 0 && r.Batches == 0 {
		return fmt.Errorf("%s holds neither a snapshot nor an event that counts, so nothing can be restored from it: correct the URL, or let a store ship there first", s.backend)
	}
	return s.lost(r.Sequence)
}

func verdict(p *printer, r view.Report, partial bool) error {
	switch {
	case len(r.Problems) == 1:
		return errors.New("verify: 1 problem: see the report")
	case !r.OK:
		return fmt.Errorf("verify: %d problems: see the report", len(r.Problems))
	case r.Incomplete == nil:
		return nil
	case !partial:
		return &incompleteError{fmt.Errorf("verify: what could be read is right, but %s", r.Incomplete.Message)}
	}
	p.note("%s", r.Incomplete.Message)
	return nil
}

func printReport(p *printer, r view.Report) {
	if len(r.Snapshots) > 0 {
		p.table([]string{"SNAPSHOT", "SEQ", "EVENT TIME", "NODES", "RESOURCES", "SIZE", "LOCATION", "VERDICT"}, mapped(r.Snapshots, verifiedRow))
	}
	journal := "no events"
	if r.Journal.Last >= r.Journal.First {
		journal = fmt.Sprintf("events %d to %d, %d read", uint64(r.Journal.First), uint64(r.Journal.Last), r.Journal.Events)
	}
	rows := [][]string{{"journal", journal}}
	if r.Shipped != nil {
		rows = append(rows, []string{"shipped", fmt.Sprintf("%d batches, %d events read", r.Shipped.Batches, r.Shipped.Events)})
	}
	p.table(nil, append(rows,
		[]string{"folded", fmt.Sprintf("%d of %d snapshots are proved to be what the events make of an older one", r.Folded, len(r.Snapshots))},
		[]string{"restores", fmt.Sprintf("event %d", uint64(r.Seq))},
	))
	for _, problem := range r.Problems {
		p.table(nil, [][]string{{"PROBLEM", problem}})
	}
	if r.OK {
		p.table(nil, [][]string{{"ok"}})
	}
}

func verifiedRow(s view.VerifiedSnapshot) []string {
	result := "ok"
	if s.Error != "" {
		result = "BAD, see below"
	}
	return []string{
		s.Name, number(s.Seq), whenPtr(s.Time), number(s.Nodes), number(s.Resources), size(s.Bytes), s.Location, result,
	}
}
