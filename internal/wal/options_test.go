package wal_test

import (
	"fmt"
	"math"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/xdswal/xdswal/internal/wal"
	"github.com/xdswal/xdswal/journal"
)

// The zero value of a field is its default. Open refuses what is out of range,
// changes nothing, and names the field.
func TestOptions(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		name    string
		opt     wal.Options
		refused string // the field that the error names, with its value
	}{
		{name: "zero"},
		{name: "Sync, an interval", opt: wal.Options{Sync: journal.SyncEvery(time.Hour)}},
		{name: "Sync, never", opt: wal.Options{Sync: journal.SyncNever}},
		{name: "SegmentBytes, the least", opt: wal.Options{SegmentBytes: minSegment}},
		{name: "SegmentBytes, too small", opt: wal.Options{SegmentBytes: minSegment - 1}, refused: "SegmentBytes 65535"},
		{name: "SegmentBytes, one", opt: wal.Options{SegmentBytes: 1}, refused: "SegmentBytes 1"},
		{name: "SegmentBytes, negative", opt: wal.Options{SegmentBytes: -1}, refused: "SegmentBytes -1"},
		{name: "SegmentBytes, over half of MaxBytes", opt: wal.Options{SegmentBytes: 3 << 30}, refused: "MaxBytes 4294967296"},
		{name: "SegmentBytes, twice it overflows", opt: wal.Options{SegmentBytes: math.MaxInt64, MaxBytes: math.MaxInt64}, refused: "SegmentBytes, which is 9223372036854775807"},
		{name: "MaxBytes, two segments", opt: wal.Options{SegmentBytes: mib, MaxBytes: 2 * mib}},
		{name: "MaxBytes, the largest", opt: wal.Options{SegmentBytes: mib, MaxBytes: math.MaxInt64}},
		{name: "MaxBytes, less than two segments", opt: wal.Options{SegmentBytes: mib, MaxBytes: 2*mib - 1}, refused: "MaxBytes 2097151"},
		{name: "MaxBytes, less than two default segments", opt: wal.Options{MaxBytes: wal.DefaultSegmentBytes}, refused: "MaxBytes 33554432"},
		{name: "MaxBytes, negative", opt: wal.Options{MaxBytes: -1}, refused: "MaxBytes -1"},
		{name: "MaxRecordBytes, the least", opt: wal.Options{MaxRecordBytes: 1}},
		{name: "MaxRecordBytes, the most", opt: wal.Options{MaxRecordBytes: bolt.MaxValueSize}},
		{name: "MaxRecordBytes, too many", opt: wal.Options{MaxRecordBytes: bolt.MaxValueSize + 1}, refused: "MaxRecordBytes 2147483647"},
		{name: "MaxRecordBytes, negative", opt: wal.Options{MaxRecordBytes: -1}, refused: "MaxRecordBytes -1"},
		{name: "First", opt: wal.Options{First: 7}},
		{name: "NotBefore", opt: wal.Options{NotBefore: time.Now().Add(time.Hour)}},
	} {
		for _, readOnly := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, read-only %v", c.name, readOnly), func(t *testing.T) {
				dir := filepath.Join(fastDir(t), "journal")
				if readOnly {
					dir = fastDir(t)
				}
				c.opt.ReadOnly = readOnly
				j, err := wal.Open(dir, c.opt)
				if c.refused == "" {
					require.NoError(t, err)
					require.NoError(t, j.Close())
					return
				}
				require.Nil(t, j)
				require.ErrorContains(t, err, c.refused)
				requirePlace(t, err, dir)
				if !readOnly {
					require.NoDirExists(t, dir)
				}
			})
		}
	}
}
