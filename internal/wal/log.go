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

// maxLogBytes is the size at which the log is flushed to the segment, if it is less
// than SegmentBytes. TruncateBefore cannot delete events that are in the log.
const maxLogBytes = 4 << 20

// log is the file to which events are first appended under SyncEvery and SyncNever.
//
// A bbolt file that is written without syncs may be unreadable after a crash of the
// machine, old events included. Under these policies a group is therefore committed
// when it is written, without a sync, to the log. Once in an interval, or when the
// log is large, its events are flushed to the segment with a sync. The file is a
// sequence of records, each after its length as 4 bytes, little-endian. After a crash
// of the machine it is read up to the first record that is not whole.
type log struct {
	f       *os.File
	records [][]byte // those that no segment contains yet
	first   journal.Sequence
	bytes   int64
	since   time.Time // when the oldest record was written
	buf     []byte
}

func (j *Journal) logPath() string { return filepath.Join(j.dir, "staged") }

// openLog opens the log, which must be empty.
func (j *Journal) openLog() error {
	f, err := os.OpenFile(j.logPath(), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return &Error{Op: "open log", Path: j.logPath(), Err: err}
	}
	if err := durable.SyncDir(j.dir); err != nil {
		f.Close()
		return &Error{Op: "open log", Path: j.logPath(), Err: err}
	}
	j.log = &log{f: f, first: j.last + 1}
	return nil
}

// replayLog commits to the segment the events of the log that it does not contain,
// and empties the log. After a crash in between, the next Open does so again.
func (j *Journal) replayLog() error {
	records, err := readLog(j.logPath(), j.last+1)
	if err != nil {
		return err
	}
	if len(records) > 0 {
		if err := j.active.put(j.last+1, records); err != nil {
			return &Error{Op: "replay log", Path: j.active.path, Sequence: j.last + 1, Err: err}
		}
		_, at, err := event.Check(records[len(records)-1])
		if err != nil {
			return err
		}
		j.last, j.lastTime = j.active.last, at
	}
	err = os.Truncate(j.logPath(), 0)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return &Error{Op: "empty log", Path: j.logPath(), Err: err}
	}
	return nil
}

// readLog returns the whole records from sequence first on, and nil if there is no
// log. A log begins at most one event after the segment, so if its first event is a
// later one than first, the error is [ErrGap].
func readLog(path string, first journal.Sequence) ([][]byte, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, &Error{Op: "read log", Path: path, Err: err}
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
			return nil, &Error{Op: "read log", Path: path, Sequence: next, Err: err}
		}
		if err != nil {
			break
		}
		if seq > next {
			return nil, &Error{Op: "read log", Path: path, Sequence: seq, Err: gap(next, seq-1)}
		}
		if seq == next { // the segment contains the earlier ones
			records = append(records, record)
			next++
		}
	}
	return records, nil
}

// writeLog appends a group to the log.
func (j *Journal) writeLog(first journal.Sequence, g *group) error {
	l := j.log
	l.buf = l.buf[:0]
	for _, record := range g.records {
		l.buf = binary.LittleEndian.AppendUint32(l.buf, uint32(len(record)))
		l.buf = append(l.buf, record...)
	}
	if _, err := l.f.Write(l.buf); err != nil {
		return fmt.Errorf("write log: %w", err)
	}
	if cap(l.buf) > maxLogBytes {
		l.buf = nil
	}
	j.mu.Lock()
	if len(l.records) == 0 {
		l.first, l.since = first, time.Now()
	}
	l.records = append(l.records, g.records...)
	l.bytes += g.bytes
	j.mu.Unlock()
	if l.bytes >= min(maxLogBytes, j.opt.SegmentBytes) {
		j.flush()
	}
	return nil
}

// flush moves the events of the log to the segment. If that fails, the journal is
// poisoned; the events are committed, and stay in the log until Recover or the next
// Open.
func (j *Journal) flush() {
	if len(j.log.records) == 0 {
		return
	}
	err := j.active.put(j.log.first, j.log.records)
	if err == nil {
		err = j.emptyLog()
	}
	if err != nil {
		j.setPoison(err)
	}
}

// flushLog is flush between two groups.
func (j *Journal) flushLog() {
	j.commitMu.Lock()
	defer j.commitMu.Unlock()
	if j.log == nil || j.poison != nil {
		return
	}
	j.flush()
	j.rotate()
}

// flushTimer returns a channel that fires when the oldest event of the log is due, or
// nil if none will be.
func (j *Journal) flushTimer() <-chan time.Time {
	j.commitMu.Lock()
	defer j.commitMu.Unlock()
	if j.log == nil || len(j.log.records) == 0 || j.opt.Sync.Interval() < 0 {
		return nil
	}
	return time.After(max(0, j.opt.Sync.Interval()-time.Since(j.log.since)))
}

// emptyLog truncates the log, whose events the segment contains. The truncation need
// not be durable: events that reappear are not later than the last one of the
// segment, and readLog skips them.
func (j *Journal) emptyLog() error {
	if err := j.log.f.Truncate(0); err != nil {
		return fmt.Errorf("empty log: %w", err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.log.records, j.log.bytes = nil, 0
	return nil
}
