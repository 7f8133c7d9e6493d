package restore_test

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/internal/restore"
	"github.com/xdswal/xdswal/journal"
	"github.com/xdswal/xdswal/replay"
)

// leftover is what remains of a history of 40 events.
type leftover struct {
	name                   string
	journal                [2]int // first and last event
	local, damaged, remote []int  // snapshots
}

var leftovers = []leftover{
	{name: "journal alone", journal: [2]int{1, 40}},
	{name: "all", journal: [2]int{1, 40}, local: []int{10, 20, 30}},
	{name: "journal from the oldest snapshot on", journal: [2]int{11, 40}, local: []int{10, 20, 30}},
	{name: "one of them damaged", journal: [2]int{11, 40}, local: []int{10, 30}, damaged: []int{20}},
	{name: "journal from the newest snapshot on", journal: [2]int{31, 40}, local: []int{10, 20, 30}},
	{name: "journal longer than the snapshots", journal: [2]int{21, 40}, local: []int{30}},
	{name: "journal behind the newest snapshot", journal: [2]int{11, 25}, local: []int{10, 20, 40}},
	{name: "snapshot at the end of a group", journal: [2]int{13, 40}, local: []int{8, 12, 16}},
	{name: "the backend has the older ones", journal: [2]int{21, 40}, local: []int{20}, remote: []int{5, 10, 20}},
	{name: "backend alone", journal: [2]int{1, 0}, remote: []int{5, 10, 20}},
}

func (l leftover) fixture(t *testing.T, h *history) *fixture {
	f := newFixture(t, h)
	f.events(l.journal[0], l.journal[1])
	f.local(l.local...)
	f.remote(l.remote...)
	for _, seq := range l.damaged {
		f.putLocal(nameOf(seq), damages["flipped"](h.snapshot(t, seq)))
	}
	return f
}

// known is the newest event that there is a trace of.
func (l leftover) known() int {
	return max(l.journal[1], l.journal[0]-1, slices.Max(append([]int{0}, slices.Concat(l.local, l.damaged, l.remote)...)))
}

// base is the newest good snapshot that is no later than an event.
func (l leftover) base(seq int) int {
	base := 0
	for _, s := range slices.Concat(l.local, l.remote) {
		if s <= seq {
			base = max(base, s)
		}
	}
	return base
}

// covers reports whether all events up to seq are in a snapshot, or in one and the
// journal.
func (l leftover) covers(base, seq int) bool {
	return base >= seq || (l.journal[0] <= base+1 && l.journal[1] >= seq)
}

// The state after each event of a history can be restored if what is kept covers it,
// and is an error otherwise.
func TestRestoreSequence(t *testing.T) {
	h := newHistory(t, 40, 0)
	for _, l := range leftovers {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			f := l.fixture(t, h)
			opt := f.options()
			for seq := 1; seq <= len(h.events)+1; seq++ {
				opt.Target = restore.Target{Sequence: journal.Sequence(seq)}
				st, result, err := restored(t, t.Context(), opt)
				switch {
				case seq > l.known():
					require.ErrorIs(t, err, restore.ErrTarget)
					require.ErrorContains(t, err, "is yet to come")
				case l.covers(l.base(seq), seq):
					require.NoError(t, err, seq)
					h.requireState(t, seq, st, result)
				default:
					requireOutOfReach(t, result, err)
				}
			}
		})
	}
}

// requireOutOfReach requires that a target was refused: as not kept, or, if a
// damaged snapshot may have been the reason, as a gap.
func requireOutOfReach(t *testing.T, r replay.Result, err error) {
	t.Helper()
	require.ErrorIs(t, err, restore.ErrGap)
	if len(r.Skipped) == 0 {
		require.ErrorIs(t, err, restore.ErrTarget)
	}
}

// A time is that of a whole group, or between two groups: the state is that after the
// last event that was committed by then. The next event shows that it is the last, or
// there is none.
func TestRestoreTime(t *testing.T) {
	h := newHistory(t, 40, 0)
	for _, l := range leftovers {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			f := l.fixture(t, h)
			opt := f.options()
			for seq := 1; seq <= len(h.events); seq += groupSize {
				at, last := h.time(seq), seq+groupSize-1
				for _, c := range []struct {
					at   time.Time
					want int
				}{
					{at.Add(-time.Nanosecond), seq - 1},
					{at, last},
					{at.Add(time.Nanosecond), last},
					{at.Add(groupStep / 2), last},
				} {
					opt.Target = restore.Target{Time: c.at}
					st, result, err := restored(t, t.Context(), opt)
					want := min(c.want, l.known())
					base := l.base(want)
					if l.covers(base, want) && (want == l.known() || l.covers(base, want+1)) {
						require.NoError(t, err, want)
						h.requireState(t, want, st, result)
					} else {
						requireOutOfReach(t, result, err)
					}
				}
			}
		})
	}
	t.Run("in the future", func(t *testing.T) {
		f := newFixture(t, h)
		f.events(1, 40)
		opt := f.options()
		opt.Target = restore.Target{Time: time.Now().Add(2 * time.Minute)}
		_, _, err := restored(t, t.Context(), opt)
		require.ErrorIs(t, err, restore.ErrTarget)
		require.ErrorContains(t, err, "in the future")
	})
	t.Run("before all", func(t *testing.T) {
		f := newFixture(t, h)
		f.events(1, 40)
		f.local(10)
		opt := f.options()
		opt.Target = restore.Target{Time: h.time(1).Add(-time.Hour)}
		st, result, err := restored(t, t.Context(), opt)
		require.NoError(t, err)
		require.Zero(t, st.Sequence())
		require.Zero(t, result.Events)
	})
	t.Run("before what is kept", func(t *testing.T) {
		f := newFixture(t, h)
		f.events(11, 40)
		f.local(10)
		opt := f.options()
		opt.Target = restore.Target{Time: h.time(1).Add(-time.Hour)}
		_, _, err := restored(t, t.Context(), opt)
		require.ErrorIs(t, err, restore.ErrTarget)
		require.ErrorContains(t, err, "no snapshot so old can be used")
	})
}
