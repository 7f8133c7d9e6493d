package inspect

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/xdswal/xdswal/internal/view"
)

func snapshotsCommand() *cobra.Command {
	var c common
	cmd := &cobra.Command{
		Use:   "snapshots [--dir DIR] [--backend URL]",
		Short: "List the snapshots of a data directory or a backend",
		Long: `Snapshots lists the snapshots of a data directory, a backend or both, the newest
first. Of each it reads the header alone; verify reads all of it. One in a backend
that was superseded is marked: its writer shipped it after another had taken over,
and no restore uses it. The command changes nothing and is safe beside a running
daemon.

One whose header is damaged or cannot be read is listed with the reason, and the
exit code is 1 then, when all were listed.`,
		Args: cobra.NoArgs,
		RunE: run(func(ctx context.Context, p *printer) error { return snapshots(ctx, p, &c) }),
	}
	c.dirFlag(cmd)
	c.backendFlag(cmd)
	c.jsonFlag(cmd, "print one line of JSON for each snapshot")
	return cmd
}

func snapshots(ctx context.Context, p *printer, c *common) error {
	s, err := c.open(ctx, p)
	if err != nil {
		return err
	}
	var files []view.SnapshotFile
	for _, l := range s.locations() {
		entries, err := l.list()
		if err != nil {
			return err
		}
		for _, e := range entries {
			f, ok := l.describe(ctx, e)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if ok {
				files = append(files, f)
			}
		}
	}
	slices.SortStableFunc(files, func(a, b view.SnapshotFile) int {
		return cmp.Or(cmp.Compare(b.Seq, a.Seq), cmp.Compare(b.Epoch, a.Epoch))
	})
	if err := list(p, c, files); err != nil {
		return err
	}
	bad := 0
	for _, f := range files {
		if f.Error != "" {
			bad++
		}
	}
	if bad > 0 {
		return fmt.Errorf("snapshots: the header of %d of %d snapshots cannot be read: see the list; xdswal verify tells what can be restored", bad, len(files))
	}
	return nil
}

func list(p *printer, c *common, files []view.SnapshotFile) error {
	if !c.json {
		p.table([]string{"SEQ", "EPOCH", "EVENT TIME", "CREATED", "SIZE", "STORE", "NAME", "LOCATION"}, mapped(files, snapshotRow))
		return nil
	}
	for _, f := range files {
		if err := p.line(f); err != nil {
			return err
		}
	}
	return nil
}

func snapshotRow(f view.SnapshotFile) []string {
	location := f.Location
	if f.Superseded {
		location += "  superseded"
	}
	if f.Error != "" {
		location += "  " + f.Error
	}
	return []string{
		number(f.Seq), number(f.Epoch), whenPtr(f.Time), whenPtr(f.Created), size(f.Bytes), cmp.Or(f.StoreID, "-"), f.Name, location,
	}
}
