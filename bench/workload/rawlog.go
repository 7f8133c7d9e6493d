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

// rawLog is the floor of every durable append: it appends records to a file whose blocks
// are allocated, and the records that wait share one fdatasync. It has no checksum and no
// index, and cannot be recovered.
type rawLog struct {
	f    *os.File
	wake chan struct{}
	done chan struct{}

	mu     sync.Mutex
	open   *rawGroup
	closed bool

	// Of the committing goroutine.
	offset  int64
	records int
	commits int
}

type rawGroup struct {
	buf     []byte
	records int
	done    chan struct{}
	err     error
}

// rawLogBytes is the size of the file, which is that of a journal segment. It is filled
// with zeros first.
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
	l := &rawLog{f: f, wake: make(chan struct{}, 1), done: make(chan struct{}), open: newRawGroup()}
	go l.commit()
	return l, nil
}

func newRawGroup() *rawGroup { return &rawGroup{done: make(chan struct{})} }

// append returns when the record is durable.
func (l *rawLog) append(record []byte) error {
	l.mu.Lock()
	g := l.open
	g.buf = binary.LittleEndian.AppendUint32(g.buf, uint32(len(record)))
	g.buf = append(g.buf, record...)
	g.records++
	l.mu.Unlock()
	l.signal()
	<-g.done
	return g.err
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
		// Let writers whose last append has just returned join this group.
		runtime.Gosched()
		l.mu.Lock()
		g, closed := l.open, l.closed
		l.open = newRawGroup()
		l.mu.Unlock()
		if g.records > 0 {
			_, err := l.f.WriteAt(g.buf, l.offset)
			g.err = errors.Join(err, harness.Fdatasync(l.f))
			l.offset += int64(len(g.buf))
			l.records += g.records
			l.commits++
			close(g.done)
		}
		if closed {
			return
		}
	}
}

// close closes the log and returns the number of records in its file.
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
			return records, fmt.Errorf("read raw log: record %d is missing", records)
		}
		data = data[4+size:]
		records++
	}
	return records, nil
}
