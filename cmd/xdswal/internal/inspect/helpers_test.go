package inspect_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"

	"github.com/xdswal/xdswal"
	"github.com/xdswal/xdswal/backends/backendurl"
	_ "github.com/xdswal/xdswal/cmd/xdswal/internal/envoytypes"
	"github.com/xdswal/xdswal/cmd/xdswal/internal/inspect"
	"github.com/xdswal/xdswal/internal/event"
	"github.com/xdswal/xdswal/journal"
	"github.com/xdswal/xdswal/xdscache"
)

// secret is in a resource of every fixture, and may be in no output that was
// not asked for bodies.
const secret = "c2VjcmV0LXByaXZhdGUta2V5"

// holdEnv makes the test binary a process that has a store open, which ships to
// holdBackendEnv.
const (
	holdEnv        = "INSPECT_TEST_HOLD"
	holdBackendEnv = "INSPECT_TEST_HOLD_BACKEND"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(holdEnv); dir != "" {
		hold(dir)
		return
	}
	os.Exit(m.Run())
}

// hold opens the store in dir, says so, and keeps it open until its standard
// input ends.
func hold(dir string) {
	ctx := context.Background()
	opt := xdswal.Options{Dir: dir}
	var err error
	if url := os.Getenv(holdBackendEnv); url != "" {
		opt.Backend, err = backendurl.Open(ctx, url)
	}
	var s *xdswal.Store
	if err == nil {
		s, err = xdswal.Open(ctx, opt)
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("open")
	_, _ = io.Copy(io.Discard, os.Stdin)
	if s.Close(ctx) != nil {
		os.Exit(1)
	}
}

// holdElsewhere opens the store in dir in another process, until the test ends.
func holdElsewhere(t *testing.T, dir string) { holdShipping(t, dir, "") }

// holdShipping is holdElsewhere for a store that ships to a backend.
func holdShipping(t *testing.T, dir, url string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), holdEnv+"="+dir, holdBackendEnv+"="+url)
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		in.Close()
		require.NoError(t, cmd.Wait())
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "open\n", line)
}

// output is what a command left.
type output struct {
	out, notes string
	err        error
}

func (o output) code() int { return inspect.ExitCode(o.err) }

// run runs a command as the binary does.
func run(t *testing.T, args ...string) output {
	t.Helper()
	var out bytes.Buffer
	return runTo(t, &out, args...)
}

func runTo(t *testing.T, out interface {
	io.Writer
	fmt.Stringer
}, args ...string,
) output {
	t.Helper()
	var notes bytes.Buffer
	root := &cobra.Command{Use: "xdswal", SilenceUsage: true, SilenceErrors: true}
	root.AddCommand(inspect.Commands()...)
	root.SetArgs(args)
	root.SetOut(out)
	root.SetErr(&notes)
	err := root.ExecuteContext(t.Context())
	text := out.String() + notes.String()
	if err != nil {
		text += err.Error()
	}
	if !strings.Contains(strings.Join(args, " "), "--bodies") && args[0] != "export" {
		require.NotContains(t, text, secret)
	}
	require.NotContains(t, text, "failed to")
	return output{out.String(), notes.String(), err}
}

// ok runs a command that must succeed and say nothing beside its output.
func ok(t *testing.T, args ...string) string {
	t.Helper()
	o := run(t, args...)
	require.NoError(t, o.err)
	require.Empty(t, o.notes)
	return o.out
}

// document parses one JSON document, lines a line of JSON each.
func document(t *testing.T, out string) map[string]any {
	t.Helper()
	docs := lines(t, out)
	require.Len(t, docs, 1)
	return docs[0]
}

func lines(t *testing.T, out string) []map[string]any {
	t.Helper()
	var docs []map[string]any
	for line := range strings.Lines(out) {
		var doc map[string]any
		require.NoError(t, json.Unmarshal([]byte(line), &doc), "%s", line)
		docs = append(docs, doc)
	}
	return docs
}

// listing is everything about a directory that must not change.
func listing(t *testing.T, dirs ...string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, dir := range dirs {
		require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			sum := ""
			if info.Mode().IsRegular() {
				data, err := os.ReadFile(path)
				if err != nil {
					return err
				}
				sum = fmt.Sprintf("%x", sha256.Sum256(data))
			}
			out[path] = fmt.Sprint(info.Mode(), info.Size(), info.ModTime().UnixNano(), sum)
			return nil
		}))
	}
	return out
}

// world is a data directory and a backend that a real store has written:
//
//	event 1        front v1: cluster a
//	event 2        front v2: clusters a and b, and a secret
//	event 3        back v1: cluster c; snapshot of events 1 to 3
//	event 4        front v3: cluster a and the secret, b is deleted
//	event 5        linear cache: cluster x
//	event 6        back is cleared; snapshot of events 1 to 6
//	event 7        front v4: cluster d beside the rest
//	event 8        named cache: node n, v1
//
// The store was killed: events 7 and 8 are in no snapshot. With segments, each
// event fills one, and those that the older snapshot covers are gone: the
// journal begins with event 4.
type world struct {
	dir, backend string
	url          string
	ship         time.Duration
	// digests and times are those of the state after each event.
	digests map[journal.Sequence][32]byte
	times   map[journal.Sequence]time.Time
}

// segmented makes events of a world fill a segment each.
const segmented = true

func newWorld(t *testing.T, segments bool) *world {
	t.Helper()
	return makeWorld(t, segments, 0)
}

// newShippedWorld is a world of which each event was shipped in a batch of its
// own. Those that the older snapshot covers may be gone from the backend.
func newShippedWorld(t *testing.T, segments bool) *world {
	t.Helper()
	return makeWorld(t, segments, time.Millisecond)
}

func makeWorld(t *testing.T, segments bool, ship time.Duration) *world {
	t.Helper()
	w := &world{
		ship: ship,
		dir:  filepath.Join(t.TempDir(), "data"), backend: filepath.Join(t.TempDir(), "backend"),
		digests: map[journal.Sequence][32]byte{}, times: map[journal.Sequence]time.Time{},
	}
	w.url = "file://" + w.backend
	s := w.open(t)
	c := s.SnapshotCache(false, cachev3.IDHash{}, nil)
	pad := ""
	if segments {
		pad = strings.Repeat("x", 64<<10)
	}
	set := func(c *xdscache.SnapshotCache, node, version string, resources ...types.Resource) {
		byType := map[string][]types.Resource{}
		for _, r := range resources {
			url := resourcev3.ClusterType
			if _, isSecret := r.(*tlsv3.Secret); isSecret {
				url = resourcev3.SecretType
			}
			byType[url] = append(byType[url], r)
		}
		byType[resourcev3.RuntimeType] = nil
		snap, err := cachev3.NewSnapshot(version, byType)
		require.NoError(t, err)
		require.NoError(t, c.SetSnapshot(t.Context(), node, snap))
		w.mark(t, s)
	}
	compact := func() {
		_, err := s.Compact(t.Context())
		require.NoError(t, err)
		require.Eventually(t, func() bool { return s.Status().Shipper.Snapshot == s.State().Sequence() }, 10*time.Second, time.Millisecond)
	}
	set(c, "front", "v1", cluster("a", pad+"1"))
	set(c, "front", "v2", cluster("a", pad+"2"), cluster("b", ""), secretResource())
	set(c, "back", "v1", cluster("c", pad))
	compact()
	set(c, "front", "v3", cluster("a", pad+"4"), secretResource())
	require.NoError(t, s.LinearCache(resourcev3.ClusterType).UpdateResource("x", cluster("x", pad)))
	w.mark(t, s)
	_, err := c.Clear(t.Context(), "back")
	require.NoError(t, err)
	w.mark(t, s)
	compact()
	set(c, "front", "v4", cluster("a", pad+"7"), cluster("d", ""), secretResource())
	set(s.SnapshotCache(false, cachev3.IDHash{}, nil, xdscache.WithName("named")), "n", "v1", cluster("e", pad))
	require.EqualValues(t, 8, s.State().Sequence())
	w.kill(t, s)
	return w
}

func (w *world) open(t *testing.T) *xdswal.Store {
	t.Helper()
	b, err := backendurl.Open(t.Context(), w.url)
	require.NoError(t, err)
	s, err := xdswal.Open(t.Context(), xdswal.Options{Dir: w.dir, Backend: b, SegmentBytes: 64 << 10, ShipInterval: w.ship})
	require.NoError(t, err)
	return s
}

// mark notes the state after an event, which it waits for to be shipped.
func (w *world) mark(t *testing.T, s *xdswal.Store) {
	t.Helper()
	st := s.State()
	w.digests[st.Sequence()], w.times[st.Sequence()] = st.Digest(), st.Time()
	if w.ship > 0 {
		require.Eventually(t, func() bool { return s.Status().Shipper.Shipped == st.Sequence() }, 10*time.Second, time.Millisecond)
	}
}

// kill leaves the directory as a killed process does: Close without the time
// for a snapshot.
func (w *world) kill(t *testing.T, s *xdswal.Store) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = s.Close(ctx)
	require.EqualValues(t, 6, w.newestSnapshot(t))
}

func (w *world) newestSnapshot(t *testing.T) journal.Sequence {
	t.Helper()
	names := w.snapshots(t)
	_, digits, _ := strings.Cut(strings.TrimSuffix(strings.TrimPrefix(filepath.Base(names[len(names)-1]), "snapshot-"), ".zst"), "-")
	seq, err := event.ParseSequence(digits)
	require.NoError(t, err)
	return seq
}

// snapshots returns the local snapshots, oldest first.
func (w *world) snapshots(t *testing.T) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(w.dir, "snapshots", "*.zst"))
	require.NoError(t, err)
	return names
}

// segments returns the journal's segments, oldest first.
func (w *world) segments(t *testing.T) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(w.dir, "journal", "*.journal"))
	require.NoError(t, err)
	return names
}

func cluster(name, alt string) *clusterv3.Cluster {
	return &clusterv3.Cluster{Name: name, AltStatName: alt}
}

func secretResource() *tlsv3.Secret {
	return &tlsv3.Secret{Name: "key", Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{
		PrivateKey: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: secret}},
	}}}
}

// segmentOf returns the segment that holds an event.
func (w *world) segmentOf(t *testing.T, seq journal.Sequence) string {
	t.Helper()
	found := ""
	for _, path := range w.segments(t) {
		first, err := event.ParseSequence(strings.TrimSuffix(filepath.Base(path), ".journal"))
		require.NoError(t, err)
		if first <= seq {
			found = path
		}
	}
	return found
}

// flipRecord changes a byte of what a segment holds.
func flipRecord(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	at := bytes.LastIndex(data, bytes.Repeat([]byte("x"), 1000))
	require.Positive(t, at)
	flip(t, path, int64(at))
}

// flip changes one byte of a file.
func flip(t *testing.T, path string, offset int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	require.NoError(t, err)
	defer f.Close()
	b := make([]byte, 1)
	_, err = f.ReadAt(b, offset)
	require.NoError(t, err)
	b[0] ^= 0x40
	_, err = f.WriteAt(b, offset)
	require.NoError(t, err)
}
