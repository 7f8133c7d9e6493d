package xdswal

import (
	"time"

	"github.com/xdswal/xdswal/compactor"
	"github.com/xdswal/xdswal/journal"
	"github.com/xdswal/xdswal/journal/event"
	"github.com/xdswal/xdswal/replay"
)

// Status tells how a store is.
type Status struct {
	// Dir is the data directory, empty in memory.
	Dir string
	// StoreID and Epoch identify the store and its opening.
	StoreID string
	Epoch   uint64
	// Sequence and Time are those of the newest acknowledged update.
	Sequence event.Sequence
	Time     time.Time
	// Nodes, Resources and Bytes count what the caches hold; Bytes is the sum
	// of the resources' wire sizes.
	Nodes     int
	Resources int
	Bytes     int64
	// Caches are the names, as events give them, of the caches that hold
	// something.
	Caches []string
	// Degraded is why updates are refused or, with FailOpen, not durable; nil
	// if they are durable.
	Degraded error
	// Journal is what the journal holds.
	Journal journal.Stats
	// Compactor is what the compactor has done.
	Compactor compactor.Status
	// Backend is where snapshots are shipped to, empty for nowhere.
	Backend string
	// Restored is what Open restored.
	Restored replay.Result
}

// Status tells how the store is.
func (s *Store) Status() Status {
	st := s.log.State()
	out := Status{
		Dir:       s.opt.Dir,
		StoreID:   s.meta.StoreID,
		Epoch:     s.meta.Epoch,
		Sequence:  st.Sequence(),
		Time:      st.Time(),
		Nodes:     st.NumNodes(),
		Resources: st.NumResources(),
		Bytes:     st.Bytes(),
		Caches:    st.Caches(),
		Degraded:  s.log.health(),
		Restored:  s.restored,
	}
	if s.opt.Backend != nil {
		out.Backend = s.opt.Backend.String()
	}
	if s.log.journal != nil {
		// It fails only for a journal that is open for reading.
		out.Journal, _ = s.log.journal.Stats()
	}
	if s.compact != nil {
		out.Compactor = s.compact.Status()
	}
	return out
}
