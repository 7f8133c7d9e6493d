package ship_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/backends/backendtest"
	"github.com/xdswal/xdswal/internal/backendfault"
	"github.com/xdswal/xdswal/internal/catalog"
	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/internal/format/batch"
	"github.com/xdswal/xdswal/internal/format/snapshot"
	"github.com/xdswal/xdswal/internal/ship"
	"github.com/xdswal/xdswal/journal"
)

// takeOver claims the next epoch for another writer, which has restored the events up
// to seq.
func (s *store) takeOver(seq journal.Sequence) catalog.Epoch {
	s.t.Helper()
	e := catalog.Epoch{
		Number: s.epoch.Number + 1, Parent: s.epoch.Number, ParentToken: s.epoch.Token, Sequence: seq,
		StoreID: storeID, Token: "the other's", Host: "edge-2", Claimed: s.epoch.Claimed,
	}
	require.NoError(s.t, catalog.Claim(context.Background(), s.raw, e))
	return e
}

// A superseded writer notices when it publishes next, or at its next check, reports it
// once, and ships nothing more. What it put after the newer claim is not reported as
// shipped, and does not count.
func TestFenced(t *testing.T) {
	for _, r := range []struct {
		name   string
		change func(*ship.Options)
		act    func(*store)
		puts   int // after the newer claim
	}{
		{"by a batch", fast, func(s *store) { s.append(3, 10) }, 1},
		{"by a snapshot", func(o *ship.Options) { o.Interval = -1 }, func(s *store) { s.append(3, 10); s.snapshot() }, 1},
		{"idle", func(o *ship.Options) { o.FenceInterval = 1 }, func(*store) {}, 0},
		{"idle, without batches", func(o *ship.Options) { o.Interval, o.FenceInterval = -1, 1 }, func(*store) {}, 0},
		{"closing", fast, func(s *store) {
			s.ship.Stop()
			s.append(3, 10)
			require.NoError(s.t, s.ship.Close(context.Background()), "it was reported")
		}, 1},
		{"by an epoch that cannot be read", fast, func(s *store) { s.append(3, 10) }, 1},
	} {
		t.Run(r.name, func(t *testing.T) {
			noLeak(t)
			var told atomic.Int32
			s := newStore(t, backendtest.NewMemory(), r.change, func(o *ship.Options) {
				o.Fenced = func(err error) {
					require.ErrorIs(t, err, catalog.ErrFenced)
					told.Add(1)
				}
			})
			s.append(5, 10)
			s.snapshot()
			s.ship.Start()
			s.waitSnapshot(5)
			if s.opt.Interval > 0 {
				eventually(t, func() bool { return len(s.remoteBatches()) > 0 }, "the tail")
			}
			eventually(t, func() bool { return s.ship.Shipped() == 5 }, "events")
			puts := s.backend.Calls(backendfault.OpPut)
			if strings.Contains(r.name, "cannot be read") {
				require.NoError(t, s.raw.Put(t.Context(), catalog.EpochKey(2), strings.NewReader("?")))
			} else {
				s.takeOver(5)
			}
			r.act(s)
			s.waitFenced()
			shipped := s.ship.Shipped()
			require.EqualValues(t, 5, shipped)
			s.append(3, 10)
			s.snapshot()
			s.ship.Stop()
			require.NoError(t, s.ship.Close(t.Context()))
			require.Equal(t, shipped, s.ship.Shipped())
			require.EqualValues(t, 5, s.ship.Status().Snapshot)
			require.Equal(t, puts+r.puts, s.backend.Calls(backendfault.OpPut))
			require.Zero(t, s.backend.Calls(backendfault.OpDelete))
			require.EqualValues(t, 1, told.Load())
			s.seen.locked(func() { require.Len(t, s.seen.fenced, 1) })
			if !strings.Contains(r.name, "cannot be read") {
				require.ErrorContains(t, s.ship.Status().Fenced, "epoch 2 was claimed on edge-2")
				require.EqualValues(t, 5, s.restored(), "the loser's uploads change nothing")
			}
			require.Equal(t, 1, strings.Count(s.log.String(), "another writer has taken over the backend"))
		})
	}
}

// What is put after a newer claim is not reported as shipped, at any moment of the
// claim.
func TestFencedAtAnyMoment(t *testing.T) {
	for op, key := range map[backendfault.Op]string{backendfault.OpPut: "events/", backendfault.OpGet: catalog.EpochKey(2)} {
		for how, fault := range map[string]backendfault.Fault{
			"done": backendfault.None, "absent": backendfault.FailAbsent, "present": backendfault.FailPresent,
		} {
			t.Run(fmt.Sprint("before ", op, " ", how), func(t *testing.T) {
				t.Parallel()
				s := newStore(t, backendtest.NewMemory())
				var once sync.Once
				s.backend.Fault = func(o backendfault.Op, k string) backendfault.Fault {
					result := backendfault.None
					if o == op && strings.HasPrefix(k, key) && s.last() >= 4 {
						once.Do(func() {
							s.takeOver(3)
							result = fault
						})
					}
					return result
				}
				s.ship.Start()
				s.append(3, 10)
				s.waitShipped()
				s.append(1, 10)
				s.waitFenced()
				s.ship.Stop()
				require.EqualValues(t, 3, s.ship.Shipped())
			})
		}
	}
}

// An object of our epoch with other contents is another writer's, which a backend
// without conditional creation permits.
func TestForeignBatch(t *testing.T) {
	for name, content := range map[string]string{"other": "other events", "empty": "", "longer": strings.Repeat("x", 10_000)} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t, backendtest.NewMemory())
			key := catalog.Batch{Name: batch.Name{Epoch: 1, First: 1}}.Key()
			require.NoError(t, s.raw.Put(t.Context(), key, strings.NewReader(content)))
			s.ship.Start()
			s.append(3, 10)
			s.waitFenced()
			require.ErrorContains(t, s.ship.Status().Fenced, "another writer publishes in epoch 1")
			s.ship.Stop()
			require.Zero(t, s.ship.Shipped())
			r, err := s.raw.Get(t.Context(), key, 0, -1)
			require.NoError(t, err)
			got, err := io.ReadAll(r)
			require.NoError(t, err)
			require.Equal(t, content, string(got), "it is not touched")
		})
	}
}

// An existing object with a snapshot's key and other contents is an error, and is not
// changed.
func TestForeignSnapshot(t *testing.T) {
	for name, r := range map[string]struct {
		change func(*snapshot.Header)
		want   error
	}{
		"another store": {func(h *snapshot.Header) { h.StoreID = "another" }, catalog.ErrForeign},
		"before it was set back": {func(h *snapshot.Header) {
			h.Created = h.Created.Add(-1)
		}, catalog.ErrForeign},
		"damaged": {nil, event.ErrCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t, backendtest.NewMemory(), func(o *ship.Options) { o.Interval = -1 })
			s.append(5, 10)
			s.snapshot()
			local, err := catalog.Local(s.snapshotDir())
			require.NoError(t, err)
			theirs := []byte("?")
			if r.change != nil {
				h := snapshot.Header{Sequence: 5, Time: s.state(5).Time(), Epoch: 1, Created: local[0].Written, StoreID: storeID}
				r.change(&h)
				var buf bytes.Buffer
				_, err = snapshot.Encode(t.Context(), &buf, s.state(5), h)
				require.NoError(t, err)
				theirs = buf.Bytes()
			}
			key := catalog.SnapshotPrefix + local[0].String()
			require.NoError(t, s.raw.Put(t.Context(), key, bytes.NewReader(theirs)))
			s.ship.Start()
			require.ErrorIs(t, s.waitErr(), r.want)
			s.ship.Stop()
			require.Zero(t, s.ship.Status().Snapshot)
			require.Zero(t, s.ship.Shipped())
			require.ErrorIs(t, s.ship.Close(t.Context()), r.want)
			require.NoError(t, s.raw.Delete(t.Context(), key))
			require.NoError(t, s.ship.Close(t.Context()))
			s.requireBackend()
		})
	}
}

// A backend that cannot be reached at first is taken over as soon as it can be, and
// then everything is shipped.
func TestLateClaim(t *testing.T) {
	t.Parallel()
	var told, refused atomic.Int32
	s := newStore(t, backendtest.NewMemory(), late, func(o *ship.Options) {
		o.Claimed = func() error {
			if refused.Add(1) == 1 {
				return errors.New("the disk is full")
			}
			told.Add(1)
			return nil
		}
	})
	var down atomic.Bool
	down.Store(true)
	s.backend.Fault = backendfault.While(&down)
	s.append(3, 10)
	s.ship.Start()
	require.ErrorIs(t, s.waitErr(), backendfault.ErrInjected)
	require.False(t, s.ship.Status().Claimed)
	require.Empty(t, s.remote().Numbers)
	s.append(3, 10)
	require.False(t, s.ship.Status().BehindSince.IsZero())
	down.Store(false)
	s.waitShipped()
	require.True(t, s.ship.Status().Claimed)
	s.ship.Stop()
	require.EqualValues(t, 1, told.Load())
	s.seen.locked(func() { require.Len(t, s.seen.claimed, 1) })
	newest, _ := s.remote().Newest()
	require.Equal(t, s.epoch.Token, newest.Token)
	require.Contains(t, s.log.String(), "the backend was taken over")
	s.requireBackend()

	// Where a snapshot has all, nothing is behind.
	s.snapshot()
	require.NoError(t, s.ship.Close(t.Context()))
	s.reopen(late)
	require.False(t, s.ship.Status().BehindSince.IsZero())
	s.ship.Start()
	s.waitShipped()
	s.ship.Stop()

	// Close claims too, if nobody has.
	s.reopen(late)
	s.append(1, 10)
	require.NoError(t, s.ship.Close(t.Context()))
	s.requireBackend()
}

// A late claim finds that another writer, or another store, has the backend.
func TestLateClaimRefused(t *testing.T) {
	for name, r := range map[string]struct {
		store string
		want  error
	}{"another writer": {storeID, catalog.ErrFenced}, "another store": {"another", catalog.ErrForeign}} {
		t.Run(name, func(t *testing.T) {
			b := backendtest.NewMemory()
			var told atomic.Int32
			s := newStore(t, b, late, func(o *ship.Options) { o.Fenced = func(error) { told.Add(1) } })
			require.NoError(t, catalog.Claim(t.Context(), b, catalog.Epoch{Number: 1, StoreID: r.store, Token: "theirs"}))
			s.append(3, 10)
			s.ship.Start()
			eventually(t, func() bool { return s.ship.Status().Fenced != nil }, "the refusal")
			require.ErrorIs(t, s.ship.Status().Fenced, r.want)
			s.ship.Stop()
			require.NoError(t, s.ship.Close(t.Context()))
			require.EqualValues(t, 1, told.Load())
			require.Zero(t, s.backend.Calls(backendfault.OpPut))
			require.False(t, s.ship.Status().Claimed)
		})
	}
}

// weak is a backend that does not create conditionally: a Put overwrites.
type weak struct{ backends.Backend }

func (weak) ProbeConditionalCreate(context.Context) (bool, error) { return false, nil }

func (w weak) overwrite(t testing.TB, key string, e catalog.Epoch) {
	t.Helper()
	other := backendtest.NewMemory()
	require.NoError(t, catalog.Claim(t.Context(), other, e))
	replace(t, w, key, content(t, other, key))
}

// unprobed is a backend that cannot be reached to be probed.
type unprobed struct{ backends.Backend }

func (unprobed) ProbeConditionalCreate(context.Context) (bool, error) {
	return false, errors.New("the store is down")
}

func TestProbed(t *testing.T) {
	for _, r := range []struct {
		backend backends.Backend
		weak    bool
	}{{weak{backendtest.NewMemory()}, true}, {backendtest.NewMemory(), false}} {
		isWeak, err := catalog.Weak(t.Context(), r.backend)
		require.NoError(t, err)
		require.Equal(t, r.weak, isWeak)
	}
	isWeak, err := catalog.Weak(t.Context(), unprobed{backendtest.NewMemory()})
	require.Error(t, err)
	require.False(t, isWeak, "it is not known")
}

// A weak backend may overwrite the claim itself, also if the probe did not find that it
// is weak: the loser notices when it publishes next, or when it is idle.
func TestClaimOverwritten(t *testing.T) {
	memory := weak{backendtest.NewMemory()}
	for name, r := range map[string]struct {
		backend backends.Backend
		act     func(*store)
	}{
		"weak":           {memory, func(s *store) { s.append(1, 10) }},
		"not known":      {backendtest.NewMemory(), func(s *store) { s.append(1, 10) }},
		"idle":           {backendtest.NewMemory(), func(*store) {}},
		"first shipment": {backendtest.NewMemory(), nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStore(t, r.backend, late, func(o *ship.Options) {
				o.Backend = r.backend
				if name == "idle" {
					o.FenceInterval = 1
				}
			})
			e := s.epoch
			e.Token, e.Host = "the other's", "edge-2"
			s.ship.Start()
			eventually(t, func() bool { return s.ship.Status().Claimed }, "the claim")
			shipped := journal.Sequence(0)
			if r.act != nil {
				s.append(3, 10)
				s.waitShipped()
				shipped = 3
			} else {
				r.act = func(s *store) { s.append(3, 10) }
			}
			require.Equal(t, name == "weak", s.ship.Status().Weak)
			weak{r.backend}.overwrite(t, catalog.EpochKey(1), e)
			r.act(s)
			s.waitFenced()
			require.ErrorContains(t, s.ship.Status().Fenced, "edge-2")
			s.ship.Stop()
			require.Equal(t, shipped, s.ship.Shipped())
			if shipped == 0 {
				require.Empty(t, s.remoteBatches(), "nothing is put in another writer's epoch")
			}
		})
	}
}

// half returns the first half of a file.
func half(content []byte) []byte { return content[:len(content)/2] }

// replace replaces an object, as an operator or a damaged disk does.
func replace(t testing.TB, b backends.Backend, key string, content []byte) {
	t.Helper()
	require.NoError(t, b.Delete(t.Context(), key))
	require.NoError(t, b.Put(t.Context(), key, bytes.NewReader(content)))
}

func content(t testing.TB, b backends.Backend, key string) []byte {
	t.Helper()
	r, err := b.Get(t.Context(), key, 0, -1)
	require.NoError(t, err)
	defer r.Close()
	content, err := io.ReadAll(r)
	require.NoError(t, err)
	return content
}

// Half of a writer's own epoch is not another writer's: nothing is reported as shipped
// until it can be read, and the writer is not fenced.
func TestTornEpoch(t *testing.T) {
	s := newStore(t, backendtest.NewMemory())
	s.ship.Start()
	s.append(3, 10)
	s.waitShipped()
	key := catalog.EpochKey(1)
	whole := content(t, s.raw, key)
	replace(t, s.raw, key, half(whole))
	s.append(1, 10)
	err := s.waitErr()
	require.ErrorIs(t, err, event.ErrCorrupt)
	require.ErrorContains(t, err, "epochs/0000000001 in memory:")
	require.ErrorContains(t, err, "stop this one, delete the object, and start it again")
	require.NotErrorIs(t, err, catalog.ErrFenced)
	require.NoError(t, s.ship.Status().Fenced)
	require.EqualValues(t, 3, s.ship.Shipped())
	replace(t, s.raw, key, whole)
	s.waitShipped()
	s.ship.Stop()
	s.requireBackend()
}

// Half of the next epoch may be a claim that is being made: it is read again.
func TestTornNextEpoch(t *testing.T) {
	s := newStore(t, backendtest.NewMemory())
	s.ship.Start()
	s.append(3, 10)
	s.waitShipped()
	key := catalog.EpochKey(2)
	other := backendtest.NewMemory()
	require.NoError(t, catalog.Claim(t.Context(), other, catalog.Epoch{Number: 2, Parent: 1, Host: "edge-2", Token: "the other's"}))
	whole := content(t, other, key)
	require.NoError(t, s.raw.Put(t.Context(), key, bytes.NewReader(half(whole))))
	var reads atomic.Int32
	s.backend.Fault = func(op backendfault.Op, k string) backendfault.Fault {
		if op == backendfault.OpGet && k == key && reads.Add(1) == 2 {
			replace(t, s.raw, key, whole)
		}
		return backendfault.None
	}
	s.append(1, 10)
	s.waitFenced()
	require.ErrorContains(t, s.ship.Status().Fenced, "epoch 2 was claimed on edge-2")
	s.ship.Stop()
	require.EqualValues(t, 3, s.ship.Shipped())
}
