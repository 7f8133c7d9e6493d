package wal

import (
	"cmp"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/xdswal/xdswal/journal"
)

// Defaults of Options.
const (
	DefaultSegmentBytes   = 32 << 20
	DefaultMaxBytes       = 4 << 30
	DefaultMaxRecordBytes = 256 << 20
)

// MinSegmentBytes is the least Options.SegmentBytes.
const MinSegmentBytes = 64 << 10

// Options are the settings of a journal. The zero value of a field is its default;
// [Open] refuses a value that is out of range, and names its field.
type Options struct {
	// Sync is when committed events are on stable storage; default SyncAlways.
	Sync journal.SyncPolicy
	// SegmentBytes is the size in bytes at which a segment is sealed, and with
	// which the next one is allocated; default 32 MiB, at least 64 KiB. A group
	// that is larger than that makes its segment larger.
	SegmentBytes int64
	// MaxBytes bounds the size of all segments in bytes; default 4 GiB, at least
	// twice SegmentBytes. An append that would exceed it fails with ErrFull.
	MaxBytes int64
	// MaxRecordBytes bounds the size of one record in bytes; default 256 MiB, at
	// most 2 GiB less 2 bytes, which is the bound of bbolt. An append of a larger
	// event fails with ErrTooLarge.
	MaxRecordBytes int
	// First is the sequence of the first event of a new journal; default 1. In a
	// journal that continues a snapshot it is the sequence after the snapshot. It
	// has no effect on a journal that exists.
	First journal.Sequence
	// NotBefore is the earliest time that an event may get; default none. In a
	// journal that continues a snapshot it is the time of the snapshot.
	NotBefore time.Time
	// ReadOnly opens an existing journal for Range, Records and Stats only. A
	// read-only journal takes no lock and changes no file, and can be used while
	// another process appends; the active segment then fails with ErrLocked.
	ReadOnly bool

	// Receiver is called with the outcome of each group of events; nil for none.
	Receiver Receiver
	// Hooks report commits and segments. They only observe.
	Hooks journal.Hooks
}

// Receiver is what the journal calls with the outcome of each group of events. The
// committer calls it for one group at a time, in the order of the sequences, before
// the appends of the group return. Every append waits meanwhile, so a method must
// return quickly, and must not call Close, Recover or Advance.
type Receiver interface {
	// Committed is called with the events of a group that is durable, and the size
	// of their records in bytes.
	Committed(events []*journal.Event, bytes int64)
	// Failed is called with the events of a group that could not be made durable.
	// They have the sequences that they would have got. If Failed returns nil, the
	// receiver has accepted the events: their appends succeed, and every later
	// group fails, and is passed to Failed, until Recover. Otherwise the appends
	// return the error. Without a receiver they return cause.
	Failed(events []*journal.Event, cause error) error
}

// setDefaults replaces zero values by defaults. It returns an error about the first
// field that is out of range.
func (o *Options) setDefaults() error {
	o.SegmentBytes = cmp.Or(o.SegmentBytes, DefaultSegmentBytes)
	o.MaxBytes = cmp.Or(o.MaxBytes, DefaultMaxBytes)
	o.MaxRecordBytes = cmp.Or(o.MaxRecordBytes, DefaultMaxRecordBytes)
	o.First = cmp.Or(o.First, 1)
	switch {
	case o.SegmentBytes < MinSegmentBytes:
		return fmt.Errorf("got SegmentBytes %d, want at least %d", o.SegmentBytes, MinSegmentBytes)
	case o.MaxBytes/2 < o.SegmentBytes: // TruncateBefore cannot delete the active segment
		return fmt.Errorf("got MaxBytes %d, want at least twice SegmentBytes, which is %d", o.MaxBytes, o.SegmentBytes)
	case o.MaxRecordBytes < 0 || o.MaxRecordBytes > bolt.MaxValueSize:
		return fmt.Errorf("got MaxRecordBytes %d, want at most %d", o.MaxRecordBytes, bolt.MaxValueSize)
	}
	return nil
}
