package restore_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal/internal/backendfault"
	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/internal/format/snapshot"
	"github.com/xdswal/xdswal/internal/restore"
	"github.com/xdswal/xdswal/internal/state"
	"github.com/xdswal/xdswal/internal/wal"
	"github.com/xdswal/xdswal/journal"
)

// listing returns all that can be seen of a directory and a backend.
func (f *fixture) listing() map[string]string {
	f.t.Helper()
	out := map[string]string{}
	root := filepath.Dir(f.dir)
	require.NoError(f.t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		var content []byte
		if info.Mode().IsRegular() {
			if content, err = os.ReadFile(path); err != nil {
				return err
			}
		}
		out[path] = fmt.Sprintf("%s %d %s %x", info.Mode(), info.Size(), info.ModTime(), sha256.Sum256(content))
		return nil
	}))
	b := f.backend.Backend
	objects, err := b.List(f.t.Context(), "")
	require.NoError(f.t, err)
	for _, o := range objects {
		body, err := b.Get(f.t.Context(), o.Key, 0, -1)
		require.NoError(f.t, err)
		content, err := io.ReadAll(body)
		require.NoError(f.t, err)
		out[o.Key] = fmt.Sprintf("%d %s %x", o.Size, o.ModTime, sha256.Sum256(content))
	}
	return out
}

// verify verifies as the command does, with the journal open for reading. It requires
// that nothing changes.
func (f *fixture) verify() (restore.Report, error) {
	f.t.Helper()
	before := f.listing()
	j, err := wal.Open(f.journal, wal.Options{ReadOnly: true})
	require.NoError(f.t, err)
	report, err := restore.Verify(f.t.Context(), restore.Options{Dir: f.dir, Journal: bounded{j}, Backend: f.backend})
	require.NoError(f.t, j.Close())
	require.Equal(f.t, before, f.listing())
	require.Positive(f.t, report.Duration)
	if len(report.Problems) == 0 {
		require.NoError(f.t, err)
	}
	for _, problem := range report.Problems {
		require.ErrorIs(f.t, err, problem)
	}
	return report, err
}

func TestVerifyClean(t *testing.T) {
	h := newHistory(t, 20, 0)
	f := newFixture(t, h)
	f.events(9, 20)
	f.local(4, 8, 12, 20)
	f.remote(8, 16)
	report, err := f.verify()
	require.NoError(t, err)
	require.EqualValues(t, 9, report.First)
	require.EqualValues(t, 20, report.Last)
	require.Equal(t, 12, report.Events)
	require.EqualValues(t, 20, report.Sequence)
	require.Equal(t, 3, report.Folded, "12, 20 and, in the backend, 16")
	require.Len(t, report.Snapshots, 6)
	newest := report.Snapshots[0]
	require.Equal(t, f.dir, newest.Location)
	require.Equal(t, nameOf(20), newest.Name)
	require.EqualValues(t, 20, newest.Sequence)
	require.True(t, newest.Time.Equal(h.time(20)))
	require.Equal(t, h.states[20].NumNodes(), newest.Nodes)
	require.Equal(t, h.states[20].NumResources(), newest.Resources)
	require.Equal(t, h.states[20].Bytes(), newest.ResourceBytes)
	require.EqualValues(t, len(h.snapshot(t, 20)), newest.Bytes)
	require.Equal(t, f.backend.String(), report.Snapshots[4].Location)

	empty := newFixture(t, h)
	empty.events(1, 0)
	report, err = empty.verify()
	require.NoError(t, err)
	require.Zero(t, report.Sequence)
}

// Each kind of damage is named, with its place.
func TestVerifyDamage(t *testing.T) {
	h := newHistory(t, 20, 20<<10)
	// Good to read, of event 13, and not what events 1 to 13 make.
	forged, err := h.states[12].Apply(&journal.Event{Sequence: 13, Time: h.time(13), Kind: journal.Clear, Cache: "snapshot/default", Node: "node-0"})
	require.NoError(t, err)
	type row struct {
		name   string
		setup  func(*fixture)
		errs   []error
		says   []string
		listed []int // snapshots whose report has the error
		seq    int   // what would be restored
	}
	rows := []row{
		{"local misnamed", func(f *fixture) {
			f.events(1, 20)
			f.putLocal(nameOf(16), h.snapshot(t, 12))
		}, []error{event.ErrCorrupt}, []string{nameOf(16), "header has sequence 12"}, []int{16}, 20},
		{"newer format", func(f *fixture) {
			f.events(1, 20)
			f.putLocal(nameOf(16), newerFormat(h.snapshot(t, 16)))
		}, []error{event.ErrVersion}, []string{nameOf(16)}, []int{16}, 0},
		{"not the fold", func(f *fixture) {
			f.events(1, 20)
			f.local(12, 20)
			f.putLocal(nameOf(13), encode(t, forged))
		}, []error{event.ErrCorrupt}, []string{nameOf(13), "differs from the empty state with the events after it applied"}, []int{13}, 20},
		{"not the fold of an older snapshot", func(f *fixture) {
			f.events(9, 20)
			f.local(8, 20)
			f.putRemote(nameOf(13), encode(t, forged))
		}, []error{event.ErrCorrupt}, []string{nameOf(13), "differs from " + nameOf(8), "memory:"}, []int{13}, 20},
		{"two of one event that differ, without a journal", func(f *fixture) {
			f.events(14, 20)
			f.local(13)
			f.putRemote(nameOf(13), encode(t, forged))
		}, []error{event.ErrCorrupt}, []string{"differs from " + nameOf(13), "which is of the same event"}, []int{13}, 20},
		{"a digest that is not that of the contents", func(f *fixture) {
			f.events(1, 20)
			f.putLocal(nameOf(12), lying(t, h.states[12]))
		}, []error{event.ErrCorrupt}, []string{nameOf(12), "digest"}, []int{12}, 20},
		{"flipped in the journal", func(f *fixture) {
			f.events(1, 20)
			f.local(16)
			f.damageSegment(1, damages["flipped"])
		}, []error{event.ErrCorrupt}, []string{".journal"}, nil, 20},
		{"cut in the journal", func(f *fixture) {
			f.events(1, 20)
			f.local(16)
			f.damageSegment(1, func(b []byte) []byte { return b[:len(b)/2] })
		}, []error{event.ErrCorrupt}, []string{".journal"}, nil, 20},
		{"segment missing", func(f *fixture) {
			f.events(1, 20)
			f.local(16)
			segments, err := filepath.Glob(filepath.Join(f.journal, "*.journal"))
			require.NoError(t, err)
			require.NoError(t, os.Remove(segments[1]))
		}, []error{restore.ErrGap}, []string{"read journal"}, nil, 20},
		{"gap between snapshot and journal", func(f *fixture) {
			f.events(13, 20)
			f.local(8)
		}, []error{restore.ErrGap}, []string{"9 to 12"}, nil, 8},
		{"backend unreachable", func(f *fixture) {
			f.events(1, 20)
			f.putLocal(nameOf(12), damages["cut"](h.snapshot(t, 12)))
			f.backend.Fault = always(backendfault.FailAbsent)
		}, []error{backendfault.ErrInjected, event.ErrCorrupt}, []string{"list backend", nameOf(12)}, []int{12}, 20},
		{"backend breaks off", func(f *fixture) {
			f.events(1, 20)
			f.remote(12)
			f.backend.Fault = func(op backendfault.Op, _ string) backendfault.Fault {
				if op == backendfault.OpGet {
					return backendfault.FailPresent
				}
				return backendfault.None
			}
		}, []error{backendfault.ErrInjected}, []string{nameOf(12)}, []int{12}, 20},
	}
	for how, damage := range damages {
		rows = append(rows,
			row{"local " + how, func(f *fixture) {
				f.events(1, 20)
				f.local(8)
				f.putLocal(nameOf(12), damage(h.snapshot(t, 12)))
			}, []error{event.ErrCorrupt}, []string{nameOf(12)}, []int{12}, 20},
			row{"remote " + how, func(f *fixture) {
				f.events(1, 20)
				f.remote(8)
				f.putRemote(nameOf(12), damage(h.snapshot(t, 12)))
			}, []error{event.ErrCorrupt}, []string{nameOf(12), "memory:"}, []int{12}, 20},
		)
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, h)
			r.setup(f)
			report, err := f.verify()
			for _, want := range r.errs {
				require.ErrorIs(t, err, want)
			}
			for _, want := range r.says {
				require.ErrorContains(t, err, want)
			}
			var bad []int
			for _, s := range report.Snapshots {
				if s.Err != nil {
					bad = append(bad, int(s.Sequence))
				}
			}
			require.Equal(t, r.listed, bad)
			require.EqualValues(t, r.seq, report.Sequence)
		})
	}
}

// A backend alone in which only epochs are left, that continue from events, is a
// problem: no store opens it.
func TestVerifyABackendThatLostAllButItsEpochs(t *testing.T) {
	h := newHistory(t, 20, 0)
	for _, tc := range []struct {
		name  string
		setup func(*fixture)
		lost  int // the event that an epoch continues from
	}{
		{"nothing at all", func(*fixture) {}, 0},
		{"the epoch of a store without events", func(f *fixture) { f.claim(1, 0, 0) }, 0},
		{"epochs that continue from events", func(f *fixture) {
			f.claim(1, 0, 0)
			f.claim(2, 1, 12)
		}, 12},
		{"what was superseded", func(f *fixture) {
			f.claim(1, 0, 0)
			f.claim(2, 1, 12)
			f.putObject(batchKey(1, 13), []byte("superseded"))
		}, 12},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFixture(t, h)
			tc.setup(f)
			report, err := restore.Verify(t.Context(), restore.Options{Backend: f.backend})
			if tc.lost == 0 {
				require.NoError(t, err)
			} else {
				require.ErrorIs(t, err, restore.ErrGap)
				require.ErrorContains(t, err, fmt.Sprintf("epoch 2 in %s continues from event %d", f.backend, tc.lost))
				require.Len(t, report.Problems, 1)
			}

			// Beside it a directory has all there is, and ships it anew.
			f.events(1, 20)
			report, err = f.verify()
			require.NoError(t, err)
			require.EqualValues(t, 20, report.Sequence)
		})
	}
}

// damageSegment damages a sealed segment of the journal.
func (f *fixture) damageSegment(i int, damage func([]byte) []byte) {
	f.t.Helper()
	segments, err := filepath.Glob(filepath.Join(f.journal, "*.journal"))
	require.NoError(f.t, err)
	require.Greater(f.t, len(segments), i+1)
	content, err := os.ReadFile(segments[i])
	require.NoError(f.t, err)
	require.NoError(f.t, os.WriteFile(segments[i], damage(content), 0o600))
}

// lying returns an intact snapshot with the digest of another state.
func lying(t *testing.T, st *state.State) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := snapshot.NewWriter(&b, snapshot.Header{Sequence: st.Sequence(), Time: st.Time(), Epoch: epoch, StoreID: storeID})
	require.NoError(t, err)
	for n := range st.All() {
		require.NoError(t, w.Node(n.Cache(), n.Name(), n.Sequence(), n.Time()))
		for i := range n.Types() {
			typ := &n.Types()[i]
			require.NoError(t, w.Type(typ.URL(), typ.Version()))
			for r := range typ.All() {
				require.NoError(t, w.Resource(r))
			}
		}
	}
	_, err = w.Close([32]byte{1})
	require.NoError(t, err)
	return b.Bytes()
}

func TestVerifyCancelled(t *testing.T) {
	h := newHistory(t, 20, 0)
	f := newFixture(t, h)
	f.events(9, 20)
	f.local(8)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := restore.Verify(ctx, f.options())
	require.ErrorIs(t, err, context.Canceled)
	f.remote(8)
	ctx, cancel = context.WithCancel(t.Context())
	f.backend.Fault = func(op backendfault.Op, _ string) backendfault.Fault {
		if op == backendfault.OpGet {
			cancel()
		}
		return backendfault.None
	}
	_, err = restore.Verify(ctx, restore.Options{Backend: f.backend})
	require.ErrorIs(t, err, context.Canceled)
}
