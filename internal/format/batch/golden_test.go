package batch_test

import (
	"flag"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/internal/format/batch"
)

var writeGolden = flag.Bool("write-golden", false, "write golden files that are missing; those that exist never change")

// A batch of format 1, as the first release wrote it, remains readable.
func TestGolden(t *testing.T) {
	const golden = "testdata/format1.zst"
	events := newEvents(100, 12, 50)
	if _, err := os.Stat(golden); *writeGolden && err != nil {
		data, _ := encode(t, events)
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(golden, data, 0o644))
	}
	data, err := os.ReadFile(golden)
	require.NoError(t, err)
	got, err := decode(data, batch.Name{Epoch: 3, First: 100})
	require.NoError(t, err)
	requireEvents(t, events, got)
}
