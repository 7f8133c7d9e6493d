package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/xdswal/xdswal/internal/durable"
	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/internal/wal/internal/boltpages"
	"github.com/xdswal/xdswal/journal"
)

const (
	segmentSuffix = ".journal"
	segmentMagic  = "xdswal journal"
	segmentFormat = 1
	keySize       = 8
	openTimeout   = 2 * time.Second
	// growBytes is by how much a segment grows that is filled: bbolt's own
	// 16 MiB would make it half as large again.
	growBytes = 1 << 20
)

var (
	bucketMeta    = []byte("meta")
	bucketRecords = []byte("records")
	keyFormat     = []byte("format")
	keyMagic      = []byte("magic")
)

// segment is one file of the chain.
type segment struct {
	path  string
	first journal.Sequence
	bytes int64 // size of the file; of the active segment it is not kept
}

func segmentName(first journal.Sequence) string { return first.String() + segmentSuffix }

func parseSegmentName(name string) (journal.Sequence, bool) {
	digits, ok := strings.CutSuffix(name, segmentSuffix)
	if !ok || len(digits) != 20 {
		return 0, false
	}
	seq, err := event.ParseSequence(digits)
	return seq, err == nil
}

// listSegments returns the segments in dir, in the order of their sequences.
func listSegments(dir string) ([]segment, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, &Error{Op: "open journal", Path: dir, Err: err}
	}
	var segments []segment
	for _, e := range entries { // sorted by name, and so by sequence
		first, ok := parseSegmentName(e.Name())
		if !ok {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // dropped by a writer
		}
		if err != nil {
			return nil, &Error{Op: "open journal", Path: dir, Err: err}
		}
		segments = append(segments, segment{path: filepath.Join(dir, e.Name()), first: first, bytes: info.Size()})
	}
	return segments, nil
}

// active is the segment that is appended to.
type active struct {
	segment
	db *bolt.DB
	// bytes is what the pages in use take of the file.
	bytes atomic.Int64
	// last is the newest event that a bbolt transaction holds; staged events
	// come after it.
	last journal.Sequence
}

// put makes records durable that follow the newest one in one transaction.
func (a *active) put(first journal.Sequence, records [][]byte) (err error) {
	defer func() {
		// bbolt panics where it finds its file in a state that it did not
		// leave it in. That is no reason to take the control plane down.
		if p := recover(); p != nil {
			err = fmt.Errorf("commit: bbolt: %v", p)
		}
	}()
	last := first + journal.Sequence(len(records)) - 1
	err = a.db.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketRecords)
		b.FillPercent = 1 // keys only grow: full pages are never split again
		for i, record := range records {
			if err := b.Put(key(first+journal.Sequence(i)), record); err != nil {
				return err
			}
		}
		// Written with the transaction anyway, and tells a lost tail.
		return b.SetSequence(uint64(last))
	})
	if err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	a.last = last
	a.measure()
	return nil
}

func (a *active) measure() {
	_ = a.db.View(func(tx *bolt.Tx) error {
		a.bytes.Store(tx.Size())
		return nil
	})
}

// seal returns the segment as one of the sealed.
func (a *active) seal() segment {
	s := a.segment
	s.bytes = a.bytes.Load()
	if info, err := os.Stat(s.path); err == nil {
		s.bytes = info.Size()
	}
	return s
}

func key(seq journal.Sequence) []byte {
	return binary.BigEndian.AppendUint64(make([]byte, 0, keySize), uint64(seq))
}

// spare is a segment that waits under a temporary name, initialised and
// filled with zeros so that appending to it allocates nothing.
type spare struct {
	path string
	db   *bolt.DB
}

// newSpare creates a spare. What it takes long for, writing zeros and syncing
// them, is done here, beside the committer.
//
//	openat(.tmp-*, O_CREAT|O_EXCL, 0600), bbolt's pages, fdatasync
//	pwrite(zeros)..., fsync
//
// A crash leaves a temporary file, which the next Open removes.
func newSpare(dir string, size int64) (*spare, error) {
	f, err := os.CreateTemp(dir, durable.TempPrefix+"*")
	if err != nil {
		return nil, fmt.Errorf("create segment: %w", err)
	}
	path := f.Name()
	f.Close()
	db, err := initSegment(path, size)
	if err != nil {
		os.Remove(path)
		return nil, fmt.Errorf("create segment: %w", err)
	}
	return &spare{path: path, db: db}, nil
}

func initSegment(path string, size int64) (*bolt.DB, error) {
	db, err := bolt.Open(path, 0o600, boltOptions())
	if err != nil {
		return nil, err
	}
	err = db.Update(func(tx *bolt.Tx) error {
		meta, err := tx.CreateBucket(bucketMeta)
		if err != nil {
			return err
		}
		if err := meta.Put(keyMagic, []byte(segmentMagic)); err != nil {
			return err
		}
		if err := meta.Put(keyFormat, []byte{segmentFormat}); err != nil {
			return err
		}
		_, err = tx.CreateBucket(bucketRecords)
		return err
	})
	if err := errors.Join(err, db.Close()); err != nil {
		return nil, err
	}
	if err := fillZero(path, size); err != nil {
		return nil, err
	}
	return openBolt(path)
}

func openBolt(path string) (*bolt.DB, error) {
	db, err := bolt.Open(path, 0o600, boltOptions())
	if err != nil {
		return nil, err
	}
	db.AllocSize = growBytes
	return db, nil
}

// fillZero extends a file with zeros, not with a hole: a commit into a hole
// would have to allocate blocks and journal their metadata.
func fillZero(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	zeros := make([]byte, 256<<10)
	for left := size - info.Size(); left > 0 && err == nil; left -= int64(len(zeros)) {
		_, err = f.Write(zeros[:min(left, int64(len(zeros)))])
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func boltOptions() *bolt.Options {
	return &bolt.Options{Timeout: openTimeout, FreelistType: bolt.FreelistArrayType}
}

// activate gives a spare its place in the chain.
//
//	rename(.tmp-*, N.journal), fsync(directory)
//
// A crash before the rename leaves the chain as it was, a crash after it an
// active segment that is empty or, by Recover, has the events it begins with.
// If the fsync fails, the name may be there or not, and the error is
// [ErrPoisoned].
func (a *active) activate(s *spare) error {
	if err := os.Rename(s.path, a.path); err != nil {
		return err
	}
	if err := durable.SyncDir(filepath.Dir(a.path)); err != nil {
		return fmt.Errorf("%w: %w", ErrPoisoned, err)
	}
	return nil
}

func (s *spare) discard() {
	s.db.Close()
	os.Remove(s.path)
}

// newActive creates the segment that begins with first and with the given
// records.
func (j *Journal) newActive(first journal.Sequence, records [][]byte) (*active, error) {
	j.mu.Lock()
	s := j.spare
	j.spare = nil
	j.mu.Unlock()
	fail := func(err error) (*active, error) {
		return nil, &Error{Op: "create segment", Path: j.dir, Sequence: first, Err: err}
	}
	if s == nil {
		var err error
		if s, err = newSpare(j.dir, j.opt.SegmentBytes); err != nil {
			return fail(err)
		}
	}
	a := &active{
		segment: segment{path: filepath.Join(j.dir, segmentName(first)), first: first},
		db:      s.db, last: first - 1,
	}
	a.measure()
	if len(records) > 0 {
		if err := a.put(first, records); err != nil {
			s.discard()
			return fail(err)
		}
	}
	if err := a.activate(s); err != nil {
		s.discard()
		return fail(err)
	}
	return a, nil
}

// openActive checks the last segment of the chain and opens it for appending.
func (j *Journal) openActive() error {
	seg := j.sealed[len(j.sealed)-1]
	scan, err := scanSegment(seg, nil)
	if err != nil {
		return err
	}
	db, err := openBolt(seg.path)
	if err != nil {
		return &Error{Op: "open segment", Path: seg.path, Err: boltError(err)}
	}
	j.sealed = j.sealed[:len(j.sealed)-1]
	j.active = &active{segment: seg, db: db, last: scan.last}
	j.active.measure()
	j.last = scan.last
	if scan.lastTime.After(j.lastTime) {
		j.lastTime = scan.lastTime
	}
	return nil
}

// boltError gives bbolt's errors the identities of ours.
func boltError(err error) error {
	if errors.Is(err, bolterrors.ErrTimeout) {
		return ErrLocked
	}
	return err
}

// scan is what a segment holds.
type scan struct {
	last     journal.Sequence
	lastTime time.Time
}

var errStop = errors.New("stop")

// scanSegment reads a whole segment, verifies every page and every record,
// and calls fn, if it is not nil, with each record. If fn returns errStop the
// scan ends there, without an error. Records are parts of one copy of the whole
// file: fn copies what it keeps.
func scanSegment(seg segment, fn func(journal.Sequence, []byte) error) (scan, error) {
	out := scan{last: seg.first - 1}
	fail := func(err error) (scan, error) {
		if errors.Is(err, errStop) {
			return out, nil
		}
		return out, &Error{Op: "read segment", Path: seg.path, Err: err}
	}
	f, err := boltpages.Open(seg.path)
	if err != nil {
		return fail(err)
	}
	defer func() { _ = f.Close() }() // it was only read
	records, err := checkBuckets(f)
	if err != nil {
		return fail(err)
	}
	err = f.Walk(records, func(key, value []byte) error {
		seq, at, err := checkRecord(key, value, out.last+1)
		if err != nil {
			return err
		}
		out.last, out.lastTime = seq, at
		if fn == nil {
			return nil
		}
		return fn(seq, value)
	})
	if err != nil {
		return fail(err)
	}
	if out.last != seg.first-1 && uint64(out.last) != records.Sequence {
		return fail(fmt.Errorf("%w: the last record is event %d, the segment was written up to %d", ErrCorrupt, out.last, records.Sequence))
	}
	if out.last == seg.first-1 && records.Sequence != 0 {
		return fail(fmt.Errorf("%w: no record is left of a segment that was written up to event %d", ErrCorrupt, records.Sequence))
	}
	return out, nilOr(fail, f.CheckFreelist())
}

func nilOr(fail func(error) (scan, error), err error) error {
	if err == nil {
		return nil
	}
	_, err = fail(err)
	return err
}

// checkBuckets verifies what a segment says of itself, and returns the bucket
// of its records.
func checkBuckets(f *boltpages.File) (boltpages.Bucket, error) {
	buckets := f.Buckets()
	if len(buckets) != 2 || buckets[0].Name != string(bucketMeta) || buckets[1].Name != string(bucketRecords) {
		return boltpages.Bucket{}, fmt.Errorf("%w: it has not the buckets of a journal segment", ErrCorrupt)
	}
	meta := map[string]string{}
	err := f.Walk(buckets[0], func(key, value []byte) error {
		meta[string(key)] = string(value)
		return nil
	})
	if err != nil {
		return boltpages.Bucket{}, err
	}
	if meta[string(keyMagic)] != segmentMagic {
		return boltpages.Bucket{}, fmt.Errorf("%w: it has not the magic of a journal segment", ErrCorrupt)
	}
	if v := meta[string(keyFormat)]; v != string([]byte{segmentFormat}) {
		return boltpages.Bucket{}, fmt.Errorf("%w: segment has format %x, this xdswal reads %d", ErrVersion, v, segmentFormat)
	}
	return buckets[1], nil
}

// checkRecord verifies a record under its key; it must be the next one.
func checkRecord(key, value []byte, want journal.Sequence) (journal.Sequence, time.Time, error) {
	if len(key) != keySize {
		return 0, time.Time{}, fmt.Errorf("%w: key of %d bytes", ErrCorrupt, len(key))
	}
	seq, at, err := event.Check(value)
	if err != nil {
		return 0, time.Time{}, fmt.Errorf("event %d: %w", want, err)
	}
	if k := journal.Sequence(binary.BigEndian.Uint64(key)); k != seq {
		return 0, time.Time{}, fmt.Errorf("%w: event %d stands under key %d", ErrCorrupt, seq, k)
	}
	if seq != want {
		return 0, time.Time{}, fmt.Errorf("%w: event %d where %d should stand", ErrCorrupt, seq, want)
	}
	return seq, at, nil
}

// lockShared keeps a segment from being opened for appending while it is read
// by another process, and fails with ErrLocked while one has it open.
func lockShared(seg segment) (*bolt.DB, error) {
	db, err := bolt.Open(seg.path, 0, &bolt.Options{
		Timeout:  time.Nanosecond,
		ReadOnly: true,
		OpenFile: func(path string, _ int, _ os.FileMode) (*os.File, error) { return os.Open(path) },
	})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, &Error{Op: "read segment", Path: seg.path, Err: ErrLocked}
	}
	// What else is wrong with the file, the scan tells better.
	return db, nil
}
