package xdswal

import (
	"context"
	"fmt"

	"github.com/xdswal/xdswal/journal"
)

// Events calls fn for the journaled updates from one sequence to another, both
// included, in their order; to = 0 stands for the newest. It fails with
// [ErrGap] for updates that are in the journal no more, because a snapshot
// covers them. Events runs beside updates.
func (s *Store) Events(ctx context.Context, from, to journal.Sequence, fn func(*journal.Event) error) error {
	j := s.log.journal.Load()
	if j == nil {
		return fmt.Errorf("read events: %w: the store has no journal: see MemoryOnly and Follow", ErrDisabled)
	}
	return j.Range(ctx, from, to, fn)
}
