package main

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseSuite(t *testing.T) {
	s := parseSuite([]byte(`=== RUN   TestConformance
=== RUN   TestConformance/round_trip
=== RUN   TestConformance/bad_keys
=== RUN   TestConformance/bad_keys/".."
=== RUN   TestConformance/delete
--- FAIL: TestConformance (1.00s)
    --- PASS: TestConformance/round_trip (0.10s)
    --- FAIL: TestConformance/bad_keys (0.10s)
        --- PASS: TestConformance/bad_keys/".." (0.00s)
FAIL
`))
	require.Equal(t, &suite{passed: 1, total: 3, failed: []string{"bad keys", "delete"}}, s)
}

func TestReplaceTable(t *testing.T) {
	table := render([]*row{
		{server: "a", version: "1", transport: plain, suite: &suite{passed: 2, total: 3, failed: []string{"delete"}}, creation: "weak", race: race{rounds: 10, split: 1, none: 2, shipped: 100, lost: 7, err: errors.New("list\n s3://b/p?endpoint=https://127.0.0.1:9: corrupt")}},
		{server: "b", skipped: "not installed"},
	})
	doc := filepath.Join(t.TempDir(), "doc.md")
	require.NoError(t, os.WriteFile(doc, []byte("before\n"+tableBegin+"\nold\n"+tableEnd+"\nafter\n"), 0o600))
	require.NoError(t, replaceTable(doc, table))
	got, err := os.ReadFile(doc)
	require.NoError(t, err)
	require.Equal(t, "before\n"+tableBegin+"\n"+
		"| server | version |  | clauses passed | clauses failed | creation | both wrote | lost |\n"+
		"|---|---|---|--:|---|---|--:|--:|\n"+
		"| a | 1 | HTTP | 2 of 3 | delete | weak | 1 of 10; neither: 2 | 7 of 100; list s3://b/p: corrupt |\n"+
		"| b |  |  | skipped: not installed |  |  |  |  |\n"+
		tableEnd+"\nafter\n", string(got))
	require.NoError(t, os.WriteFile(doc, nil, 0o600))
	require.ErrorIs(t, replaceTable(doc, table), errMarkers)
}
