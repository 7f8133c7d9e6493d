package catalog_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/backends/backendtest"
	"github.com/xdswal/xdswal/internal/catalog"
	"github.com/xdswal/xdswal/internal/format/batch"
	"github.com/xdswal/xdswal/internal/restore"
	"github.com/xdswal/xdswal/journal"
)

// simWriter is a process that publishes in an epoch, whether it still may or not.
type simWriter struct {
	id     int
	epoch  catalog.Epoch
	events []*journal.Event // its journal
	tail   int              // behind which its next batch begins
	fence  bool             // it died before it could publish
}

// sim is a backend with writers that come and go, and the oracle: what counts.
type sim struct {
	t       *testing.T
	rng     *rand.Rand
	b       backends.Backend
	writers []*simWriter // the last one is the writer, the others were superseded
	counts  []*journal.Event
	drawn   int
	trace   []string
}

func (s *sim) writer() *simWriter { return s.writers[len(s.writers)-1] }

func (s *sim) note(format string, args ...any) {
	s.trace = append(s.trace, fmt.Sprintf(format, args...))
}

// commit makes events that nobody else makes.
func (s *sim) commit(w *simWriter) {
	for range 1 + s.rng.IntN(5) {
		s.drawn++
		seq := journal.Sequence(len(w.events) + 1)
		w.events = append(w.events, &journal.Event{
			Sequence: seq, Time: time.Unix(1700000000+int64(seq), 0), Kind: journal.Update, Cache: "snapshot/default", Node: fmt.Sprint("node-", seq%3),
			Types: []journal.TypeChange{{TypeURL: "type", Version: fmt.Sprint(s.drawn), Upserts: []*journal.Resource{{
				Name: fmt.Sprint(seq % 4), TypeURL: "type", Version: fmt.Sprint(s.drawn), Value: []byte(fmt.Sprint(w.id, ":", s.drawn)),
			}}}},
		})
	}
}

// publish puts a batch or a snapshot of all that a writer has.
func (s *sim) publish(w *simWriter) {
	n := len(w.events)
	if s.rng.IntN(4) == 0 && n > 0 {
		s.note("writer %d puts snapshot %d in epoch %d", w.id, n, w.epoch.Number)
		s.put(at{w.epoch.Number, journal.Sequence(n)}.snapshotKey(), encodeSnapshot(s.t, fold(s.t, w.events), w.epoch.Number))
	} else if n > w.tail {
		s.note("writer %d puts events %d to %d in epoch %d", w.id, w.tail+1, n, w.epoch.Number)
		s.put(at{w.epoch.Number, journal.Sequence(w.tail + 1)}.batchKey(), encodeBatch(s.t, w.events[w.tail:]))
		w.tail = n
	} else {
		return
	}
	if w == s.writer() {
		s.counts = w.events[:n:n]
	}
}

func (s *sim) put(key string, content []byte) {
	objects, err := s.b.List(s.t.Context(), key)
	require.NoError(s.t, err)
	if len(objects) == 0 { // a snapshot may have been put already
		put(s.t, s.b, key, content)
	}
}

func (s *sim) claim(r *catalog.Remote, w *simWriter, parent catalog.Epoch) {
	w.epoch = s.epoch(r, parent)
	w.epoch.Sequence = journal.Sequence(len(w.events))
	s.note("writer %d claims epoch %d with parent %d from event %d on", w.id, w.epoch.Number, parent.Number, len(w.events))
	require.NoError(s.t, r.Claim(s.t.Context(), s.b, w.epoch))
}

func (s *sim) epoch(r *catalog.Remote, parent catalog.Epoch) catalog.Epoch {
	return catalog.Epoch{
		Number: r.Next(), Parent: parent.Number, ParentToken: parent.Token,
		StoreID: storeID, Token: fmt.Sprint("token-", s.rng.Uint64()),
	}
}

// fence ends the epoch of the writer, which notices when it publishes next.
func (s *sim) fence() {
	r := list(s.t, s.b)
	newest, ok := r.Newest()
	require.True(s.t, ok)
	if s.rng.IntN(2) == 0 && !s.writer().fence {
		s.commit(s.writer())
		s.publish(s.writer()) // listed too early to be seen
	}
	e := s.epoch(r, newest)
	e.Fence = true
	s.note("epoch %d fences epoch %d", e.Number, newest.Number)
	require.NoError(s.t, r.Claim(s.t.Context(), s.b, e))
	// Nothing is published in it.
	s.writers = append(s.writers, &simWriter{id: s.writer().id + 1, epoch: e, fence: true})
}

// begin sets where a writer's first batch begins: behind what it saw shipped, or,
// if it did not look, with the newest batch once more.
func (s *sim) begin(w *simWriter, shipped int) {
	w.tail = int(list(s.t, s.b).ShipAfter())
	if s.rng.IntN(2) == 0 {
		w.tail = max(w.tail, shipped)
	}
}

// restart opens the writer's directory again.
func (s *sim) restart() {
	w := s.writer()
	old := *w
	s.writers = append(s.writers[:len(s.writers)-1], w)
	s.claim(list(s.t, s.b), w, old.epoch)
	s.begin(w, len(s.counts))
}

// takeOver has another machine take the backend over.
func (s *sim) takeOver() {
	s.fence()
	r := list(s.t, s.b)
	newest, _ := r.Newest()
	w := &simWriter{id: s.writer().id + 1, events: s.restore(r)}
	s.claim(r, w, newest)
	s.writers = append(s.writers, w)
	s.begin(w, len(s.counts))
}

// restore requires that a listing yields what counts.
func (s *sim) restore(r *catalog.Remote) []*journal.Event {
	s.t.Helper()
	st, _, err := restore.Restore(s.t.Context(), restore.Options{Backend: s.b, Remote: r})
	require.NoError(s.t, err, "%v", s.trace)
	require.Equal(s.t, len(s.counts), int(st.Sequence()), "%v", s.trace)
	require.Equal(s.t, fold(s.t, s.counts).Digest(), st.Digest(), "%v", s.trace)
	return s.counts[:len(s.counts):len(s.counts)]
}

// prune deletes what the newest snapshots make needless, and some of what was
// superseded.
func (s *sim) prune() {
	r := list(s.t, s.b)
	if len(r.Snapshots) < 2 {
		return
	}
	oldest := r.Snapshots[1].Sequence
	needed := map[batch.Name]bool{}
	for _, b := range r.After(oldest) {
		needed[b.Name] = true
	}
	var keys []string
	for _, e := range r.Snapshots[2:] {
		keys = append(keys, e.Path)
	}
	for _, b := range r.Batches {
		if !needed[b.Name] {
			keys = append(keys, b.Key())
		}
	}
	for _, o := range r.Superseded {
		if s.rng.IntN(2) == 0 {
			keys = append(keys, o.Key)
		}
	}
	s.note("prune %v", keys)
	for _, key := range keys {
		require.NoError(s.t, s.b.Delete(s.t.Context(), key))
	}
}

// For random actions of several writers, the backend yields exactly what the newest
// one has published, and nothing that a writer published after it was superseded.
func TestWritersAgainstOracle(t *testing.T) {
	for seed := range uint64(40) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			s := &sim{t: t, rng: rand.New(rand.NewPCG(seed, 1)), b: backendtest.NewMemory(), writers: []*simWriter{{id: 1}}}
			s.claim(list(t, s.b), s.writer(), catalog.Epoch{})
			for range 60 {
				switch s.rng.IntN(12) {
				case 0:
					s.takeOver()
				case 1:
					s.restart()
				case 2:
					s.fence() // and the machine dies
					s.takeOver()
				case 3:
					s.prune()
				case 4, 5, 6: // a superseded one that does not know it
					if w := s.writers[s.rng.IntN(len(s.writers))]; !w.fence {
						s.commit(w)
						s.publish(w)
					}
				default:
					s.commit(s.writer())
					if s.rng.IntN(4) > 0 {
						s.publish(s.writer())
					}
				}
				r := list(t, s.b)
				s.restore(r)
				require.LessOrEqual(t, int(r.Known()), len(s.counts), "%v", s.trace)
				require.LessOrEqual(t, int(r.ShipAfter()), len(s.counts))
				newest, _ := r.Newest()
				require.Equal(t, s.writer().epoch.Token, newest.Token)
			}
			for seq := 1; seq <= len(s.counts); seq++ {
				st, _, err := restore.Restore(t.Context(), restore.Options{Backend: s.b, Target: restore.Target{Sequence: journal.Sequence(seq)}})
				if err == nil {
					require.Equal(t, fold(t, s.counts[:seq]).Digest(), st.Digest(), "%v", s.trace)
				} else {
					require.ErrorIs(t, err, restore.ErrGap)
				}
			}
		})
	}
}
