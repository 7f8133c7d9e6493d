package xdswal_test

import (
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/backends/backendtest"
)

// Every number: zero is the default, Off is allowed where the field says so, and the error
// for other values out of range names the field.
func TestOptions(t *testing.T) {
	const most = 4 << 30 / 8
	second := int64(time.Second)
	rows := map[string]struct {
		good, bad []int64
		off       bool
	}{
		"SegmentBytes":       {good: []int64{64 << 10, 1 << 20}, bad: []int64{1, 64<<10 - 1, -5, 1<<40 + 1}},
		"MaxJournalBytes":    {good: []int64{64 << 20, 1 << 40}, bad: []int64{1, 64<<20 - 1, -5}},
		"CommitTimeout":      {good: []int64{1, second}, bad: []int64{-second}},
		"CompactInterval":    {good: []int64{1, second}, bad: []int64{-second}, off: true},
		"CompactTailBytes":   {good: []int64{1, most}, bad: []int64{most + 1, -5}, off: true},
		"CompactTailRecords": {good: []int64{1, 1 << 40}, bad: []int64{-5}, off: true},
		"KeepSnapshots":      {good: []int64{2, 100}, bad: []int64{1, -5}},
		"KeepFor":            {good: []int64{1, second}, bad: []int64{-second}, off: true},
		"ShipInterval":       {good: []int64{1, second}, bad: []int64{-second}, off: true},
		"BackendTimeout":     {good: []int64{1, second}, bad: []int64{-second}},
		"FollowInterval":     {good: []int64{1, second}, bad: []int64{-second}},
		"RestoreTimeout":     {good: []int64{1, second}, bad: []int64{-second}},
	}
	options := reflect.TypeFor[xdswal.Options]()
	for i := range options.NumField() {
		f := options.Field(i)
		if k := f.Type.Kind(); k != reflect.Int && k != reflect.Int64 {
			continue
		}
		row, ok := rows[f.Name]
		require.True(t, ok, "%s is not tested", f.Name)
		delete(rows, f.Name)
		t.Run(f.Name, func(t *testing.T) {
			with := func(v int64) error {
				opt := xdswal.Options{Dir: t.TempDir()}
				reflect.ValueOf(&opt).Elem().Field(i).SetInt(v)
				err := opt.Validate()
				require.Equal(t, v, reflect.ValueOf(opt).Field(i).Int(), "Validate changes nothing")
				if err != nil {
					s, openErr := xdswal.Open(t.Context(), opt)
					require.EqualError(t, openErr, "open store: "+err.Error())
					require.Nil(t, s)
				}
				return err
			}
			if row.off {
				row.good = append(row.good, xdswal.Off)
			} else {
				row.bad = append(row.bad, xdswal.Off)
			}
			for _, v := range append(row.good, 0) {
				require.NoError(t, with(v), "%d", v)
			}
			for _, v := range row.bad {
				require.ErrorContains(t, with(v), "Options."+f.Name+" is ", "%d", v)
			}
		})
	}
	require.Empty(t, rows)
}

// Combinations that exclude each other are errors.
func TestOptionsCombinations(t *testing.T) {
	backend := backendtest.NewMemory()
	for _, row := range []struct {
		name string
		opt  xdswal.Options
		want string
	}{
		{"no settings", xdswal.Options{}, "Options.Dir is empty"},
		{"follow in memory", xdswal.Options{MemoryOnly: true, Follow: true, Backend: backend}, "Options.Follow and MemoryOnly are mutually exclusive"},
		{"ship from memory", xdswal.Options{MemoryOnly: true, Backend: backend}, "Options.Backend and MemoryOnly are mutually exclusive"},
		{"follow without a backend", xdswal.Options{Follow: true}, "Options.Backend is nil"},
		{"fail open without snapshots", xdswal.Options{Dir: "x", FailOpen: true, DisableSnapshots: true}, "Options.FailOpen requires snapshots"},
		{"fail open without snapshots after a promotion", xdswal.Options{Follow: true, Backend: backend, FailOpen: true, DisableSnapshots: true}, "Options.FailOpen requires snapshots"},
		{"two fields", xdswal.Options{Dir: "x", KeepSnapshots: 1, KeepFor: -5}, "Options.KeepFor is -5ns: must be positive, or Off; 0 is the default of 1h0m0s"},
		{"small journal", xdswal.Options{Dir: "x", SegmentBytes: 1 << 20, MaxJournalBytes: 1 << 20}, "Options.MaxJournalBytes is 1048576: must be at least 2097152"},
	} {
		t.Run(row.name, func(t *testing.T) {
			require.ErrorContains(t, row.opt.Validate(), row.want)
		})
	}
}
