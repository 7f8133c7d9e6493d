package inspect_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/journal"
	"github.com/xdswal/xdswal/xdscache"
)

// everything is a call of each command on a world.
func everything(w *world, newDir string) [][]string {
	return [][]string{
		{"status", "--dir", w.dir},
		{"status", "--dir", w.dir, "--backend", w.url, "--json"},
		{"status", "--backend", w.url},
		{"snapshots", "--dir", w.dir},
		{"snapshots", "--dir", w.dir, "--backend", w.url, "--json"},
		{"events", "--dir", w.dir},
		{"events", "--dir", w.dir, "--bodies", "--json"},
		{"events", "--dir", w.dir, "--bodies"},
		{"verify", "--dir", w.dir, "--allow-partial"},
		{"events", "--dir", w.dir, "--backend", w.url, "--json"},
		{"events", "--backend", w.url},
		{"verify", "--dir", w.dir, "--backend", w.url, "--json", "--allow-partial"},
		{"restore", "--dir", w.dir, "--allow-partial"},
		{"restore", "--dir", w.dir, "--at", "3"},
		{"restore", "--dir", w.dir, "--backend", w.url, "--allow-partial", "--to", newDir},
		{"export", "--dir", w.dir, "--node", "front", "--allow-partial"},
		{"export", "--dir", w.dir, "--at", "3", "--all", "--out-dir", filepath.Join(newDir, "nodes")},
	}
}

func TestNothingChanges(t *testing.T) {
	for _, tc := range []struct {
		name string
		live func(*testing.T, *world)
	}{
		{"beside nobody", func(*testing.T, *world) {}},
		{"beside a store in this process", func(t *testing.T, w *world) {
			s := w.open(t)
			t.Cleanup(func() { s.Close(t.Context()) })
		}},
		{"beside a store in another process", func(t *testing.T, w *world) { holdElsewhere(t, w.dir) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newShippedWorld(t, segmented)
			tc.live(t, w)
			before := settled(t, w.dir, w.backend)
			newDir := filepath.Join(t.TempDir(), "new")
			for _, args := range everything(w, newDir) {
				o := run(t, args...)
				require.NoError(t, o.err, "%q", args)
				require.NotEmpty(t, o.out, "%q", args)
				require.Equal(t, before, listing(t, w.dir, w.backend), "%q", args)
			}
		})
	}
}

// settled is the listing of directories that no longer change.
func settled(t *testing.T, dirs ...string) map[string]string {
	t.Helper()
	var last map[string]string
	require.Eventually(t, func() bool {
		now := listing(t, dirs...)
		same := last != nil && len(now) == len(last)
		for path, what := range now {
			same = same && last[path] == what
		}
		last = now
		return same
	}, 10*time.Second, 200*time.Millisecond)
	return last
}

func TestBesideALiveStore(t *testing.T) {
	for _, tc := range []struct {
		name string
		live func(*testing.T, *world)
	}{
		{"in this process", func(t *testing.T, w *world) {
			s := w.open(t)
			t.Cleanup(func() { s.Close(t.Context()) })
		}},
		{"in another process", func(t *testing.T, w *world) { holdElsewhere(t, w.dir) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, segmented)
			tc.live(t, w)
			first := hiddenFrom(t, w)
			require.Greater(t, first, journal.Sequence(6), "sealed segments can be read")

			o := run(t, "events", "--dir", w.dir, "--json")
			require.NoError(t, o.err)
			got := lines(t, o.out)
			require.Len(t, got, int(first-4)+1) // events 4 to first-1, and the last line
			last := got[len(got)-1]["incomplete"].(map[string]any)
			require.EqualValues(t, first, last["from"])
			require.Equal(t, "locked", last["reason"])
			require.Contains(t, last["message"], "curl 'http://127.0.0.1:19000/v1/events?from=")
			require.Equal(t, "note: "+last["message"].(string)+"\n", o.notes)
			require.Contains(t, run(t, "events", "--dir", w.dir).notes, "the daemon has the newest segment open")
			// A query of readable events reports no others.
			ok(t, "events", "--dir", w.dir, "--to", "5")

			incompleteUnlessAllowed(t, w, first)

			// Moments that can be read whole need no flag.
			require.EqualValues(t, 5, document(t, ok(t, "restore", "--dir", w.dir, "--at", "5", "--json"))["seq"])
			ok(t, "export", "--dir", w.dir, "--node", "front", "--at", "5")
			at := w.times[first-2].Format(time.RFC3339Nano)
			require.EqualValues(t, first-2, document(t, ok(t, "restore", "--dir", w.dir, "--at", at, "--json"))["seq"])
			// Whether another event was committed by the time of the last one
			// that can be read, is not known.
			o = run(t, "restore", "--dir", w.dir, "--at", w.times[first-1].Format(time.RFC3339Nano))
			require.Equal(t, 3, o.code())
			o = run(t, "restore", "--dir", w.dir, "--at", "100")
			require.Equal(t, 3, o.code())
		})
	}
}

// hiddenFrom returns the first event that cannot be read.
func hiddenFrom(t *testing.T, w *world) journal.Sequence {
	t.Helper()
	o := run(t, "status", "--dir", w.dir, "--json")
	require.NoError(t, o.err)
	s := document(t, o.out)
	require.Equal(t, true, s["open"])
	from := s["incomplete"].(map[string]any)["from"].(float64)
	require.Equal(t, "note: "+s["incomplete"].(map[string]any)["message"].(string)+"\n", o.notes)
	require.EqualValues(t, from-1, s["seq"])
	return journal.Sequence(from)
}

func incompleteUnlessAllowed(t *testing.T, w *world, first journal.Sequence) {
	t.Helper()
	to, file := filepath.Join(t.TempDir(), "new"), filepath.Join(t.TempDir(), "file")
	for _, args := range [][]string{
		{"verify", "--dir", w.dir, "--json"},
		{"restore", "--dir", w.dir, "--to", to, "--json"},
		{"export", "--dir", w.dir, "--node", "front", "-o", file, "--json"},
	} {
		o := run(t, args...)
		require.Equal(t, 3, o.code(), "%q: %v", args, o.err)
		require.ErrorContains(t, o.err, "the daemon has the newest segment open")
		require.NoFileExists(t, to)
		require.NoFileExists(t, file)

		o = run(t, append(args, "--allow-partial")...)
		require.NoError(t, o.err, "%q", args)
		require.Contains(t, o.notes, "the daemon has the newest segment open")
		require.EqualValues(t, first, document(t, o.out)["incomplete"].(map[string]any)["from"])
	}
	s, err := xdswal.Open(t.Context(), xdswal.Options{Dir: to})
	require.NoError(t, err)
	require.Equal(t, w.digests[first-1], s.State().Digest())
	require.NoError(t, s.Close(t.Context()))
}

// Everything is in the one segment that the store has open.
func TestBesideAYoungStore(t *testing.T) {
	dir := t.TempDir()
	s, err := xdswal.Open(t.Context(), xdswal.Options{Dir: dir})
	require.NoError(t, err)
	defer s.Close(t.Context())
	snap, err := cachev3.NewSnapshot("1", nil)
	require.NoError(t, err)
	require.NoError(t, s.SnapshotCache(false, cachev3.IDHash{}, nil).SetSnapshot(t.Context(), "n", snap))
	for _, command := range []string{"status", "events"} {
		o := run(t, command, "--dir", dir)
		require.NoError(t, o.err)
		require.Contains(t, o.notes, "events from 1 on are not shown")
	}
	require.Equal(t, 3, run(t, "restore", "--dir", dir).code())
	require.Equal(t, 1, run(t, "restore", "--dir", dir, "--allow-partial").code())

	seq, err := s.Compact(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 1, seq)
	require.Contains(t, run(t, "status", "--dir", dir).notes, "events from 2 on are not shown")
	ok(t, "export", "--dir", dir, "--node", "n", "--at", "1")
}

// opener opens a store while a command is writing to it.
type opener struct {
	bytes.Buffer
	once sync.Once
	open func()
}

func (o *opener) Write(p []byte) (int, error) {
	o.once.Do(o.open)
	return o.Buffer.Write(p)
}

// A pager that somebody left open keeps no daemon from starting.
func TestAStoreOpensWhileEventsAreShown(t *testing.T) {
	w := newWorld(t, segmented)
	out := &opener{open: func() {
		s := w.open(t)
		t.Cleanup(func() { s.Close(t.Context()) })
	}}
	o := runTo(t, out, "events", "--dir", w.dir, "--bodies")
	require.NoError(t, o.err)
	require.Contains(t, o.out, "# event 8 of ")
}

// Segments are sealed and dropped, and snapshots written and deleted, while the
// commands read them.
func TestCommandsBesideAWriter(t *testing.T) {
	w := newWorld(t, segmented)
	s, err := xdswal.Open(t.Context(), xdswal.Options{Dir: w.dir, SegmentBytes: 64 << 10, KeepFor: -1})
	require.NoError(t, err)
	defer s.Close(t.Context())
	stop, failed := make(chan struct{}), make(chan error, 1)
	go func() { failed <- write(t.Context(), s, stop) }()
	for _, args := range everything(w, filepath.Join(t.TempDir(), "new")) {
		if strings.Contains(strings.Join(args, " "), "--at") {
			continue // that event is soon in no snapshot
		}
		for range 5 {
			if args[len(args)-2] == "--to" {
				args[len(args)-1] = filepath.Join(t.TempDir(), "new")
			}
			o := run(t, args...)
			require.NoError(t, o.err, "%q: %s", args, o.out)
		}
	}
	close(stop)
	require.NoError(t, <-failed)
	require.NoError(t, s.Close(t.Context()))
	ok(t, "verify", "--dir", w.dir)
}

// write updates a node, and sometimes compacts, until it is stopped.
func write(ctx context.Context, s *xdswal.Store, stop <-chan struct{}) error {
	c := s.SnapshotCache(false, cachev3.IDHash{}, nil)
	for i := 0; ; i++ {
		select {
		case <-stop:
			return nil
		default:
		}
		snap, err := cachev3.NewSnapshot(fmt.Sprint(i), map[resourcev3.Type][]types.Resource{
			resourcev3.ClusterType: {cluster("a", fmt.Sprint(i)+strings.Repeat("x", 5000))},
		})
		if err != nil {
			return err
		}
		if err := c.SetSnapshot(ctx, "front", snap); err != nil {
			return err
		}
		if i%20 == 0 {
			if _, err := s.Compact(ctx); err != nil {
				return err
			}
		}
	}
}

func TestBadInput(t *testing.T) {
	w := newWorld(t, false)
	tmp := t.TempDir()
	path := func(name string) string { return filepath.Join(tmp, name) }
	require.NoError(t, os.WriteFile(path("file"), nil, 0o600))
	for name, metadata := range map[string]string{
		"newer":   `{"format":2,"store_id":"0123456789abcdef","epoch":1}`,
		"damaged": `{"format":1,"store_`,
		"foreign": `{"name":"something else"}`,
	} {
		require.NoError(t, os.Mkdir(path(name), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(path(name), "xdswal.json"), []byte(metadata), 0o600))
	}
	require.NoError(t, os.Mkdir(path("empty"), 0o700))
	for _, tc := range []struct {
		name string
		args []string
		want string
		is   error
	}{
		{"nothing named", nil, "name a data directory, a backend, or both", nil},
		{"missing directory", []string{"--dir", path("missing")}, path("missing") + ": no such file or directory", os.ErrNotExist},
		{"a file", []string{"--dir", path("file")}, "is not a directory", nil},
		{"an empty directory", []string{"--dir", path("empty")}, "it is not a data directory of xdswal", nil},
		{"a newer format", []string{"--dir", path("newer")}, "got format 2, want at most 1: use a newer xdswal", xdswal.ErrVersion},
		{"damaged metadata", []string{"--dir", path("damaged")}, "is not valid", xdswal.ErrCorrupt},
		{"foreign metadata", []string{"--dir", path("foreign")}, "is not valid", xdswal.ErrCorrupt},
		{"missing backend", []string{"--backend", "file://" + path("missing")}, path("missing") + ": no such file or directory", os.ErrNotExist},
		{"missing backend beside a directory", []string{"--dir", w.dir, "--backend", "file://" + path("missing")}, "no such file or directory", os.ErrNotExist},
		{"unknown scheme", []string{"--backend", "ftp://user:" + secret + "@host/x"}, `unknown scheme "ftp"`, nil},
		{"not a URL", []string{"--backend", "/var/lib"}, "it has no scheme", nil},
		{"relative file URL", []string{"--backend", "file://var/lib"}, "third slash", nil},
		{"an argument", []string{"--dir", w.dir, "extra"}, `unknown command "extra"`, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := listing(t, tmp, w.dir)
			for _, command := range []string{"status", "snapshots", "events", "verify", "restore", "export"} {
				args := append([]string{command}, tc.args...)
				if command == "export" {
					args = append(args, "--node", "n")
				}
				o := run(t, args...)
				require.Equal(t, 1, o.code(), command)
				require.ErrorContains(t, o.err, tc.want, command)
				require.NotContains(t, o.err.Error(), secret)
				if tc.is != nil {
					require.ErrorIs(t, o.err, tc.is)
				}
				require.Empty(t, o.out)
				require.Equal(t, before, listing(t, tmp, w.dir))
			}
		})
	}
}

func TestBadEventFlags(t *testing.T) {
	w := newWorld(t, false)
	for _, tc := range []struct{ flag, value, want string }{
		{"--from", "x", `--from: parse sequence "x": not a decimal number`},
		{"--from", "-1", `--from: parse sequence "-1"`},
		{"--to", "0", "--to is 0"},
		{"--to", "x", `--to: parse sequence "x"`},
		{"--limit", "-1", "--limit is -1"},
	} {
		t.Run(tc.flag+" "+tc.value, func(t *testing.T) {
			o := run(t, "events", "--dir", w.dir, tc.flag+"="+tc.value)
			require.ErrorContains(t, o.err, tc.want)
		})
	}
	require.ErrorContains(t, run(t, "events", "--dir", w.dir, "--from", "5", "--to", "4").err, "must not be 0 or less than --from")
}

// What this program cannot show whole it does not show in part.
func TestResourcesThatAreNotKnownWhole(t *testing.T) {
	dir := t.TempDir()
	s, err := xdswal.Open(t.Context(), xdswal.Options{Dir: dir})
	require.NoError(t, err)
	c := s.SnapshotCache(false, cachev3.IDHash{}, nil, xdscache.WithTypeURLs("type.googleapis.com/google.protobuf.StringValue"))
	newer := &clusterv3.Cluster{Name: "newer"}
	newer.ProtoReflect().SetUnknown(protowire.AppendString(protowire.AppendTag(nil, 9999, protowire.BytesType), secret))
	within := &clusterv3.Cluster{Name: "within", TypedExtensionProtocolOptions: map[string]*anypb.Any{"x": mustAny(t, newer)}}
	for node, r := range map[string]*clusterv3.Cluster{"a": newer, "b": within} {
		snap, err := cachev3.NewSnapshot("1", map[resourcev3.Type][]types.Resource{resourcev3.ClusterType: {r}})
		require.NoError(t, err)
		require.NoError(t, c.SetSnapshot(t.Context(), node, snap))
	}
	_, err = c.UpdateResources(t.Context(), "c", map[string][]types.ResourceWithTTL{
		"type.googleapis.com/google.protobuf.StringValue": {{Resource: named{wrapperspb.String(secret)}}},
	}, nil, "1")
	require.NoError(t, err)
	require.NoError(t, s.Close(t.Context()))

	for node, want := range map[string]string{"a": "fields unknown to this xdswal", "b": "fields unknown to this xdswal", "c": "a resource file cannot contain"} {
		o := run(t, "export", "--dir", dir, "--node", node)
		require.Equal(t, 1, o.code(), node)
		require.ErrorContains(t, o.err, want)
		require.NotContains(t, o.err.Error(), secret)
		require.Empty(t, o.out)
	}
	require.Equal(t, 2, bytes.Count([]byte(ok(t, "events", "--dir", dir, "--bodies", "--json", "--type", resourcev3.ClusterType)), []byte("body_error")))
	require.Contains(t, ok(t, "events", "--dir", dir, "--bodies", "--node", "a"), "# not shown: ")
}

// named gives a message a name.
type named struct{ *wrapperspb.StringValue }

func (named) GetName() string { return "named" }

func mustAny(t *testing.T, m *clusterv3.Cluster) *anypb.Any {
	t.Helper()
	out, err := anypb.New(m)
	require.NoError(t, err)
	return out
}
