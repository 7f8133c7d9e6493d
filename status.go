package xdswal

import (
	"time"

	"github.com/xdswal/xdswal/compactor"
	"github.com/xdswal/xdswal/journal"
	"github.com/xdswal/xdswal/replay"
)

// Status tells how a store is.
type Status struct {
	// Dir is the data directory, empty in memory.
	Dir string
	// StoreID identifies the store, Epoch the turn of the writer: this one, or
	// the one that is followed.
	StoreID string
	Epoch   uint64
	// Sequence and Time are those of the newest acknowledged update.
	Sequence journal.Sequence
	Time     time.Time
	// Nodes, Resources and Bytes count what the caches hold; Bytes is the sum
	// of the resources' wire sizes.
	Nodes     int
	Resources int
	Bytes     int64
	// Caches are the names, as events give them, of the caches that hold
	// something.
	Caches []string
	// Degraded is why updates are refused or, with FailOpen, not durable or not
	// shipped any more; nil if they are durable.
	Degraded error
	// Journal is what the journal holds.
	Journal journal.Status
	// Compactor is what the compactor has done.
	Compactor compactor.Status
	// Backend is where the store ships to, or what it follows; empty for
	// nothing.
	Backend string
	// Shipper is what was shipped there, nil for a store that ships nothing.
	Shipper *compactor.ShipperStatus
	// Follower is how far a follower has come, nil for a writer.
	Follower *replay.FollowerStatus
	// Restored is what Open restored.
	Restored replay.Result
}

// Status tells how the store is.
func (s *Store) Status() Status {
	st := s.log.State()
	out := Status{
		Dir:       s.opt.Dir,
		Sequence:  st.Sequence(),
		Time:      st.Time(),
		Nodes:     st.NumNodes(),
		Resources: st.NumResources(),
		Bytes:     st.Bytes(),
		Caches:    st.Caches(),
		Degraded:  s.log.health(),
	}
	if s.opt.Backend != nil {
		out.Backend = s.opt.Backend.String()
	}
	w := s.writer.Load()
	if w == nil {
		if s.follower != nil {
			s.follower.fill(&out)
		}
		return out
	}
	w.fill(&out)
	return out
}

func (w *writer) fill(out *Status) {
	w.metaMu.Lock()
	out.StoreID, out.Epoch = w.meta.StoreID, w.meta.Epoch
	w.metaMu.Unlock()
	out.Restored = w.restored
	// It fails only for a journal that is open for reading.
	out.Journal, _ = w.journal.Stats()
	if w.compact != nil {
		out.Compactor = w.compact.Status()
	}
	if w.ship != nil {
		ship := w.ship.Status()
		out.Shipper = &ship
		if ship.Fenced != nil && out.Degraded == nil {
			out.Degraded = ship.Fenced
		}
	}
}

func (f *follower) fill(out *Status) {
	f.mu.Lock()
	defer f.mu.Unlock()
	status := f.status
	out.Follower, out.Restored = &status, f.restored
	out.StoreID, out.Epoch = f.storeID, status.Epoch
}
