package inspect

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/xdswal/xdswal/cmd/xdswal/internal/view"
	"github.com/xdswal/xdswal/internal/directory"
)

func restoreCommand() *cobra.Command {
	var f flags
	var to string
	cmd := f.command("restore [--dir DIR] [--backend URL] [--at SEQ|TIME] [--to NEWDIR]", "Restore a moment into a new data directory",
		`Restore restores the state after event SEQ, or after the last event committed at
or before TIME (RFC 3339, for example 2026-01-02T15:04:05Z). The default is the
newest state. Without --to it shows what it would restore. With --to it writes that
state to a new data directory, which xdswal serve --dir NEWDIR can start from. It
never changes the directory or the backend that it reads.

A backend alone is sufficient: restore downloads the newest snapshot and the events
shipped after it, and shows the progress on standard error if that takes long. With
--dir and --backend it downloads what the directory lacks.

NEWDIR becomes a separate store with a new identity. It needs a backend prefix of
its own. It must not exist, or must be empty.
`+partialHelp+`
The exit code is 1 if the journal or a snapshot is damaged. --allow-partial then
restores the events before the damage.`,
		"print one JSON document",
		func(ctx context.Context, p *printer) error { return runRestore(ctx, p, &f, to) })
	f.momentFlags(cmd, "restore")
	cmd.Flags().StringVar(&to, "to", "", "new data directory to write")
	return cmd
}

func runRestore(ctx context.Context, p *printer, f *flags, to string) error {
	m, err := f.moment(ctx, p)
	if err != nil {
		return err
	}
	if m.state.Sequence() == 0 && f.at != "" {
		return fmt.Errorf("restore %s: no event is that old; xdswal events shows the events that can be restored", m.target)
	}
	if m.state.Sequence() == 0 {
		return errors.New("restore: there are no events to restore")
	}
	out := view.Restore{At: m.target.String(), Restored: view.NewRestored(m.result), Incomplete: m.incomplete}
	if to != "" {
		d, err := directory.Write(ctx, to, m.state)
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
	m.noteIncomplete(p)
	return err
}

func printRestore(p *printer, r view.Restore) {
	verb := "would restore"
	if r.Written != nil {
		verb = "restored"
	}
	rows := append([][]string{
		{verb, fmt.Sprintf("event %d of %s", r.Seq, when(r.Time))},
		{"", contents(r.Nodes, r.Resources, r.Bytes)},
	}, restoredFrom(r.Restored)...)
	if r.Written == nil {
		rows = append(rows, []string{"to", "nowhere: this was a dry run; --to NEWDIR writes a new data directory"})
	} else {
		rows = append(rows,
			[]string{"to", r.Written.Dir},
			[]string{"", fmt.Sprintf("a separate store, %s: it needs a backend prefix of its own", r.Written.StoreID)},
			[]string{"start it with", "xdswal serve --dir " + shown(r.Written.Dir)})
	}
	p.table(nil, rows...)
}
