package catalog_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/internal/catalog"
)

func TestRetention(t *testing.T) {
	for _, r := range []struct {
		name          string
		keepSnapshots int
		keepFor       time.Duration
		want          []bool // for snapshots of these ages
	}{
		{"defaults", 0, 0, []bool{true, true, true, true, false, false}},
		{"count alone", 0, -1, []bool{true, true, true, false, false, false}},
		{"the least count", 2, -time.Hour, []bool{true, true, false, false, false, false}},
		{"count beats age", 5, time.Minute, []bool{true, true, true, true, true, false}},
		{"age beats count", 2, 3 * time.Hour, []bool{true, true, true, true, true, false}},
	} {
		t.Run(r.name, func(t *testing.T) {
			rule, err := catalog.NewRetention(r.keepSnapshots, r.keepFor)
			require.NoError(t, err)
			for i, age := range []time.Duration{-time.Minute, 0, 10 * time.Minute, 50 * time.Minute, 2 * time.Hour, 4 * time.Hour} {
				require.Equal(t, r.want[i], rule.Keeps(i, time.Now().Add(-age)), "snapshot %d", i)
			}
		})
	}
	for _, count := range []int{1, -1} {
		_, err := catalog.NewRetention(count, 0)
		require.ErrorContains(t, err, "KeepSnapshots is ")
		require.ErrorContains(t, err, "want at least 2")
	}
}
