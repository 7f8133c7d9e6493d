package e2e

import (
	"context"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/internal/restore"
	"github.com/xdswal/xdswal/internal/wal"
	"github.com/xdswal/xdswal/journal"
)

// verifyDir verifies a closed data directory with the library and with the command.
func verifyDir(t *testing.T, dir string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	j, err := wal.Open(filepath.Join(dir, "journal"), wal.Options{ReadOnly: true})
	require.NoError(t, err)
	defer j.Close()
	report, err := restore.Verify(ctx, restore.Options{Dir: filepath.Join(dir, "snapshots"), Journal: verifiedJournal{j}})
	require.NoError(t, err)
	require.Empty(t, report.Problems)
	t.Logf("verified %d events (%d to %d) and %d snapshots, %d of them folded again; restored up to %d; %v",
		report.Events, report.First, report.Last, len(report.Snapshots), report.Folded, report.Sequence, report.Duration)
	require.NotEmpty(t, report.Snapshots)

	out, err := exec.CommandContext(ctx, binary(t), "verify", "--dir", dir).CombinedOutput()
	require.NoError(t, err, "xdswal verify: %s", out)
}

// verifiedJournal implements the journal of restore.Verify.
type verifiedJournal struct{ *wal.Journal }

func (j verifiedJournal) Bounds() (first, last journal.Sequence, err error) {
	s, err := j.Stats()
	return s.First, s.Last, err
}
