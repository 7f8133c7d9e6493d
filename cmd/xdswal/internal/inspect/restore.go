package inspect

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/xdswal/xdswal/internal/directory"
	"github.com/xdswal/xdswal/internal/view"
)

type restoreFlags struct {
	common
	at      string
	to      string
	partial bool
}

func restoreCommand() *cobra.Command {
	var f restoreFlags
	cmd := &cobra.Command{
		Use:   "restore [--dir DIR] [--backend URL] [--at SEQ|TIME] [--to NEWDIR]",
		Short: "Restore a moment into a new data directory",
		Long: `Restore restores the state after event SEQ, or after the last event that was
committed by TIME (RFC 3339, as 2026-01-02T15:04:05Z), or else the newest state.
Without --to it tells what it would restore. With --to it writes a new data
directory that holds that state, for xdswal serve --dir NEWDIR to start from;
what it reads from it never changes.

A backend alone will do: its newest snapshot, and the events that were shipped
since, are downloaded, which is shown on standard error if it takes long. With
--dir too, what the directory lacks comes from the backend.

NEWDIR is a store of its own that continues on its own: it has a new identity,
and needs a backend prefix of its own. It must not exist, or be empty.
` + partialHelp + ` A damaged journal
or snapshot is exit code 1, and --allow-partial restores what comes before.`,
		Args: cobra.NoArgs,
		RunE: run(func(ctx context.Context, p *printer) error { return runRestore(ctx, p, &f) }),
	}
	f.dirFlag(cmd)
	f.backendFlag(cmd)
	f.jsonFlag(cmd, "print one JSON document")
	cmd.Flags().StringVar(&f.at, "at", "", "sequence or time to restore; default the newest")
	cmd.Flags().StringVar(&f.to, "to", "", "new data directory to write")
	cmd.Flags().BoolVar(&f.partial, "allow-partial", false, "make do with what can be read")
	return cmd
}

func runRestore(ctx context.Context, p *printer, f *restoreFlags) error {
	m, err := f.moment(ctx, p, f.at, f.partial)
	if err != nil {
		return err
	}
	if m.state.Sequence() == 0 && f.at != "" {
		return fmt.Errorf("restore: no event is as old as %s: nothing to restore; xdswal events shows which there are", m.target)
	}
	if m.state.Sequence() == 0 {
		return errors.New("restore: there is no event: nothing to restore")
	}
	out := view.Restore{At: m.target.String(), Restored: view.NewRestored(m.result), Incomplete: m.incomplete}
	if f.to != "" {
		d, err := directory.Write(ctx, f.to, m.state)
		if err != nil {
			return err
		}
		out.Written = &view.Written{Dir: d.Path, StoreID: d.StoreID, Epoch: d.Epoch}
	}
	if f.json {
		err = p.line(out)
	} else {
		printRestore(p, out)
	}
	if m.incomplete != nil {
		p.note("%s", m.incomplete.Message)
	}
	return err
}

func printRestore(p *printer, r view.Restore) {
	verb := "would restore"
	if r.Written != nil {
		verb = "restored"
	}
	rows := [][]string{
		{verb, fmt.Sprintf("event %d of %s", uint64(r.Seq), whenPtr(r.Time))},
		{"", contents(r.Nodes, r.Resources, r.Bytes)},
		{"from", restoredFrom(r.Restored)},
	}
	for _, skipped := range r.Skipped {
		rows = append(rows, []string{"passed over", skipped.Reason})
	}
	if r.Written == nil {
		rows = append(rows, []string{"to", "nowhere: this was a dry run; --to NEWDIR writes a new data directory"})
	} else {
		rows = append(rows,
			[]string{"to", r.Written.Dir},
			[]string{"", fmt.Sprintf("a store of its own, %s: give it a backend prefix of its own", r.Written.StoreID)},
			[]string{"start it with", "xdswal serve --dir " + shown(r.Written.Dir)})
	}
	p.table(nil, rows)
}
