package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/xdswal/xdswal/internal/durable"
	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/journal"
)

// maxStagedBytes is how much is staged before it goes to the segment, or
// SegmentBytes if that is less: what is staged cannot be truncated.
const maxStagedBytes = 4 << 20

// staged is the file that takes events first where not every commit is synced.
//
// bbolt keeps its promises only if it syncs: written without, its file may be
// unreadable after a crash of the machine, old events included. So with
// SyncEvery and SyncNever events are acknowledged when they are written, but
// not synced, to this file, and go to the segment, synced, once in an interval
// or when there are many. The file is a sequence of records, each after its
// length as 4 bytes, little-endian; what a crash of the machine left of it is
// read up to the first record that is not whole.
type staged struct {
	f       *os.File
	records [][]byte
	first   journal.Sequence // of records
	bytes   int64
	since   time.Time // when the oldest record was staged
	buf     []byte
}

func (j *Journal) stagedPath() string { return filepath.Join(j.dir, "staged") }

// openStaged brings what the last process staged into the segment, and opens
// the file for staging.
func (j *Journal) openStaged() error {
	if err := j.drainStaged(); err != nil {
		return err
	}
	f, err := os.OpenFile(j.stagedPath(), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return &Error{Op: "open staged events", Path: j.stagedPath(), Err: err}
	}
	if err := durable.SyncDir(j.dir); err != nil {
		f.Close()
		return &Error{Op: "open staged events", Path: j.stagedPath(), Err: err}
	}
	j.staged = &staged{f: f, first: j.last + 1}
	return nil
}

// drainStaged commits the staged events that the segment has not, and empties
// the file. A crash within repeats it.
func (j *Journal) drainStaged() error {
	records, err := readStaged(j.stagedPath(), j.last+1)
	if err != nil {
		return err
	}
	if len(records) > 0 {
		if err := j.active.put(j.last+1, records); err != nil {
			return &Error{Op: "commit staged events", Path: j.active.path, Sequence: j.last + 1, Err: err}
		}
		_, at, err := event.Check(records[len(records)-1])
		if err != nil {
			return err
		}
		j.last, j.lastTime = j.active.last, at
	}
	err = os.Truncate(j.stagedPath(), 0)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return &Error{Op: "empty staged events", Path: j.stagedPath(), Err: err}
	}
	return nil
}

// readStaged returns the whole records from sequence first on. Events are
// staged only behind those of the segment, so if the first one that it finds
// is a later one, the error is [ErrGap].
func readStaged(path string, first journal.Sequence) ([][]byte, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, &Error{Op: "read staged events", Path: path, Err: err}
	}
	var records [][]byte
	next := first
	for len(data) >= 4 {
		n := uint64(binary.LittleEndian.Uint32(data))
		if n > uint64(len(data)-4) {
			break
		}
		record := data[4 : 4+n]
		data = data[4+n:]
		seq, _, err := event.Check(record)
		if errors.Is(err, event.ErrVersion) {
			return nil, &Error{Op: "read staged events", Path: path, Sequence: next, Err: err}
		}
		if err != nil {
			break
		}
		if seq > next {
			return nil, &Error{Op: "read staged events", Path: path, Sequence: seq, Err: fmt.Errorf("%w: %d to %d", ErrGap, next, seq-1)}
		}
		if seq == next { // older ones are in the segment already
			records = append(records, record)
			next++
		}
	}
	return records, nil
}

// stage acknowledges a batch by writing it to the file.
func (j *Journal) stage(first journal.Sequence, b *batch) error {
	s := j.staged
	s.buf = s.buf[:0]
	for _, record := range b.records {
		s.buf = binary.LittleEndian.AppendUint32(s.buf, uint32(len(record)))
		s.buf = append(s.buf, record...)
	}
	if _, err := s.f.Write(s.buf); err != nil {
		return fmt.Errorf("stage events: %w", err)
	}
	if cap(s.buf) > maxStagedBytes {
		s.buf = nil
	}
	j.mu.Lock()
	if len(s.records) == 0 {
		s.first, s.since = first, time.Now()
	}
	s.records = append(s.records, b.records...)
	s.bytes += b.bytes
	j.mu.Unlock()
	if s.bytes >= min(maxStagedBytes, j.opt.SegmentBytes) {
		j.flush()
	}
	return nil
}

// flush brings the staged events to the segment. If that fails the journal is
// poisoned; the events are acknowledged, and wait in the file for Recover or
// the next Open.
func (j *Journal) flush() {
	s := j.staged
	if len(s.records) == 0 {
		return
	}
	err := j.active.put(s.first, s.records)
	if err == nil {
		err = j.resetStaged()
	}
	if err != nil {
		j.setPoison(err)
	}
}

// flushStaged is flush for the committer, outside a batch.
func (j *Journal) flushStaged() {
	j.commitMu.Lock()
	defer j.commitMu.Unlock()
	if j.staged == nil || j.poison != nil {
		return
	}
	j.flush()
	j.rotate()
}

// flushTimer fires when the oldest staged event is due, nil if none is.
func (j *Journal) flushTimer() <-chan time.Time {
	j.commitMu.Lock()
	defer j.commitMu.Unlock()
	if j.staged == nil || len(j.staged.records) == 0 || j.opt.Sync.Interval() < 0 {
		return nil
	}
	return time.After(max(0, j.opt.Sync.Interval()-time.Since(j.staged.since)))
}

// resetStaged empties the file: its events are in the segment. The truncation
// need not be durable, since events that come back are older than the
// segment's last and are passed over.
func (j *Journal) resetStaged() error {
	if err := j.staged.f.Truncate(0); err != nil {
		return fmt.Errorf("empty staged events: %w", err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.staged.records, j.staged.bytes = nil, 0
	return nil
}

func (s *staged) close() error { return s.f.Close() }
