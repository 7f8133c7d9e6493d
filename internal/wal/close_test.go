package wal_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/internal/wal"
)

// After any Close, also one of many at once, the files are closed and the lock
// is released: the journal can be opened again.
func TestConcurrentClose(t *testing.T) {
	const closers, rounds = 8, 5
	for _, policy := range policies {
		t.Run(policy.String(), func(t *testing.T) {
			dir := t.TempDir()
			b := newBook(1)
			for round := range rounds {
				j := open(t, dir, wal.Options{Sync: policy})
				// More than half a segment: the next one is being created.
				b.fillGroup(t, j, 10, minSegment/16)
				var closing sync.WaitGroup
				var opening sync.Mutex
				for range closers {
					closing.Add(1)
					go func() {
						defer closing.Done()
						if err := j.Close(); err != nil {
							t.Errorf("round %d: close: %v", round, err)
						}
						opening.Lock()
						defer opening.Unlock()
						again, err := wal.Open(dir, wal.Options{Sync: policy, SegmentBytes: minSegment})
						if err != nil {
							t.Errorf("round %d: open after close: %v", round, err)
							return
						}
						if err := b.append(again, fmt.Sprint("node-", round), 10); err != nil {
							t.Error(err)
						}
						if err := again.Close(); err != nil {
							t.Error(err)
						}
					}()
				}
				closing.Wait()
			}
			require.NotZero(t, b.last())
			b.verifyClosed(t, dir, 1)
		})
	}
}
