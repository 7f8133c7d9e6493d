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
	bucketMeta    = "meta"
	bucketRecords = "records"
	keyMagic      = "magic"
	keyFormat     = "format"
	keySize       = 8
	openTimeout   = 2 * time.Second
	// growBytes is the step in which a full segment grows. bbolt's default of 16 MiB
	// would add half of a segment.
	growBytes = 1 << 20
)

// segment is one file of the chain.
type segment struct {
	path  string
	first journal.Sequence
	bytes int64 // size of the file; not set in the active segment
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

// listSegments returns the segments in dir, sorted by sequence.
func listSegments(dir string) ([]segment, error) {
	entries, err := os.ReadDir(dir) // sorted by name
	if err != nil {
		return nil, &Error{Op: "open journal", Path: dir, Err: err}
	}
	var segments []segment
	for _, e := range entries {
		first, ok := parseSegmentName(e.Name())
		if !ok {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // deleted by another process
		}
		if err != nil {
			return nil, &Error{Op: "open journal", Path: dir, Err: err}
		}
		segments = append(segments, segment{path: filepath.Join(dir, e.Name()), first: first, bytes: info.Size()})
	}
	return segments, nil
}

// active is the segment to which events are appended.
type active struct {
	segment
	db *bolt.DB
	// bytes is the size of the pages in use.
	bytes atomic.Int64
	// last is the newest event that the segment contains. The log may contain
	// later ones.
	last journal.Sequence
}

// put makes records, which follow the newest one, durable in one transaction.
func (a *active) put(first journal.Sequence, records [][]byte) (err error) {
	defer func() {
		// bbolt panics if it finds its file in an unexpected state. The journal is
		// poisoned then, and the control plane continues.
		if p := recover(); p != nil {
			err = fmt.Errorf("bbolt: %v", p)
		}
		if err != nil {
			err = fmt.Errorf("commit: %w", withoutPath(err, a.db.Path()))
		}
	}()
	last := first + journal.Sequence(len(records)) - 1
	err = a.db.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte(bucketRecords))
		b.FillPercent = 1 // keys only grow: a full page is never split again
		for i, record := range records {
			if err := b.Put(key(first+journal.Sequence(i)), record); err != nil {
				return err
			}
		}
		// It shows later whether the last records are missing, and costs nothing:
		// the transaction writes the page anyway.
		return b.SetSequence(uint64(last))
	})
	if err == nil {
		a.last = last
		a.measure()
	}
	return err
}

func (a *active) measure() {
	_ = a.db.View(func(tx *bolt.Tx) error {
		a.bytes.Store(tx.Size())
		return nil
	})
}

// seal returns the segment with the size of its file.
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

// spare is an empty segment under a temporary name. It is initialized and filled with
// zeros, so that appends to it allocate no blocks.
type spare struct {
	path string
	db   *bolt.DB
}

// newSpare creates a spare. Writing and syncing the zeros takes long, so it is not
// done by the committer if there is time.
//
//	openat(.tmp-*, O_CREAT|O_EXCL, 0600), bbolt's pages, fdatasync
//	pwrite(zeros)..., fsync
//
// A crash leaves a temporary file, which the next Open removes.
func newSpare(dir string, size int64) (*spare, error) {
	f, err := os.CreateTemp(dir, durable.TempPrefix+"*")
	if err != nil {
		return nil, fmt.Errorf("create file: %w", errors.Unwrap(err)) // without the temporary name
	}
	path := f.Name()
	f.Close()
	db, err := initSegment(path, size)
	if err != nil {
		os.Remove(path)
		return nil, withoutPath(err, path)
	}
	return &spare{path: path, db: db}, nil
}

func initSegment(path string, size int64) (*bolt.DB, error) {
	db, err := openBolt(path)
	if err != nil {
		return nil, err
	}
	err = db.Update(func(tx *bolt.Tx) error {
		meta, err := tx.CreateBucket([]byte(bucketMeta))
		if err != nil {
			return err
		}
		if err := meta.Put([]byte(keyMagic), []byte(segmentMagic)); err != nil {
			return err
		}
		if err := meta.Put([]byte(keyFormat), []byte{segmentFormat}); err != nil {
			return err
		}
		_, err = tx.CreateBucket([]byte(bucketRecords))
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
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: openTimeout, FreelistType: bolt.FreelistArrayType})
	if err != nil {
		return nil, err
	}
	db.AllocSize = growBytes
	return db, nil
}

// fillZero extends a file to size with zeros. A commit into a hole would have to
// allocate blocks, and the file system to journal their metadata.
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

// activate renames a spare to its name in the chain.
//
//	rename(.tmp-*, N.journal), fsync(directory)
//
// A crash before the rename leaves the chain as it was; a crash after it leaves an
// active segment that is empty, or has the events that Recover wrote. If the fsync
// fails, either may be the case, and the error is [ErrPoisoned].
func (a *active) activate(s *spare) error {
	if err := os.Rename(s.path, a.path); err != nil {
		return withoutPath(err, s.path)
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

// newActive creates the segment that begins with event first and contains records.
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
	var err error
	if len(records) > 0 {
		err = a.put(first, records)
	}
	if err == nil {
		err = a.activate(s)
	}
	if err != nil {
		s.discard()
		return fail(err)
	}
	return a, nil
}

// openActive verifies the last segment of the chain and opens it for appending.
func (j *Journal) openActive() error {
	seg := j.sealed[len(j.sealed)-1]
	scan, err := scanSegment(seg, nil)
	if err != nil {
		return err
	}
	db, err := openBolt(seg.path)
	if errors.Is(err, bolterrors.ErrTimeout) {
		err = ErrLocked
	}
	if err != nil {
		return &Error{Op: "open segment", Path: seg.path, Err: err}
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

// scan is the result of reading a segment.
type scan struct {
	last     journal.Sequence
	lastTime time.Time
}

var errEndScan = errors.New("end of scan")

// scanSegment reads a whole segment, verifies every page and record, and calls fn, if
// it is not nil, with each record. If fn returns errEndScan, scanSegment returns
// without an error. The records are parts of one copy of the file: fn clones what it
// keeps.
func scanSegment(seg segment, fn func(journal.Sequence, []byte) error) (scan, error) {
	s := scan{last: seg.first - 1}
	if err := s.read(seg, fn); err != nil && !errors.Is(err, errEndScan) {
		return s, &Error{Op: "read segment", Path: seg.path, Err: err}
	}
	return s, nil
}

func (s *scan) read(seg segment, fn func(journal.Sequence, []byte) error) error {
	f, err := boltpages.Open(seg.path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // it was only read
	records, err := checkBuckets(f)
	if err != nil {
		return err
	}
	err = f.Walk(records, func(key, value []byte) error {
		at, err := checkRecord(key, value, s.last+1)
		if err != nil {
			return err
		}
		s.last, s.lastTime = s.last+1, at
		if fn == nil {
			return nil
		}
		return fn(s.last, value)
	})
	if err != nil {
		return err
	}
	switch empty := s.last == seg.first-1; {
	case empty && records.Sequence != 0:
		return fmt.Errorf("%w: got no records, want those up to event %d", ErrCorrupt, records.Sequence)
	case !empty && uint64(s.last) != records.Sequence:
		return fmt.Errorf("%w: got records up to event %d, want event %d", ErrCorrupt, s.last, records.Sequence)
	}
	return f.CheckFreelist()
}

// checkBuckets verifies the buckets and the format of a segment, and returns the bucket
// of its records.
func checkBuckets(f *boltpages.File) (boltpages.Bucket, error) {
	fail := func(err error) (boltpages.Bucket, error) { return boltpages.Bucket{}, err }
	buckets := f.Buckets() // sorted by name
	for i, name := range []string{bucketMeta, bucketRecords} {
		if i >= len(buckets) || buckets[i].Name != name {
			return fail(fmt.Errorf("%w: not a journal segment: bucket %q is missing", ErrCorrupt, name))
		}
	}
	if len(buckets) > 2 {
		return fail(fmt.Errorf("%w: not a journal segment: got %d buckets, want 2", ErrCorrupt, len(buckets)))
	}
	meta := map[string]string{}
	err := f.Walk(buckets[0], func(key, value []byte) error {
		meta[string(key)] = string(value)
		return nil
	})
	if err != nil {
		return fail(err)
	}
	if meta[keyMagic] != segmentMagic {
		return fail(fmt.Errorf("%w: not a journal segment: the magic in bucket %q is wrong", ErrCorrupt, bucketMeta))
	}
	if v := meta[keyFormat]; v != string([]byte{segmentFormat}) {
		return fail(fmt.Errorf("%w: got segment format %x, want %d; use a newer xdswal", ErrVersion, v, segmentFormat))
	}
	return buckets[1], nil
}

// checkRecord verifies a record and its key, and returns the time of the event. The
// sequence must be want.
func checkRecord(key, value []byte, want journal.Sequence) (time.Time, error) {
	if len(key) != keySize {
		return time.Time{}, fmt.Errorf("%w: got a key of %d bytes, want %d", ErrCorrupt, len(key), keySize)
	}
	seq, at, err := event.Check(value)
	if err != nil {
		return time.Time{}, fmt.Errorf("event %d: %w", want, err)
	}
	if k := binary.BigEndian.Uint64(key); k != uint64(seq) {
		return time.Time{}, fmt.Errorf("%w: key %d holds event %d", ErrCorrupt, k, seq)
	}
	if seq != want {
		return time.Time{}, fmt.Errorf("%w: got event %d, want %d", ErrCorrupt, seq, want)
	}
	return at, nil
}

// lockShared takes the shared lock of a segment, so that no other process opens it for
// appending while it is read. If one has it open, the error is ErrLocked. It returns
// nil for a file that bbolt cannot open, as the scan gives the better error.
func lockShared(seg segment) (*bolt.DB, error) {
	db, err := bolt.Open(seg.path, 0, &bolt.Options{
		Timeout:  time.Nanosecond,
		ReadOnly: true,
		OpenFile: func(path string, _ int, _ os.FileMode) (*os.File, error) { return os.Open(path) },
	})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, &Error{Op: "read segment", Path: seg.path, Err: ErrLocked}
	}
	return db, nil
}
