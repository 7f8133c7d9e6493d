package e2e

import (
	"context"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/journal"
	"github.com/xdswal/xdswal/journal/event"
	"github.com/xdswal/xdswal/replay"
)

// verifyDir proves a data directory that no process has open, by the library
// and by the command.
func verifyDir(t *testing.T, dir string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	j, err := journal.Open(filepath.Join(dir, "journal"), journal.Options{ReadOnly: true})
	require.NoError(t, err)
	defer j.Close()
	report, err := replay.Verify(ctx, replay.Options{Dir: filepath.Join(dir, "snapshots"), Journal: verifiedJournal{j}})
	require.NoError(t, err)
	require.Empty(t, report.Problems)
	t.Logf("verified %d events (%d to %d) and %d snapshots, %d of them folded again; restores to %d; %v",
		report.Events, report.First, report.Last, len(report.Snapshots), report.Folded, report.Sequence, report.Duration)
	require.NotEmpty(t, report.Snapshots)

	out, err := exec.CommandContext(ctx, binary(t), "verify", "--dir", dir).CombinedOutput()
	require.NoError(t, err, "xdswal verify: %s", out)
}

// verifiedJournal is a journal as replay.Verify reads it.
type verifiedJournal struct{ *journal.Journal }

func (j verifiedJournal) Bounds() (first, last event.Sequence, err error) {
	s, err := j.Stats()
	return s.First, s.Last, err
}
