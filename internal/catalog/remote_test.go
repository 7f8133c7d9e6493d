package catalog_test

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/backends/backendtest"
	"github.com/xdswal/xdswal/internal/backendfault"
	"github.com/xdswal/xdswal/internal/catalog"
	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/journal"
)

// Each row is the contents of a backend, and the part that counts.
func TestResolve(t *testing.T) {
	type epoch struct {
		number, parent uint64
		seq            journal.Sequence
	}
	const unbounded = journal.Sequence(math.MaxUint64)
	const fences = unbounded // in place of a sequence
	for _, r := range []struct {
		name               string
		epochs             []epoch
		snapshots, batches []at
		// view, if not nil, is taken of the listing.
		view func(*catalog.Remote) *catalog.Remote

		chain                           []uint64
		wantSnapshots, wantBatches      []at
		supersededSnapshots, superseded []at
		limits                          map[uint64]journal.Sequence
		tail, trace                     journal.Sequence
		next                            uint64
	}{
		{name: "nothing", limits: map[uint64]journal.Sequence{1: unbounded}, next: 1},
		{
			name:      "shipped before there were epochs",
			snapshots: []at{{4, 40}, {3, 30}, {2, 35}},
			wantSnapshots: []at{
				{4, 40}, {2, 35}, {3, 30},
			},
			limits: map[uint64]journal.Sequence{1: unbounded, 9: unbounded}, tail: 30, trace: 40, next: 5,
		},
		{
			name:      "a claim, and nothing shipped",
			epochs:    []epoch{{1, 0, 0}},
			snapshots: nil, chain: []uint64{1}, limits: map[uint64]journal.Sequence{1: unbounded, 2: 0}, next: 2,
		},
		{
			name:      "one writer",
			epochs:    []epoch{{1, 0, 0}},
			snapshots: []at{{1, 10}, {1, 20}},
			batches:   []at{{1, 1}, {1, 11}, {1, 25}},
			chain:     []uint64{1}, wantSnapshots: []at{{1, 20}, {1, 10}}, wantBatches: []at{{1, 1}, {1, 11}, {1, 25}},
			limits: map[uint64]journal.Sequence{1: unbounded}, tail: 24, trace: 25, next: 2,
		},
		{
			name:      "a snapshot beyond the batches",
			epochs:    []epoch{{1, 0, 0}},
			snapshots: []at{{1, 30}},
			batches:   []at{{1, 1}, {1, 11}},
			chain:     []uint64{1}, wantSnapshots: []at{{1, 30}}, wantBatches: []at{{1, 1}, {1, 11}},
			limits: map[uint64]journal.Sequence{1: unbounded}, tail: 30, trace: 30, next: 2,
		},
		{
			name:      "taken over",
			epochs:    []epoch{{1, 0, 0}, {2, 1, 20}},
			snapshots: []at{{1, 10}, {1, 20}, {1, 21}, {2, 25}},
			batches:   []at{{1, 1}, {1, 15}, {1, 20}, {1, 21}, {2, 21}, {2, 30}},
			chain:     []uint64{2, 1}, wantSnapshots: []at{{2, 25}, {1, 20}, {1, 10}},
			wantBatches:         []at{{1, 1}, {1, 15}, {1, 20}, {2, 21}, {2, 30}},
			supersededSnapshots: []at{{1, 21}}, superseded: []at{{1, 21}},
			limits: map[uint64]journal.Sequence{1: 20, 2: unbounded, 3: 0}, tail: 29, trace: 30, next: 3,
		},
		{
			name:      "what the superseded writer ships later, however much",
			epochs:    []epoch{{1, 0, 0}, {2, 1, 20}},
			snapshots: []at{{1, 20}, {1, 1000}},
			batches:   []at{{1, 500}},
			chain:     []uint64{2, 1}, wantSnapshots: []at{{1, 20}},
			supersededSnapshots: []at{{1, 1000}}, superseded: []at{{1, 500}},
			limits: map[uint64]journal.Sequence{1: 20, 2: unbounded}, tail: 20, trace: 20, next: 3,
		},
		{
			name:      "a later writer continues from before the one between",
			epochs:    []epoch{{1, 0, 0}, {2, 1, 20}, {3, 2, 15}},
			snapshots: []at{{1, 10}, {1, 18}, {2, 22}},
			batches:   []at{{1, 11}, {1, 16}, {2, 21}, {3, 16}},
			chain:     []uint64{3, 2, 1}, wantSnapshots: []at{{1, 10}}, wantBatches: []at{{1, 11}, {3, 16}},
			supersededSnapshots: []at{{2, 22}, {1, 18}}, superseded: []at{{1, 16}, {2, 21}},
			limits: map[uint64]journal.Sequence{1: 15, 2: 15, 3: unbounded}, tail: 15, trace: 16, next: 4,
		},
		{
			name:      "claimed and abandoned",
			epochs:    []epoch{{1, 0, 0}, {2, 1, 20}, {3, 1, 24}},
			snapshots: []at{{1, 22}, {2, 21}},
			batches:   []at{{1, 21}, {1, 24}, {1, 25}, {2, 21}, {3, 25}},
			chain:     []uint64{3, 1}, wantSnapshots: []at{{1, 22}}, wantBatches: []at{{1, 21}, {1, 24}, {3, 25}},
			supersededSnapshots: []at{{2, 21}}, superseded: []at{{2, 21}, {1, 25}},
			limits: map[uint64]journal.Sequence{1: 24, 2: 0, 3: unbounded}, tail: 24, trace: 25, next: 4,
		},
		{
			name:   "several generations, the oldest pruned",
			epochs: []epoch{{1, 0, 0}, {2, 1, 20}, {3, 2, 40}, {4, 3, 60}},
			// Epoch 1 published nothing that is left, and is not read.
			snapshots: []at{{2, 30}, {3, 50}, {2, 45}},
			batches:   []at{{2, 31}, {3, 41}, {3, 61}, {4, 61}},
			chain:     []uint64{4, 3, 2}, wantSnapshots: []at{{3, 50}, {2, 30}}, wantBatches: []at{{2, 31}, {3, 41}, {4, 61}},
			supersededSnapshots: []at{{2, 45}}, superseded: []at{{3, 61}},
			limits: map[uint64]journal.Sequence{1: 20, 2: 40, 3: 60, 4: unbounded}, tail: 60, trace: 61, next: 5,
		},
		{
			name:      "superseded, and not yet continued",
			epochs:    []epoch{{1, 0, 0}, {2, 1, fences}},
			snapshots: []at{{1, 22}},
			batches:   []at{{1, 21}, {1, 25}},
			chain:     []uint64{2, 1}, wantSnapshots: []at{{1, 22}}, wantBatches: []at{{1, 21}, {1, 25}},
			limits: map[uint64]journal.Sequence{1: unbounded, 2: unbounded}, tail: 24, trace: 25, next: 3,
		},
		{
			name:      "superseded, and continued",
			epochs:    []epoch{{1, 0, 0}, {2, 1, fences}, {3, 2, 24}},
			snapshots: []at{{1, 22}},
			batches:   []at{{1, 21}, {1, 25}, {3, 25}},
			chain:     []uint64{3, 2, 1}, wantSnapshots: []at{{1, 22}}, wantBatches: []at{{1, 21}, {3, 25}},
			superseded: []at{{1, 25}},
			limits:     map[uint64]journal.Sequence{1: 24, 2: 24, 3: unbounded}, tail: 24, trace: 25, next: 4,
		},
		{
			name:    "superseded by one after the other",
			epochs:  []epoch{{1, 0, 0}, {2, 1, fences}, {3, 2, fences}, {4, 3, 30}},
			batches: []at{{1, 1}, {1, 25}, {1, 31}},
			chain:   []uint64{4, 3, 2, 1}, wantBatches: []at{{1, 1}, {1, 25}}, superseded: []at{{1, 31}},
			limits: map[uint64]journal.Sequence{1: 30, 2: 30, 3: 30, 4: unbounded}, tail: 24, trace: 25, next: 5,
		},
		{
			name:      "for a writer that continued before it could claim",
			epochs:    []epoch{{1, 0, 0}, {2, 1, 20}},
			snapshots: []at{{1, 10}, {2, 30}},
			batches:   []at{{1, 11}, {2, 21}, {2, 25}, {2, 26}},
			view:      func(r *catalog.Remote) *catalog.Remote { return r.Until(25) },
			chain:     []uint64{2, 1}, wantSnapshots: []at{{1, 10}}, wantBatches: []at{{1, 11}, {2, 21}, {2, 25}},
			supersededSnapshots: []at{{2, 30}}, superseded: []at{{2, 26}},
			limits: map[uint64]journal.Sequence{1: 20, 2: 25}, tail: 24, trace: 25, next: 3,
		},
		{
			name:      "and from before the epoch before",
			epochs:    []epoch{{1, 0, 0}, {2, 1, 20}},
			snapshots: []at{{1, 10}, {1, 16}},
			batches:   []at{{2, 21}},
			view:      func(r *catalog.Remote) *catalog.Remote { return r.Until(15) },
			chain:     []uint64{2, 1}, wantSnapshots: []at{{1, 10}},
			supersededSnapshots: []at{{1, 16}}, superseded: []at{{2, 21}},
			limits: map[uint64]journal.Sequence{1: 15, 2: 15}, tail: 10, trace: 10, next: 3,
		},
	} {
		t.Run(r.name, func(t *testing.T) {
			b := backendtest.NewMemory()
			for _, e := range r.epochs {
				claimed := newEpoch(e.number, e.parent, e.seq)
				if e.seq == fences {
					claimed.Sequence, claimed.Fence = 0, true
				}
				require.NoError(t, catalog.Claim(t.Context(), b, claimed))
			}
			for _, s := range r.snapshots {
				put(t, b, s.snapshotKey(), []byte("snapshot"))
			}
			for _, s := range r.batches {
				put(t, b, s.batchKey(), []byte("batch"))
			}
			whole := list(t, b)
			remote := whole
			if r.view != nil {
				remote = r.view(whole)
			}
			check := func(remote *catalog.Remote) {
				require.Equal(t, r.chain, numbersOf(remote.Epochs))
				require.Equal(t, r.wantSnapshots, snapshotsOf(remote))
				require.Equal(t, r.wantBatches, batchesOf(remote.Batches))
				var superseded []string
				for _, s := range r.supersededSnapshots {
					superseded = append(superseded, s.snapshotKey())
				}
				for _, s := range r.superseded {
					superseded = append(superseded, s.batchKey())
				}
				require.ElementsMatch(t, superseded, keysOf(remote.Superseded))
				for epoch, limit := range r.limits {
					require.Equal(t, limit, remote.Limit(epoch), "epoch %d", epoch)
				}
				require.Equal(t, r.tail, remote.ShipAfter())
				require.Equal(t, r.trace, remote.Known())
				require.Equal(t, r.next, remote.Next())
				require.Equal(t, len(r.wantSnapshots)+len(r.wantBatches) == 0, remote.Empty())
				newest, ok := remote.Newest()
				require.Equal(t, len(r.chain) > 0, ok)
				if ok {
					require.Equal(t, token(r.chain[0]), newest.Token)
				}
				for _, o := range remote.Superseded {
					require.Positive(t, o.Size)
					require.WithinDuration(t, time.Now(), o.ModTime, time.Minute)
				}
			}
			check(remote)
			again, err := remote.Relist(t.Context(), b)
			require.NoError(t, err)
			check(again)
			if r.view != nil {
				// A view leaves what it is of as it was.
				require.Equal(t, snapshotsOf(list(t, b)), snapshotsOf(whole))
				require.Equal(t, batchesOf(list(t, b).Batches), batchesOf(whole.Batches))
			}
		})
	}
}

// Which batches a restore needs from an event on.
func TestAfter(t *testing.T) {
	b := backendtest.NewMemory()
	require.NoError(t, catalog.Claim(t.Context(), b, newEpoch(1, 0, 0)))
	require.NoError(t, catalog.Claim(t.Context(), b, newEpoch(2, 1, 26)))
	all := []at{{1, 1}, {1, 11}, {1, 21}, {2, 21}, {2, 31}, {2, 41}}
	for _, o := range all {
		put(t, b, o.batchKey(), nil)
	}
	remote := list(t, b)
	for _, r := range []struct {
		seq  journal.Sequence
		want []at
	}{
		{0, all},
		{9, all},
		{10, []at{{1, 11}, {1, 21}, {2, 21}, {2, 31}, {2, 41}}},
		{19, []at{{1, 11}, {1, 21}, {2, 21}, {2, 31}, {2, 41}}},
		{20, []at{{1, 21}, {2, 21}, {2, 31}, {2, 41}}},
		{30, []at{{1, 21}, {2, 31}, {2, 41}}},
		{39, []at{{1, 21}, {2, 31}, {2, 41}}},
		{40, []at{{1, 21}, {2, 41}}},
		{1000, []at{{1, 21}, {2, 41}}},
	} {
		require.Equal(t, r.want, batchesOf(remote.After(r.seq)), "after %d", r.seq)
	}
}

// Foreign objects are neither listed nor superseded, so they are never deleted.
func TestListPassesOver(t *testing.T) {
	b := backendtest.NewMemory()
	for _, key := range []string{
		"README", "epochs/1", "epochs/0000000001.bak", "epochs/x/0000000001", "epochs/0000000000",
		"events/README", "events/old/" + at{1, 1}.batchKey(), "events/events-1-1.zst",
		catalog.SnapshotPrefix + "old/" + at{1, 1}.snapshotKey(), "x/" + at{1, 1}.batchKey(),
		"events/" + at{1, 1}.snapshotKey()[len(catalog.SnapshotPrefix):],
		catalog.SnapshotPrefix + at{1, 1}.batchKey()[len("events/"):],
	} {
		put(t, b, key, []byte("?"))
	}
	remote := list(t, b)
	require.True(t, remote.Empty())
	require.Empty(t, remote.Superseded)
	require.Empty(t, remote.Numbers)
	require.EqualValues(t, 1, remote.Next())
}

// A backend that cannot be listed or read is an error, and not an empty one.
func TestListFails(t *testing.T) {
	for _, op := range []backendfault.Op{backendfault.OpList, backendfault.OpGet} {
		for _, fault := range []backendfault.Fault{backendfault.FailAbsent, backendfault.FailPresent} {
			m := backendtest.NewMemory()
			for n := range uint64(20) {
				require.NoError(t, catalog.Claim(t.Context(), m, newEpoch(n+1, n, journal.Sequence(n))))
			}
			put(t, m, at{3, 1}.batchKey(), nil)
			calls := 0
			f := &backendfault.Backend{Backend: m}
			_, err := catalog.List(t.Context(), f)
			require.NoError(t, err)
			calls = f.Calls(op)
			require.Positive(t, calls)
			if op == backendfault.OpGet {
				require.Equal(t, 18, calls, "epochs before the oldest object are not read")
			}
			for _, key := range []string{"epochs/", "snapshots/", "events/", catalog.EpochKey(3), catalog.EpochKey(20)} {
				f := &backendfault.Backend{Backend: m, Fault: func(o backendfault.Op, k string) backendfault.Fault {
					if o == op && k == key {
						return fault
					}
					return backendfault.None
				}}
				_, err := catalog.List(t.Context(), f)
				if f.Injected(op) > 0 {
					require.ErrorIs(t, err, backendfault.ErrInjected)
					require.NotErrorIs(t, err, backends.ErrNotFound)
				} else {
					require.NoError(t, err)
				}
			}
		}
	}
}

// A state is included if its epoch counts: the number, the token of the writer, and
// the limit decide.
func TestIncludes(t *testing.T) {
	b := backendtest.NewMemory()
	require.True(t, list(t, b).Includes(newEpoch(1, 0, 0), 100), "nobody has claimed an epoch")
	for _, e := range []catalog.Epoch{newEpoch(1, 0, 0), newEpoch(2, 1, 20), newEpoch(3, 2, 30), newEpoch(4, 3, 40), newEpoch(5, 3, 35)} {
		require.NoError(t, catalog.Claim(t.Context(), b, e))
	}
	put(t, b, at{3, 31}.batchKey(), nil)
	remote := list(t, b) // epochs from the third one on
	for _, r := range []struct {
		epoch uint64
		token string
		seq   journal.Sequence
		want  bool
	}{
		{epoch: 5, seq: 1000, want: true},
		{epoch: 5, token: "another", seq: 1},
		{epoch: 4, seq: 1}, // abandoned
		{epoch: 3, seq: 35, want: true},
		{epoch: 3, seq: 36},
		{epoch: 3, token: "another", seq: 35},
		{epoch: 2, seq: 30, want: true}, // known by the one after it
		{epoch: 2, seq: 31},
		{epoch: 2, token: "another", seq: 30},
		{epoch: 1, seq: 1}, // it may count, and how far is not known
		{epoch: 6, seq: 1},
	} {
		e := catalog.Epoch{Number: r.epoch, Token: r.token}
		if e.Token == "" {
			e.Token = token(r.epoch)
		}
		require.Equal(t, r.want, remote.Includes(e, r.seq), "%+v", r)
	}
}

// A backend in which only epochs are left has lost the events that they continue from.
func TestCheckEmpty(t *testing.T) {
	b := backendtest.NewMemory()
	require.NoError(t, list(t, b).CheckEmpty(b, 0))
	require.NoError(t, catalog.Claim(t.Context(), b, newEpoch(1, 0, 0)))
	require.NoError(t, list(t, b).CheckEmpty(b, 0), "nothing was written yet")
	require.NoError(t, catalog.Claim(t.Context(), b, newEpoch(2, 1, 20)))
	require.ErrorIs(t, list(t, b).CheckEmpty(b, 19), event.ErrGap)
	require.NoError(t, list(t, b).CheckEmpty(b, 20))
	put(t, b, at{2, 21}.batchKey(), nil)
	require.NoError(t, list(t, b).CheckEmpty(b, 0), "what is left is served")
}
