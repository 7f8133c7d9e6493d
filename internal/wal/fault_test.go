package wal_test

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/xdswal/xdswal/internal/durable"
	"github.com/xdswal/xdswal/internal/wal"
	"github.com/xdswal/xdswal/journal"
)

// b0 is the context of children, which have no test.
var b0 = context.Background()

// faulty appends n events through I/O errors. While the journal is poisoned no append
// may succeed; after Recover it must contain the committed events and no others. It
// returns the number of errors that appends returned.
func (b *book) faulty(j *wal.Journal, n, size int, recovering func(try int)) (int, error) {
	faults := 0
	for i := range n {
		err := b.append(j, fmt.Sprintf("node-%d", i), size)
		if err == nil {
			continue
		}
		faults++
		for range 3 {
			if !errors.Is(err, wal.ErrPoisoned) {
				return faults, fmt.Errorf("append %d failed for another reason: %w", i, err)
			}
			if strings.Contains(err.Error(), durable.TempPrefix) {
				return faults, fmt.Errorf("append %d names a temporary file: %w", i, err)
			}
			if err = b.append(j, "poisoned", 1); err == nil {
				return faults, fmt.Errorf("append %d succeeded in a poisoned journal", i)
			}
		}
		stats, err := j.Stats()
		if err != nil || stats.Poisoned == nil || stats.Last != b.last() {
			return faults, fmt.Errorf("poisoned: %+v, last is %d: %w", stats, b.last(), err)
		}
		if err := b.check(j, 1); err != nil {
			return faults, fmt.Errorf("poisoned: %w", err)
		}
		for try := 0; ; try++ {
			recovering(try)
			if err = j.Recover(b0, nil); err == nil {
				break
			}
			if strings.Contains(err.Error(), durable.TempPrefix) {
				return faults, fmt.Errorf("recover names a temporary file: %w", err)
			}
			if stats, _ := j.Stats(); stats.Poisoned == nil {
				return faults, fmt.Errorf("recover failed, but the journal is not poisoned: %w", err)
			}
			if err := b.check(j, 1); err != nil {
				return faults, fmt.Errorf("after failed recover: %w", err)
			}
			if try == 50 {
				return faults, err
			}
		}
		if err := b.check(j, 1); err != nil {
			return faults, fmt.Errorf("recovered: %w", err)
		}
	}
	return faults, nil
}

// faultsChild appends while its parent injects I/O errors.
func faultsChild(dir string, policy journal.SyncPolicy) error {
	var j *wal.Journal
	var err error
	for range 20 {
		j, err = wal.Open(dir, wal.Options{Sync: policy, SegmentBytes: minSegment})
		if err == nil {
			break
		}
		fmt.Println("fault:", err)
	}
	if err != nil {
		return err
	}
	b := newBook(1)
	n, err := b.faulty(j, 60, 3000, func(int) {})
	for range n {
		fmt.Println("fault: append")
	}
	if err != nil {
		return err
	}
	if err := j.Close(); err != nil {
		fmt.Println("fault:", err)
	}
	for range 20 {
		j, err = wal.Open(dir, wal.Options{Sync: policy, SegmentBytes: minSegment})
		if err == nil {
			break
		}
		fmt.Println("fault:", err)
	}
	if err != nil {
		return err
	}
	if err := b.check(j, 1); err != nil {
		return fmt.Errorf("reopened: %w", err)
	}
	for seq, id := range b.ids {
		fmt.Println(uint64(seq), id)
	}
	// No event is lost if Close fails.
	_ = j.Close()
	return nil
}
