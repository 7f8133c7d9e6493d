package xdswal

import (
	"time"

	"github.com/xdswal/xdswal/compactor"
	"github.com/xdswal/xdswal/journal"
	"github.com/xdswal/xdswal/replay"
)

// Status is the state of a store.
type Status struct {
	// Dir is Options.Dir.
	Dir string
	// StoreID is the identity of the store, Epoch that of its writer: of this process, or
	// of the followed one.
	StoreID string
	Epoch   uint64
	// Sequence and Time are those of the newest update that has returned.
	Sequence journal.Sequence
	Time     time.Time
	// Nodes, Resources and Bytes count the contents of the caches; Bytes is the sum of the
	// sizes of the resources' values.
	Nodes     int
	Resources int
	Bytes     int64
	// Caches are the names of the caches that contain a node, as in events.
	Caches []string
	// Degraded is the error for which updates are refused or, with FailOpen, are not
	// durable or not shipped; nil if they are durable.
	Degraded error
	// Journal is the contents of the journal.
	Journal journal.Status
	// Compactor is the state of the compactor.
	Compactor compactor.Status
	// Backend is the backend that the store ships to or follows, or empty.
	Backend string
	// Shipper is the state of the shipper, or nil for a store that ships nothing.
	Shipper *compactor.ShipperStatus
	// Follower is the state of a follower, or nil.
	Follower *replay.FollowerStatus
	// Restored is the result of the restore at Open.
	Restored replay.Result
}

// Status returns the state of the store.
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
		Degraded:  s.log.Err(),
	}
	if s.opt.Backend != nil {
		out.Backend = s.opt.Backend.String()
	}
	if w := s.writer.Load(); w != nil {
		w.fill(&out)
	} else if s.follower != nil {
		var status replay.FollowerStatus
		status, out.StoreID, out.Restored = s.follower.Status()
		out.Follower, out.Epoch = &status, status.Epoch
	}
	return out
}

func (w *writer) fill(out *Status) {
	m := w.dir.Metadata()
	out.StoreID, out.Epoch, out.Restored = m.StoreID, m.Epoch, w.restored
	// Stats fails only for a journal that is open for reading.
	out.Journal, _ = w.journal.Stats()
	if w.compact != nil {
		out.Compactor = w.compact.Status()
	}
	if w.ship != nil {
		shipper := w.ship.Status()
		out.Shipper = &shipper
		if shipper.Fenced != nil && out.Degraded == nil {
			out.Degraded = shipper.Fenced
		}
	}
}
