// Package wal is the journal, xdswal's write-ahead log: a chain of bbolt files with
// group commit.
//
// # Files
//
// A journal is a directory of segments, each a bbolt file named after the
// first sequence that it may hold, for example
// 00000000000000000001.journal. The last segment is the active one, to which
// events are appended; the ones before it are sealed and never change. A
// segment has two buckets: "meta" with the format, and "records" with one
// record an event, keyed by its sequence as 8 bytes, big-endian. See
// docs/format/journal.md.
//
// # Commit
//
// Appends gather in a batch. One goroutine, the committer, takes the batch
// when the one before it is durable, gives its events their sequences, writes
// them in one bbolt transaction, and acknowledges them all. So the cost of an
// fsync is shared by whoever waits for it, and nothing waits on a timer.
//
// # Crash
//
// After a crash of the process every acknowledged event is there, under every
// [SyncPolicy]. After a crash of the machine that holds with [SyncAlways];
// with [SyncEvery] what was acknowledged in the last interval may be missing,
// with [SyncNever] what the system had not written back. What is there is
// always events 1 to N for some N: never one without those before it.
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

	// commitMu is held while a batch is committed or the journal recovered.
	// It comes before mu.
	commitMu  sync.Mutex
	takenOver bool // events were taken on by Failed
	// background counts spares being made and segments being closed.
	background sync.WaitGroup

	// mu guards the chain of segments against Range and TruncateBefore;
	// only the committer and Recover change the active one.
	mu        sync.RWMutex
	sealed    []segment
	active    *active
	spare     *spare
	preparing bool    // a spare is being made
	staged    *staged // nil with SyncAlways
	last      journal.Sequence
	lastTime  time.Time
	poison    error

	done    chan struct{} // closed when the committer has ended
	closing sync.Once
}

// Open opens the journal in dir, which is created if need be, and starts its
// committer. If another process has it open, the error is [ErrLocked], at
// once. Open checks the active segment whole; a damaged one is [ErrCorrupt],
// one of a newer format [ErrVersion].
func Open(dir string, opt Options) (*Journal, error) {
	if err := opt.setDefaults(); err != nil {
		return nil, &Error{Op: "open journal", Path: dir, Err: err}
	}
	j := &Journal{dir: dir, opt: opt, done: make(chan struct{})}
	j.queue.init()
	if opt.ReadOnly {
		close(j.done)
		if _, err := listSegments(dir); err != nil {
			return nil, err
		}
		return j, nil
	}
	if err := durable.MkdirAll(dir); err != nil {
		return nil, &Error{Op: "create journal", Path: dir, Err: err}
	}
	lock, err := durable.Lock(filepath.Join(dir, "LOCK"))
	if err != nil {
		return nil, &Error{Op: "open journal", Path: dir, Err: err}
	}
	j.lock = lock
	if err := j.openForAppend(); err != nil {
		return nil, errors.Join(err, j.release())
	}
	go j.commit()
	return j, nil
}

// openForAppend loads the chain, opens its last segment, or creates the first
// one, and replays what was staged.
func (j *Journal) openForAppend() error {
	if err := durable.RemoveTemp(j.dir); err != nil {
		return &Error{Op: "open journal", Path: j.dir, Err: err}
	}
	var err error
	// All of them stand among the sealed until one is opened for appending.
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
	if j.opt.Sync == journal.SyncAlways {
		return j.drainStaged()
	}
	return j.openStaged()
}

// Close commits the queued events, closes the files and releases the lock. Later
// appends return [ErrClosed]. Every call returns only after that is done; a second
// call returns nil. Close waits for the committer, so a hook must not call it.
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

// release closes files and gives the lock back.
func (j *Journal) release() error {
	j.commitMu.Lock() // no Recover is under way, none will come
	defer j.commitMu.Unlock()
	j.background.Wait()
	j.mu.Lock()
	defer j.mu.Unlock()
	var errs []error
	if j.staged != nil {
		if len(j.staged.records) > 0 {
			errs = append(errs, fmt.Errorf("staged events are not on stable storage: %w", j.poison))
		}
		errs = append(errs, j.staged.close())
	}
	if j.spare != nil {
		j.spare.discard()
		j.spare = nil
	}
	if j.active != nil {
		errs = append(errs, j.active.db.Close())
		j.sealed = append(j.sealed, j.active.seal())
		j.active = nil
	}
	errs = append(errs, j.lock.Unlock())
	if err := errors.Join(errs...); err != nil {
		return &Error{Op: "close journal", Path: j.dir, Err: err}
	}
	return nil
}

// Stats returns what the journal holds. It is cheap, except on a journal that
// is open for reading, whose last segment it reads.
func (j *Journal) Stats() (journal.Status, error) {
	if j.opt.ReadOnly {
		return j.statsReadOnly()
	}
	j.mu.RLock()
	defer j.mu.RUnlock()
	s := journal.Status{First: j.first(), Last: j.last, Segments: len(j.sealed), Bytes: j.sizeLocked(), Poisoned: j.poison}
	if j.active != nil {
		s.Segments++
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
	s.Last, err = lastOf(chain[len(chain)-1], j.stagedPath())
	return s, err
}

func (j *Journal) first() journal.Sequence {
	switch {
	case len(j.sealed) > 0:
		return j.sealed[0].first
	case j.active != nil:
		return j.active.first
	default:
		return j.last + 1
	}
}

// TruncateBefore deletes the sealed segments that hold no event of seq or
// later. The caller sees to it that a durable snapshot covers them. A crash
// within leaves a shorter chain, never one with a hole.
func (j *Journal) TruncateBefore(ctx context.Context, seq journal.Sequence) error {
	fail := func(err error) error {
		return &Error{Op: "truncate journal", Path: j.dir, Err: err}
	}
	if j.opt.ReadOnly {
		return fail(ErrReadOnly)
	}
	var errs []error
	dropped, err := j.drop(ctx, seq)
	if err != nil {
		errs = append(errs, fail(err))
	}
	if len(dropped) > 0 {
		if err := durable.SyncDir(j.dir); err != nil {
			errs = append(errs, fail(err))
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
		// Oldest first: what a crash leaves has no hole.
		if err := os.Remove(j.sealed[0].path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return dropped, err
		}
		dropped = append(dropped, j.sealed[0])
		j.sealed = j.sealed[1:]
	}
	return dropped, nil
}
