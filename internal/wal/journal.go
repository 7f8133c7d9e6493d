// Package wal implements the journal, the write-ahead log of a store: a chain of
// bbolt files with group commit. It makes events durable, reads them back, and
// deletes old segments. It does not know what an event means, nor which events a
// snapshot covers: its caller decides what is deleted. The encoding of an event is
// internal/event.
//
// # Files
//
// A journal is a directory of segments. A segment is a bbolt file, named after the
// first sequence that it may contain, for example 00000000000000000001.journal.
// Events are appended to the last segment, the active one; the segments before it are
// sealed and never change. With SyncEvery and SyncNever, events are appended to the
// log first, the file "staged". See docs/format/journal.md.
//
// # Commit
//
// Appended events collect in a group. One goroutine, the committer, takes the group
// when the previous one is durable, assigns the sequences of its events, writes them
// in one bbolt transaction, and completes their appends. All appends of a group share
// the cost of one fsync, and none waits for a timer.
//
// # Invariants
//
//   - The journal contains consecutive events. After a crash it ends with event N for
//     some N, and contains every event up to N that was not deleted.
//   - An event is committed when its append has returned without an error. A committed
//     event survives a crash of the process under every sync policy. With SyncAlways
//     it survives a crash of the machine; with SyncEvery the events of the last
//     interval may be lost, with SyncNever those that the system has not written.
//   - After a failed write or sync no append succeeds until Recover.
package wal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/xdswal/xdswal/internal/durable"
	"github.com/xdswal/xdswal/internal/hook"
	"github.com/xdswal/xdswal/journal"
)

// Journal is an open journal. Its methods are safe for concurrent use.
type Journal struct {
	dir  string
	opt  Options
	lock *durable.LockFile

	queue queue

	// commitMu is held while a group is committed, and during Recover and Advance.
	// It is locked before mu.
	commitMu sync.Mutex
	accepted bool // Receiver.Failed has accepted events that are not in the journal
	// background counts the goroutines that create and close segments. They are
	// started with commitMu held.
	background sync.WaitGroup

	// mu protects the fields below. Those that change a field other than sealed,
	// spare and preparing hold commitMu too.
	mu        sync.RWMutex
	sealed    []segment
	active    *active
	spare     *spare
	preparing bool // a spare is being created
	log       *log // nil with SyncAlways
	last      journal.Sequence
	lastTime  time.Time
	poison    error

	done    chan struct{} // closed when the committer has returned
	closing sync.Once
}

// Open opens the journal in dir, which it creates if it is missing, and starts the
// committer. While another process has the journal open, Open returns [ErrLocked]
// without waiting. Open reads the whole active segment; if it is damaged, the error
// is [ErrCorrupt], and if its format is newer, [ErrVersion].
func Open(dir string, opt Options) (*Journal, error) {
	j := &Journal{dir: dir, queue: queue{wake: make(chan struct{}, 1)}, done: make(chan struct{})}
	if err := opt.setDefaults(); err != nil {
		return nil, j.fail("open journal", err)
	}
	j.opt = opt
	if opt.ReadOnly {
		close(j.done)
		if _, err := listSegments(dir); err != nil {
			return nil, err
		}
		return j, nil
	}
	if err := durable.MkdirAll(dir); err != nil {
		return nil, j.fail("create journal", err)
	}
	var err error
	if j.lock, err = durable.Lock(filepath.Join(dir, "LOCK")); err != nil {
		return nil, j.fail("open journal", err)
	}
	if err := j.openForAppend(); err != nil {
		return nil, errors.Join(err, j.release())
	}
	go j.commit()
	return j, nil
}

// fail returns the error of an operation on the whole journal.
func (j *Journal) fail(op string, err error) error {
	return &Error{Op: op, Path: j.dir, Err: err}
}

// openForAppend opens the last segment, or creates the first one, and replays the log.
func (j *Journal) openForAppend() error {
	if err := durable.RemoveTemp(j.dir); err != nil {
		return j.fail("open journal", err)
	}
	var err error
	if j.sealed, err = listSegments(j.dir); err != nil {
		return err
	}
	j.lastTime = j.opt.NotBefore
	if len(j.sealed) == 0 {
		j.last = j.opt.First - 1
		a, err := j.newActive(j.opt.First, nil)
		if err != nil {
			return err
		}
		j.setActive(a)
	} else if err := j.openActive(); err != nil {
		return err
	}
	if err := j.replayLog(); err != nil || j.opt.Sync == journal.SyncAlways {
		return err
	}
	return j.openLog()
}

// Close commits the queued events, closes the files and releases the lock. Later
// appends return [ErrClosed]. Every call returns only after that is done; a second
// call returns nil. Close waits for the committer, so neither a hook nor the receiver
// may call it.
func (j *Journal) Close() (err error) {
	j.closing.Do(func() {
		j.queue.close()
		<-j.done
		if !j.opt.ReadOnly {
			err = j.release()
		}
	})
	return err
}

// release closes the files and releases the lock.
func (j *Journal) release() error {
	j.commitMu.Lock() // waits for Recover and Advance; later calls return ErrClosed
	defer j.commitMu.Unlock()
	j.background.Wait()
	j.mu.Lock()
	defer j.mu.Unlock()
	var errs []error
	if j.log != nil {
		if len(j.log.records) > 0 {
			errs = append(errs, fmt.Errorf("committed events are not on stable storage: %w", j.poison))
		}
		errs = append(errs, j.log.f.Close())
	}
	if j.spare != nil {
		j.spare.discard()
		j.spare = nil
	}
	if j.active != nil {
		path := j.active.db.Path()
		errs = append(errs, withoutPath(j.active.db.Close(), path))
		j.sealed = append(j.sealed, j.active.seal())
		j.active = nil
	}
	errs = append(errs, j.lock.Unlock())
	if err := errors.Join(errs...); err != nil {
		return j.fail("close journal", err)
	}
	return nil
}

// Stats returns the content of the journal. On a read-only journal it reads the last
// segment; otherwise it does no I/O.
func (j *Journal) Stats() (journal.Status, error) {
	if j.opt.ReadOnly {
		return j.statsReadOnly()
	}
	j.mu.RLock()
	defer j.mu.RUnlock()
	s := journal.Status{First: j.last + 1, Last: j.last, Segments: len(j.sealed), Bytes: j.sizeLocked(), Poisoned: j.poison}
	if j.active != nil {
		s.Segments++
		s.First = j.active.first
	}
	if len(j.sealed) > 0 {
		s.First = j.sealed[0].first
	}
	return s, nil
}

func (j *Journal) statsReadOnly() (journal.Status, error) {
	chain, err := listSegments(j.dir)
	if err != nil || len(chain) == 0 {
		return journal.Status{First: 1}, err
	}
	s := journal.Status{First: chain[0].first, Segments: len(chain)}
	for i := range chain {
		s.Bytes += chain[i].bytes
	}
	last := chain[len(chain)-1]
	db, err := lockShared(last)
	if err != nil {
		return s, err
	}
	if db != nil {
		defer db.Close()
	}
	scan, err := scanSegment(last, nil)
	if err != nil {
		return s, err
	}
	records, err := readLog(j.logPath(), scan.last+1)
	s.Last = scan.last + journal.Sequence(len(records))
	return s, err
}

// TruncateBefore deletes the sealed segments that contain only events before seq. The
// caller ensures that a durable snapshot covers them. A crash in between leaves a
// shorter chain without a hole.
func (j *Journal) TruncateBefore(ctx context.Context, seq journal.Sequence) error {
	const op = "truncate journal"
	if j.opt.ReadOnly {
		return j.fail(op, ErrReadOnly)
	}
	var errs []error
	dropped, err := j.drop(ctx, seq)
	if err != nil {
		errs = append(errs, j.fail(op, err))
	}
	if len(dropped) > 0 {
		if err := durable.SyncDir(j.dir); err != nil {
			errs = append(errs, j.fail(op, err))
		}
	}
	for _, s := range dropped {
		hook.Call(j.opt.Hooks.SegmentDropped, journal.Segment{Path: s.path, First: s.first})
	}
	return errors.Join(errs...)
}

// drop deletes segments and returns those that it has deleted.
func (j *Journal) drop(ctx context.Context, seq journal.Sequence) ([]segment, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.active == nil {
		return nil, ErrClosed
	}
	var dropped []segment
	for len(j.sealed) > 0 {
		if err := ctx.Err(); err != nil {
			return dropped, err
		}
		next := j.active.first
		if len(j.sealed) > 1 {
			next = j.sealed[1].first
		}
		if next > seq {
			break
		}
		// Oldest first, so that a crash leaves no hole.
		if err := os.Remove(j.sealed[0].path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return dropped, err
		}
		dropped = append(dropped, j.sealed[0])
		j.sealed = j.sealed[1:]
	}
	return dropped, nil
}

// Advance makes next the sequence of the next event, and notBefore the earliest time
// of an event. It is for a journal that ends before the snapshot that it continues:
// a new journal beside a snapshot from elsewhere, or a journal whose last events
// were lost in a crash of the machine. The snapshot covers the events of the
// journal, so Advance deletes them. If next is the next sequence already, Advance
// deletes nothing; if next is smaller, it returns an error. Call it before the first
// append.
func (j *Journal) Advance(next journal.Sequence, notBefore time.Time) error {
	advanced, err := j.advanceTo(next, notBefore)
	if err != nil {
		return &Error{Op: "advance journal", Path: j.dir, Sequence: next, Err: err}
	}
	if !advanced {
		return nil // the sealed segments may not be covered by a snapshot
	}
	return j.TruncateBefore(context.Background(), next)
}

// advanceTo reports whether next was larger than the next sequence.
func (j *Journal) advanceTo(next journal.Sequence, notBefore time.Time) (bool, error) {
	j.commitMu.Lock()
	defer j.commitMu.Unlock()
	switch {
	case j.opt.ReadOnly:
		return false, ErrReadOnly
	case j.active == nil:
		return false, ErrClosed
	case j.poison != nil:
		return false, fmt.Errorf("%w: %w", ErrPoisoned, j.poison)
	}
	if notBefore.After(j.lastTime) {
		j.lastTime = notBefore
	}
	switch {
	case next == j.last+1:
		return false, nil
	case next <= j.last:
		return false, fmt.Errorf("the journal is at event %d already", j.last)
	}
	a, err := j.newActive(next, nil)
	if err != nil {
		return false, err
	}
	j.setActive(a)
	j.mu.Lock()
	j.last = next - 1
	j.mu.Unlock()
	if j.log != nil {
		return true, j.emptyLog()
	}
	return true, nil
}
