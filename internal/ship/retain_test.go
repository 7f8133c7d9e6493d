package ship_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/backends"
	"github.com/xdswal/xdswal/backends/backendtest"
	"github.com/xdswal/xdswal/backends/file"
	"github.com/xdswal/xdswal/internal/backendfault"
	"github.com/xdswal/xdswal/internal/catalog"
	"github.com/xdswal/xdswal/internal/format/batch"
	"github.com/xdswal/xdswal/internal/format/snapshot"
	"github.com/xdswal/xdswal/internal/ship"
	"github.com/xdswal/xdswal/journal"
)

// Snapshots are kept by count and by age, batches back to the oldest snapshot
// that is kept, and epochs for ever.
func TestRetention(t *testing.T) {
	// Snapshots of events 1 to 6 and their ages when that of event 7 is
	// shipped. Each is shipped after the batch of its event.
	ages := []time.Duration{9 * time.Hour, 3 * time.Hour, 2 * time.Hour, 50 * time.Minute, 30 * time.Minute, 10 * time.Minute}
	for _, r := range []struct {
		name string
		keep int
		age  time.Duration
		want []journal.Sequence
	}{
		{"count and age", 3, time.Hour, []journal.Sequence{7, 6, 5, 4}},
		{"count alone", 3, -1, []journal.Sequence{7, 6, 5}},
		{"count beats age", 6, time.Hour, []journal.Sequence{7, 6, 5, 4, 3, 2}},
		{"age beats count", 2, 150 * time.Minute, []journal.Sequence{7, 6, 5, 4, 3}},
		{"the least count", 2, -1, []journal.Sequence{7, 6}},
		{"defaults", 0, 0, []journal.Sequence{7, 6, 5, 4}},
	} {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			b, err := file.New(file.Config{Dir: root})
			require.NoError(t, err)
			s := newStore(t, b, func(o *ship.Options) { o.KeepFor = 24 * time.Hour })
			s.ship.Start()
			for range ages {
				s.append(1, 10)
				s.waitShipped()
				s.waitSnapshot(s.snapshot())
			}
			s.ship.Stop()
			require.Len(t, s.remoteSnapshots(), len(ages))
			for i, by := range ages {
				path := filepath.Join(root, catalog.SnapshotPrefix, snapshot.Name{Epoch: 1, Sequence: journal.Sequence(i + 1)}.String())
				at := time.Now().Add(-by)
				require.NoError(t, os.Chtimes(path, at, at))
			}
			s.reopen(func(o *ship.Options) { o.KeepSnapshots, o.KeepFor, o.Shipped = r.keep, r.age, 6 })
			s.ship.Start()
			s.append(1, 10)
			s.waitShipped()
			s.waitSnapshot(s.snapshot())
			oldest := r.want[len(r.want)-1]
			eventually(t, func() bool {
				batches := s.remoteBatches()
				return slices.Equal(r.want, s.remoteSnapshots()) && (len(batches) == 0 || batches[0] > oldest)
			}, "pruning")
			s.ship.Stop()
			var kept []journal.Sequence
			for seq := oldest + 1; seq <= 7; seq++ {
				kept = append(kept, seq)
			}
			require.Equal(t, kept, s.remoteBatches(), "batches behind the oldest snapshot")
			require.Equal(t, []uint64{1, 2}, s.remote().Numbers)
			s.seen.locked(func() {
				require.Len(t, s.seen.deleted, 7-len(r.want)+7-len(kept))
			})
			s.requireBackend()
			// Every moment since the oldest snapshot can be restored.
			for seq := oldest; seq <= 7; seq++ {
				s.requireTarget(seq)
			}
		})
	}
}

// The last batch of each epoch is pruned too: a store that is opened often
// leaves nothing behind but epochs.
func TestRetentionAcrossEpochs(t *testing.T) {
	s := newStore(t, backendtest.NewMemory())
	for range 10 {
		s.ship.Start()
		s.append(2, 10)
		s.waitShipped()
		s.waitSnapshot(s.snapshot())
		s.append(1, 10)
		s.waitShipped()
		s.reopen(func(o *ship.Options) { o.Shipped = s.last() })
	}
	s.ship.Start()
	s.append(1, 10)
	s.waitShipped()
	s.waitSnapshot(s.snapshot())
	eventually(t, func() bool { return s.remoteBatches()[0] >= 27 }, "pruning")
	s.ship.Stop()
	oldest := s.remoteSnapshots()[2]
	for _, b := range s.remote().Batches {
		require.Greater(t, b.First, oldest)
	}
	require.Len(t, s.remote().Numbers, 11)
	s.requireBackend()
}

// What was superseded is deleted once it is old, and not before.
func TestSuperseded(t *testing.T) {
	root := t.TempDir()
	b, err := file.New(file.Config{Dir: root})
	require.NoError(t, err)
	hour := func(o *ship.Options) { o.KeepFor = time.Hour }
	s := newStore(t, b, hour)
	s.ship.Start()
	s.append(5, 10)
	s.waitShipped()
	s.waitSnapshot(s.snapshot())
	s.reopen(hour)
	// What a superseded writer left: in epoch 1 behind the fork, and in one that
	// nobody continues.
	var keys []string
	for _, seq := range []journal.Sequence{8, 9} {
		keys = append(keys,
			catalog.SnapshotPrefix+snapshot.Name{Epoch: 1, Sequence: seq}.String(),
			catalog.Batch{Name: batch.Name{Epoch: 1, First: seq}}.Key())
	}
	for i, key := range keys {
		require.NoError(t, b.Put(t.Context(), key, strings.NewReader("superseded")))
		if i < 2 {
			at := time.Now().Add(-2 * time.Hour)
			require.NoError(t, os.Chtimes(filepath.Join(root, key), at, at))
		}
	}
	s.reopen(hour)
	require.Len(t, s.remote().Superseded, 4)
	s.ship.Start()
	s.append(1, 10)
	s.waitShipped()
	s.waitSnapshot(s.snapshot())
	eventually(t, func() bool { return len(s.remote().Superseded) == 2 }, "pruning")
	s.ship.Stop()
	for _, o := range s.remote().Superseded {
		require.Contains(t, keys[2:], o.Key)
	}
	s.requireBackend()
	for _, key := range keys[2:] { // for the check of the end
		require.NoError(t, b.Delete(t.Context(), key))
	}
}

// With credentials that may not delete, nothing is.
func TestNoPrune(t *testing.T) {
	s := newStore(t, backendtest.NewMemory(), func(o *ship.Options) { o.KeepSnapshots, o.KeepFor, o.NoPrune = 2, -1, true })
	s.ship.Start()
	for range 5 {
		s.append(1, 10)
		s.waitShipped()
		s.waitSnapshot(s.snapshot())
	}
	s.ship.Stop()
	require.Len(t, s.remoteSnapshots(), 5)
	require.Zero(t, s.backend.Calls(backendfault.OpDelete))
}

// What could not be deleted is tried again though no other snapshot is shipped, but
// not by a writer that was fenced meanwhile.
func TestPruneIsRetried(t *testing.T) {
	for _, fenced := range []bool{false, true} {
		t.Run(fmt.Sprint("fenced ", fenced), func(t *testing.T) {
			t.Parallel()
			s := newStore(t, backendtest.NewMemory())
			var mended atomic.Bool
			s.backend.Fault = func(op backendfault.Op, _ string) backendfault.Fault {
				if op == backendfault.OpDelete && !mended.Load() {
					return backendfault.FailAbsent
				}
				return backendfault.None
			}
			s.ship.Start()
			for range 5 {
				s.append(2, 10)
				s.waitShipped()
				s.waitSnapshot(s.snapshot())
			}
			eventually(t, func() bool { return strings.Contains(s.log.String(), "the backend was not pruned") }, "it to be logged")
			require.NoError(t, s.ship.Status().Err)
			if fenced {
				s.takeOver(10)
			}
			mended.Store(true)
			injected := s.backend.Calls(backendfault.OpDelete)
			if fenced {
				s.waitFenced()
				s.ship.Stop()
				require.Equal(t, injected, s.backend.Calls(backendfault.OpDelete))
				return
			}
			eventually(t, func() bool {
				return slices.Equal(s.remoteSnapshots(), []journal.Sequence{10, 8, 6}) && s.remoteBatches()[0] == 7
			}, "pruning")
			s.ship.Stop()
			require.Equal(t, 1, strings.Count(s.log.String(), "the backend was not pruned"), "a failure is logged once for each snapshot at most")
			s.requireBackend()
		})
	}
}

// canceledDelete is a backend whose first Delete takes until its context is done, and
// whose others fail.
type canceledDelete struct {
	backends.Backend
	deletes atomic.Int32
}

func (c *canceledDelete) Delete(ctx context.Context, _ string) error {
	if c.deletes.Add(1) == 1 {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	return errors.New("the disk is gone")
}

// A pruning that ran out of time does not hide the failure of the next one.
func TestPruneFailsAfterTimeout(t *testing.T) {
	t.Parallel()
	b := &canceledDelete{Backend: backendtest.NewMemory()}
	s := newStore(t, b, func(o *ship.Options) { o.KeepSnapshots, o.KeepFor, o.Timeout = 2, -1, time.Second })
	s.ship.Start()
	for range 3 {
		s.append(1, 10)
		s.waitShipped()
		s.waitSnapshot(s.snapshot())
	}
	eventually(t, func() bool { return strings.Contains(s.log.String(), "the backend was not pruned") }, "it to be logged")
	s.ship.Stop()
}

// Each option has a default and a range: 0 is the default, a negative value is off
// where that has a meaning, and an error names any other.
func TestOptions(t *testing.T) {
	s := newStore(t, backendtest.NewMemory())
	for _, r := range []struct {
		field  string
		change func(*ship.Options)
		want   string // the error, if any
	}{
		{"Interval", func(o *ship.Options) { o.Interval = 0 }, ""},
		{"Interval", func(o *ship.Options) { o.Interval = -time.Hour }, ""},
		{"Interval", func(o *ship.Options) { o.Interval = 1 }, ""},
		{"FenceInterval", func(o *ship.Options) { o.FenceInterval = 0 }, ""},
		{"FenceInterval", func(o *ship.Options) { o.FenceInterval = -time.Hour }, ""},
		{"FenceInterval", func(o *ship.Options) { o.FenceInterval = 1 }, ""},
		{"KeepSnapshots", func(o *ship.Options) { o.KeepSnapshots = 0 }, ""},
		{"KeepSnapshots", func(o *ship.Options) { o.KeepSnapshots = 2 }, ""},
		{"KeepSnapshots", func(o *ship.Options) { o.KeepSnapshots = 1 }, "KeepSnapshots is 1, want at least 2"},
		{"KeepSnapshots", func(o *ship.Options) { o.KeepSnapshots = -1 }, "KeepSnapshots is -1, want at least 2"},
		{"KeepFor", func(o *ship.Options) { o.KeepFor = 0 }, ""},
		{"KeepFor", func(o *ship.Options) { o.KeepFor = -time.Hour }, ""},
		{"Timeout", func(o *ship.Options) { o.Timeout = 0 }, ""},
		{"Timeout", func(o *ship.Options) { o.Timeout = 1 }, ""},
		{"Timeout", func(o *ship.Options) { o.Timeout = -1 }, "Timeout is -1ns, want a positive duration"},
	} {
		opt := s.opt
		r.change(&opt)
		_, err := ship.New(opt)
		if r.want == "" {
			require.NoError(t, err, r.field)
		} else {
			require.ErrorContains(t, err, r.want)
		}
	}
}
