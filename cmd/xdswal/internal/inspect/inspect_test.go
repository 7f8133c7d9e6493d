package inspect_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/cmd/xdswal/internal/resourcefile"
	"github.com/xdswal/xdswal/internal/directory"
	"github.com/xdswal/xdswal/journal"
)

func TestStatus(t *testing.T) {
	w := newWorld(t, false)
	s := document(t, ok(t, "status", "--dir", w.dir, "--backend", w.url, "--json"))
	require.Equal(t, w.dir, s["dir"])
	require.Len(t, s["store_id"], 16)
	require.EqualValues(t, 1, s["epoch"])
	require.EqualValues(t, 8, s["seq"])
	require.EqualValues(t, 3, s["nodes"])
	require.EqualValues(t, 5, s["resources"])
	require.Equal(t, false, s["open"])
	require.Equal(t, []any{"linear/" + resourcev3.ClusterType, "snapshot/", "snapshot/named"}, s["caches"])
	b := s["backend"].(map[string]any)
	require.NotEmpty(t, b["claimed_at"])
	delete(b, "claimed_at")
	host, err := os.Hostname()
	require.NoError(t, err)
	require.Equal(t, map[string]any{
		"location": w.url, "epoch": 1.0, "host": host, "shipped": 6.0, "snapshot": 6.0, "snapshots": 2.0, "batches": 0.0, "superseded": 0.0,
	}, b)
	j := s["journal"].(map[string]any)
	require.EqualValues(t, 1, j["first"])
	require.EqualValues(t, 8, j["last"])
	require.EqualValues(t, 6, s["snapshot"].(map[string]any)["seq"])
	r := s["restored"].(map[string]any)
	require.EqualValues(t, 8, r["seq"])
	require.EqualValues(t, 2, r["events"])
	require.EqualValues(t, 6, r["snapshot_seq"])
	require.NotContains(t, s, "incomplete")
	require.NotContains(t, s, "problem")

	s = document(t, ok(t, "status", "--backend", w.url, "--json"))
	require.EqualValues(t, 6, s["seq"])
	require.NotContains(t, s, "dir")

	text := ok(t, "status", "--dir", w.dir)
	require.Contains(t, text, "events 1 to 8")
	require.Contains(t, text, "event 8 of "+w.times[8].UTC().Format(time.RFC3339Nano))
}

func TestStatusOfWhatCannotBeRestored(t *testing.T) {
	w := newWorld(t, segmented)
	for _, path := range w.snapshots(t) {
		flip(t, path, 60)
	}
	require.NoError(t, os.Remove(w.segments(t)[0]))
	o := run(t, "status", "--dir", w.dir, "--json")
	require.Equal(t, 1, o.code())
	require.ErrorIs(t, o.err, xdswal.ErrGap)
	s := document(t, o.out)
	require.Contains(t, s["problem"], "events 1 to 4 are missing")
	require.Len(t, s["restored"].(map[string]any)["skipped"], 2)

	// What the backend has, helps.
	s = document(t, ok(t, "status", "--dir", w.dir, "--backend", w.url, "--json"))
	require.EqualValues(t, 8, s["seq"])
}

func TestSnapshots(t *testing.T) {
	w := newWorld(t, false)
	got := lines(t, ok(t, "snapshots", "--dir", w.dir, "--backend", w.url, "--json"))
	require.Len(t, got, 4)
	for i, want := range []struct {
		seq      journal.Sequence
		location string
	}{{6, filepath.Join(w.dir, "snapshots")}, {6, w.url}, {3, filepath.Join(w.dir, "snapshots")}, {3, w.url}} {
		require.EqualValues(t, want.seq, got[i]["seq"])
		require.EqualValues(t, 1, got[i]["epoch"])
		require.Equal(t, want.location, got[i]["location"])
		require.Equal(t, fmt.Sprintf("snapshot-0000000001-%020d.zst", uint64(want.seq)), got[i]["name"])
		require.Equal(t, w.times[want.seq].UTC().Format(time.RFC3339Nano), got[i]["time"])
		require.Positive(t, got[i]["bytes"])
		require.NotContains(t, got[i], "error")
		created, err := time.Parse(time.RFC3339Nano, got[i]["created"].(string))
		require.NoError(t, err)
		require.Equal(t, time.UTC, created.Location())
	}

	// All are listed, and then it fails.
	flip(t, w.snapshots(t)[1], 60)
	o := run(t, "snapshots", "--dir", w.dir, "--backend", w.url, "--json")
	require.Equal(t, 1, o.code())
	require.EqualError(t, o.err, "read snapshots: the header of 1 of 4 snapshots cannot be read, see the list; xdswal verify reports what can be restored")
	got = lines(t, o.out)
	require.Len(t, got, 4)
	require.Contains(t, got[0]["error"], "corrupt")
	for _, s := range got[1:] {
		require.NotContains(t, s, "error")
	}
	o = run(t, "snapshots", "--dir", w.dir)
	require.Equal(t, 1, o.code())
	require.Equal(t, 3, strings.Count(o.out, "\n"))
	require.Contains(t, o.out, "corrupt")

	require.NoError(t, os.Truncate(w.snapshots(t)[0], 3))
	o = run(t, "snapshots", "--dir", w.dir)
	require.ErrorContains(t, o.err, "2 of 2 snapshots")
	require.Equal(t, 3, strings.Count(o.out, "\n"))
}

func TestEvents(t *testing.T) {
	w := newWorld(t, false)
	for _, tc := range []struct {
		name string
		args string
		want []int
	}{
		{"all", "", []int{1, 2, 3, 4, 5, 6, 7, 8}},
		{"from", "--from 3", []int{3, 4, 5, 6, 7, 8}},
		{"from with zeros", "--from 00000000000000000007", []int{7, 8}},
		{"to", "--to 2", []int{1, 2}},
		{"from and to", "--from 3 --to 5", []int{3, 4, 5}},
		{"to beyond the newest", "--from 8 --to 100", []int{8}},
		{"node", "--node front", []int{1, 2, 4, 7}},
		{"node without a name", "--node=", []int{5}},
		{"snapshot cache", "--cache snapshot/", []int{1, 2, 3, 4, 6, 7}},
		{"cache by its name alone", "--cache named", []int{8}},
		{"linear cache", "--cache linear/" + resourcev3.ClusterType, []int{5}},
		{"type", "--type " + resourcev3.SecretType, []int{2, 4, 6, 7}},
		{"type without prefix", "--type envoy.extensions.transport_sockets.tls.v3.Secret", []int{2, 4, 6, 7}},
		{"several", "--node front --type envoy.config.cluster.v3.Cluster --from 2", []int{2, 4, 7}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			args := append([]string{"events", "--dir", w.dir}, strings.Fields(tc.args)...)
			var got []int
			for _, e := range lines(t, ok(t, append(args, "--json")...)) {
				got = append(got, int(e["seq"].(float64)))
			}
			require.Equal(t, tc.want, got)
			text := ok(t, args...)
			require.Contains(t, text, w.times[journal.Sequence(tc.want[0])].UTC().Format(time.RFC3339Nano))
		})
	}
}

func TestEventsTellWhatChanged(t *testing.T) {
	w := newWorld(t, false)
	got := lines(t, ok(t, "events", "--dir", w.dir, "--json", "--from", "4", "--to", "6"))
	require.Equal(t, "update", got[0]["kind"])
	require.Equal(t, "front", got[0]["node"])
	require.Equal(t, "snapshot/", got[0]["cache"])
	require.Equal(t, w.times[4].UTC().Format(time.RFC3339Nano), got[0]["time"])
	clusters := got[0]["types"].([]any)[0].(map[string]any)
	require.Equal(t, resourcev3.ClusterType, clusters["type_url"])
	require.Equal(t, "v3", clusters["version"])
	require.Equal(t, []any{"b"}, clusters["deleted"])
	set := clusters["set"].([]any)
	require.Len(t, set, 1)
	require.Equal(t, "a", set[0].(map[string]any)["name"])
	require.Len(t, set[0].(map[string]any)["version"], 16)
	require.NotContains(t, set[0], "body")
	require.Equal(t, "clear", got[2]["kind"])

	text := ok(t, "events", "--dir", w.dir, "--from", "4", "--to", "6")
	require.Regexp(t, `(?m)^4 +\S+ +snapshot/ +front +set +envoy.config.cluster.v3.Cluster +v3 +a +[0-9A-Za-z_-]{12} +\d+ B`, text)
	require.Regexp(t, `(?m)^4 +\S+ +snapshot/ +front +delete +envoy.config.cluster.v3.Cluster +v3 +b *$`, text)
	require.Regexp(t, `(?m)^6 +\S+ +snapshot/ +back +clear *$`, text)
}

func TestEventsWithBodies(t *testing.T) {
	w := newWorld(t, false)
	got := lines(t, ok(t, "events", "--dir", w.dir, "--json", "--bodies", "--from", "2", "--to", "2"))
	types := got[0]["types"].([]any)
	set := types[1].(map[string]any)["set"].([]any)
	require.Equal(t, map[string]any{
		"@type": resourcev3.SecretType, "name": "key",
		"tls_certificate": map[string]any{"private_key": map[string]any{"inline_string": secret}},
	}, set[0].(map[string]any)["body"])

	text := ok(t, "events", "--dir", w.dir, "--bodies", "--from", "4", "--cache", "snapshot/")
	require.Contains(t, text, "# event 4 of ")
	require.Contains(t, text, `# delete envoy.config.cluster.v3.Cluster "b"`)
	require.Contains(t, text, "# event 6 of ")
	for i, doc := range strings.Split(text, "---\n")[1:] {
		if strings.Contains(doc, "resources:") {
			_, err := resourcefile.Parse([]byte(doc))
			require.NoError(t, err, "document %d: %s", i, doc)
		}
	}
}

func TestEventsWithALimit(t *testing.T) {
	w := newWorld(t, false)
	o := run(t, "events", "--dir", w.dir, "--json", "--limit", "2", "--node", "front")
	require.NoError(t, o.err)
	require.Len(t, lines(t, o.out), 2)
	require.Equal(t, "note: there are more events: continue with --from 4\n", o.notes)
	require.Len(t, lines(t, ok(t, "events", "--dir", w.dir, "--json", "--limit", "8")), 8)
}

func TestEventsThatASnapshotCovers(t *testing.T) {
	w := newWorld(t, segmented)
	got := lines(t, ok(t, "events", "--dir", w.dir, "--json"))
	require.EqualValues(t, 4, got[0]["seq"])
	o := run(t, "events", "--dir", w.dir, "--from", "1")
	require.EqualError(t, o.err, "event 1 has been compacted away; the oldest is 4: use --from 4")
	o = run(t, "events", "--dir", w.dir, "--from", "9")
	require.NoError(t, o.err)
	require.Equal(t, "note: no event that can be read matches\n", o.notes)

	require.NoError(t, os.RemoveAll(filepath.Join(w.dir, "journal")))
	o = run(t, "events", "--dir", w.dir)
	require.NoError(t, o.err)
	require.Contains(t, o.notes, "no journal")
	require.NoDirExists(t, filepath.Join(w.dir, "journal"))
}

func TestVerify(t *testing.T) {
	w := newWorld(t, segmented)
	r := document(t, ok(t, "verify", "--dir", w.dir, "--backend", w.url, "--json"))
	require.Equal(t, true, r["ok"])
	require.EqualValues(t, 8, r["seq"])
	require.EqualValues(t, 2, r["folded"])
	require.Len(t, r["snapshots"], 4)
	require.Empty(t, r["problems"])
	require.Equal(t, map[string]any{"first": 4.0, "last": 8.0, "events": 5.0}, r["journal"])
	require.Contains(t, ok(t, "verify", "--dir", w.dir), "\nok\n")
	require.EqualValues(t, 6, document(t, ok(t, "verify", "--backend", w.url, "--json"))["seq"])
}

func TestVerifyFindsDamage(t *testing.T) {
	for _, tc := range []struct {
		name   string
		damage func(*testing.T, *world)
		want   string
	}{
		{"newest snapshot", func(t *testing.T, w *world) { flip(t, w.snapshots(t)[1], 300) }, "snapshot-0000000001-00000000000000000006.zst"},
		{"oldest snapshot cut", func(t *testing.T, w *world) { require.NoError(t, os.Truncate(w.snapshots(t)[0], 100)) }, "cut"},
		{"sealed segment", func(t *testing.T, w *world) { flipRecord(t, w.segmentOf(t, 5)) }, "00000000000000000005.journal"},
		{"newest segment cut to nothing", func(t *testing.T, w *world) { require.NoError(t, os.Truncate(w.segmentOf(t, 100), 0)) }, ".journal"},
		{"segment missing", func(t *testing.T, w *world) { require.NoError(t, os.Remove(w.segmentOf(t, 7))) }, "missing"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, segmented)
			tc.damage(t, w)
			o := run(t, "verify", "--dir", w.dir, "--json")
			require.Equal(t, 1, o.code())
			require.ErrorContains(t, o.err, "see the report")
			r := document(t, o.out)
			require.Equal(t, false, r["ok"])
			require.Contains(t, fmt.Sprint(r["problems"]), tc.want)
			o = run(t, "verify", "--dir", w.dir)
			require.Equal(t, 1, o.code())
			require.Contains(t, o.out, "PROBLEM")
			require.NotContains(t, o.out, "\nok\n")
		})
	}
}

func TestRestoreEachMoment(t *testing.T) {
	w := newWorld(t, false)
	for seq, digest := range w.digests {
		for name, at := range map[string]string{
			"sequence": fmt.Sprint(uint64(seq)),
			"time":     w.times[seq].Format(time.RFC3339Nano),
		} {
			t.Run(fmt.Sprint(name, seq), func(t *testing.T) {
				to := filepath.Join(t.TempDir(), "a", "b")
				dry := document(t, ok(t, "restore", "--dir", w.dir, "--at", at, "--json"))
				require.EqualValues(t, seq, dry["seq"])
				require.NotContains(t, dry, "written")
				require.NoDirExists(t, to)

				got := document(t, ok(t, "restore", "--dir", w.dir, "--at", at, "--to", to, "--json"))
				require.EqualValues(t, seq, got["seq"])
				s, err := xdswal.Open(t.Context(), xdswal.Options{Dir: to})
				require.NoError(t, err)
				defer s.Close(t.Context())
				require.Equal(t, digest, s.State().Digest())
				require.Equal(t, seq, s.State().Sequence())
				require.Equal(t, got["written"].(map[string]any)["store_id"], s.Status().StoreID)
			})
		}
	}
}

func TestRestoredDirectoryGoesOn(t *testing.T) {
	w := newWorld(t, false)
	to := filepath.Join(t.TempDir(), "new")
	text := ok(t, "restore", "--dir", w.dir, "--at", "4", "--to", to)
	require.Contains(t, text, "xdswal serve --dir "+to)
	info, err := os.Stat(to)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o700), info.Mode().Perm())
	ok(t, "verify", "--dir", to)

	old, err := directory.Read(w.dir)
	require.NoError(t, err)
	s, err := xdswal.Open(t.Context(), xdswal.Options{Dir: to})
	require.NoError(t, err)
	require.NotEqual(t, old.StoreID, s.Status().StoreID)
	c := s.SnapshotCache(false, cachev3.IDHash{}, nil)
	_, err = c.Clear(t.Context(), "front")
	require.NoError(t, err)
	require.EqualValues(t, 5, s.State().Sequence())
	require.NoError(t, s.Close(t.Context()))
	ok(t, "verify", "--dir", to)
	require.Len(t, lines(t, ok(t, "events", "--dir", to, "--json")), 1)
}

func TestRestoreFromABackendAlone(t *testing.T) {
	w := newWorld(t, false)
	to := filepath.Join(t.TempDir(), "new")
	got := document(t, ok(t, "restore", "--backend", w.url, "--to", to, "--json"))
	require.EqualValues(t, 6, got["seq"])
	require.Equal(t, w.url, got["source"])
	got = document(t, ok(t, "restore", "--backend", w.url, "--at", "3", "--json"))
	require.EqualValues(t, 3, got["seq"])
	o := run(t, "restore", "--backend", w.url, "--at", "4")
	require.Equal(t, 1, o.code())
	require.ErrorContains(t, o.err, "not within what is kept")
}

func TestRestoreRefuses(t *testing.T) {
	w := newWorld(t, false)
	occupied := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(occupied, "mine"), nil, 0o600))
	for _, tc := range []struct {
		name, args, want string
	}{
		{"a directory with something in it", "--to " + occupied, `not empty`},
		{"its own directory", "--to " + w.dir, "not empty"},
		{"a file", "--to " + filepath.Join(occupied, "mine"), "not a directory"},
		{"a sequence to come", "--at 9", "sequence 9 is yet to come, the newest event is 8"},
		{"a time to come", "--at 2999-01-01T00:00:00Z", "is in the future"},
		{"sequence 0", "--at 0", "a sequence is at least 1"},
		{"too large a sequence", "--at 99999999999999999999999", "at most 20 digits"},
		{"a time without zone", "--at 2026-01-02T15:04:05", "2026-01-02T15:04:05Z"},
		{"words", "--at yesterday", "want a sequence such as 1234"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := listing(t, w.dir, occupied)
			o := run(t, append([]string{"restore", "--dir", w.dir}, strings.Fields(tc.args)...)...)
			require.Equal(t, 1, o.code())
			require.ErrorContains(t, o.err, tc.want)
			require.Empty(t, o.out)
			require.Equal(t, before, listing(t, w.dir, occupied))
		})
	}
}

func TestRestoreOfATimeBeforeEveryEvent(t *testing.T) {
	w := newWorld(t, false)
	o := run(t, "restore", "--dir", w.dir, "--at", "2001-01-01T00:00:00Z")
	require.Equal(t, 1, o.code())
	require.EqualError(t, o.err, "restore time 2001-01-01T00:00:00Z: no event is that old; xdswal events shows the events that can be restored")
}

func TestRestoreOfADamagedDirectory(t *testing.T) {
	for _, tc := range []struct {
		name   string
		damage func(*testing.T, *world)
		left   journal.Sequence
	}{
		{"segment in the middle", func(t *testing.T, w *world) { flipRecord(t, w.segmentOf(t, 7)) }, 6},
		{"newest segment", func(t *testing.T, w *world) { require.NoError(t, os.Truncate(w.segmentOf(t, 100), 100)) }, 8},
		{"newest snapshot and a segment before it", func(t *testing.T, w *world) {
			flip(t, w.snapshots(t)[1], 300)
			flipRecord(t, w.segmentOf(t, 5))
		}, 4},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, segmented)
			tc.damage(t, w)
			to := filepath.Join(t.TempDir(), "new")
			o := run(t, "restore", "--dir", w.dir, "--to", to)
			require.Equal(t, 1, o.code())
			require.ErrorIs(t, o.err, xdswal.ErrCorrupt)
			require.ErrorContains(t, o.err, "--allow-partial")
			require.NoDirExists(t, to)

			o = run(t, "restore", "--dir", w.dir, "--to", to, "--allow-partial", "--json")
			require.NoError(t, o.err)
			require.Contains(t, o.notes, "corrupt")
			got := document(t, o.out)
			require.EqualValues(t, tc.left, got["seq"])
			require.Equal(t, "damaged", got["incomplete"].(map[string]any)["reason"])
			require.EqualValues(t, tc.left+1, got["incomplete"].(map[string]any)["from"])
			s, err := xdswal.Open(t.Context(), xdswal.Options{Dir: to})
			require.NoError(t, err)
			defer s.Close(t.Context())
			require.Equal(t, w.digests[tc.left], s.State().Digest())

			// A moment before the damage is whole, and needs no flag.
			got = document(t, ok(t, "restore", "--dir", w.dir, "--at", "4", "--json"))
			require.EqualValues(t, 4, got["seq"])
			require.NotContains(t, got, "incomplete")
			// One behind it cannot be had.
			o = run(t, "restore", "--dir", w.dir, "--at", fmt.Sprint(uint64(tc.left+1)), "--allow-partial")
			require.Error(t, o.err)
		})
	}
}

func TestExport(t *testing.T) {
	w := newWorld(t, false)
	for _, format := range []string{"yaml", "json"} {
		doc, err := resourcefile.Parse([]byte(ok(t, "export", "--dir", w.dir, "--node", "front", "--format", format)))
		require.NoError(t, err)
		require.Equal(t, "v4", doc.Version)
		require.Len(t, doc.Resources, 3)
		require.Equal(t, "a", doc.Resources[0].Name)
		require.Equal(t, "d", doc.Resources[1].Name)
		require.Equal(t, "key", doc.Resources[2].Name)
	}
	require.True(t, json.Valid([]byte(ok(t, "export", "--dir", w.dir, "--node", "front", "--json"))))
	doc, err := resourcefile.Parse([]byte(ok(t, "export", "--dir", w.dir, "--node", "front", "--at", "2")))
	require.NoError(t, err)
	require.Equal(t, "v2", doc.Version)
	doc, err = resourcefile.Parse([]byte(ok(t, "export", "--backend", w.url, "--node", "front")))
	require.NoError(t, err)
	require.Equal(t, "v3", doc.Version)
	doc, err = resourcefile.Parse([]byte(ok(t, "export", "--dir", w.dir, "--node", "n", "--cache", "named")))
	require.NoError(t, err)
	require.Equal(t, "e", doc.Resources[0].Name)
}

// What is exported makes the very node that it was exported from.
func TestExportRoundTrip(t *testing.T) {
	w := newWorld(t, false)
	doc, err := resourcefile.Parse([]byte(ok(t, "export", "--dir", w.dir, "--node", "front")))
	require.NoError(t, err)
	snapshot, err := doc.Snapshot()
	require.NoError(t, err)
	s := w.open(t)
	defer s.Close(t.Context())
	require.NoError(t, s.SnapshotCache(false, cachev3.IDHash{}, nil).SetSnapshot(t.Context(), "front", snapshot))
	require.EqualValues(t, 8, s.State().Sequence(), "nothing changed")
}

func TestExportToAFile(t *testing.T) {
	w := newWorld(t, false)
	file := filepath.Join(t.TempDir(), "front.yaml")
	require.NoError(t, os.WriteFile(file, []byte("old"), 0o644))
	got := document(t, ok(t, "export", "--dir", w.dir, "--node", "front", "-o", file, "--json"))
	require.Equal(t, "front", got["node"])
	require.Equal(t, file, got["file"])
	require.EqualValues(t, 7, got["seq"])
	info, err := os.Stat(file)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, ok(t, "export", "--dir", w.dir, "--node", "front"), string(data))
}

func TestExportAll(t *testing.T) {
	w := newWorld(t, false)
	dir := filepath.Join(t.TempDir(), "out")
	ok(t, "export", "--dir", w.dir, "--at", "3", "--all", "--out-dir", dir)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 2)
	require.Equal(t, "back.yaml", entries[0].Name())
	require.Equal(t, "front.yaml", entries[1].Name())
	o := run(t, "export", "--dir", w.dir, "--all", "--out-dir", dir)
	require.ErrorContains(t, o.err, "not empty")

	s := w.open(t)
	snap, err := cachev3.NewSnapshot("1", nil)
	require.NoError(t, err)
	require.NoError(t, s.SnapshotCache(false, cachev3.IDHash{}, nil).SetSnapshot(t.Context(), "../../x", snap))
	require.NoError(t, s.Close(t.Context()))
	dir = filepath.Join(t.TempDir(), "out")
	o = run(t, "export", "--dir", w.dir, "--all", "--out-dir", dir)
	require.ErrorContains(t, o.err, `node "../../x" cannot be the name of a file`)
	require.NoDirExists(t, dir)
	ok(t, "export", "--dir", w.dir, "--node", "../../x")
}

func TestExportRefuses(t *testing.T) {
	w := newWorld(t, false)
	for _, tc := range []struct {
		name, args, want string
	}{
		{"no node", "", "want either --node or --all"},
		{"node and all", "--node a --all --out-dir x", "want either --node or --all"},
		{"all without a directory", "--all", "require each other"},
		{"unknown node", "--node nobody", `cache "snapshot/" has no node "nobody" at event 8`},
		{"cleared node", "--node back", `no node "back"`},
		{"unknown cache", "--node front --cache other", `there is no cache "snapshot/other"`},
		{"linear cache", "--node front --cache linear/x", "linear cache"},
		{"format", "--node front --format toml", "want yaml or json"},
		{"json and yaml", "--node front --format yaml --json", "mutually exclusive"},
		{"a device", "--node front -o /dev/null", "is not a regular file"},
		{"no such directory", "--node front -o /nonexistent/x", "no such file or directory"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			o := run(t, append([]string{"export", "--dir", w.dir}, strings.Fields(tc.args)...)...)
			require.Equal(t, 1, o.code())
			require.ErrorContains(t, o.err, tc.want)
			require.NotContains(t, o.err.Error(), secret)
			require.Empty(t, o.out)
		})
	}
}
