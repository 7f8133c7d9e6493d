package inspect_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/backends/backendurl"
	"github.com/xdswal/xdswal/cmd/xdswal/internal/resourcefile"
	"github.com/xdswal/xdswal/journal"
)

func sequences(docs []map[string]any) []int {
	var out []int
	for _, d := range docs {
		if seq, isEvent := d["seq"].(float64); isEvent {
			out = append(out, int(seq))
		}
	}
	return out
}

func TestStatusOfWhatWasShipped(t *testing.T) {
	w := newShippedWorld(t, false)
	for _, args := range [][]string{{"--backend", w.url}, {"--dir", w.dir, "--backend", w.url}} {
		s := document(t, ok(t, append([]string{"status", "--json"}, args...)...))
		require.EqualValues(t, 8, s["seq"])
		b := s["backend"].(map[string]any)
		require.EqualValues(t, 8, b["shipped"])
		require.EqualValues(t, 6, b["snapshot"])
		require.EqualValues(t, 1, b["epoch"])
		require.GreaterOrEqual(t, b["batches"], 5.0)
	}
	text := ok(t, "status", "--backend", w.url)
	host, err := os.Hostname()
	require.NoError(t, err)
	require.Contains(t, text, "1, claimed on "+host+" at ")
	require.Contains(t, text, "up to event 8, in 2 snapshots, the newest of event 6, and ")
	require.Contains(t, text, "0 events of the journal, and 2 events of 2 shipped batches")
}

func TestEventsThatWereShipped(t *testing.T) {
	w := newShippedWorld(t, false)
	for _, args := range [][]string{
		{"--from", "4"},
		{"--from", "4", "--node", "front"},
		{"--from", "4", "--to", "6"},
		{"--from", "4", "--cache", "named"},
		{"--from", "7", "--limit", "1", "--to", "7"},
		{"--from", "4", "--json"},
		{"--from", "4", "--json", "--bodies"},
	} {
		want := ok(t, append([]string{"events", "--dir", w.dir}, args...)...)
		require.Equal(t, want, ok(t, append([]string{"events", "--backend", w.url}, args...)...), "%q", args)
		require.Equal(t, want, ok(t, append([]string{"events", "--dir", w.dir, "--backend", w.url}, args...)...), "%q", args)
	}
	all := sequences(lines(t, ok(t, "events", "--backend", w.url, "--json")))
	require.LessOrEqual(t, all[0], 4)
	require.Equal(t, 8, all[len(all)-1])
	require.Len(t, all, 8-all[0]+1)

	o := run(t, "events", "--backend", newWorld(t, false).url)
	require.NoError(t, o.err)
	require.Contains(t, o.notes, "the backend contains no batches of events")
}

// What left the journal may still be in the backend.
func TestEventsOfJournalAndBackend(t *testing.T) {
	w := newShippedWorld(t, segmented)
	require.NoError(t, os.Remove(w.segmentOf(t, 4)))
	require.Equal(t, []int{5, 6, 7, 8}, sequences(lines(t, ok(t, "events", "--dir", w.dir, "--json"))))
	require.Equal(t, []int{4, 5, 6, 7, 8}, sequences(lines(t, ok(t, "events", "--dir", w.dir, "--backend", w.url, "--json", "--from", "4"))))
}

func (w *world) batch(t *testing.T, epoch int, first journal.Sequence) string {
	t.Helper()
	path := filepath.Join(w.backend, "events", fmt.Sprintf("events-%010d-%s.zst", epoch, first))
	require.FileExists(t, path)
	return path
}

func TestShippedEventsThatAreMissingOrDamaged(t *testing.T) {
	w := newShippedWorld(t, false)
	require.NoError(t, os.Remove(w.batch(t, 1, 5)))
	require.NoError(t, os.Remove(w.batch(t, 1, 6)))
	o := run(t, "events", "--backend", w.url, "--json", "--from", "4")
	require.NoError(t, o.err)
	docs := lines(t, o.out)
	require.Equal(t, []int{4, 7, 8}, sequences(docs))
	require.Equal(t, map[string]any{"from": 5.0, "to": 6.0}, docs[len(docs)-1]["missing"])
	require.Equal(t, "note: events 5 to 6 are in neither the journal nor a batch: a snapshot covers them\n", o.notes)
	ok(t, "events", "--backend", w.url, "--from", "4", "--to", "4")

	flip(t, w.batch(t, 1, 8), 20)
	o = run(t, "events", "--backend", w.url, "--from", "7")
	require.Equal(t, 1, o.code())
	require.ErrorIs(t, o.err, xdswal.ErrCorrupt)
	require.ErrorContains(t, o.err, "read batch events-0000000001-00000000000000000008.zst in "+w.url)
	o = run(t, "verify", "--backend", w.url)
	require.Equal(t, 1, o.code())
	require.Contains(t, o.out, "events-0000000001-00000000000000000008.zst")
}

// The newest events are a daemon's own in the directory, and everybody's in the
// backend.
func TestShippedEventsBesideADaemon(t *testing.T) {
	w := newShippedWorld(t, false)
	holdShipping(t, w.dir, w.url)
	o := run(t, "events", "--dir", w.dir, "--backend", w.url, "--json", "--from", "4")
	require.NoError(t, o.err)
	docs := lines(t, o.out)
	require.Equal(t, []int{4, 5, 6, 7, 8}, sequences(docs))
	require.EqualValues(t, 9, docs[len(docs)-1]["incomplete"].(map[string]any)["from"])

	// There may be newer ones, but none of an earlier time.
	o = run(t, "restore", "--dir", w.dir, "--backend", w.url, "--json")
	require.Equal(t, 3, o.code())
	at := document(t, ok(t, "restore", "--dir", w.dir, "--backend", w.url, "--json", "--at", w.times[7].Format(time.RFC3339Nano)))
	require.EqualValues(t, 7, at["seq"])
}

func TestVerifyWhatWasShipped(t *testing.T) {
	w := newShippedWorld(t, false)
	r := document(t, ok(t, "verify", "--backend", w.url, "--json"))
	require.Equal(t, true, r["ok"])
	require.EqualValues(t, 8, r["seq"])
	shipped := r["shipped"].(map[string]any)
	require.GreaterOrEqual(t, shipped["batches"], 5.0)
	require.Equal(t, shipped["batches"], shipped["events"])
	require.Regexp(t, `shipped +\d batches, \d events read`, ok(t, "verify", "--backend", w.url))
	require.NotContains(t, document(t, ok(t, "verify", "--dir", w.dir, "--json")), "shipped")
}

func TestRestoreEachMomentThatWasShipped(t *testing.T) {
	w := newShippedWorld(t, false)
	for seq := journal.Sequence(3); seq <= 8; seq++ {
		for _, at := range []string{fmt.Sprint(uint64(seq)), w.times[seq].Format(time.RFC3339Nano)} {
			to := filepath.Join(t.TempDir(), "new")
			got := document(t, ok(t, "restore", "--backend", w.url, "--at", at, "--to", to, "--json"))
			require.EqualValues(t, seq, got["seq"])
			s, err := xdswal.Open(t.Context(), xdswal.Options{Dir: to})
			require.NoError(t, err)
			require.Equal(t, w.digests[seq], s.State().Digest())
			require.NoError(t, s.Close(t.Context()))
		}
	}
	got := document(t, ok(t, "restore", "--backend", w.url, "--json"))
	require.EqualValues(t, 8, got["seq"])
	require.EqualValues(t, 2, got["shipped"])
	require.EqualValues(t, 2, got["batches"])
	doc, err := resourcefile.Parse([]byte(ok(t, "export", "--backend", w.url, "--node", "front", "--at", "7")))
	require.NoError(t, err)
	require.Equal(t, "v4", doc.Version)
}

// takeOver opens another directory on the backend, and adds event 9.
func (w *world) takeOver(t *testing.T) {
	t.Helper()
	b, err := backendurl.Open(t.Context(), w.url)
	require.NoError(t, err)
	s, err := xdswal.Open(t.Context(), xdswal.Options{Dir: t.TempDir(), Backend: b, ShipInterval: w.ship})
	require.NoError(t, err)
	_, err = s.SnapshotCache(false, cachev3.IDHash{}, nil).Clear(t.Context(), "front")
	require.NoError(t, err)
	w.mark(t, s)
	require.NoError(t, s.Close(t.Context()))
}

// A directory that another writer has gone on from is not mixed with what that
// one wrote.
func TestAStaleDirectory(t *testing.T) {
	w := newShippedWorld(t, false)
	// What the fenced writer still journals is another event 9.
	s, err := xdswal.Open(t.Context(), xdswal.Options{Dir: w.dir})
	require.NoError(t, err)
	require.NoError(t, s.SnapshotCache(false, cachev3.IDHash{}, nil).SetSnapshot(t.Context(), "other", &cachev3.Snapshot{}))
	require.NoError(t, s.Close(t.Context()))
	w.takeOver(t)
	w.takeOver(t)
	w.takeOver(t)

	stale := `the directory is stale: it is of epoch 2, and epoch 7 was claimed`
	st := document(t, ok(t, "status", "--dir", w.dir, "--backend", w.url, "--json"))
	require.Contains(t, st["stale"], stale)
	require.EqualValues(t, 9, st["seq"])
	require.EqualValues(t, 2, st["nodes"], "front is cleared, and other is the other's")
	require.EqualValues(t, 7, st["backend"].(map[string]any)["epoch"])
	require.Contains(t, ok(t, "status", "--dir", w.dir, "--backend", w.url), "STALE")

	to := filepath.Join(t.TempDir(), "new")
	for _, args := range [][]string{
		{"restore", "--json", "--to", to}, {"verify", "--json"}, {"events", "--json", "--from", "9"},
	} {
		o := run(t, append(args, "--dir", w.dir, "--backend", w.url)...)
		require.NoError(t, o.err, "%q", args)
		require.Contains(t, o.notes, "note: "+stale)
		require.EqualValues(t, 9, document(t, o.out)["seq"])
	}
	s, err = xdswal.Open(t.Context(), xdswal.Options{Dir: to})
	require.NoError(t, err)
	defer s.Close(t.Context())
	require.Equal(t, w.digests[9], s.State().Digest())
}

func TestABackendOfAnotherStore(t *testing.T) {
	w, other := newWorld(t, false), newWorld(t, false)
	for _, command := range []string{"status", "snapshots", "events", "verify", "restore"} {
		o := run(t, command, "--dir", w.dir, "--backend", other.url)
		require.Equal(t, 1, o.code())
		require.ErrorIs(t, o.err, xdswal.ErrForeign)
		require.Empty(t, o.out)
	}
}

func TestSupersededSnapshots(t *testing.T) {
	w := newShippedWorld(t, false)
	w.takeOver(t)
	// The writer before has not learned yet that it is fenced.
	data, err := os.ReadFile(w.snapshots(t)[1])
	require.NoError(t, err)
	late := "snapshot-0000000001-00000000000000000012.zst"
	require.NoError(t, os.WriteFile(filepath.Join(w.backend, "snapshots", late), data, 0o600))

	got := lines(t, ok(t, "snapshots", "--backend", w.url, "--json"))
	require.Equal(t, late, got[0]["name"])
	require.Equal(t, true, got[0]["superseded"])
	for _, s := range got[1:] {
		require.NotContains(t, s, "superseded")
	}
	require.Contains(t, ok(t, "snapshots", "--backend", w.url), w.url+"  superseded\n")
	s := document(t, ok(t, "status", "--backend", w.url, "--json"))
	require.EqualValues(t, 9, s["seq"])
	require.EqualValues(t, 1, s["backend"].(map[string]any)["superseded"])
	require.Contains(t, ok(t, "status", "--backend", w.url), "; 1 objects were superseded and are ignored")
}

// loseAllButEpochs deletes what the backend can restore.
func (w *world) loseAllButEpochs(t *testing.T) {
	t.Helper()
	for _, dir := range []string{"snapshots", "events"} {
		require.NoError(t, os.RemoveAll(filepath.Join(w.backend, dir)))
	}
}

// What serve refuses is not found to be right.
func TestABackendThatLostAllButItsEpochs(t *testing.T) {
	w := newShippedWorld(t, false)
	require.NoError(t, w.open(t).Close(t.Context())) // in a second epoch, which records the events
	w.loseAllButEpochs(t)
	b, err := backendurl.Open(t.Context(), w.url)
	require.NoError(t, err)
	_, err = xdswal.Open(t.Context(), xdswal.Options{Dir: t.TempDir(), Backend: b})
	require.ErrorIs(t, err, xdswal.ErrGap)

	want := "epoch 2 in " + w.url + " continues from event 8"
	o := run(t, "verify", "--backend", w.url, "--json")
	require.Equal(t, 1, o.code())
	r := document(t, o.out)
	require.Equal(t, false, r["ok"])
	require.Contains(t, fmt.Sprint(r["problems"]), want)
	o = run(t, "verify", "--backend", w.url)
	require.Equal(t, 1, o.code())
	require.Regexp(t, `(?m)^PROBLEM +.*`+want, o.out)
	require.NotContains(t, o.out, "\nok\n")

	o = run(t, "status", "--backend", w.url, "--json")
	require.Equal(t, 1, o.code())
	require.ErrorIs(t, o.err, xdswal.ErrGap)
	require.Contains(t, document(t, o.out)["problem"], want)
	require.Empty(t, o.notes)
	o = run(t, "status", "--backend", w.url)
	require.Equal(t, 1, o.code())
	require.Regexp(t, `(?m)^PROBLEM +.*`+want, o.out)

	// The directory has it all, and a daemon ships it anew.
	for _, command := range []string{"status", "verify"} {
		o = run(t, command, "--dir", w.dir, "--backend", w.url, "--json")
		require.NoError(t, o.err)
		require.EqualValues(t, 8, document(t, o.out)["seq"])
		require.Equal(t, "note: "+w.url+" contains no usable snapshot or event: only the directory can be restored\n", o.notes)
	}

	// Unless it lost them too.
	for _, dir := range []string{"snapshots", "journal"} {
		require.NoError(t, os.RemoveAll(filepath.Join(w.dir, dir)))
	}
	for _, command := range []string{"status", "verify"} {
		o = run(t, command, "--dir", w.dir, "--backend", w.url)
		require.Equal(t, 1, o.code(), command)
		require.Contains(t, o.out, want)
	}
	_, err = xdswal.Open(t.Context(), xdswal.Options{Dir: w.dir, Backend: b})
	require.ErrorIs(t, err, xdswal.ErrGap)

	// One that another writer has gone on from does not count.
	w = newShippedWorld(t, false)
	w.takeOver(t)
	w.loseAllButEpochs(t)
	for _, command := range []string{"status", "verify"} {
		o = run(t, command, "--dir", w.dir, "--backend", w.url)
		require.Equal(t, 1, o.code(), command)
		require.Contains(t, o.out, "continues from event 8")
	}
}

// A prefix that was mistyped holds nothing, and no backup.
func TestABackendWithNothing(t *testing.T) {
	url := "file://" + t.TempDir()
	o := run(t, "verify", "--backend", url)
	require.Equal(t, 1, o.code())
	require.Regexp(t, `(?m)^PROBLEM +`+url+` contains no usable snapshot or event`, o.out)
	require.NotContains(t, o.out, "\nok\n")

	// Nothing is known that could not be restored.
	for _, args := range [][]string{nil, {"--json"}} {
		o = run(t, append([]string{"status", "--backend", url}, args...)...)
		require.NoError(t, o.err)
		require.Equal(t, "note: "+url+" contains no usable snapshot or event: no store has shipped to it yet, or the URL is wrong\n", o.notes)
	}

	// A directory whose daemon has yet to ship there can be restored.
	w := newWorld(t, false)
	o = run(t, "verify", "--dir", w.dir, "--backend", url)
	require.NoError(t, o.err)
	require.Contains(t, o.out, "\nok\n")
	require.Contains(t, o.notes, "note: "+url+" contains no usable snapshot or event: only the directory")
}

// Events that a daemon has locked are not lost, though its epoch records them.
func TestANewBackendBesideADaemon(t *testing.T) {
	w := newWorld(t, false)
	require.NoError(t, os.RemoveAll(filepath.Join(w.dir, "snapshots")))
	url := "file://" + t.TempDir()
	holdShipping(t, w.dir, url)
	o := run(t, "verify", "--dir", w.dir, "--backend", url)
	require.Equal(t, 3, o.code(), "%s", o.out)
	o = run(t, "status", "--dir", w.dir, "--backend", url)
	require.NoError(t, o.err)
	require.Contains(t, o.notes, "are not shown")
}
