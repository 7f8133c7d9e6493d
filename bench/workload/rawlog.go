package workload

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"github.com/xdswal/xdswal/bench/harness"
)

// rawLog is the floor of every durable append: records go one after the other
// into a file whose blocks are there already, and those that wait share one
// fdatasync. It has neither checksum nor index, and could not be recovered.
type rawLog struct {
	f    *os.File
	wake chan struct{}
	done chan struct{}

	mu     sync.Mutex
	open   *rawBatch
	closed bool

	// The committer's own.
	offset  int64
	records int
	commits int
}

type rawBatch struct {
	buf     []byte
	records int
	done    chan struct{}
	err     error
}

// rawLogBytes is how much of the file is filled with zeros beforehand: what a
// journal segment has.
const rawLogBytes = 32 << 20

func newRawLog(dir string) (*rawLog, error) {
	f, err := os.Create(filepath.Join(dir, "raw.log"))
	if err != nil {
		return nil, fmt.Errorf("create raw log: %w", err)
	}
	zeros := make([]byte, 1<<20)
	for range rawLogBytes / len(zeros) {
		if _, err := f.Write(zeros); err != nil {
			return nil, fmt.Errorf("fill raw log: %w", err)
		}
	}
	if err := f.Sync(); err != nil {
		return nil, fmt.Errorf("fill raw log: %w", err)
	}
	l := &rawLog{f: f, wake: make(chan struct{}, 1), done: make(chan struct{}), open: newRawBatch()}
	go l.commit()
	return l, nil
}

func newRawBatch() *rawBatch { return &rawBatch{done: make(chan struct{})} }

// append returns when the record is durable.
func (l *rawLog) append(record []byte) error {
	l.mu.Lock()
	b := l.open
	b.buf = binary.LittleEndian.AppendUint32(b.buf, uint32(len(record)))
	b.buf = append(b.buf, record...)
	b.records++
	l.mu.Unlock()
	l.signal()
	<-b.done
	return b.err
}

func (l *rawLog) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (l *rawLog) commit() {
	defer close(l.done)
	for range l.wake {
		// Whoever was acknowledged a moment ago may join this batch.
		runtime.Gosched()
		l.mu.Lock()
		b, closed := l.open, l.closed
		l.open = newRawBatch()
		l.mu.Unlock()
		if b.records > 0 {
			_, err := l.f.WriteAt(b.buf, l.offset)
			b.err = errors.Join(err, harness.Fdatasync(l.f))
			l.offset += int64(len(b.buf))
			l.records += b.records
			l.commits++
			close(b.done)
		}
		if closed {
			return
		}
	}
}

// close ends the log and counts the records that its file holds.
func (l *rawLog) close() (records int, err error) {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.signal()
	<-l.done
	defer l.f.Close()
	data := make([]byte, l.offset)
	if _, err := l.f.ReadAt(data, 0); err != nil {
		return 0, fmt.Errorf("read raw log: %w", err)
	}
	for len(data) > 4 {
		size := int(binary.LittleEndian.Uint32(data))
		if size == 0 || size > len(data)-4 {
			return records, fmt.Errorf("read raw log: record %d is not there", records)
		}
		data = data[4+size:]
		records++
	}
	return records, nil
}
